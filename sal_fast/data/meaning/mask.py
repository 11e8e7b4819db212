"""One mask file: the map that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from sal_fast.data import files
from sal_fast.data.files import Encoded, Unreadable
from sal_fast.data.meaning import colours
from sal_fast.data.meaning.rule import Rule
from sal_fast.data.meaning.seen import MOST_VALUES, Seen

ASPECT_TOLERANCE = 0.02
REGION = 256  # pixels for each value of a label map, on average
PLAIN = Rule()
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # as `files.TURNS`, for arrays
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


class MisSized(Unreadable):
    """A mask that cannot be its image's, because its aspect ratio is another."""


class Map(NamedTuple):
    """The map of a mask file in its frame, uint8 [F, F], and what was seen in the file."""

    pixels: np.ndarray
    seen: Seen


class _Grades(NamedTuple):
    """The grades of a file, at its own size: bool, or any numbers, and what is known of them."""

    numbers: np.ndarray
    ignored: float = 0.0
    marks: tuple[str, ...] = ()


def read(
    file: Encoded, pixels: np.ndarray, size: int | None, image: Encoded | None = None, rule: Rule = PLAIN
) -> Map:
    """Make the map of a mask file.

    A binary map has 0 and 255 and is resized by nearest neighbours; a graded one has 0..255 and is resized by
    area average. Without a rule a file is binary if it has no value but 0 and one other, whichever that is,
    or if it is a JPEG for which this is nearly so. A map of one grey is 255 everywhere; `joined` decides what
    becomes of it.

    Args:
        file: the mask file.
        pixels: its pixels as they are stored, but upright (`files.grades`).
        size: the frame, pixels a side; None keeps the file's own size.
        image: the image that it belongs to, if that is known.
        rule: what the user or the data set says about mask files.

    Raises:
        MisSized: the aspect ratio differs from the image's by more than 2 %.
        Unreadable: nobody can tell what the colours mean, or numbers are out of range.
    """
    turn, marks = _turn(file, image)
    with files.naming(file.path):
        if rule.own is not None:
            own = rule.own(turn(pixels))
            void = np.ma.getmaskarray(own)
            found = _Grades(np.ma.getdata(own) & ~void, float(void.mean()))
        else:
            found = _grades(file, pixels, rule)
            found = found._replace(numbers=turn(found.numbers))
            if rule.foreground and (file.plain or len(_counted(pixels)[0]) > MOST_VALUES):
                marks = (*marks, "many")
        return _framed(file, found._replace(marks=marks + found.marks), size)


def joined(maps: Sequence[Map], united: bool) -> np.ndarray:
    """The map of one image, uint8 [F, F], of one mask file or several (at least one).

    Instances are `united`: a pixel counts as it does in the map where it counts most. Of several annotators
    the mean is taken, which is graded. A map that says the same of every place becomes 0 everywhere, because
    it is no evidence.
    """
    every = np.stack([one.pixels for one in maps])
    pixels = every.max(axis=0) if united else np.rint(every.mean(axis=0)).astype(np.uint8)
    return np.zeros_like(pixels) if (pixels == pixels[0, 0]).all() else pixels


def compared(maps: Sequence[Map]) -> list[Seen]:
    """What was seen in the maps of several annotators of one image.

    Each is marked `overlapping` if at least two mark one pixel, else `apart`, as maps of several objects are.
    """
    drawn = [one.pixels > 0 for one in maps if one.seen.useful]
    if len(drawn) < 2 or len({one.shape for one in drawn}) > 1:
        return [one.seen for one in maps]
    mark = "overlapping" if np.sum(drawn, axis=0).max() > 1 else "apart"
    return [replace(one.seen, marks=(*one.seen.marks, mark)) for one in maps]


