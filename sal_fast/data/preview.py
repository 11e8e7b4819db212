"""A page of images with their maps laid over them, the oddest first: `sal-fast data check --preview`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from sal_fast._util.files import write_bytes
from sal_fast.data import files, meaning
from sal_fast.data.check import Findings
from sal_fast.data.meaning import Rule, Seen
from sal_fast.data.table import Table

SIDE = 240  # pixels of a picture's longer side on the page
COLOUR = (86, 180, 233)  # sky blue, which few photographs have where people draw
OPACITY = 0.6


def write(path: Path, found: Findings, count: int = 30) -> None:
    """Write the page of the `count` oddest images with maps.

    Mask files that a run refuses come first, as they are, in half of the page at most. The sentences on the
    whole set stand above the pictures.
    """
    table, seen = found.table, found.seen
    refused = [card for row in sorted(found.reasons) if (card := _refused(table, row, found.reasons[row]))]
    shown = oddest(seen, table.rule)[: max(count - len(refused), count // 2)]
    cards = refused[: count - len(shown)] + [_card(table, row, seen[row]) for row in shown]
    environment = Environment(
        loader=PackageLoader("sal_fast.data", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    page = environment.get_template("preview.html").render(
        name=table.name,
        cards=cards,
        notes=[line.partition("\n")[0] for line in (*found.problems, *found.notes)],
        total=len(seen) + len(refused),
    )
    write_bytes(path, page.encode())


def oddest(seen: Mapping[int, Sequence[Seen]], rule: Rule) -> list[int]:
    """The rows with masks, from the oddest to the most usual.

    Those with something to say come first (`why_odd`), then those whose foreground touches the border or
    covers more or less of the picture than is usual in this set.
    """
    first = {row: several[0] for row, several in seen.items() if several}
    covered = [one.coverage for one in first.values() if one.useful] or [0.5]
    middle, spread = float(np.median(covered)), float(np.std(covered)) or 1.0

    def oddness(row: int) -> float:
        one = first[row]
        far = abs(one.coverage - middle) / spread
        return 10.0 * bool(why_odd(one, rule)) + 3.0 * one.border + min(far, 3.0)

    return sorted(first, key=lambda row: (-oddness(row), row))


def why_odd(seen: Seen, rule: Rule) -> list[str]:
    """What people should look at in a map; nothing if it is as maps usually are."""
    found = {
        "empty: nothing is foreground": seen.kind == "empty",
        "one grey everywhere: it counts as empty": seen.kind == "full",
        f"few values, perhaps labels: {', '.join(f'{value:g}' for value in seen.values)}": seen.looks_labelled
        and not rule.grades,
        "most of the border is foreground: inverted?": seen.looks_inverted,
        "turned as its photograph is": "turned" in seen.marks,
        "nobody can tell whether it is to be turned": "undecidable" in seen.marks,
        "its transparency is the map": "alpha" in seen.marks,
        "several masks that never overlap": "apart" in seen.marks,
    }
    return [why for why, so in found.items() if so]


def _card(table: Table, row: int, several: Sequence[Seen]) -> dict[str, Any]:
    """An image with its map over it, as PNG, and what there is to say."""
    one = several[0]
    said = [f"{one.kind}, {one.coverage:.0%} foreground"] if one.useful else []
    path = table.masks[row]
    assert path is not None
    united = isinstance(path, tuple)
    if len(several) > 1:
        said.append(f"{len(several)} instances, united" if united else f"mean of {len(several)} annotators")
    image = files.read(table.images[row], table.rule.white)
    picture = Image.fromarray(files.rgb(image))
    picture.thumbnail((SIDE, SIDE))
    drawn = [files.read(file, table.rule.white) for file in files.of_mask(path)]
    maps = [meaning.read(file, files.grades(file), SIDE, image, table.rule) for file in drawn]
    grades = Image.fromarray(meaning.joined(maps, united)).resize(picture.size, Image.Resampling.BILINEAR)
    weight = np.asarray(grades)[..., None] / 255 * OPACITY
    mixed = np.asarray(picture) * (1 - weight) + np.array(COLOUR) * weight
    odd = why_odd(one, table.rule)
    return _fields(table, row, Image.fromarray(np.rint(mixed).astype(np.uint8)), odd, said)


def _refused(table: Table, row: int, reason: str) -> dict[str, Any] | None:
    """A mask file that a run refuses, as it is; None if that is no picture, or the image is to blame."""
    mask = table.masks[row]
    try:
        for path in [] if mask is None else files.of_mask(mask):
            if reason.startswith(f"{path}: "):
                picture = Image.fromarray(files.rgb(files.read(path, table.rule.white)))
                picture.thumbnail((SIDE, SIDE))
                return _fields(table, row, picture, ["refused: this is the mask file itself"], [])
    except files.Unreadable:
        pass
    return None


def _fields(
    table: Table, row: int, picture: Image.Image, odd: Sequence[str], said: Sequence[str]
) -> dict[str, Any]:
    """What the template asks of a card."""
    out = io.BytesIO()
    picture.save(out, format="png")
    name, label = table.ids[row], table.class_name(row)
    return {
        "id": name,
        "label": "" if name.startswith(f"{label}/") else label,
        "odd": odd,
        "said": said,
        "png": base64.b64encode(out.getvalue()).decode(),
    }
