"""Look through a data set before a run does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sal_fast import seeds
from sal_fast.data import catalog, files, load_table, splits
from sal_fast.data.reading import each
from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

SIZE = 256  # of several annotators' masks, which may each have their own


@dataclass(frozen=True)
class Findings:
    """Row numbers by kind of finding, the last two with the reason.

    `problems`: all that a run would refuse; `notes`: what it would pass over in silence, and what differs
    from the paper's Table 1.
    """

    table: Table
    no_mask: list[int]
    empty: list[int]
    graded: list[int]
    mis_sized: Mapping[int, str]
    unreadable: Mapping[int, str]
    problems: list[str]
    notes: list[str]


def look(data: str, root: str | None = None) -> Findings:
    """Decode every image and mask of `data` (see `load_table`) and say what was found."""
    table = load_table(data, root)
    if table.prepared is not None:
        raise InputError(f"{data} is prepared already, all its files were good; check the originals")
    problems = []
    try:
        splits.assign(table, seeds.stream(0, "split"))
    except InputError as error:
        problems.append(str(error))
    no_mask: list[int] = []
    empty: list[int] = []
    graded: list[int] = []
    mis_sized: dict[int, str] = {}
    unreadable: dict[int, str] = {}

    kinds = {"no mask": no_mask, "empty": empty, "graded": graded, "binary": []}

    def one(row: int) -> str | files.Unreadable:
        try:
            return _kind(_mask(table, row))
        except files.Unreadable as error:
            return error

    for row, kind in enumerate(each(one, range(len(table)), f"checking {table.name}")):
        if isinstance(kind, files.MisSized):
            mis_sized[row] = str(kind)
        elif isinstance(kind, files.Unreadable):
            unreadable[row] = str(kind)
        else:
            kinds[kind].append(row)
    if len(no_mask) == len(table) and UNLABELLED not in table.labels:  # else people draw them
        problems.append(f"{table.name}: no masks at all; only the regime b1 can run, or --annotator people")
    problems += [*mis_sized.values(), *unreadable.values()]
    notes = catalog.compare(data, table) if data in catalog.ENTRIES else _passed_over(data, table)
    return Findings(table, no_mask, empty, graded, mis_sized, unreadable, problems, notes)


def _mask(table: Table, row: int) -> np.ndarray | None:
    """A sample's mask at its own size; raises Unreadable for it or its image."""
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
        return "empty"
    return "binary" if np.isin(mask, (0, 255)).all() else "graded"


def _passed_over(data: str, table: Table) -> list[str]:
    """In a folder: masks that belong to no image, and class folders without images."""
    root = Path(os.path.expanduser(data))
    if not (root / "images").is_dir():
        return []
    used = {str(mask) for mask in table.masks}
    spare = [path for path in sorted((root / "masks").glob("*/*")) if str(path) not in used]
    notes = [f"{path}: belongs to no image (expected masks/<class>/<image's name>.png)" for path in spare]
    empty = {path.name for path in (root / "images").iterdir() if path.is_dir()} - set(table.classes)
    return notes + [f"{root / 'images' / name}: a folder without images" for name in sorted(empty)]
