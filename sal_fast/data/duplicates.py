"""Pictures that occur twice in a data set: the same bytes, or the same look, under two ids.

The look of a picture is its colours in 16 x 16 pixels, less the mean of each colour, as a vector u of length
1. Two pictures look the same if `|u - v|^2 <= 0.02 * (mean of |u - v|^2 over all pairs of the set)`. In a set
of varied photographs this is a correlation of 0.98. In a set whose pictures are all alike, such as scans of
one organ, it is more, so that what all of them share does not count. A picture that is mirrored or turned by
quarter turns looks the same as the original. Nearly flat pictures have no look.

Resized, recompressed and moderately brightened copies look the same. Copies with a margin cut off (3 %), in
grey, or brightened until they are clipped do not. docs/data.md has the figures.

We do not compare all pairs, because their number grows with the square of the set. Each of several tables
sorts the looks by the signs of random projections, and only neighbours in a table are compared (locality
sensitive hashing; Charikar 2002, "Similarity estimation techniques from rounding algorithms").
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sal_fast.data.table import SPLITS, UNLABELLED, Table
from sal_fast.errors import InputError

SIDE = 16  # pixels a side of a look
NEAR = 0.02  # the share of the mean squared distance at which two looks count as the same
SAME = 1e-7  # a squared distance that rounding makes of nothing
FLAT = 2.0  # grey levels; a picture that deviates less from its mean has no look
TABLES = 12  # of these, copies have to be neighbours in one at least
NEXT = 4  # neighbours that are compared in each table; more in a row are found by way of each other
DIMENSIONS = 32  # of the projections
SAMPLE = 4096  # looks that the projections are made for
CHUNK = 4096  # looks that are worked on at once
LINES = 20  # pictures that are named; the others are counted

Turn = Callable[[np.ndarray], np.ndarray]
# arrays [..., 16, 16] as they are, mirrored and turned; a turn to the left and one to the right are one test
TURNS: tuple[Turn, ...] = (
    lambda looks: looks,
    lambda looks: looks[..., ::-1],
    lambda looks: looks[..., ::-1, :],
    lambda looks: looks[..., ::-1, ::-1],
    lambda looks: looks.swapaxes(-1, -2),
    lambda looks: looks.swapaxes(-1, -2)[..., ::-1, :],
    lambda looks: looks.swapaxes(-1, -2)[..., ::-1, ::-1],
)

log = logging.getLogger(__name__)


class Traits(NamedTuple):
    """What is compared of each picture of a table.

    digests: of the image file, or b"" for one that could not be read.
    looks: uint8 [N, 3, 16, 16] (`looks`), or None if the pixels were not decoded.
    """

    digests: list[bytes]
    looks: Tensor | None

    @classmethod
    def unknown(cls, count: int) -> Traits:
        """The traits of pictures that nobody has seen yet."""
        return cls([b""] * count, torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8))

    def note(self, row: int, digest: bytes, pixels: np.ndarray) -> None:
        """Keep the traits of one picture, whose pixels are uint8 [H, W, 3]."""
        assert self.looks is not None
        self.digests[row], self.looks[row] = digest, looks(torch.from_numpy(pixels)[None])[0]


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

    Memory and time grow with the number of pictures (nearly in proportion); the result is the same each time.
    A picture that looks like a second one, which looks like a third, is one picture with both.
    """
    first: dict[bytes, int] = {}
    same = [(first.setdefault(digest, row), row) for row, digest in enumerate(traits.digests) if digest]
    pairs = [np.array([pair for pair in same if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)]
    if traits.looks is not None:
        rows = np.array(sorted(first.values()), dtype=np.int64)
        pairs.append(rows[alike(traits.looks.numpy()[rows])])
    one, other = np.concatenate(pairs).T
    count = len(traits.digests)
    _, group = connected_components(coo_array((np.ones(len(one)), (one, other)), (count, count)), False)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(np.bincount(group, minlength=count)[group] > 1).tolist():
        members.setdefault(int(group[row]), []).append(row)
    return [Twice(rows, len({traits.digests[row] for row in rows}) == 1) for rows in members.values()]


def alike(looks: np.ndarray) -> np.ndarray:
    """Pairs of pictures that look the same (see the head of this file): int64 [P, 2], each once.

    Of pictures that all look the same only some pairs are given, which connect them. `looks` are uint8
    [N, 3, 16, 16].
    """
    rows = np.flatnonzero(np.concatenate([_units(part).any(axis=1) for part in _chunks(looks)]))
    looks = looks[rows]
    if len(looks) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    mean = sum(_units(part).sum(axis=0, dtype=np.float64) for part in _chunks(looks)) / len(looks)
    most = NEAR * 2 * max(0.0, 1 - float(mean @ mean))
    if most < SAME:  # all of them
        return np.stack([rows[:-1], rows[1:]], axis=1)
    tables = _Tables(looks, mean, most)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for index, turn in enumerate(TURNS):
        near = [pairs[_distances(looks, turn, pairs) <= most] for pairs in tables.candidates(index)]
        found.append(np.unique(np.sort(np.concatenate(near), axis=1), axis=0))
    return rows[np.unique(np.concatenate(found), axis=0)]


class _Tables:
    """Looks in sorted order by the signs of random projections, in several ways.

    The projections go through the main directions of the set, each scaled to the same spread, so that the
    looks are spread evenly. There are four times as many combinations of signs as looks.

    Args:
        looks: uint8 [N, 3, 16, 16].
        mean: of the looks as vectors, [768].
        most: the squared distance up to which two looks count as the same.
    """

    def __init__(self, looks: np.ndarray, mean: np.ndarray, most: float) -> None:
        self._most = most
        some = _units(looks[:: max(1, len(looks) // SAMPLE)]) - mean
        spread, directions = np.linalg.eigh(some.T @ some)
        used = spread > 1e-6 * spread[-1]
        used[:-DIMENSIONS] = False
        basis = directions.T[used].reshape(-1, 3, SIDE, SIDE)
        rng, bits = np.random.default_rng(0), math.ceil(math.log2(len(looks))) + 2
        shape = len(basis), TABLES * bits
        signs = rng.normal(size=shape) / np.sqrt(spread[used])[:, None]
        self._places, keys = _hashed(looks, basis, mean, signs, 2 ** np.arange(bits, dtype=np.int64))
        shuffled = rng.permutation(len(looks))
        self._order = [shuffled[np.argsort(key[shuffled], kind="stable")] for key in keys[0].T]
        self._keys = keys

    def candidates(self, turn: int) -> Iterator[np.ndarray]:
        """Pairs (look, look that is turned), int64 [P, 2], that may be near enough."""
        for table, order in enumerate(self._order):
            ordered = self._keys[0, order, table]
            if turn == 0:  # each with those that follow it
                turned, wanted, at = order, ordered, np.arange(1, len(order) + 1)
            else:
                turned, wanted = np.arange(len(order)), self._keys[turn, :, table]
                at = np.searchsorted(ordered, wanted)
            for _ in range(NEXT):
                there = at < len(order)
                there[there] = ordered[at[there]] == wanted[there]
                turned, wanted, at = turned[there], wanted[there], at[there]
                one = order[at]
                apart = ((self._places[0, one] - self._places[turn, turned]) ** 2).sum(axis=1)
                near = (apart <= self._most) & (one != turned)
                yield np.stack([one[near], turned[near]], axis=1)
                at = at + 1


def _hashed(
    looks: np.ndarray, basis: np.ndarray, mean: np.ndarray, signs: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates float32 [T, N, D] and the keys int64 [T, N, TABLES] of looks in all turns.

    `basis` [D, 3, 16, 16] are the directions, `mean` the origin. `signs` [D, TABLES * bits] are the
    projections, and `values` [bits] are what their signs count in a key.
    """
    # a turned look has the same coordinates as the look itself has along directions that are turned back
    turned = np.concatenate([_back(turn)(basis).reshape(len(basis), -1) for turn in TURNS]).astype(np.float32)
    origin = np.tile(basis.reshape(len(basis), -1) @ mean, len(TURNS)).astype(np.float32)
    signs = signs.astype(np.float32)
    places = np.empty((len(TURNS), len(looks), len(basis)), dtype=np.float32)
    keys = np.empty((len(TURNS), len(looks), TABLES), dtype=np.int64)
    start = 0
    for part in _chunks(looks):
        rows = slice(start, start + len(part))
        at = (_units(part) @ turned.T - origin).reshape(len(part), len(TURNS), -1).swapaxes(0, 1)
        places[:, rows] = at
        above = (at @ signs > 0).reshape(len(TURNS), len(part), TABLES, -1)
        keys[:, rows] = above @ values
        start = rows.stop
    return places, keys


def _back(turn: Turn) -> Turn:
    """The turn that undoes another."""
    probe = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    undone = np.argsort(turn(probe).ravel())
    return lambda looks: looks.reshape(*looks.shape[:-2], -1)[..., undone].reshape(looks.shape)


def _distances(looks: np.ndarray, turn: Turn, pairs: np.ndarray) -> np.ndarray:
    """The squared distances of looks from turned looks, float32 [P]."""
    parts = [
        ((_units(looks[part[:, 0]]) - _units(turn(looks[part[:, 1]]))) ** 2).sum(axis=1)
        for part in _chunks(pairs)
    ]
    return np.concatenate(parts)


def _units(looks: np.ndarray) -> np.ndarray:
    """Looks as vectors of length 1, float32 [B, 768]; zeros for a picture that is nearly flat."""
    pixels = looks.reshape(len(looks), 3, SIDE * SIDE).astype(np.float32)
    pixels -= pixels.mean(axis=2, keepdims=True)
    flat = pixels.reshape(len(looks), 3 * SIDE * SIDE)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))[:, None]
    seen = length > FLAT * math.sqrt(flat.shape[1])
    return flat * np.divide(1, length, out=np.zeros_like(length), where=seen)


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of an array, of CHUNK rows at most; an empty array is one part."""
    for start in range(0, max(1, len(array)), CHUNK):
        yield array[start : start + CHUNK]


def judged(table: Table, found: Sequence[Twice], *, allowed: bool) -> tuple[list[Twice], list[Twice]]:
    """Sort pictures that occur twice into those that a run refuses, and those that it only tells of.

    A run refuses a picture that is in several splits or in several classes, unless that is `allowed`. A
    picture without a class has none that differs. If the table has no
    splits yet, a run draws them, and any picture that occurs twice may end up in two.
    """
    if allowed:
        return [], list(found)
    return _sorted(table, found)


def _sorted(table: Table, found: Sequence[Twice]) -> tuple[list[Twice], list[Twice]]:
    """Those that are in several splits or classes, and the others."""
    sides: tuple[list[Twice], list[Twice]] = [], []
    for twice in found:
        sides[0 if _leaks(table, twice) else 1].append(twice)
    return sides


def _leaks(table: Table, twice: Twice) -> bool:
    classes = {table.labels[row] for row in twice.rows} - {UNLABELLED}
    splits = {table.split[row] for row in twice.rows}
    return len(classes) > 1 or len(splits) > 1 or not splits <= set(SPLITS)


def described(table: Table, found: Sequence[Twice]) -> list[str]:
    """A line for each of the first pictures, and one that counts the others."""
    lines = [_line(table, twice) for twice in found[:LINES]]
    more = len(found) - LINES
    return [*lines, f"{more} more pictures occur twice"] if more > 0 else lines


def _line(table: Table, twice: Twice) -> str:
    several = len({table.labels[row] for row in twice.rows}) > 1
    named = []
    for row in twice.rows[:4]:
        about = [table.split[row], f"class {table.class_name(row) or 'unknown'}" if several else ""]
        said = ", ".join(filter(None, about))
        named.append(f"{table.ids[row]!r}" + (f" ({said})" if said else ""))
    if len(twice.rows) > 4:
        named.append(f"{len(twice.rows) - 4} more")
    what = "are the same file, byte by byte" if twice.exact else "look the same"
    drawn = "" if all(table.split) else "; the splits that a run draws may part them"
    return f"{', '.join(named[:-1])} and {named[-1]} {what}{drawn}"


def refusal(table: Table, refused: Sequence[Twice]) -> str:
    """The sentence by which pictures are refused; there is at least one."""
    many = f"{len(refused)} pictures occur" if len(refused) > 1 else "1 picture occurs"
    return (
        f"{table.name}: {many} in more than one split or class, so that a test proves little. The first: "
        f"{_line(table, refused[0])}. Keep one of each, or put the copies into one split and one class, or "
        f"go on with --allow-leaks; `sal-fast data check` lists them"
    )


def check(table: Table, traits: Traits, *, allowed: bool) -> None:
    """Log pictures that occur twice. Raises InputError for those that are refused (`judged`)."""
    refused, told = judged(table, find(traits), allowed=allowed)
    if refused:
        raise InputError(refusal(table, refused))
    for where, some in zip((" in more than one split or class", ""), _sorted(table, told), strict=True):
        if some:
            log.warning(
                "%s: %s twice%s; the first: %s",
                table.name, f"{len(some)} pictures occur" if len(some) > 1 else "1 picture occurs", where,
                _line(table, some[0]),
            )  # fmt: skip
