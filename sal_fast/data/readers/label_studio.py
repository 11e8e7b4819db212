"""Label Studio's JSON export, of any project with a brush, polygons, rectangles, ellipses or choices.

Of a shape the pixels count whose centres lie inside; a brush's pixels count if they are more than half as
opaque as its most opaque one. Choices name the image as a whole: see `annotations` for its class. If several
people annotated an image, its class is the one that most of them give, and its map is the mean of the masks
of those who give it.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers import brush_code
from sal_fast.data.readers.annotations import Annotations, Entry, Marks, Source
from sal_fast.data.readers.base import Options, holds, load_json
from sal_fast.data.readers.made import Picture, naming
from sal_fast.data.readers.shapes import Draw, Size, ellipse, outline, size_of, turned
from sal_fast.errors import InputError

EXPECTED = "expected Label Studio's export in the format JSON (not JSON-MIN, CSV, COCO or another)"
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files
KINDS = ("brush", "rectangle", "ellipse", "polygon")


class LabelStudio(Annotations):
    marks = b"[", b'"annotations"', b'"data"'
    why = "is a list of tasks with data and annotations"
    expected = EXPECTED

    def entries(self, source: Source) -> Iterator[Entry]:
        file, pictures = source.path, source.pictures
        for nth, task in enumerate(tasks(file), start=1):
            part = f"task {identity(task, nth)}"
            with naming(file, part, EXPECTED):
                value = _image(f"{file}, {part}", task["data"], source.options)
                annotations = map(as_object, task["annotations"])
                marks = [_marks(one) for one in annotations if one.get("was_cancelled") is not True]
                if value.startswith("data:"):
                    image = Picture(file, part, partial(base64.b64decode, value.partition(",")[2]))
                    name = str(task["data"].get("id") or part.replace(" ", "-"))
                    yield Entry(file, part, part, image, marks, id=name, fields=task["data"])
                    continue
                path = PurePosixPath(_path(value))
                found = pictures.find(str(path)) or pictures.find(UPLOADED.sub("", path.name))
                yield Entry(file, part, value, found, marks, fields=task["data"])


def _marks(annotation: dict[str, Any]) -> Marks:
    """What one annotation says.

    A result of the type labels or choices with the id of a region is about that region, not the image.
    """
    regions = [as_object(region) for region in as_array(annotation.get("result"))]
    drawings = drawn_regions(regions)
    own: dict[object, list[Any]] = {region["id"]: [] for _, region in drawings if "id" in region}
    chosen: list[str] = []
    for region in regions:
        value = as_object(region.get("value"))
        said = as_array(value.get("labels")) + as_array(value.get("choices"))
        if region.get("id") in own:
            own[region["id"]] += said
        elif region.get("type") == "choices":
            chosen += map(str, said)
    shapes: dict[str, list[Draw]] = defaultdict(list)
    for kind, region in drawings:
        size = size_of(region.get("original_width"), region.get("original_height"))
        labels = as_array(as_object(region.get("value")).get(f"{kind}labels")) or own.get(region.get("id"))
        for label in labels or [""]:
            shapes[str(label)].append(partial(drawn, kind, region, size))
    return Marks(shapes, chosen)


def _image(place: str, data: dict[str, Any], options: Options) -> str:
    """The value of a task's data that names its picture."""
    key = options.columns.get("image")
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    named = [value for name, value in texts.items() if (name == key if key else _is_picture(value))]
    if len(named) != 1:
        raise InputError(
            f"{place}: {len(named)} of its data ({', '.join(data)}) name a picture, "
            f"expected one; say which with --columns image=NAME"
        )
    return named[0]


def _is_picture(value: str) -> bool:
    return value.startswith("data:image") or PurePosixPath(_path(value)).suffix.lower() in SUFFIXES


def _path(value: str) -> str:
    """The path in a URL; that of a local file is in its query, `?d=`."""
    parts = urlsplit(value)
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0]


# --- what people's answers to a query read in the same way --------------------------------------------------


def tasks(file: Path) -> list[dict[str, Any]]:
    """The tasks of an export. Raises InputError for a file that is none."""
    if holds(file, b"P"):  # PK, as no JSON begins
        raise InputError(f"{file.name}: a ZIP archive; {EXPECTED}")
    found = load_json(file, EXPECTED)
    if not isinstance(found, list) or not all(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations"), list)
        for task in found
    ):
        raise InputError(f"{file.name}: other JSON; {EXPECTED}")
    return found


def drawn_regions(regions: Iterable[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The regions that cover pixels, each with its kind. Raises ValueError for a kind that cannot be read."""
    shapes = [(str(region.get("type")).removesuffix("labels"), region) for region in regions]
    foreign = [region["type"] for kind, region in shapes if kind in ("keypoint", "vector", "bitmask")]
    if foreign:
        raise ValueError(f"a region of type {foreign[0]!r} cannot be read; draw with the brush")
    return [(kind, region) for kind, region in shapes if kind in KINDS]


def drawn(kind: str, region: dict[str, Any], size: Size) -> np.ndarray:
    """The pixels of a region, bool [H, W]. ValueError if it is damaged, or of a picture of another size."""
    drawn_on = (region.get("original_width"), region.get("original_height"))
    if drawn_on != size:
        raise ValueError(
            f"a map for {drawn_on[0]}x{drawn_on[1]} pixels, the image has {size[0]}x{size[1]}; "
            f"label the pictures as they were exported"
        )
    if region.get("image_rotation"):
        raise ValueError("the picture was turned in Label Studio; turn it back and draw the map again")
    value = as_object(region.get("value"))
    if kind != "brush":
        return outline(_corners(kind, value, size), size)
    alpha = brush_code.decode(value.get("rle"), size)
    return alpha > alpha.max() // 2  # a brush's edge is soft, and the brush may be translucent


def _corners(kind: str, value: Mapping[str, Any], size: Size) -> np.ndarray:
    """The corners (x, y) of a shape in pixels from the top left, float64 [k, 2]. An ellipse has 360."""

    def pixels(*items: object) -> np.ndarray:
        place = f"a {kind} with a place or size in percent"
        return np.array([number(item, -1000, 1000, place) for item in items]) * size / 100

    if kind == "polygon":
        pairs = [as_array(point) for point in as_array(value.get("points"))]
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
            raise ValueError("a polygon with a damaged outline, expected three points or more; draw it again")
        return np.array([pixels(*pair) for pair in pairs])
    origin = pixels(value.get("x"), value.get("y"))
    degrees = number(value.get("rotation", 0), -1000, 1000, f"a {kind} with a rotation")  # about (x, y)
    if kind == "ellipse":
        return ellipse(origin, pixels(value.get("radiusX"), value.get("radiusY")), degrees)
    extent = pixels(value.get("width"), value.get("height"))
    return turned(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * extent, degrees) + origin


def identity(item: Mapping[str, Any], place: int) -> int:
    """The number that Label Studio gave a task or annotation, or else its place in the list."""
    return item["id"] if type(item.get("id")) is int else place


def as_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_array(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def number(value: object, low: float, high: float, what: str) -> float:
    """A number in bounds. Raises ValueError for anything else; `what` says what it is."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{what} of {value!r}, expected {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]
