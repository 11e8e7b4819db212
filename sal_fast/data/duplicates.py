"""Pictures that occur twice in a data set: the same bytes, or the same look, under two ids.

The look of a picture is its colours in 16 x 16 pixels, less the mean of each colour, as a vector u of length
1. Two pictures look the same if `|u - v|^2 <= 0.02 * (mean of |u - v|^2 over all pairs of the set)`. In a set
of varied photographs this is a correlation of 0.98. In a set whose pictures are all alike, such as scans of
one organ, it is more, so that what all of them share does not count. The second picture may also be mirrored
or turned by quarter turns. Nearly flat pictures have no look. docs/data.md says which copies are found.

The result is that of comparing all pairs in all eight turns. Most pairs are ruled out before, since a lower
bound of their distance is too large (`_places`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

SIDE = 16  # pixels a side of a look
NEAR = 0.02  # the share of the mean squared distance at which two looks count as the same
SAME = 1e-5  # looks at this squared distance are the same in any set; bytes hardly tell them apart
FLAT = 2.0  # grey levels; a picture that deviates less from its mean has no look
HELD = 0.8  # the share of the variance of a set that the coordinates of the lower bound hold
SAMPLE = 512  # looks that the directions of these coordinates are made for
SLACK = 1.001  # the lower bound may be larger by this factor, because it is rounded
BLOCK = 128  # looks that are compared with all others at once
CHUNK = 1024  # looks whose vectors are in memory at once
LINES = 20  # pictures that are named; the others are counted

log = logging.getLogger(__name__)


class Traits(NamedTuple):
    """The traits by which the pictures of a table are compared.

    digests: of the image file, or b"" for one that could not be read.
    looks: uint8 [N, 3, 16, 16] (`looks`), or None if the pixels were not decoded.
    """

    digests: list[bytes]
    looks: Tensor | None


class Twice(NamedTuple):
    """The rows of a table that show one picture, in order, and whether their files are the same bytes."""

    rows: list[int]
    exact: bool


def looks(images: Tensor) -> Tensor:
    """Reduce pictures to their looks: uint8 [B, H, W, 3] to uint8 [B, 3, 16, 16] on the CPU.

    The reduction is bilinear with antialias.
    """
    pixels = images.permute(0, 3, 1, 2)
    if images.device.type != "cpu":  # torch reduces bytes on the CPU only
        pixels = pixels.float()
    small = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small.round().to("cpu", torch.uint8).contiguous()


def find(traits: Traits) -> list[Twice]:
    """The pictures that occur more than once, in the order of their first rows.

    A picture that looks like a second one, which looks like a third, is one picture with both.
    """
    first: dict[bytes, int] = {}
    owner = [first.setdefault(digest, row) if digest else row for row, digest in enumerate(traits.digests)]
    group = np.arange(len(owner))
    if traits.looks is not None:
        rows = np.array(sorted(first.values()), dtype=np.int64)
        group[rows] = rows[alike(traits.looks.numpy()[rows])]
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group[owner].tolist()):
        members.setdefault(number, []).append(row)
    several = [rows for rows in members.values() if len(rows) > 1]
    return [Twice(rows, len({traits.digests[row] for row in rows}) == 1) for rows in several]


def alike(looks: np.ndarray) -> np.ndarray:
    """Number pictures by groups that look the same: int64 [N], from 0 to N - 1.

    Two pictures have the same number if they look the same (see the head of this file), or if a chain of
    pictures connects them, each of which looks the same as the next.

    Args:
        looks: uint8 [N, 3, 16, 16].
    """
    group = np.arange(len(looks))
    rows = np.flatnonzero(np.concatenate([_units(part).any(axis=(1, 2, 3)) for part in _chunks(looks)]))
    if len(rows) < 2:
        return group
    mean = sum(_units(part).sum(axis=0, dtype=np.float64) for part in _chunks(looks[rows])) / len(rows)
    most = max(SAME, NEAR * 2 * (1 - float((mean**2).sum())))
    places = _places(looks[rows])
    order = np.argsort(places[:, 0], kind="stable")
    rows = rows[order]
    group[rows] = rows[_groups(looks[rows], mean.astype(np.float32), places[order], most)]
    return group


def _groups(looks: np.ndarray, mean: np.ndarray, places: np.ndarray, most: float) -> np.ndarray:
    """Number looks so that those which a squared distance of at most `most` connects have the same number.

    Each block of looks is compared with those that follow, as far as the first coordinate of their places
    allows: the places must be sorted by it. Looks that are in one group already are not compared again.
    """
    group = np.arange(len(looks))
    ends = np.searchsorted(places[:, 0], places[:, 0] + math.sqrt(most * SLACK), side="right")
    for start in range(0, len(looks), BLOCK):
        block = slice(start, start + BLOCK)
        rest = slice(start, ends[block][-1])
        near = _within(places[block], places[rest], most * SLACK)
        near &= group[block, None] != group[rest]
        ones, others = (start + np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
        if len(ones) == 0:
            continue
        turned = (_turned(_units(looks[ones])) - mean).reshape(-1, mean.size)
        for some in _chunks(others):
            same = _within(turned, (_units(looks[some]) - mean).reshape(len(some), -1), most)
            one, other = np.nonzero(same.reshape(-1, len(ones), len(some)).any(axis=0))
            joined = group[ones[one]], group[some[other]]
            links = coo_array((np.ones(len(one)), joined), (len(looks), len(looks)))
            group = connected_components(links, directed=False)[1][group]
    return group


def _places(looks: np.ndarray) -> np.ndarray:
    """Give each look a place, so that no two places are farther apart than the looks are in any turn.

    The eight turns of a square exchange its pixels in sets of up to eight. A look is sorted within each set:
    then it is the same in all turns, and sorting two vectors never takes them farther apart. A projection on
    orthonormal directions does not, either. We take those in which the set varies most, in descending order.

    Returns:
        float32 [N, D].
    """
    some = _folded(looks[:: math.ceil(len(looks) / SAMPLE)])
    mean = some.mean(axis=0)
    _, spread, directions = np.linalg.svd(some - mean, full_matrices=False)
    held = np.cumsum(spread**2)
    used = directions[: 1 + np.searchsorted(held, HELD * held[-1])].T
    return np.concatenate([(_folded(part) - mean) @ used for part in _chunks(looks)])


def _folded(looks: np.ndarray) -> np.ndarray:
    """Looks whose pixels are sorted within each set that the turns exchange: float32 [N, 1536].

    A quarter of the square holds two pixels of each set. So all numbers are there twice, and we halve their
    squares.
    """
    quarter = _turned(_units(looks))[..., : SIDE // 2, : SIDE // 2]
    return np.sort(quarter, axis=0).swapaxes(0, 1).reshape(len(looks), -1) / np.float32(math.sqrt(2))


def _turned(looks: np.ndarray) -> np.ndarray:
    """Arrays [..., 16, 16] as they are and mirrored, each in four quarter turns: [8, ..., 16, 16]."""
    sides = looks, looks[..., ::-1]
    return np.stack([np.rot90(side, turns, (-2, -1)) for side in sides for turns in range(4)])


def _within(ones: np.ndarray, others: np.ndarray, most: float) -> np.ndarray:
    """True for two vectors, of [M, D] and [N, D], at a squared distance of at most `most`: bool [M, N]."""
    products = ones @ others.T
    products -= np.einsum("ij,ij->i", others, others) / 2
    return products >= (np.einsum("ij,ij->i", ones, ones)[:, None] - np.float32(most)) / 2


def _units(looks: np.ndarray) -> np.ndarray:
    """Looks scaled to length 1, float32 [B, 3, 16, 16]; zeros for a picture that is nearly flat."""
    pixels = looks.astype(np.float32)
    pixels -= pixels.mean(axis=(2, 3), keepdims=True)
    length = np.sqrt((pixels**2).sum(axis=(1, 2, 3), keepdims=True))
    seen = length > FLAT * math.sqrt(3 * SIDE * SIDE)
    return pixels * np.divide(1, length, out=np.zeros_like(length), where=seen)


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of an array, of CHUNK rows at most; an empty array is one part."""
    for start in range(0, max(1, len(array)), CHUNK):
        yield array[start : start + CHUNK]


