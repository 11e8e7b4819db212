"""Add fixation files to a folder of maps, and make the maps of all points that are kept there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from PIL import Image

from sal_fast._util.files import whole_file
from sal_fast._util.locks import locked
from sal_fast.data.fixations import lines, points, rows
from sal_fast.data.fixations.maps import render
from sal_fast.data.fixations.points import Fixated
from sal_fast.data.fixations.setting import IN_MS, Setting, placed
from sal_fast.data.reading import each
from sal_fast.errors import InputError

LONGEST = 512

log = logging.getLogger(__name__)


class Summary(NamedTuple):
    """How many maps were rendered, of how many observers of an image and fixations inside their images; how
    many fixations lay outside, and how many maps are empty.
    """

    maps: int
    observers: int
    fixations: int
    outside: int
    empty: int


def read(path: Path, setting: Setting | None = None) -> dict[str, Fixated]:
    """Read every image of a fixation file, by id, in the file's order.

    Raises:
        InputError: it names the file, the line and what was expected there, or the option that says what the
            file does not tell.
    """
    return points.by_image(_points(path, setting or Setting()))


def _points(path: Path, setting: Setting) -> pl.DataFrame:
    """The points of one file, in pixels of the images."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"fixation file not found: {path}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # as some eye trackers export them
        data = data.decode("utf-16", errors="replace").encode()
    if setting.columns or rows.has_header(data):
        frame = rows.read(path, data, setting)
    else:
        frame = placed(path, lines.read(path, data), setting.coordinates or "pixels", setting)
        frame = frame.with_columns(pl.col("ms") * IN_MS[setting.unit or "ms"])
    if not len(frame):
        raise InputError(
            f"{path}: no fixations; expected lines {lines.FORM}, or a header and one fixation a row"
        )
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    unnamed = pl.col("observer").str.starts_with("#")
    return frame.with_columns(
        pl.when(unnamed).then("#" + pl.lit(digest) + pl.col("observer")).otherwise(pl.col("observer")),
        source=pl.lit(digest),
        path=pl.lit(str(path.absolute())),
    ).select(list(points.SCHEMA))


def _check_outside(path: Path, frame: pl.DataFrame, setting: Setting) -> None:
    """Refuse a file most of whose points lie outside their images, unless the user has told what they are."""
    told = setting.coordinates is not None or setting.on_screen
    seen = frame.filter(pl.col("x").is_not_null())
    inside = pl.col("x").is_between(0, pl.col("width"), closed="left")
    inside &= pl.col("y").is_between(0, pl.col("height"), closed="left")
    outside = len(seen.filter(~inside))
    if outside > len(seen) / 2 and not told:
        raise InputError(
            f"{path}: {outside} of {len(seen)} fixations lie outside their images; if they are in pixels of "
            f"a screen, give --screen WIDTHxHEIGHT (and --offset or --scale); else give --coordinates pixels"
        )


def write(
    files: Sequence[Path],
    out: Path,
    sigma: float | None = None,
    longest: int | None = LONGEST,
    setting: Setting | None = None,
) -> Summary:
    """Add fixation files to those that `out` has, and render every image (see `render`).

    The map of an image is `<out>/<id>.png`, grey, 8 bit; one of that name is replaced. The points are kept in
    `<out>/.fixations.parquet`. A file that was added before, by its path or its bytes, is read again and not
    counted twice. Without files the maps are made again from the points that are kept. An observer with a
    name is one observer in all files.

    Raises InputError before anything is written.
    """
    setting = setting or Setting()
    if setting.images is None and (out.absolute().parent / "images").is_dir():
        setting = Setting(**{**vars(setting), "images": out.absolute().parent / "images"})
    new = [_points(path, setting) for path in files]
    for path, frame in zip(files, new, strict=True):
        _check_outside(path, frame, setting)
    if not files and not (out / points.KEPT).exists():
        raise InputError(f"{out}: no fixations are kept in it; name a fixation file")
    _images(points.nothing(), new, sigma, longest)  # it raises before the folder is made
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".fixations.lock"):
        frame, images = _images(points.kept(out), new, sigma, longest)
        points.keep(frame, out)

        def one(item: tuple[str, Fixated]) -> bool:
            graded = render(item[1], sigma, longest)
            with whole_file(out / f"{item[0]}.png") as aside:
                Image.fromarray(graded).save(aside, format="PNG")
            return not graded.any()

        empty = sum(each(one, images.items(), "rendering fixations"))
    observers = [own for fixated in images.values() for own in fixated.observers]
    outside = sum(fixated.outside for fixated in images.values())
    return Summary(len(images), len(observers), sum(map(len, observers)), outside, empty)


def _images(
    before: pl.DataFrame, new: Sequence[pl.DataFrame], sigma: float | None, longest: int | None
) -> tuple[pl.DataFrame, dict[str, Fixated]]:
    """All points, and the images that they are of. Raises InputError for what cannot be rendered."""
    for frame in new:
        before = points.added(before, frame)
    images = points.by_image(before)
    for fixated in images.values():
        side = max(fixated.width, fixated.height)
        if sigma is not None and not 0 < sigma <= side:
            raise InputError(
                f"sigma {sigma:g}: expected more than 0 and at most the image's longest side, {side} pixels"
            )
    if longest is not None and longest < 1:
        raise InputError(f"longest {longest}: expected at least 1 pixel")
    return before, images
