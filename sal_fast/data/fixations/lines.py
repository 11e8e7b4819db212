"""Fixation files with one line per image and observer: `id,w,h,x1,y1,ms1,x2,y2,ms2,...`.

x and y are pixels of the image of w x h (0 <= x < w, 0 <= y < h; the centre of the top left pixel is 0, 0),
and ms is how long the eye rested there. Several lines with one id are several observers. Empty lines, lines
that start with # and a header `id,w,h,...` are skipped.
"""

import csv
import math
from pathlib import Path
from typing import Any

import polars as pl

from sal_fast.data.fixations.points import POINTS, check_image
from sal_fast.errors import InputError

FORM = "id,w,h,x1,y1,ms1,x2,y2,ms2,..."


def read(path: Path, data: bytes) -> pl.DataFrame:
    """Read the points of a file's bytes. Empty fields at the end of a line, as spreadsheets leave them, are
    dropped.

    Raises InputError that names the file, the line and what was expected there.
    """
    rows: list[tuple[Any, ...]] = []
    sizes: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            rows += _points(line.decode("utf-8-sig"), number, sizes)
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return pl.DataFrame(rows, schema=POINTS, orient="row")


def _points(line: str, number: int, sizes: dict[str, tuple[int, int]]) -> list[tuple[Any, ...]]:
    """The points of one line. Raises ValueError that says what is wrong with it."""
    if line.startswith("#") or not line.strip():
        return []
    (row,) = csv.reader([line], strict=True)
    while row and not row[-1].strip():
        row.pop()
    row = [value.strip() for value in row]
    if [name.lower() for name in row[:3]] == ["id", "w", "h"]:
        return []
    if len(row) < 3 or len(row) % 3:
        raise ValueError(f"expected id,w,h and three fields a fixation (x, y, ms), got {len(row)} fields")
    name, width, height = row[0], pixels(row[1]), pixels(row[2])
    check_image(name, width, height)
    before = sizes.setdefault(name, (width, height))
    if before != (width, height):
        raise ValueError(f"{name!r} is {width}x{height} here and {before[0]}x{before[1]} on a line before")
    values = [_number(value) for value in row[3:]]
    if any(ms < 0 for ms in values[2::3]):
        raise ValueError(f"a duration of {min(values[2::3]):g} ms; expected 0 or more")
    points: list[tuple[float | None, ...]] = list(zip(values[::3], values[1::3], values[2::3], strict=True))
    points = points or [(None, None, None)]
    return [(name, width, height, f"#{number}", *point) for point in points]


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def pixels(value: str) -> int:
    """A width or height. Raises ValueError for anything but a whole number of pixels."""
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError(f"a width or height of {value}; expected a whole number of pixels, at least 1")
    return int(number)
