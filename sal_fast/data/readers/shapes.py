"""The shapes of annotation files as pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sal_fast.data.files import MOST_PIXELS
from sal_fast.errors import InputError

Size = tuple[int, int]  # width, height
Draw = Callable[[], np.ndarray]  # makes a new bool [H, W]
FAR = 2**17  # pixels that a point may be away from the image's corner; pycocotools walks along every edge


def size_of(width: object, height: object) -> Size:
    """The size that a file states for a picture. Raises ValueError if no picture can have it."""
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise ValueError(f"a picture of {width}x{height} pixels, expected two whole numbers")
    if width * height > MOST_PIXELS:
        raise ValueError(f"a picture of {width}x{height} pixels, at most {MOST_PIXELS:,} are drawn")
    return width, height


def union(drawings: Sequence[Draw]) -> np.ndarray:
    """All pixels that any of the drawings covers, bool [H, W]."""
    united = drawings[0]()
    for draw in drawings[1:]:
        united |= draw()
    return united


def outline(corners: np.ndarray, size: Size) -> np.ndarray:
    """The pixels whose centres lie inside an outline by the even-odd rule, bool [H, W].

    `corners` are (x, y) in pixels from the top left, float64 [k, 2].
    """
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    inside = np.zeros((size[1], size[0]), dtype=bool)
    centres = np.arange(size[0]) + 0.5
    for row in range(size[1]):
        level = row + 0.5
        cut = (y <= level) != (next_y <= level)
        slope = (next_x[cut] - x[cut]) / (next_y[cut] - y[cut])
        crossings = np.sort(x[cut] + (level - y[cut]) * slope)
        inside[row] = np.searchsorted(crossings, centres) % 2 == 1
    return inside


def ellipse(centre: np.ndarray, radii: np.ndarray, degrees: float) -> np.ndarray:
    """The outline of an ellipse, turned clockwise about its centre: (x, y) of 360 corners, float64."""
    turn = np.radians(np.arange(360))
    return turned(np.stack([np.cos(turn), np.sin(turn)], axis=1) * radii, degrees) + centre


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (x, y) turned clockwise, as seen on the screen, about (0, 0)."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def polygons(rings: Sequence[Sequence[float]], size: Size) -> np.ndarray:
    """The pixels of polygons [[x, y, x, y, ...], ...] by pycocotools, bool [H, W].

    Raises InputError if pycocotools is not installed, and ValueError for a damaged polygon.
    """
    for ring in rings:
        if len(ring) < 6 or len(ring) % 2 or not np.abs(np.asarray(ring, dtype=float)).max() <= FAR:
            raise ValueError("a polygon with a damaged outline, expected three points or more near the image")
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError('polygons need pycocotools: pip install "sal-fast[formats]"') from None
    width, height = size
    code = mask.merge(mask.frPyObjects(rings, height, width))
    return rle(counts_of(code["counts"].decode()), (height, width)).T


def rle(counts: Sequence[int] | np.ndarray, size: Size) -> np.ndarray:
    """Run-length code: runs of background and foreground in turn, row by row, as bool [H, W].

    COCO's run from column to column, which is the transposed picture. Raises ValueError if the counts do not
    fit; of too few, pycocotools would make pixels from memory that it never set.
    """
    lengths = np.asarray(counts)
    if len(lengths) == 0 or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
        raise ValueError(f"a run-length code of {lengths.sum()} pixels, expected {size[0] * size[1]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[1], size[0])


def counts_of(text: str) -> np.ndarray:
    """The counts in COCO's compressed RLE, int64. Raises ValueError for a code of more than 30 bits a count.

    Each character has 5 bits of a number, the lowest first, and a bit that tells if more follow. Each count
    after the third is written as the difference to the last but one.
    """
    codes = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if not len(last) or lengths.max() > 6:
        raise ValueError("a damaged run-length code")
    shift = 5 * (np.arange(last[-1] + 1) - np.repeat(first, lengths))
    counts = np.add.reduceat((codes[: last[-1] + 1] & 31) << shift, first)
    counts -= (codes[last] & 16) << (5 * lengths - 4)  # the sign
    for start in (1, 2):
        counts[start::2] = counts[start::2].cumsum()
    return counts
