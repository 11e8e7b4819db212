"""Graded maps of where people looked, from what an eye tracker wrote down.

A fixation file is text with one line per image and observer: `id,w,h,x1,y1,ms1,x2,y2,ms2,...`. x and y are
pixels of the image of w x h (0 <= x < w, 0 <= y < h; the centre of the top left pixel is 0, 0), and ms is how
long the eye rested there. Several lines with one id are several observers. Empty lines, lines that start with
# and a header `id,w,h,...` are skipped. The map of an id is written to `<out>/<id>.png`.
"""

import csv
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from sal_fast._util.files import whole_file
from sal_fast.data.reading import each
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError

PIXELS = 89_478_485  # the largest image that Pillow opens without a warning
LONGEST = 512
SIGMA = 1 / 25  # the default sigma, a share of the width: near one degree of visual angle on usual screens


@dataclass
class Fixated:
    """The fixations of one image.

    width, height: in pixels.
    observers: each observer's fixations, float64 [k, 3] of x, y, ms.
    outside: how many other fixations lay outside the image.
    """

    width: int
    height: int
    observers: list[np.ndarray] = field(default_factory=list)
    outside: int = 0


class Summary(NamedTuple):
    """How many maps were rendered, of how many observers' lines and fixations inside their images; how many
    fixations lay outside, and how many maps are empty.
    """

    maps: int
    observers: int
    fixations: int
    outside: int
    empty: int


def read(path: Path) -> dict[str, Fixated]:
    """Read every image of a fixation file, by id, in the file's order.

    The file is UTF-8. Empty fields at the end of a line, as spreadsheets leave them, are dropped.

    Raises:
        InputError: it names the file, the line and what was expected there.
    """
    images: dict[str, Fixated] = {}
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    _take(images, line.decode("utf-8-sig"))
                except (ValueError, csv.Error) as error:
                    raise InputError(f"{path}, line {number}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"fixation file not found: {path}") from None
    if not images:
        raise InputError(f"{path}: no fixations; expected lines id,w,h,x1,y1,ms1,x2,y2,ms2,...")
    return images


def _take(images: dict[str, Fixated], line: str) -> None:
    """Add what one line says. Raises ValueError that says what is wrong with it."""
    if line.startswith("#") or not line.strip():
        return
    (row,) = csv.reader([line], strict=True)
    while row and not row[-1].strip():
        row.pop()
    row = [value.strip() for value in row]
    if [name.lower() for name in row[:3]] == ["id", "w", "h"]:
        return
    if len(row) < 3 or len(row) % 3:
        raise ValueError(f"expected id,w,h and three fields a fixation (x, y, ms), got {len(row)} fields")
    name, width, height = row[0], _pixels(row[1]), _pixels(row[2])
    if not names_a_file(name):
        raise ValueError(
            f"id {name!r} cannot be used as a file name: expected parts of at most 250 bytes, "
            f"no '.', '..', '\\' or leading '/'"
        )
    if width * height > PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels; expected at most {PIXELS:,} in all")
    image = images.setdefault(name, Fixated(width, height))
    if (image.width, image.height) != (width, height):
        raise ValueError(
            f"{name!r} is {width}x{height} here and {image.width}x{image.height} on a line before"
        )
    points = np.array([_number(value) for value in row[3:]]).reshape(-1, 3)
    if (points[:, 2] < 0).any():
        raise ValueError(f"a duration of {points[:, 2].min():g} ms; expected 0 or more")
    x, y = points[:, 0], points[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    image.observers.append(points[inside])
    image.outside += int((~inside).sum())


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def _pixels(value: str) -> int:
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError(f"a width or height of {value}; expected a whole number of pixels, at least 1")
    return int(number)


def render(fixated: Fixated, sigma: float | None = None, longest: int | None = None) -> np.ndarray:
    """Render the graded map of one image, uint8 [h, w]: 255 where people looked longest, 0 where nobody did.

    Each observer's map is `sum_k ms_k G(x - x_k, y - y_k)`, divided by its sum over the pixels: all observers
    count the same, however long they looked. G is a Gaussian with a deviation of `sigma` pixels of the image,
    cut off at 4 sigma and at the border. The map is the mean over the observers, scaled to a maximum of 255
    and rounded. An observer without time inside the image is left out; without any observer the map is empty.
    We blur all observers at once: a fixation between pixels is shared out among its four, and the sums are
    known beforehand.

    Args:
        fixated: the image's fixations.
        sigma: in pixels of the image; None: its width / 25. One degree of visual angle is the usual choice
            (Le Meur and Baccino 2013, "Methods for comparing scanpaths and saliency maps"); how many pixels
            that is depends on the screen and the viewing distance.
        longest: the longer side of the map in pixels, if the image is larger; points and sigma are scaled
            with it. None: the image's own size.
    """
    sigma = fixated.width * SIGMA if sigma is None else sigma
    blur = partial(gaussian_filter, mode="constant")
    size = np.array([fixated.height, fixated.width])
    shape = size if longest is None else np.rint(size * min(1, longest / size.max())).clip(1).astype(int)
    scale = shape / size
    # the share of a Gaussian about each row and each column that lies on the map; a point's is the product
    kept = [blur(np.ones(int(n)), sigma * s) for n, s in zip(shape, scale, strict=True)]
    durations = np.zeros(shape)
    for points in fixated.observers:
        if not points[:, 2].any():
            continue
        at = np.clip((points[:, 1::-1] + 0.5) * scale - 0.5, 0, shape - 1)
        weights = points[:, 2] / points[:, 2].max()
        shares = [np.interp(at[:, axis], np.arange(shape[axis]), kept[axis]) for axis in (0, 1)]
        weights = weights / (weights * shares[0] * shares[1]).sum()
        low = np.floor(at).astype(int)
        part, high = at - low, np.minimum(low + 1, shape - 1)
        for rows, in_row in ((low[:, 0], 1 - part[:, 0]), (high[:, 0], part[:, 0])):
            for columns, in_column in ((low[:, 1], 1 - part[:, 1]), (high[:, 1], part[:, 1])):
                np.add.at(durations, (rows, columns), weights * in_row * in_column)
    if not durations.any():
        return np.zeros(shape, dtype=np.uint8)
    graded = blur(durations.astype(np.float32), sigma * scale)
    return np.rint(graded * (255 / graded.max())).astype(np.uint8)


def write(path: Path, out: Path, sigma: float | None = None, longest: int | None = LONGEST) -> Summary:
    """Render every image of a fixation file (see `read`, `render`) to `<out>/<id>.png`, grey, 8 bit.

    A map of that name is replaced. Raises InputError before anything is written.
    """
    images = read(path)
    for fixated in images.values():
        side = max(fixated.width, fixated.height)
        if sigma is not None and not 0 < sigma <= side:
            raise InputError(
                f"sigma {sigma:g}: expected more than 0 and at most the image's longest side, {side} pixels"
            )
    if longest is not None and longest < 1:
        raise InputError(f"longest {longest}: expected at least 1 pixel")

    def one(item: tuple[str, Fixated]) -> bool:
        graded = render(item[1], sigma, longest)
        with whole_file(out / f"{item[0]}.png") as aside:
            Image.fromarray(graded).save(aside, format="PNG")
        return not graded.any()

    empty = sum(each(one, images.items(), f"rendering {path.name}"))
    observers = [points for fixated in images.values() for points in fixated.observers]
    outside = sum(fixated.outside for fixated in images.values())
    return Summary(len(images), len(observers), sum(map(len, observers)), outside, empty)
