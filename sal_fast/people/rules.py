"""Rules that make a map from a box, or from points, that a person gives: they are cheaper than a brush.

docs/people.md describes each rule, and what its maps are worth.
"""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sal_fast.errors import InputError
from sal_fast.people import suggested

RULES: tuple[str, ...] = ("grabcut", "box", "model", "segmenter")
RULES_OF_POINTS: tuple[str, ...] = ("grabcut", "model", "segmenter")

SIDE = 512  # pixels of the longer side of the copy that GrabCut works on
AROUND = 0.5  # the part of the picture that it sees around a box, in the box's width and height
CERTAIN, LIKELY = 0.02, 0.2  # the radii of a point's two discs, in the longer side of the picture
ROUNDS = 2  # of GrabCut
SEED = 0  # for the clusters of colours that it begins with

Box = tuple[float, float, float, float]
Point = tuple[float, float, bool]


class Segmenter(Protocol):
    """A segmenter that takes a box or points as its prompt (`segmenter.Segmenter`)."""

    def mask(
        self, picture: np.ndarray, box: Box | None = None, points: Sequence[Point] = ()
    ) -> np.ndarray: ...


def available(*, model: bool, segmenter: bool) -> tuple[str, ...]:
    """The rules that can be used here, the default first.

    model: True if there are maps of a model. segmenter: True if there is a segmenter.
    """
    there = {
        "grabcut": importlib.util.find_spec("cv2") is not None,
        "box": True,
        "model": model,
        "segmenter": segmenter,
    }
    return tuple(rule for rule in RULES if there[rule])