def judged(table: Table, found: Sequence[Twice], *, allowed: bool) -> tuple[list[Twice], list[Twice]]:
    """Sort pictures that occur twice into those that a run refuses, and those that it only tells of.

    A run refuses a picture that is in several splits or in several classes, unless that is `allowed`. A
    picture without a class has none that differs. If the table has no splits yet, a run draws them, and a
    picture that occurs twice may end up in two, unless its copies are in one group.
    """
    sides: tuple[list[Twice], list[Twice]] = [], []
    for twice in found:
        sides[allowed or not _leaks(table, twice)].append(twice)
    return sides


def _leaks(table: Table, twice: Twice) -> bool:
    classes = {table.labels[row] for row in twice.rows} - {UNLABELLED}
    splits = {table.split[row] for row in twice.rows}
    return len(classes) > 1 or len(splits) > 1 or _may_be_parted(table, twice)


def _may_be_parted(table: Table, twice: Twice) -> bool:
    """True if a run draws the splits, and may put the copies of a picture into different ones."""
    together = bool(table.group) and len({table.group[row] for row in twice.rows}) == 1
    return not together and not all(table.split[row] for row in twice.rows)


def described(table: Table, found: Sequence[Twice]) -> list[str]:
    """A line for each of the first pictures, and one that counts the others."""
    lines = [_line(table, twice) for twice in found[:LINES]]
    more = found[LINES:]
    return [*lines, f"{_counted(more)} twice, too"] if more else lines


