"""How a file tells where and how long people looked: its columns, coordinates, screen and unit of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sal_fast._util.suggest import suggest
from sal_fast.errors import InputError

Unit = Literal["s", "ms", "us"]
Coordinates = Literal["pixels", "shares"]
FIELDS = ("image", "x", "y", "duration", "observer", "width", "height")
IN_MS: Mapping[Unit, float] = {"s": 1000.0, "ms": 1.0, "us": 0.001}
SHORTEST, LONGEST = 40.0, 5000.0  # ms, between which the median fixation of a file lies


@dataclass(frozen=True)
class Setting:
    """The user's statements about a fixation file. A default means that the file tells it.

    columns: the name of the column for some of `FIELDS`; "" says that there is none.
    images: the folder of the images, whose names and sizes are taken from there.
    coordinates: whether x and y are pixels, or shares 0..1 of the width and height.
    screen: (width, height) in pixels of the screen on which images were shown in the middle. Coordinates then
        belong to the screen.
    offset: (x, y) of the image's top left corner on the screen, if it was not shown in the middle.
    scale: pixels of the screen for each pixel of the image; "fit" is the largest at which the whole image
        fits on the screen.
    unit: the unit of durations.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    coordinates: Coordinates | None = None
    screen: tuple[int, int] | None = None
    offset: tuple[float, float] | None = None
    scale: float | Literal["fit"] = 1.0
    unit: Unit | None = None

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in FIELDS:
                raise InputError(
                    f"--columns {name}={self.columns[name]}: unknown name{suggest(name, FIELDS)}"
                )
        if self.scale != "fit" and not 0 < self.scale < np.inf:
            raise InputError(f"--scale {self.scale}: expected a positive number, or fit")
        if self.scale == "fit" and self.screen is None:
            raise InputError("--scale fit: the size of the screen is needed; give --screen WIDTHxHEIGHT")
        if self.scale != 1.0 and self.screen is None and self.offset is None:
            raise InputError("--scale goes with --screen or --offset; give one of them")

    @property
    def on_screen(self) -> bool:
        """True if coordinates belong to a screen, and not to the image."""
        return self.screen is not None or self.offset is not None


def told_coordinates(path: Path, frame: pl.DataFrame, setting: Setting) -> Coordinates:
    """Whether x and y are pixels or shares: as the user says, else as all values of the file say.

    Raises InputError if they do not say it.
    """
    if setting.coordinates is not None:
        return setting.coordinates
    points = frame.select("x", "y").drop_nulls().to_numpy()
    if not len(points):
        return "pixels"
    share = ((points >= 0) & (points <= 1)).all(axis=1).mean()
    if share >= 0.9 and np.abs(points).max() <= 2 and (points != np.rint(points)).any():
        return "shares"
    if share <= 0.1:
        return "pixels"
    raise InputError(
        f"{path}: {share:.0%} of the fixations lie in 0..1, from which we cannot tell whether they are "
        f"shares of the width and height or pixels; say it with --coordinates shares or --coordinates pixels"
    )


def told_unit(path: Path, durations: pl.Series, named: Unit | None, setting: Setting) -> Unit:
    """The unit of durations: as the user says, else by their median over the whole file.

    Raises InputError if the median fits no unit, or another than the column's name says.
    """
    if setting.unit is not None:
        return setting.unit
    median = durations.filter(durations > 0).median()
    if not isinstance(median, float):
        raise InputError(f"{path}: every duration is 0; leave them out with --columns duration=")
    fits = [unit for unit, ms in IN_MS.items() if SHORTEST <= median * ms <= LONGEST]
    if not fits or (named is not None and named not in fits):
        said = "" if named is None else f", and the column's name says {named}"
        raise InputError(
            f"{path}: the median duration is {median:g}{said}, which is no usual fixation ({SHORTEST:g} to "
            f"{LONGEST:g} ms); say the unit with --unit s, ms or us"
        )
    return fits[0]


def placed(path: Path, frame: pl.DataFrame, coordinates: Coordinates, setting: Setting) -> pl.DataFrame:
    """Bring x and y to pixels of the image, whose top left pixel has its centre at 0, 0.

    A point outside the image becomes -1, -1, unless the file has pixels of the image itself.
    """
    if coordinates == "pixels" and not setting.on_screen:
        return frame
    if coordinates == "shares" and setting.offset is not None and setting.screen is None:
        raise InputError(
            f"{path}: shares of a screen need its size; give --screen WIDTHxHEIGHT beside --offset"
        )
    size = frame.select("width", "height").to_numpy().astype(float)
    points = frame.select("x", "y").to_numpy().astype(float)
    whole = size if setting.screen is None else np.array(setting.screen, dtype=float)
    at = points * whole if coordinates == "shares" else points + 0.5  # from the edge, not a pixel's centre
    if setting.on_screen:
        scale = (whole / size).min(axis=1, keepdims=True) if setting.scale == "fit" else setting.scale
        left = (whole - size * scale) / 2 if setting.offset is None else np.array(setting.offset)
        if setting.offset is None and (left < -0.5).any():
            row = int((left < -0.5).any(axis=1).argmax())
            raise InputError(
                f"{path}: {frame['id'][row]!r} is {size[row, 0]:g}x{size[row, 1]:g}, which does not fit on "
                f"the screen of {whole[0]:g}x{whole[1]:g}; give --scale fit, or its scale there"
            )
        at = (at - left) / scale
    inside = ((at >= 0) & (at <= size)).all(axis=1, keepdims=True)
    at = np.where(inside, np.clip(at - 0.5, 0, size - 1), -1)
    known = ~np.isnan(points).any(axis=1)
    return frame.with_columns(
        pl.Series(name, at[:, axis]).set(pl.Series(~known), None) for axis, name in enumerate("xy")
    )
