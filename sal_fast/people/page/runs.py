"""Masks as lengths of runs, in which the page sends and gets them.

The lengths alternate between background and foreground, row by row over the whole picture, beginning with
background (whose first run may be empty). They add up to its pixels.
"""

from collections.abc import Sequence

import numpy as np

from sal_fast.errors import InputError


def encode(mask: np.ndarray) -> list[int]:
    """The runs of a mask, [H, W], whose foreground is everything above half of 255."""
    flat = np.asarray(mask).ravel() > 127
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def decode(runs: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask of a picture of `size` (width, height), uint8 [H, W] of 0 or 255.

    Raises InputError if the runs do not fill the picture exactly.
    """
    pixels = size[0] * size[1]
    whole = isinstance(runs, list) and all(type(length) is int and length >= 0 for length in runs)
    if not whole or sum(runs) != pixels:
        raise InputError(
            f"the map does not fill its picture, {size[0]}x{size[1]} pixels; load the page again"
        )
    values = np.zeros(len(runs), dtype=np.uint8)
    values[1::2] = 255
    return np.repeat(values, runs).reshape(size[1], size[0])
