"""The maps that people are asked about again, at the limits of each rule."""

from __future__ import annotations

import numpy as np
import pytest

from sal_fast.people.odd_maps import asked_back


def marked(count: int) -> np.ndarray:
    """A map of 20 x 20 with so many pixels marked, row by row from the top."""
    mask = np.zeros(400, dtype=np.uint8)
    mask[:count] = 255
    return mask.reshape(20, 20)


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    """A map of an object."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[rows, columns] = 255
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (marked(0), "empty"),
        (marked(1), None),
        (marked(379), None),  # 94.75 %
        (marked(380), "full"),  # 95 %
        (marked(400), "full"),
        (np.full((1, 1), 255, np.uint8), "full"),
        (np.zeros((1, 1), np.uint8), "empty"),
        (np.full((9, 9), 3, np.uint8), "full"),  # one grey everywhere
    ],
)
def test_empty_and_full(mask: np.ndarray, expected: str | None) -> None:
    assert asked_back(mask) == expected


@pytest.mark.parametrize(
    "rows_and_columns",
    [
        (slice(5, 25), slice(8, 30)),  # in the middle
        (slice(3, 27), slice(3, 37)),  # large, so that the background is the smaller part
        (slice(8, 30), slice(12, 28)),  # it reaches the lower border
        (slice(2, 20), slice(5, 28)),  # left of the middle, but it covers most of that
    ],
)
def test_an_object_and_its_inverse(rows_and_columns: tuple[slice, slice]) -> None:
    mask = box(30, 40, *rows_and_columns)
    assert asked_back(mask) is None
    assert asked_back(255 - mask) == "inverted"


@pytest.mark.parametrize(
    "mask",
    [
        255 - box(30, 40, slice(0, 20), slice(15, 25)),  # an arch: its middle is half marked
        box(30, 40, slice(4, 30), slice(0, 40)),  # a large object that reaches three sides
        255 - box(30, 40, slice(0, 8), slice(0, 40)),
        255 - box(30, 40, slice(0, 1), slice(0, 1)) - box(30, 40, slice(5, 25), slice(8, 30)),  # a corner
        255 - box(30, 40, slice(0, 30), slice(2, 38)),  # two pillars at the sides
        box(30, 40, slice(0, 6), slice(0, 40)),  # the sky
    ],
    ids=["arch", "three sides", "ground", "three corners", "pillars", "sky"],
)
def test_what_is_not_inverted(mask: np.ndarray) -> None:
    assert asked_back(mask) is None


def test_the_border_and_the_middle_at_their_limits() -> None:
    """40 x 40 has 156 pixels of border, of which 117 are three quarters, and 400 in its middle."""
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[:, [0, -1]] = mask[[0, -1]] = 255
    mask[0, 1:39] = 0
    assert mask.astype(bool).sum() == 118
    mask[39, 20] = 0
    assert asked_back(mask) == "inverted"  # 117
    mask[39, 21] = 0
    assert asked_back(mask) is None
    mask[39, 21] = 255
    mask[10:20, 10:30] = 255
    mask[10, 10] = 0
    assert asked_back(mask) == "inverted"  # 199
    mask[10, 10] = 255
    assert asked_back(mask) is None


def test_degrees_count_from_half_of_the_largest() -> None:
    """A faint, smooth map is judged by its shape; its values alone make it neither full nor empty."""
    y, x = np.mgrid[:30, :40]
    bump = np.exp(-((y - 15) ** 2 + (x - 20) ** 2) / 80)
    for top in (255, 90, 3):
        smooth = np.rint(bump * top).astype(np.uint8)
        assert asked_back(smooth) is None
        assert asked_back(top - smooth) == "inverted"
