"""Look through a data set before a run does."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sal_fast import seeds
from sal_fast.data import catalog, files, splits
from sal_fast.data.load import load_originals
from sal_fast.data.reading import each
from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

SIZE = 256  # pixels a side of several annotators' masks, which may differ in size
KINDS = ("no mask", "empty mask", "graded mask", "mis-sized mask", "unreadable", "binary mask")


class Findings(NamedTuple):
    """The findings in a data set.

    rows: the row numbers by kind of finding (`KINDS`).
    reasons: why a row's files cannot be used, by row number.
    problems: everything that a run would refuse.
    notes: what a run would pass over in silence, and what differs from the paper's Table 1.
    """

    table: Table
    rows: dict[str, list[int]]
    reasons: dict[int, str]
    problems: list[str]
    notes: list[str]


def look(data: str, root: str | None = None) -> Findings:
    """Decode every image and mask of `data` (see `load_table`) and say what was found."""
    table = load_originals(data, root)
    problems = []
    try:
        splits.assign(table, seeds.stream(0, "split"))
    except InputError as error:
        problems.append(str(error))
    rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
    reasons: dict[int, str] = {}

    def one(row: int) -> str:
        try:
            return _kind(_mask(table, row))
        except files.Unreadable as error:
            reasons[row] = str(error)
            return "mis-sized mask" if isinstance(error, files.MisSized) else "unreadable"

    for row, kind in enumerate(each(one, range(len(table)), f"checking {table.name}")):
        rows[kind].append(row)
    if len(rows["no mask"]) == len(table) and UNLABELLED not in table.labels:  # else people draw them
        problems.append(f"{table.name}: no masks at all; only the regime b1 can run, or --annotator people")
    problems += [reasons[row] for row in (*rows["mis-sized mask"], *rows["unreadable"])]
    notes = catalog.compare(data, table) if data in catalog.ENTRIES else _passed_over(data, table)
    return Findings(table, rows, reasons, problems, notes)


def _mask(table: Table, row: int) -> np.ndarray | None:
    """A sample's mask at its own size, or None. Raises Unreadable if it or its image cannot be used."""
    image = files.read(table.images[row])
    files.rgb(image)
    path = table.masks[row]
    if path is None:
        return None
    drawn = [files.read(one) for one in files.annotators(path)]
    size = None if len(drawn) == 1 else SIZE
    return files.average(
        [files.mask(one, files.grades(one), size, image.size, table.foreground) for one in drawn]
    )


def _kind(mask: np.ndarray | None) -> str:
    if mask is None:
        return "no mask"
    if not mask.any():
        return "empty mask"
    return "binary mask" if np.isin(mask, (0, 255)).all() else "graded mask"


def _passed_over(data: str, table: Table) -> list[str]:
    """Note the masks of a folder that belong to no image, and its class folders without images."""
    root = Path(os.path.expanduser(data))
    if not (root / "images").is_dir():
        return []
    used = {str(mask) for mask in table.masks}
    spare = [path for path in sorted((root / "masks").glob("*/*")) if str(path) not in used]
    notes = [f"{path}: belongs to no image (expected masks/<class>/<image's name>.png)" for path in spare]
    empty = {path.name for path in (root / "images").iterdir() if path.is_dir()} - set(table.classes)
    return notes + [f"{root / 'images' / name}: a folder without images" for name in sorted(empty)]
