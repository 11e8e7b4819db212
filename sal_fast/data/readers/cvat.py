"""CVAT for images 1.1: one XML file with the shapes and tags of each image.

Polygons and boxes become pixels by pycocotools, as in CVAT's own exports of masks; of an ellipse the pixels
count whose centres lie inside. A tag names the image as a whole: see `annotations` for its class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

import numpy as np

from sal_fast.data.readers.annotations import Annotations, Entry, Marks, Source
from sal_fast.data.readers.base import load_xml, split_of
from sal_fast.data.readers.made import naming
from sal_fast.data.readers.shapes import Draw, Size, ellipse, outline, polygons, rle, size_of, turned
from sal_fast.errors import InputError

KINDS = ("polygon", "box", "ellipse", "mask")


class Cvat(Annotations):
    suffix = ".xml"
    marks = b"<", b"<annotations>", b"<image "
    why = "is XML with annotations and images"
    expected = "expected CVAT's export 'CVAT for images 1.1'"

    def entries(self, source: Source) -> Iterator[Entry]:
        file, tree = source.path, load_xml(source.path, self.expected)
        if tree.find("track") is not None:
            raise InputError(f"{file}: an export of a video, with tracks; {self.expected}")
        for image in tree.findall("image"):
            part = f"image {image.get('name')!r}"
            with naming(file, part, self.expected):
                name, split = image.attrib["name"], split_of(image.get("subset", ""))
                size = size_of(int(image.attrib["width"]), int(image.attrib["height"]))
                shapes: dict[str, list[Draw]] = defaultdict(list)
                for shape in image:
                    if shape.tag in KINDS:
                        draw = partial(drawn, shape.tag, dict(shape.attrib), size)
                        shapes[shape.attrib["label"]].append(draw)
                    elif shape.tag != "tag":
                        reason = f"shapes of the type {shape.tag}, which covers no pixels, in an image"
                        source.reading.leave_out(name, reason)
                tags = [tag.attrib["label"] for tag in image.findall("tag")]
                found = source.pictures.find(name, split, file.parent / "images")
                yield Entry(file, part, name, found, [Marks(shapes, tags)], split)


def drawn(kind: str, shape: dict[str, str], size: Size) -> np.ndarray:
    """The pixels of a shape, bool [H, W]. Raises KeyError or ValueError for a damaged shape."""

    def numbers(*names: str) -> np.ndarray:
        return np.array([float(shape[name]) for name in names])

    degrees = float(shape.get("rotation", 0))
    if kind == "polygon":
        return polygons(
            [[float(one) for pair in shape["points"].split(";") for one in pair.split(",")]], size
        )
    if kind == "box":
        (left, top), (right, bottom) = first, last = numbers("xtl", "ytl"), numbers("xbr", "ybr")
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        centre = (first + last) / 2
        return polygons([(turned(corners - centre, degrees) + centre).ravel().tolist()], size)
    if kind == "ellipse":
        return outline(ellipse(numbers("cx", "cy"), numbers("rx", "ry"), degrees), size)
    left, top, width, height = map(int, numbers("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(
            f"a mask of {width}x{height} at {left}, {top} leaves the image of {size[0]}x{size[1]}"
        )
    pixels = np.zeros((size[1], size[0]), dtype=bool)
    counts = [int(count) for count in shape["rle"].split(",")]
    pixels[top : top + height, left : left + width] = rle(counts, (width, height))
    return pixels
