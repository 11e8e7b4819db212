"""Shapes become pixels, and several labelled shapes of one image become its class and its mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sal_fast.data.files import MOST_PIXELS
from sal_fast.data.readers.made import Picture, naming
from sal_fast.errors import InputError

Size = tuple[int, int]  # width, height
Draw = Callable[[], np.ndarray]  # gives bool [H, W]


def size_of(width: object, height: object) -> Size:
    """The size that a file states for a picture. Raises ValueError if no picture can have it."""
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise ValueError(f"a picture of {width}x{height} pixels, expected two whole numbers")
    if width * height > MOST_PIXELS:
        raise ValueError(f"a picture of {width}x{height} pixels, at most {MOST_PIXELS:,} are drawn")
    return width, height


def union(drawings: Sequence[Draw]) -> np.ndarray:
    """All pixels that any of the drawings covers, bool [H, W]."""
    united = drawings[0]().copy()
    for draw in drawings[1:]:
        united |= draw()
    return united


def class_and_mask(
    drawings: Mapping[str, Sequence[Draw]], named: Sequence[str], source: Path, part: str
) -> tuple[str, Picture | None]:
    """The class and the mask of one image.

    If the image as a whole has one name (a flag, tag or choice), that is its class. Else its class is the
    label whose shapes cover most pixels, and the first label of several with as many. The mask is the union
    of the class's shapes, or of all shapes if none has the class's name.

    Args:
        drawings: the shapes of each label; the label "" stands for shapes without one.
        named: the names of the image as a whole.
        source: the file that holds the shapes.
        part: the image's name in that file.

    Raises:
        InputError: the image as a whole has several names.
    """
    if len(set(named)) > 1:
        raise InputError(
            f"{source}: {part} has several classes, {' and '.join(sorted(set(named)))}; expected one"
        )
    labels = {label: shapes for label, shapes in drawings.items() if label}
    if named:
        label = named[0]
    elif len(labels) > 1:
        with naming(source, part):
            label = max(labels, key=lambda one: int(union(labels[one]).sum()))
    else:
        label = next(iter(labels), "")
    shapes = drawings.get(label) or [shape for one in drawings.values() for shape in one]
    if not shapes:
        return label, None
    return label, Picture(source, f"{part} {label}", lambda: union(shapes))


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