def nearest(binary: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Resize bool [H, W] by nearest neighbours to `size` (width, height), if given; uint8 of 0 and 255."""
    grades = binary.view(np.uint8) * np.uint8(255)
    if size is None:
        return grades
    return np.asarray(Image.fromarray(grades).resize(size, Image.Resampling.NEAREST))


def _turn(file: Encoded, image: Encoded | None) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...]]:
    """How the mask is turned to fit its upright image. Raises MisSized if it fits in no way.

    Tools that ignore EXIF draw masks on the stored pixels of a turned photograph. Where the aspect ratio
    tells, such a mask is turned as its image is. Where it does not, as for a picture that stands on its head,
    the mask is marked.
    """
    if image is None:
        return TURNS[1], ()
    turned = image.turned != 1 and file.turned == 1
    if _off(file.size, image.size) <= ASPECT_TOLERANCE:
        stored = image.size[::-1] if image.turned >= 5 else image.size
        same = _off(file.size, stored) <= ASPECT_TOLERANCE
        return TURNS[1], ("undecidable",) if turned and same else ()
    if turned and image.turned >= 5 and _off(file.size, image.size[::-1]) <= ASPECT_TOLERANCE:
        return TURNS[image.turned], ("turned",)
    raise MisSized(
        file.path,
        f"the mask is {file.size[0]}x{file.size[1]}, its image {image.size[0]}x{image.size[1]}: the aspect "
        f"ratios differ by {_off(file.size, image.size):.0%} (at most 2 %)",
    )


def _off(size: tuple[int, int], other: tuple[int, int]) -> float:
    return abs((size[0] / size[1]) / (other[0] / other[1]) - 1)


def _grades(file: Encoded, pixels: np.ndarray, rule: Rule) -> _Grades:
    """What the pixels say, before it is known whether they are degrees: bool, or numbers."""
    if pixels.ndim == 2 and file.mode not in ("P", "PA", "LA", "La"):
        return _valued(_on_its_scale(file, pixels, rule), rule, ())
    rgba = files.rgba(file)
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    visible = rgb[alpha > 0]
    if alpha.min() < alpha.max() and (visible == visible[0]).all():
        return _valued(alpha, rule, ("alpha",))  # the colours say nothing
    if alpha.min() < alpha.max():
        rgb = np.rint(rgb * (alpha[..., None] / 255)).astype(np.uint8)  # on black
    if rule.colours:
        return _Grades(colours.are(rgb, rule.colours))
    if bool((rgb == rgb[..., :1]).all()):
        return _valued(rgb[..., 0], rule, ())
    if file.mode in ("P", "PA") and alpha.min() == alpha.max():
        return _valued(pixels, rule, ("palette",))
    return _valued(colours.of_one_hue(rgb, file), rule, ())


def _on_its_scale(file: Encoded, pixels: np.ndarray, rule: Rule) -> np.ndarray:
    """Check that numbers of more than 8 bits lie in their range. Two values need none, as in a label map."""
    if file.depth != "8 bits" and not rule.foreground:
        low, high = float(pixels.min()), float(pixels.max())
        if not bool(((pixels == 0) | (pixels == high)).all() and np.isfinite(high)):
            files.check_range(file, low, high)
    return pixels


def _valued(numbers: np.ndarray, rule: Rule, marks: tuple[str, ...]) -> _Grades:
    """Apply the rule's values: those that are foreground, and those that are neither."""
    void = np.isin(numbers, rule.ignore) if rule.ignore else np.zeros((), dtype=bool)
    ignored = float(void.mean())
    if ignored:
        numbers = np.where(void, 0, numbers)
    if rule.foreground:  # 0 may be foreground, and void has become 0
        numbers = np.isin(numbers, rule.foreground) & ~void
    return _Grades(numbers, ignored, marks)


def _framed(file: Encoded, found: _Grades, size: int | None) -> Map:
    """Bring the grades to the frame, and note what they are."""
    numbers, frame = found.numbers, None if size is None else (size, size)
    values = () if numbers.dtype == bool else _few_values(numbers)
    peak = 0.0 if file.depth == "8 bits" else float(numbers.max())
    binary = numbers if numbers.dtype == bool else None
    if binary is None and values and len(values) <= 2 and (len(values) == 1 or values[0] == 0):
        binary = numbers != 0
    graded = np.zeros(0)
    if binary is None:
        white = files.white(file)
        graded = numbers if white == 255 else numbers * (255 / white)
        if file.plain and _nearly_binary(graded):
            binary, values = graded > graded.max() / 2, ()
    marks = found.marks
    if binary is not None:
        kind = "empty" if not binary.any() else "full" if binary.all() else "binary"
        share, border = float(np.count_nonzero(binary) / binary.size), _border(binary)
        made = nearest(binary, frame)
    else:
        kind, share, border = "graded", float(graded.mean()) / 255, _border(graded) / 255
        made = _by_area(graded, frame)
    return Map(made, Seen(kind, values, share, border, found.ignored, file.depth, peak, marks))


def _by_area(graded: np.ndarray, frame: tuple[int, int] | None) -> np.ndarray:
    """Resize grades by area average, if a size is given; uint8."""
    if frame is None:
        return np.rint(graded).astype(np.uint8)
    area = Image.fromarray(graded.astype(np.float32)).resize(frame, Image.Resampling.BOX)
    return np.clip(np.rint(np.asarray(area)), 0, 255).astype(np.uint8)


def _few_values(numbers: np.ndarray) -> tuple[float, ...]:
    """The distinct values in order, or none if there are too many for the regions of a label map.

    Soft edges of a mask of black and white have few values as well. But they are thin, and have no more
    pixels of one value than the outline of the picture has.
    """
    top = numbers.max()
    zeros, tops = np.count_nonzero(numbers == 0), np.count_nonzero(numbers == top)
    if zeros + tops == numbers.size and zeros:  # counting is far quicker than to sort all values
        return (0.0, float(top))
    values, counts = _counted(numbers)
    if len(values) > 2:
        soft = values[0] == 0 and values[-1] > 127
        most = (counts[1:-1] if soft else counts).max()
        thin = most < 2 * sum(numbers.shape) and not (soft and _has_area(numbers))
        if len(values) > min(MOST_VALUES, numbers.size // REGION) or thin:
            return ()
    return tuple(map(float, values))


def _has_area(numbers: np.ndarray) -> bool:
    """True if 3 x 3 pixels somewhere have one value, and that is neither 0 nor the largest."""
    rows = (numbers[1:-1] == numbers[:-2]) & (numbers[1:-1] == numbers[2:])
    middle = numbers[1:-1, 1:-1]
    same = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    same &= (middle == numbers[1:-1, :-2]) & (middle == numbers[1:-1, 2:])
    return bool((same & (middle != 0) & (middle != numbers.max())).any())


def _counted(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values in order, and how often each occurs."""
    if numbers.dtype != np.uint8:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _border(grades: np.ndarray) -> float:
    """The mean along the border of the picture."""
    edges = (grades[0], grades[-1], grades[1:-1, 0], grades[1:-1, -1])
    return float(np.concatenate(edges).mean())


def _nearly_binary(graded: np.ndarray) -> bool:
    """True if a JPEG was a binary mask: four in five of its pixels that are not dark are near the top.

    Compression only rings along the edges of a mask; of a Gaussian, one pixel in twenty is near the top.
    """
    top = float(graded.max())
    bright = graded > top / 16
    return bool((graded[bright] > top * 7 / 8).mean() > 0.8)
