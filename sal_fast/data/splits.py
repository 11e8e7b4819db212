"""Stratified splits, and the stratified start set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sal_fast.data.table import SPLITS, Table
from sal_fast.errors import InputError

VAL_SHARE = TEST_SHARE = 0.2


def assign(table: Table, rng: np.random.Generator) -> Table:
    """Give every sample a split: the manifest's own, or 60/20/20 stratified by class.

    Every class keeps at least one image in each split, so three images a class are the least.
    """
    given = sum(bool(split) for split in table.split)
    if given == len(table):
        return _checked(table)
    if given:
        row = table.split.index("")
        raise InputError(f"{table.name}: {table.ids[row]!r} has no split, others have; fill all rows or none")
    split = ["train"] * len(table)
    labels = np.asarray(table.labels)
    for label, name in enumerate(table.classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) < 3:
            raise InputError(
                f"{table.name}: class {name!r} has {len(rows)} image{'s' * (len(rows) != 1)}; a split into "
                f"train, val and test needs at least 3 (add images, or leave the class out)"
            )
        val = max(1, round(len(rows) * VAL_SHARE))
        test = max(1, round(len(rows) * TEST_SHARE))
        for row in rows[:val]:
            split[row] = "val"
        for row in rows[val : val + test]:
            split[row] = "test"
    return table.with_split(split)


def _checked(table: Table) -> Table:
    """A manifest's own splits: none empty, no class that training never shows."""
    for name in SPLITS:
        if not table.rows(name):
            raise InputError(f"{table.name}: no sample in split {name!r}")
    shown = {table.labels[row] for row in table.rows("train")}
    for label, name in enumerate(table.classes):
        if label not in shown:
            raise InputError(f"{table.name}: class {name!r} has no image in split 'train'")
    return table


def start_set(labels: Sequence[int], size: int, rng: np.random.Generator) -> list[int]:
    """`size` positions of a pool: one per class as far as the budget goes, then at random (paper, App. A).

    Returned in the order drawn. `labels` are the pool's, `size` <= len(labels).
    """
    array = np.asarray(labels)
    firsts = [int(rng.choice(np.flatnonzero(array == label))) for label in rng.permutation(np.unique(array))]
    chosen = firsts[:size]
    rest = rng.permutation(np.setdiff1d(np.arange(len(array)), chosen))
    return chosen + [int(row) for row in rest[: size - len(chosen)]]