def _line(table: Table, twice: Twice) -> str:
    """Name up to four copies of a picture, first one of each split and class."""
    firsts: dict[tuple[str, int], int] = {}
    for row in twice.rows:
        firsts.setdefault((table.split[row], table.labels[row]), row)
    several = len({label for _, label in firsts}) > 1
    named = []
    for row in list(dict.fromkeys([*firsts.values(), *twice.rows]))[:4]:
        about = [table.split[row], f"class {table.class_name(row) or 'unknown'}" if several else ""]
        said = ", ".join(filter(None, about))
        named.append(f"{table.ids[row]!r}" + (f" ({said})" if said else ""))
    if len(twice.rows) > 4:
        named.append(f"{len(twice.rows) - 4} more")
    what = "are the same file, byte by byte" if twice.exact else "look the same"
    drawn = "; the splits that a run draws may part them" if _may_be_parted(table, twice) else ""
    return f"{', '.join(named[:-1])} and {named[-1]} {what}{drawn}"


def _counted(found: Sequence[Twice]) -> str:
    return f"{len(found)} pictures occur" if len(found) > 1 else "1 picture occurs"


def refusal(table: Table, refused: Sequence[Twice]) -> str:
    """The message that refuses pictures, of which there is at least one."""
    where = "in more than one split or class" if all(table.split) else "twice"
    return (
        f"{table.name}: {_counted(refused)} {where}, so a test would prove little. The first: "
        f"{_line(table, refused[0])}. Keep one of each, put the copies into one split and one class, or go "
        f"on with --allow-leaks True; `sal-fast data check` lists them"
    )


def check(table: Table, traits: Traits, *, allowed: bool) -> None:
    """Log pictures that occur twice. Raises InputError for those that are refused (`judged`)."""
    refused, told = judged(table, find(traits), allowed=allowed)
    if refused:
        raise InputError(refusal(table, refused))
    leaks, others = judged(table, told, allowed=False)
    for some, where in ((leaks, "in more than one split or class"), (others, "twice")):
        if some:
            log.warning("%s: %s %s; the first: %s", table.name, _counted(some), where, _line(table, some[0]))
