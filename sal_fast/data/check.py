"""Look through a data set before a run does."""

from pathlib import Path
from typing import NamedTuple

from sal_fast import seeds
from sal_fast.data import catalog, duplicates, files, meaning, splits
from sal_fast.data.files import Encoded
from sal_fast.data.load import load_originals
from sal_fast.data.meaning import Rule, Seen
from sal_fast.data.readers import Options
from sal_fast.data.reading import each
from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

KINDS = (
    "no mask", "empty mask", "full mask", "graded mask", "mis-sized mask", "unreadable",
    "binary mask",
)  # fmt: skip


class Findings(NamedTuple):
    """The findings in a data set.

    rows: the row numbers by kind of finding (`KINDS`).
    seen: what was seen in the mask files of each row that has some.
    reasons: why a row's files cannot be used, by row number.
    problems: everything that a run would refuse.
    notes: what a run would pass over in silence, and what differs from the paper's Table 1.
    """

    table: Table
    rows: dict[str, list[int]]
    seen: dict[int, list[Seen]]
    reasons: dict[int, str]
    problems: list[str]
    notes: list[str]


def look(
    data: str,
    root: str | None = None,
    rule: Rule | None = None,
    options: Options | None = None,
    *,
    allow_leaks: bool = False,
) -> Findings:
    """Decode every image and mask of `data` (see `load_table`) and say what was found.

    With `allow_leaks` a picture in several splits or classes is a note and no problem.
    """
    table = load_originals(data, root, rule, options)
    problems = []
    try:
        splits.assign(table, seeds.stream(0, "split"))
    except InputError as error:
        problems.append(str(error))
    rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
    reasons: dict[int, str] = {}
    named: list[tuple[str, Seen]] = []
    seen: dict[int, list[Seen]] = {}
    deep: list[int] = []

    traits = duplicates.Traits.unknown(len(table))

    def one(row: int) -> str | list[tuple[Path, Seen]]:
        try:
            image = files.read(table.images[row], table.rule.white)
            pixels = files.rgb(image)
            traits.note(row, image.digest, pixels)
            if image.depth != "8 bits":
                deep.append(int(pixels.max()))
            return _masks(table, row, image)
        except files.Unreadable as error:
            reasons[row] = str(error)
            return "mis-sized mask" if isinstance(error, meaning.MisSized) else "unreadable"

    for row, found in enumerate(each(one, range(len(table)), f"checking {table.name}")):
        if not isinstance(found, str):
            named += [(str(path), one) for path, one in found]
            several = [one for _, one in found]
            if several:
                seen[row] = several
            found = _kind(several, united=isinstance(table.masks[row], tuple))
        rows[found].append(row)
    if len(rows["no mask"]) == len(table) and UNLABELLED not in table.labels:  # else people draw them
        problems.append(f"{table.name}: no masks at all; only the regime b1 can run, or --annotator people")
    problems += [reasons[row] for row in (*rows["mis-sized mask"], *rows["unreadable"])]
    verdict = meaning.judge(named, table.rule)
    notes = catalog.compare(data, table) if data in catalog.ENTRIES else list(table.notes)
    refused, twice = duplicates.judged(
        table, duplicates.find(traits), allowed=catalog.allows(table, allow_leaks)
    )
    notes = [*verdict.notes, *meaning.of_deep_images(deep, table.rule), *notes]
    notes += duplicates.described(table, twice)
    problems += [*(verdict.problems or meaning.useless(named)), *duplicates.described(table, refused)]
    return Findings(table, rows, seen, reasons, problems, notes)


def _masks(table: Table, row: int, image: Encoded) -> list[tuple[Path, Seen]]:
    """What was seen in the mask files of an image. Raises Unreadable if one of them is of no use."""
    mask = table.masks[row]
    drawn = [] if mask is None else [files.read(one, table.rule.white) for one in files.of_mask(mask)]
    maps = [meaning.read(one, files.grades(one), None, image, table.rule) for one in drawn]
    seen = [one.seen for one in maps] if isinstance(mask, tuple) else meaning.compared(maps)
    return [(one.path, what) for one, what in zip(drawn, seen, strict=True)]


def _kind(seen: list[Seen], united: bool) -> str:
    """The kind of a sample's map, which is graded if several annotators drew it."""
    if not seen:
        return "no mask"
    kinds = {one.kind for one in seen}
    several = len(seen) > 1 and any(one.useful for one in seen)
    if "graded" in kinds or (several and not united):
        return "graded mask"
    return "binary mask" if "binary" in kinds else f"{seen[0].kind} mask"
