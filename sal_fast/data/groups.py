"""Groups of images, such as those of one patient or one video, which a split never cuts.

Images of one group resemble each other. A model that has seen some of them in training is tested on the
others too kindly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sal_fast.data.table import SPLITS, UNLABELLED, Table
from sal_fast.errors import InputError

VISITS = 1000  # groups over all starts of the search: 50 groups are searched from 20 random divisions
OFF = 0.05  # a split whose share of the images is off by more than this is warned of

log = logging.getLogger(__name__)


def with_splits(table: Table, share: float, rng: np.random.Generator) -> Table:
    """Draw train, val and test for a table with groups and without splits; no group is cut.

    `share` of each class's images become val, as many test, and the others train, as nearly as the groups
    allow (`divided`). Each class is in each split. If some images have no label, all images of their groups
    are train, and half of each class's other images are val, half test.

    Raises InputError if a class lies in too few groups.
    """
    member, counts = _counted(table)
    unlabelled = np.zeros(len(counts), dtype=bool)
    unlabelled[member[np.asarray(table.labels) == UNLABELLED]] = True
    free = np.flatnonzero(~unlabelled)
    total = counts[free].sum(axis=0)
    if unlabelled.any():
        names: tuple[str, ...] = SPLITS[1:]
        wanted = np.stack([total - total // 2, total // 2], axis=1)
    else:
        few = np.maximum(1, np.rint(total * share).astype(np.int64))
        names, wanted = SPLITS, np.stack([total - 2 * few, few, few], axis=1)
    _check_groups(table, counts[free], names)
    place = divided(counts[free], wanted, rng)
    split = np.full(len(counts), "train", dtype=object)
    split[free] = np.array(names, dtype=object)[place]
    drawn = table.with_split(split[member].tolist())
    _check_classes(drawn, names)
    _tell(drawn, share if len(names) == len(SPLITS) else None)
    return drawn


def with_val(table: Table, share: float, rng: np.random.Generator) -> Table:
    """Move whole groups of training images to val: `share` of each class's, as nearly as the groups allow."""
    train = np.asarray(table.split) == "train"
    member, counts = _counted(table, train)
    total = counts.sum(axis=0)
    few = np.rint(total * share).astype(np.int64)
    if len(counts) < 2:
        raise InputError(
            f"{table.name}: its training images lie in one group, so no val can be taken from them; {WAYS}"
        )
    place = divided(counts, np.stack([total - few, few], axis=1), rng)
    if not place.any():
        raise InputError(
            f"{table.name}: no val was found that cuts none of the {len(counts)} groups of training images; "
            f"{WAYS}"
        )
    split = np.array(table.split, dtype=object)
    split[train] = np.array(SPLITS[:2], dtype=object)[place][member[train]]
    return table.with_split(split.tolist())


