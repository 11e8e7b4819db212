"""Stratified splits, the splits of HAM10000, and the stratified start set. `groups` has splits by group."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sal_fast.data import groups
from sal_fast.data.table import SPLITS, UNLABELLED, Table
from sal_fast.errors import InputError

SHARE = 0.2  # of the images of a class, for val and for test


def assign(table: Table, rng: np.random.Generator) -> Table:
    """Give every sample a split: the manifest's own, or 60/20/20 stratified by class.

    If there are train and test but no val, SHARE of the training images of each class become val.

    Every class keeps at least one image in each split, so a class needs three images. If there are images
    without a label, these are train, and half of each class's other images are val, half test; a class needs
    two then. If the table has groups, no group is cut, and a class needs as many groups
    (`groups.with_splits`).

    Raises:
        InputError: a class has too few images, some samples have a split and others not, or the manifest's
            own splits cannot be used.
    """
    given = sum(bool(split) for split in table.split)
    if given == len(table):
        return _checked(table if set(table.split) != {"train", "test"} else with_val(table, SHARE, rng))
    if given:
        row = table.split.index("")
        raise InputError(f"{table.name}: {table.ids[row]!r} has no split, others have; fill all rows or none")
    if table.group:
        return _checked(groups.with_splits(table, SHARE, rng))
    split = np.full(len(table), "train", dtype=object)
    labels = np.asarray(table.labels)
    pool = UNLABELLED in table.labels
    least, why = 3, "a split into train, val and test needs at least 3 (add images, or leave the class out)"
    if pool:
        least, why = 2, "beside a pool without labels a class needs at least 2, one for val and one for test"
    for label, name in enumerate(table.classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) < least:
            raise InputError(
                f"{table.name}: class {name!r} has {len(rows)} {'labelled ' * pool}"
                f"image{'s' * (len(rows) != 1)}; {why}"
            )
        few = max(1, round(len(rows) * SHARE))
        split[rows[::2] if pool else rows[:few]] = "val"
        split[rows[1::2] if pool else rows[few : 2 * few]] = "test"
    return _checked(table.with_split(split.tolist()))


def _checked(table: Table) -> Table:
    """Refuse an empty split, a val or test image without a label, and a class that training cannot show."""
    for name in SPLITS:
        if not table.rows(name):
            raise InputError(f"{table.name}: no sample in split {name!r}")
    for row, label in enumerate(table.labels):
        if label == UNLABELLED and table.split[row] != "train":
            raise InputError(
                f"{table.name}: {table.ids[row]!r} is in split {table.split[row]!r} and has no label; only "
                f"train images may be without"
            )
    shown = {table.labels[row] for row in table.rows("train")}
    if UNLABELLED in shown:  # people will show them
        return table
    for label, name in enumerate(table.classes):
        if label not in shown:
            raise InputError(f"{table.name}: class {name!r} has no image in split 'train'")
    return table


def start_set(
    labels: Sequence[int], size: int, rng: np.random.Generator, preferred: Sequence[bool] | None = None
) -> list[int]:
    """Draw `size` positions of a pool: one per class as far as they go, then at random (paper, App. A).

    They are returned in the order in which they were drawn. `labels` are the pool's, and UNLABELLED is no
    class. `size` must be at most len(labels).

    preferred: the positions that are drawn before others, from each class and then at random. None: all are
    alike, as if all or none were preferred.
    """
    array = np.asarray(labels)
    first = np.ones(len(array), dtype=bool) if preferred is None else np.asarray(preferred, dtype=bool)
    classes = rng.permutation(np.unique(array[array != UNLABELLED]))
    firsts = [_one_of(np.flatnonzero(array == label), first, rng) for label in classes]
    chosen = firsts[:size]
    rest = rng.permutation(np.setdiff1d(np.arange(len(array)), chosen))
    rest = np.concatenate((rest[first[rest]], rest[~first[rest]]))
    return chosen + [int(row) for row in rest[: size - len(chosen)]]


def _one_of(positions: np.ndarray, first: np.ndarray, rng: np.random.Generator) -> int:
    """Draw a position, from those that come first if there are any."""
    before = positions[first[positions]]
    return int(rng.choice(before if len(before) else positions))


def with_val(table: Table, share: float, rng: np.random.Generator) -> Table:
    """Move `round(share * n)` of the n training samples of each class, drawn at random, to val.

    If the table has groups, whole groups are moved (`groups.with_val`).
    """
    if table.group and share:
        return groups.with_val(table, share, rng)
    split = np.array(table.split, dtype=object)
    train, labels = split == "train", np.asarray(table.labels)
    for label in np.unique(labels[train]):
        own = rng.permutation(np.flatnonzero(train & (labels == label)))
        split[own[: round(share * len(own))]] = "val"
    return table.with_split(split.tolist())


def by_group(
    labels: Sequence[Any], groups: Sequence[str], sizes: Sequence[int], rng: np.random.Generator
) -> list[str]:
    """Draw a split for every sample so that no group is in two; train, val and test are as `sizes` to each
    other.

    The totals are exact and every class is shared out as the whole is, as far as the groups allow. Groups of
    several samples come first, large before small, each into a split of its class that has room for it.
    Single samples fill what is left. A group belongs to the class of its first sample. The splits of
    HAM10000 are drawn by this rule, and stay what they have been; other data go by `groups.with_splits`.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    own: dict[Any, list[list[int]]] = {}
    for rows in members.values():
        own.setdefault(labels[rows[0]], []).append(rows)
    classes = sorted(own)
    counts = np.array([sum(map(len, own[label])) for label in classes])
    room = _quotas(counts, _in_proportion(len(labels), sizes))
    split = np.full(len(labels), "", dtype=object)
    singles: list[list[int]] = []
    for place, label in enumerate(classes):
        shuffled = [own[label][index] for index in rng.permutation(len(own[label]))]
        singles.append([rows[0] for rows in shuffled if len(rows) == 1])
        for rows in sorted((rows for rows in shuffled if len(rows) > 1), key=len, reverse=True):
            odds = np.where(room[place] >= len(rows), room[place], 0)
            into = rng.choice(len(SPLITS), p=odds / odds.sum()) if odds.any() else room[place].argmax()
            room[place, into] -= len(rows)
            split[rows] = SPLITS[into]
    for rows, shares in zip(singles, _fill(room, [len(rows) for rows in singles]), strict=True):
        split[rows] = np.repeat(SPLITS, shares).astype(object)
    return split.tolist()


