"""LabelMe: one JSON file for each image, with shapes and flags.

Shapes become pixels by Pillow's ImageDraw, as in LabelMe's own tool. A flag that is true names the image as a
whole: see `annotations` for its class.
"""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.annotations import Annotations, Entry, Marks, Source
from sal_fast.data.readers.base import load_json, split_of, walk
from sal_fast.data.readers.made import Picture, naming
from sal_fast.data.readers.shapes import Draw, Size, size_of

# the least points of the shapes that cover pixels
LEAST = {"polygon": 3, "oriented_rectangle": 4, "rectangle": 2, "circle": 2, "mask": 2}


class LabelMe(Annotations):
    levels = 2
    marks = b"{", b'"shapes"', b'"imagePath"'
    why = "has shapes and an imagePath"
    expected = "expected LabelMe's JSON, an object with shapes and imagePath, for each image"

    def sources(self, path: Path) -> dict[Path, str]:
        return {path: ""}

    def entries(self, source: Source) -> Iterator[Entry]:
        there = walk(source.path) if source.path.is_dir() else [source.path]
        for file in there:
            if file.suffix.lower() != ".json" and file != source.path:
                continue
            data = load_json(file, self.expected)
            if file != source.path and not (
                isinstance(data, dict) and {"shapes", "imagePath"} <= data.keys()
            ):
                source.reading.leave_out(file, "JSON without shapes and imagePath")
                continue
            source.reading.used.add(file)
            with naming(file, "the annotation", self.expected):
                yield _entry(file, data, source)


def _entry(file: Path, data: dict[str, Any], source: Source) -> Entry:
    size = size_of(data.get("imageWidth"), data.get("imageHeight"))
    shapes: dict[str, list[Draw]] = defaultdict(list)
    for shape in data["shapes"]:
        kind = shape.get("shape_type") or "polygon"
        if kind in LEAST:
            shapes[str(shape["label"])].append(partial(drawn, shape, kind, size))
        else:
            source.reading.leave_out(file, f"shapes of the type {kind}, which covers no pixels, in a file")
    flags = [str(flag) for flag, true in (data.get("flags") or {}).items() if true]
    alike = (file.with_suffix(suffix) for suffix in sorted(SUFFIXES))
    image: Path | Picture | None = source.pictures.find(str(data["imagePath"]), beside=file.parent)
    image = image or next((path for path in alike if path.is_file()), None)
    if image is None and data.get("imageData"):
        image = Picture(file, "imageData", partial(base64.b64decode, data["imageData"]))
    place = image if isinstance(image, Path) else file
    folders = reversed(place.parent.relative_to(source.pictures.root).parts)
    split = next((split_of(one) for one in folders if split_of(one)), "")
    marks, name = [Marks(shapes, flags)], str(data["imagePath"])
    return Entry(file, "the annotation", name, image, marks, split, fields=data)


def drawn(shape: dict[str, Any], kind: str, size: Size) -> np.ndarray:
    """The pixels of a shape, bool [H, W]. Raises ValueError for a damaged shape."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if len(points) < LEAST[kind] or not np.isfinite(points).all():
        raise ValueError(f"a {kind} of {len(points)} points, expected {LEAST[kind]} or more")
    canvas = Image.new("L", size)
    pen = ImageDraw.Draw(canvas)
    if kind in ("polygon", "oriented_rectangle"):
        pen.polygon(points, fill=1, outline=1)
    elif kind == "circle":  # its centre, and a point on its edge
        (x, y), radius = points[0], math.dist(*points[:2])
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    else:
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(*points[:2], strict=True))
        if kind == "rectangle":
            pen.rectangle([left, top, right, bottom], fill=1, outline=1)
        else:  # a picture whose first pixel lies at the first corner
            marked = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) != 0
            canvas.paste(Image.fromarray(marked.view(np.uint8)), (int(left), int(top)))
    return np.array(canvas, dtype=bool)
