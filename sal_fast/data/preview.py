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
from sal_fast.data.meaning import Seen
from sal_fast.data.table import Table

SIDE = 240  # pixels of a picture's longer side on the page
COLOUR = (86, 180, 233)  # sky blue, which few photographs have where people draw
OPACITY = 0.6


def write(
    path: Path, table: Table, seen: Mapping[int, Sequence[Seen]], notes: Sequence[str], count: int = 30
) -> None:
    """Write the page of the `count` oddest images with maps.

    Args:
        seen: what was seen in the mask files of each row.
        notes: the sentences on the whole set, which stand above the pictures.
    """
    shown = oddest(seen)[:count]
    cards = [{"id": table.ids[row], **_card(table, row, seen[row])} for row in shown]
    environment = Environment(
        loader=PackageLoader("sal_fast.data", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    page = environment.get_template("preview.html").render(
        name=table.name, cards=cards, notes=notes, total=len(seen)
    )
    write_bytes(path, page.encode())


def oddest(seen: Mapping[int, Sequence[Seen]]) -> list[int]:
    """The rows with masks, from the oddest to the most usual.

    Marks and maps without a use come first, then those whose foreground touches the border or covers more or
    less of the picture than is usual in this set.
    """
    first = {row: several[0] for row, several in seen.items() if several}
    covered = [one.coverage for one in first.values() if one.useful] or [0.5]
    middle, spread = float(np.median(covered)), float(np.std(covered)) or 1.0

    def oddness(row: int) -> float:
        one = first[row]
        far = abs(one.coverage - middle) / spread
        return 10.0 * bool(one.marks) + 10.0 * (not one.useful) + 3.0 * one.border + min(far, 3.0)

    return sorted(first, key=lambda row: (-oddness(row), row))


def _card(table: Table, row: int, several: Sequence[Seen]) -> dict[str, Any]:
    """An image with its map over it, as PNG, and what there is to say."""
    one = several[0]
    said = [f"{one.kind}, {one.coverage:.0%} foreground", *one.marks]
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
    out = io.BytesIO()
    Image.fromarray(np.rint(mixed).astype(np.uint8)).save(out, format="png")
    return {"label": table.class_name(row), "said": said, "png": base64.b64encode(out.getvalue()).decode()}
