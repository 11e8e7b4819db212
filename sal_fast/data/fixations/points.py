"""The points of fixation files, one fixation in each row, and the file in which they are kept.

id        the image
width     of the image, in pixels
height    of the image, in pixels
observer  who looked; observers without a name have one that begins with # and is the file's and line's own
x, y      in pixels of the image; null for an observer who looked nowhere
ms        how long; null if the file does not tell
source    the digest of the file
path      where the file was
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from sal_fast._util.files import whole_file
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError

KEPT = ".fixations.parquet"
PIXELS = 89_478_485  # the largest image that Pillow opens without a warning
POINTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String, "width": pl.Int64, "height": pl.Int64, "observer": pl.String,
    "x": pl.Float64, "y": pl.Float64, "ms": pl.Float64,
}  # fmt: skip
SCHEMA = {**POINTS, "source": pl.String, "path": pl.String}


@dataclass
class Fixated:
    """The fixations of one image.

    width, height: in pixels.
    observers: each observer's fixations, float64 [k, 3] of x, y, ms. ms is 1 if no duration is known.
    outside: how many other fixations lay outside the image.
    """

    width: int
    height: int
    observers: list[np.ndarray] = field(default_factory=list)
    outside: int = 0


def nothing() -> pl.DataFrame:
    """No points."""
    return pl.DataFrame(schema=SCHEMA)


def kept(out: Path) -> pl.DataFrame:
    """The points that are kept in a folder of maps; none if there is no such file."""
    path = out / KEPT
    if not path.exists():
        return nothing()
    try:
        return pl.read_parquet(path, glob=False).select(list(SCHEMA)).cast(SCHEMA)  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); remove it, and give all fixation files "
            f"again"
        ) from None


def keep(frame: pl.DataFrame, out: Path) -> None:
    """Write the points of a folder of maps, whole or not at all."""
    with whole_file(out / KEPT) as aside:
        frame.write_parquet(aside)


def added(before: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Points with those of one more file. What was read before of the same bytes or path is replaced."""
    if not len(new):
        return before
    again = pl.col("source").is_in(new["source"].unique().to_list())
    again |= pl.col("path").is_in(new["path"].unique().to_list())
    return pl.concat([before.filter(~again), new])


def by_image(frame: pl.DataFrame) -> dict[str, Fixated]:
    """The fixations of every image, by id, in the order in which they come first.

    Raises InputError if two files tell of different sizes of an image, or of durations and of none for one
    observer of an image.
    """
    images: dict[str, Fixated] = {}
    for (name,), rows in frame.group_by("id", maintain_order=True):
        sizes = rows.select("width", "height", "path").unique(["width", "height"], maintain_order=True).rows()
        if len(sizes) > 1:
            told = " and ".join(f"{width}x{height} in {path}" for width, height, path in sizes[:2])
            raise InputError(f"image {name!r} is {told}; correct one of the files")
        image = images[str(name)] = Fixated(*sizes[0][:2])
        for (observer,), own in rows.group_by("observer", maintain_order=True):
            points = own.filter(pl.col("x").is_not_null())
            if points["ms"].is_null().n_unique() > 1:
                raise InputError(
                    f"image {name!r}: some fixations of observer {observer!r} have a duration and others "
                    f"have none, in {' and '.join(points['path'].unique(maintain_order=True))}; "
                    f"give all or none"
                )
            values = points.select("x", "y", pl.col("ms").fill_null(1.0)).to_numpy()
            inside = ((values[:, :2] >= 0) & (values[:, :2] < (image.width, image.height))).all(axis=1)
            image.observers.append(values[inside])
            image.outside += int((~inside).sum())
    return images


def check_image(name: str, width: int, height: int) -> None:
    """Raise ValueError for an id that cannot name a map, and for an image that is too large."""
    if not names_a_file(name):
        raise ValueError(
            f"id {name!r} cannot be used as a file name: expected parts of at most 250 bytes, "
            f"no '.', '..', '\\' or leading '/'"
        )
    if width * height > PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels; expected at most {PIXELS:,} in all")
