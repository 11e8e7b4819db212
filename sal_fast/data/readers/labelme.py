"""LabelMe: one JSON file for each image, with shapes and flags.

Shapes become pixels by Pillow's ImageDraw, as in LabelMe's own tool. The class of an image is its one flag
that is true, else the label whose shapes cover most pixels, the first in the alphabet of several with as
many.
"""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.base import (
    Look,
    Options,
    Pictures,
    Reader,
    Reading,
    holds,
    load_json,
    sample_id,
    some,
    split_of,
    walk,
)
from sal_fast.data.readers.made import Found, Picture
from sal_fast.data.readers.shapes import Draw, Size, class_and_mask, size_of
from sal_fast.errors import InputError

EXPECTED = "expected LabelMe's JSON, an object with shapes and imagePath"
LEAST = {
    "polygon": 3,
    "oriented_rectangle": 4,
    "rectangle": 2,
    "circle": 2,
    "mask": 2,
}  # points of the shapes that cover pixels


class LabelMe(Reader):
    def looks(self, path: Path) -> Look | None:
        if path.is_dir():
            found = next((file for file in some(path, [".json"], 2) if _is_one(file)), None)
            return Look(f"{found.name} has shapes and an imagePath") if found else None
        return Look("it has shapes and an imagePath") if _is_one(path) else None

    def read(self, path: Path, options: Options) -> Reading:
        root = path if path.is_dir() else path.parent
        reading, pictures = Reading(), Pictures(root)
        sources = [file for file in walk(path) if file.suffix.lower() == ".json"] if path.is_dir() else [path]
        for file in sources:
            data = load_json(file, EXPECTED)
            if path.is_dir() and not (isinstance(data, dict) and "shapes" in data and "imagePath" in data):
                reading.leave_out(file, "JSON without shapes and imagePath")
                continue
            try:
                row = _sample(file, data, pictures, reading)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{file}: {type(error).__name__} {error}; {EXPECTED}") from None
            reading.used.add(file)
            if row is not None:
                reading.found.append(row)
        if not reading.found:
            raise InputError(
                f"{path}: no image with a class; {EXPECTED} for each image, with shapes or a flag"
            )
        reading.draw_splits_if_only_train()
        return reading


def _is_one(path: Path) -> bool:
    return holds(path, b"{", b'"shapes"', b'"imagePath"')


def _sample(file: Path, data: dict[str, Any], pictures: Pictures, reading: Reading) -> Found | None:
    there = pictures.find(str(data["imagePath"]), beside=file.parent)
    alike = (file.with_suffix(suffix) for suffix in sorted(SUFFIXES))
    there = there or next((path for path in alike if path.is_file()), None)
    name = sample_id(there or file, pictures.root)
    if there is None and not data.get("imageData"):
        reading.leave_out(file, "the image that it names is not there")
        return None
    image = there or Picture(file, "imageData", partial(base64.b64decode, data["imageData"]))
    size = size_of(data.get("imageWidth"), data.get("imageHeight"))
    drawings: dict[str, list[Draw]] = defaultdict(list)
    for shape in data["shapes"]:
        kind = shape.get("shape_type") or "polygon"
        if kind in LEAST:
            drawings[str(shape["label"])].append(partial(drawn, shape, kind, size))
        else:
            reading.leave_out(file, f"shapes of the type {kind}, which covers no pixels, in a file")
    flags = [str(flag) for flag, true in (data.get("flags") or {}).items() if true]
    label, mask = class_and_mask(dict(sorted(drawings.items())), flags, file, "the image")
    if not label:
        reading.leave_out(there or file, "no shape and no flag, so no class")
        return None
    split = next((split_of(part) for part in reversed(Path(name).parts[:-1]) if split_of(part)), "")
    return Found(name, image, label, mask, split)


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
