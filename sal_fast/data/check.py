"""Look through a data set before a run does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sal_fast import seeds
from sal_fast.data import decode, load_table, splits
from sal_fast.data.store import each
from sal_fast.data.table import Table
from sal_fast.errors import InputError

SIZE = 64  # masks are looked at this small; an object of less than a pixel there counts as empty


@dataclass(frozen=True)
class Findings:
    """Row numbers by kind of finding, `unusable` with the reason; `problems`: all that a run would refuse."""

    table: Table
    no_mask: list[int]
    empty: list[int]
    graded: list[int]
    unusable: Mapping[int, str]
    problems: list[str]


def look(data: str) -> Findings:
    """Decode every image and mask of `data` (see `load_table`) and say what was found."""
    table = load_table(data)
    problems = []
    try:
        splits.assign(table, seeds.stream(0, "split"))
    except InputError as error:
        problems.append(str(error))
    no_mask, empty, graded = [], [], []
    unusable: dict[int, str] = {}

    def one(row: int) -> np.ndarray | decode.Unreadable | None:
        try:
            return decode.sample(table.images[row], table.masks[row], SIZE, SIZE).mask
        except decode.Unreadable as error:
            return error

    for row, mask in enumerate(each(one, range(len(table)), f"checking {table.name}")):
        if isinstance(mask, decode.Unreadable):
            unusable[row] = str(mask)
        elif mask is None:
            no_mask.append(row)
        elif not mask.any():
            empty.append(row)
        elif not np.isin(mask, (0, 255)).all():
            graded.append(row)
    if len(no_mask) == len(table):
        problems.append(f"{table.name}: no masks at all; only the regime b1 can run")
    return Findings(table, no_mask, empty, graded, unusable, problems + list(unusable.values()))