def _in_proportion(total: int, sizes: Sequence[int]) -> np.ndarray:
    """Share `total` out in proportion to `sizes`, by largest remainder; the first wins a tie."""
    shares, remainders = np.divmod(total * np.array(sizes), sum(sizes))
    shares[np.argsort(-remainders, kind="stable")[: total - shares.sum()]] += 1
    return shares


def _quotas(counts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whole numbers near proportion, int64 [classes, splits], whose rows sum to `counts`, columns to
    `targets`.
    """
    product = np.multiply.outer(counts, targets)
    quotas = product // targets.sum()
    rows, columns = counts - quotas.sum(axis=1), targets - quotas.sum(axis=0)
    order = np.argsort(-(product % targets.sum()), axis=None, kind="stable")
    while rows.any():
        for row, column in zip(*np.unravel_index(order, quotas.shape), strict=True):
            if rows[row] and columns[column]:
                quotas[row, column] += 1
                rows[row] -= 1
                columns[column] -= 1
    return quotas


def _fill(room: np.ndarray, singles: Sequence[int]) -> np.ndarray:
    """How many single samples of each class go into each split: rows sum to `singles`, columns to the room.

    A split that groups have overfilled (its room is below 0) takes none. The others make up for that, first
    within the class, then in the classes that have most of them, so that the columns are right if possible.
    """
    shares = room.clip(min=0)
    for row, count in zip(shares, singles, strict=True):
        while row.sum() > count:
            row[row.argmax()] -= 1
    while True:
        excess = shares.sum(axis=0) - room.sum(axis=0)
        over = int(np.where(shares.any(axis=0), excess, 0).argmax())
        under = int(excess.argmin())
        if not shares[:, over].any() or excess[over] <= 0 or excess[under] >= 0:
            return shares
        row = shares[:, over].argmax()
        shares[row, over] -= 1
        shares[row, under] += 1