def from_box(
    rule: str, picture: np.ndarray, box: Box, small: np.ndarray | None, segmenter: Segmenter | None = None
) -> np.ndarray:
    """Make a map from a box: uint8 [H, W] of 0 and 255.

    A pixel lies in the box if its centre does; its edges belong to it. A box without a pixel gives an empty
    map. Every rule but `segmenter` marks pixels in the box only.

    box: marks the whole box.
    grabcut: marks the foreground in the box that GrabCut (Rother et al., SIGGRAPH 2004) finds. Everything
        outside the box is background. It sees half of the box's width and height on each side, and works on
        a copy whose longer side has at most SIDE pixels. The result is enlarged bilinearly and cut at half.
        If nothing lies outside the box, or no foreground is found in it, the whole box is marked. The same
        picture and box always give the same map.
    model: marks the pixels where the model's map is above half of its highest value in the box. If the map
        is 0 everywhere in the box, the whole box is marked.
    segmenter: marks what the segmenter answers to the box.

    Args:
        rule: one of RULES.
        picture: uint8 [H, W, 3], upright.
        box: x0, y0, x1, y1 in pixels of the picture, two opposite corners.
        small: the model's map, uint8 [h, w] (`suggested.Suggested.maps`); None if there is none.
        segmenter: the segmenter; None if there is none.

    Raises InputError if the rule needs something that is not there, or if the box is no box.
    """
    _check(rule, RULES, [*box])
    height, width = picture.shape[:2]
    box = (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
    left, right = _centres(box[0], box[2], width)
    top, bottom = _centres(box[1], box[3], height)
    if left >= right or top >= bottom:
        return np.zeros((height, width), dtype=np.uint8)
    if rule == "segmenter":
        return _segmenter(segmenter).mask(picture, box=box)
    inside = slice(top, bottom), slice(left, right)
    marked = np.zeros((height, width), dtype=bool)
    if rule == "grabcut":
        marked[inside] = _cut_in_box(picture, (left, top, right, bottom))
    elif rule == "model":
        values = _enlarged(small, (width, height))[inside]
        marked[inside] = values > values.max() / 2
    if not marked.any():
        marked[inside] = True
    return _map(marked)


def from_points(
    rule: str,
    picture: np.ndarray,
    points: Sequence[Point],
    small: np.ndarray | None,
    segmenter: Segmenter | None = None,
) -> np.ndarray:
    """Make a map from points: uint8 [H, W] of 0 and 255. It is empty if no point is inside.

    grabcut: a pixel goes with its nearest point. Within CERTAIN of the longer side of the picture around a
        point, it is certain to be foreground or background. GrabCut decides on all others. At first it takes
        those within LIKELY around inside points for foreground, and the rest for background. Connected parts
        of its foreground without an inside point are left out. Size, enlargement and seed are those of
        `from_box`.
    model: marks the connected parts of the model's map, cut at THRESHOLD of `suggested`, that contain an
        inside point and no outside point. Pixels that touch at a corner are connected.
    segmenter: marks what the segmenter answers to the points.

    Args:
        rule: one of RULES_OF_POINTS.
        picture: uint8 [H, W, 3], upright.
        points: (x, y, inside) each, in pixels of the picture. Points outside the picture count at its edge.
        small: the model's map, uint8 [h, w] (`suggested.Suggested.maps`); None if there is none.
        segmenter: the segmenter; None if there is none.

    Raises InputError if the rule needs something that is not there, or if a point is no point.
    """
    _check(rule, RULES_OF_POINTS, [value for point in points for value in point[:2]])
    height, width = picture.shape[:2]
    points = [(min(max(x, 0), width), min(max(y, 0), height), bool(inside)) for x, y, inside in points]
    if not any(inside for _, _, inside in points):
        return np.zeros((height, width), dtype=np.uint8)
    if rule == "segmenter":
        return _segmenter(segmenter).mask(picture, points=points)
    if rule == "grabcut":
        return _map(_cut_by_points(picture, points))
    marked = _enlarged(small, (width, height)) > suggested.THRESHOLD * 255
    kept = _touched(marked, points, inside=True) & ~_touched(marked, points, inside=False)
    return _map(kept)


# --- GrabCut -------------------------------------------------------------------------------------------


def _cut_in_box(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The foreground in a box of whole pixels (its upper ends are not in it), bool."""
    cv2 = _opencv()
    left, top, right, bottom = box
    wide, high = round((right - left) * AROUND), round((bottom - top) * AROUND)
    x, y = max(left - wide, 0), max(top - high, 0)
    seen = picture[y : bottom + high, x : right + wide]
    in_seen = left - x, top - y, right - x, bottom - y
    copy, scale = _copy(seen)
    known = np.full(copy.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    x0, y0 = (math.floor(value * scale) for value in in_seen[:2])
    x1, y1 = (math.ceil(value * scale) for value in in_seen[2:])
    known[y0:y1, x0:x1] = cv2.GC_PR_FGD
    if known.all():
        return np.ones((bottom - top, right - left), dtype=bool)
    found = _large(_cut(copy, known), seen.shape[:2])
    return found[in_seen[1] : in_seen[3], in_seen[0] : in_seen[2]]


def _cut_by_points(picture: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """The foreground of the parts of a picture that hold inside points, bool [H, W]."""
    cv2 = _opencv()
    copy, scale = _copy(picture)
    rows, columns = np.ogrid[: copy.shape[0], : copy.shape[1]]
    squares = [(columns + 0.5 - x * scale) ** 2 + (rows + 0.5 - y * scale) ** 2 for x, y, _ in points]
    distance, nearest = np.sqrt(np.min(squares, axis=0)), np.argmin(squares, axis=0)
    inside = np.array([point[2] for point in points])[nearest]
    side = max(copy.shape[:2])
    likely = np.where(inside & (distance <= LIKELY * side), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    certain = np.where(inside, cv2.GC_FGD, cv2.GC_BGD)
    known = np.where(distance <= max(CERTAIN * side, 1), certain, likely).astype(np.uint8)
    foreground = (known == cv2.GC_FGD) | (known == cv2.GC_PR_FGD)
    if foreground.all() or not foreground.any():  # the picture is a few pixels, or points coincide
        return np.full(picture.shape[:2], foreground.all())
    found = _cut(copy, known)
    scaled = [(x * scale, y * scale, inside) for x, y, inside in points]
    return _large(_touched(found, scaled, inside=True), picture.shape[:2])


def _cut(copy: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The foreground that GrabCut finds, bool. `known` has OpenCV's numbers, and is changed."""
    cv2 = _opencv()
    cv2.setRNGSeed(SEED)
    colours = np.zeros((2, 1, 65))  # OpenCV keeps its two mixtures of colours here
    cv2.grabCut(copy, known, None, colours[0], colours[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (known == cv2.GC_FGD) | (known == cv2.GC_PR_FGD)


def _copy(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy whose longer side has at most SIDE pixels, and its scale."""
    cv2 = _opencv()
    height, width = picture.shape[:2]
    scale = min(SIDE / max(height, width), 1.0)
    if scale == 1:
        return np.ascontiguousarray(picture), 1.0
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def _large(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask at another size, bool: enlarged bilinearly, and cut at half."""
    if found.shape == shape:
        return found
    cv2 = _opencv()
    small = found.astype(np.uint8) * 255
    return np.asarray(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR) > 127)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise InputError('the rule grabcut needs OpenCV: pip install "sal-fast[label]"') from None
    return cv2


# --- shared --------------------------------------------------------------------------------------------


def _check(rule: str, rules: Sequence[str], numbers: Sequence[float]) -> None:
    if rule not in rules:
        raise InputError(f"the rule {rule!r} cannot be used here; expected one of {', '.join(rules)}")
    if not all(math.isfinite(value) for value in numbers):
        raise InputError("the numbers of a box and of points must be finite")


def _centres(low: float, high: float, size: int) -> tuple[int, int]:
    """The first pixel whose centre lies between two numbers, and the one after the last."""
    return max(math.ceil(low - 0.5), 0), min(math.floor(high - 0.5) + 1, size)


def _segmenter(segmenter: Segmenter | None) -> Segmenter:
    if segmenter is None:
        raise InputError("the rule segmenter needs a checkpoint of Segment Anything; choose another rule")
    return segmenter


def _enlarged(small: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """The model's map at a size (width, height), float32 of 0 to 255."""
    if small is None:
        raise InputError("there is no map of a model for this picture yet; choose another rule")
    return suggested.enlarged(small, size)


def _touched(marked: np.ndarray, points: Sequence[Point], *, inside: bool) -> np.ndarray:
    """The connected parts of a mask that contain one of the points of a kind, bool."""
    from scipy import ndimage

    parts, count = ndimage.label(marked, structure=np.ones((3, 3)))
    height, width = marked.shape
    chosen = np.zeros(count + 1, dtype=bool)
    for x, y, kind in points:
        if kind == inside:
            chosen[parts[min(int(y), height - 1), min(int(x), width - 1)]] = True
    chosen[0] = False  # the background
    return np.asarray(chosen[parts])


def _map(marked: np.ndarray) -> np.ndarray:
    return np.where(marked, np.uint8(255), np.uint8(0))