def divided(counts: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Divide groups among splits so that each split has as many images of each class as it should.

    Two numbers are made small, the first before the second: how many classes are missing in splits where
    they are wanted, of which those in the first split count twice; and the sum over classes and splits of
    `(have - wanted)^2 / max(wanted, 1)`. The search begins with a random division and moves single groups as
    long as a move helps. With few groups it starts again and again, and the best division is taken.

    Args:
        counts: the number of images of each group in each class, int64 [groups, classes].
        wanted: the number of images of each class in each split, int64 [classes, splits].

    Returns:
        The split of each group, int64 [groups].
    """
    starts = max(1, VISITS // max(1, len(counts)))
    found = [_searched(counts, wanted, rng) for _ in range(starts)]
    return min(found, key=lambda place: tuple(cost(_have(counts, place, wanted), wanted).sum(axis=1)))


def cost(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The two numbers that `divided` makes small, of each split: float64 [2, splits].

    Args:
        have: the number of images of each class in each split, int64 [classes, splits].
        wanted: the numbers that are asked for.
    """
    missing = ((have == 0) & (wanted > 0)).sum(axis=0)
    missing[0] *= 2
    return np.stack([missing, ((have - wanted) ** 2 / np.maximum(wanted, 1)).sum(axis=0)])


def _searched(counts: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A division that no move of a single group improves."""
    odds = wanted.sum(axis=0) / max(1, wanted.sum())
    place = rng.choice(wanted.shape[1], size=len(counts), p=odds) if wanted.any() else np.zeros(0, np.int64)
    have = _have(counts, place, wanted)
    moved = True
    while moved:
        moved = False
        for group in rng.permutation(len(counts)):
            own = np.flatnonzero(counts[group])
            size, now = counts[group, own], place[group]
            have[own, now] -= size
            missing, off = cost(have[own] + size[:, None], wanted[own]) - cost(have[own], wanted[own])
            best = np.lexsort((off, missing))[0]
            # Rounding must not look like an improvement, or the search might never end.
            if (missing[best], off[best] + 1e-9 * (1 + abs(off[now]))) < (missing[now], off[now]):
                place[group] = now = best
                moved = True
            have[own, now] += size
    return place


def _have(counts: np.ndarray, place: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The number of images of each class in each split, int64 [classes, splits]."""
    splits = range(wanted.shape[1])
    return np.stack([counts[place == split].sum(axis=0) for split in splits], axis=1)


def _counted(table: Table, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's group, and the images of each group in each class: int64 [groups, classes].

    With `rows`, bool [N], only these are counted, and groups that have none of them are left out.
    """
    rows = np.ones(len(table), dtype=bool) if rows is None else rows
    labels, member = np.asarray(table.labels), np.zeros(len(table), dtype=np.int64)
    _, member[rows] = np.unique(np.asarray(table.group)[rows], return_inverse=True)
    counts = np.zeros((member.max() + 1, len(table.classes)), dtype=np.int64)
    known = rows & (labels != UNLABELLED)
    np.add.at(counts, (member[known], labels[known]), 1)
    return member, counts


WAYS = "add groups, leave the class out, give the splits yourself, or ignore the groups (--columns group=)"


def _check_groups(table: Table, counts: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a class that lies in fewer groups than there are splits to be drawn."""
    whose = "" if len(names) == len(SPLITS) else " without unlabelled images"
    for name, count in zip(table.classes, (counts > 0).sum(axis=0).tolist(), strict=True):
        if count < len(names):
            raise InputError(
                f"{table.name}: class {name!r} lies in {count} group{'s' * (count != 1)}{whose}; splits that "
                f"cut no group need at least {len(names)}, for {', '.join(names)}; {WAYS}"
            )


def _check_classes(table: Table, names: Sequence[str]) -> None:
    """Refuse a division in which a split lacks a class."""
    for split in names:
        shown = {table.labels[row] for row in table.rows(split)}
        for label, name in enumerate(table.classes):
            if label not in shown:
                raise InputError(
                    f"{table.name}: no splits were found that cut no group and show every class in each of "
                    f"{', '.join(names)}: class {name!r} is missing in {split!r}; {WAYS}"
                )


def _tell(table: Table, asked: float | None) -> None:
    """Log the shares that the splits have got. Warn if val or test is far from the `asked` share, if any."""
    shares = [len(table.rows(split)) / len(table) for split in SPLITS]
    said = ", ".join(f"{split} {share:.0%}" for split, share in zip(SPLITS, shares, strict=True))
    said = f"{table.name}: splits that cut none of {len(set(table.group))} groups: {said} of the images"
    if asked is not None and max(abs(share - asked) for share in shares[1:]) > OFF:
        log.warning("%s; val and test should have %.0f%% each, but the groups are large", said, 100 * asked)
    else:
        log.info("%s", said)


class Cut(NamedTuple):
    """A group that lies in several splits, with an image of each of them."""

    group: str
    images: dict[str, str]

    def __str__(self) -> str:
        return f"group {self.group!r} lies in " + " and ".join(
            f"{split} ({image!r})" for split, image in self.images.items()
        )


def cut(table: Table) -> list[Cut]:
    """The groups that lie in several splits, in the order of their first images."""
    found: dict[str, dict[str, str]] = {}
    for group, split, image in zip(table.group, table.split, table.ids, strict=bool(table.group)):
        found.setdefault(group, {}).setdefault(split, image)
    return [Cut(group, images) for group, images in found.items() if len(images) > 1]


def problem(table: Table) -> str | None:
    """The message that refuses groups in several splits; None if there are none."""
    found = cut(table)
    if not found:
        return None
    return (
        f"{table.name}: {len(found)} of {len(set(table.group))} groups lie in more than one split, so a test "
        f"would prove little. The first: {found[0]}. Put each group into one split, ignore the groups "
        f"(--columns group=), or go on with --allow-leaks True"
    )


def check(table: Table, *, allowed: bool) -> None:
    """Refuse groups that lie in several splits, or, if that is `allowed`, warn of them."""
    said = problem(table)
    if said is not None and not allowed:
        raise InputError(said)
    if said is not None:
        log.warning("%s", said)
