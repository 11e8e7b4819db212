"""CVAT for images 1.1: one XML file with the shapes and tags of each image.

Polygons and boxes become pixels by pycocotools, as in CVAT's own exports of masks; of an ellipse the pixels
count whose centres lie inside. The class of an image is its one tag, else the label whose shapes cover most
pixels, the first in the alphabet of several with as many.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sal_fast.data.readers import coco
from sal_fast.data.readers.base import (
    Look,
    Options,
    Pictures,
    Reader,
    Reading,
    holds,
    sample_id,
    some,
    split_of,
)
from sal_fast.data.readers.made import Found
from sal_fast.data.readers.shapes import Draw, Size, class_and_mask, ellipse, outline, size_of, turned
from sal_fast.errors import InputError

EXPECTED = "expected CVAT's export 'CVAT for images 1.1'"
KINDS = ("polygon", "box", "ellipse", "mask")


class Cvat(Reader):
    def looks(self, path: Path) -> Look | None:
        files = _files(path)
        return Look(f"{files[0].name} is XML with annotations and images") if files else None

    def read(self, path: Path, options: Options) -> Reading:
        files = _files(path) or ([path] if path.is_file() else [])
        if len(files) != 1:
            raise InputError(
                f"{path}: {len(files)} such files in it, expected one; {EXPECTED}, or name one file"
            )
        file, root = files[0], path if path.is_dir() else path.parent
        reading, pictures = Reading(), Pictures(root)
        reading.used.add(file)
        tree = parse(file, EXPECTED)
        if tree.find("track") is not None:
            raise InputError(f"{file}: an export of a video, with tracks; {EXPECTED}")
        for image in tree.findall("image"):
            try:
                row = _sample(file, image, pictures, reading)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{file}: image {image.get('name')!r}: {type(error).__name__} {error}; {EXPECTED}"
                ) from None
            if row is not None:
                reading.found.append(row)
        pictures.finish(file, EXPECTED, reading)
        reading.draw_splits_if_only_train()
        return reading


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else some(path, [".xml"], 0)
    return [file for file in files if holds(file, b"<", b"<annotations>", b"<image ")]


def parse(file: Path, expected: str) -> ElementTree.Element:
    """The root of an XML file. Raises InputError that says where it is damaged, and what was expected."""
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise InputError(f"file not found: {file}") from None
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{file}: not XML ({error}); {expected}") from None


def _sample(file: Path, image: ElementTree.Element, pictures: Pictures, reading: Reading) -> Found | None:
    """The sample of an image; None if its file is missing, or it has no class."""
    name, split = image.attrib["name"], split_of(image.get("subset", ""))
    path = pictures.find(name, split, file.parent / "images")
    if path is None:
        pictures.missing.append(name)
        return None
    size = size_of(int(image.attrib["width"]), int(image.attrib["height"]))
    drawings: dict[str, list[Draw]] = defaultdict(list)
    for shape in image:
        if shape.tag in KINDS:
            drawings[shape.attrib["label"]].append(partial(drawn, shape.tag, dict(shape.attrib), size))
        elif shape.tag != "tag":
            reading.leave_out(name, f"shapes of the type {shape.tag}, which covers no pixels, in an image")
    tags = [tag.attrib["label"] for tag in image.findall("tag")]
    label, mask = class_and_mask(dict(sorted(drawings.items())), tags, file, f"image {name!r}")
    if not label:
        reading.leave_out(path, "no shape and no tag, so no class")
        return None
    return Found(sample_id(path, pictures.root), path, label, mask, split)


def drawn(kind: str, shape: dict[str, str], size: Size) -> np.ndarray:
    """The pixels of a shape, bool [H, W]. Raises KeyError or ValueError for a damaged shape."""

    def numbers(*names: str) -> np.ndarray:
        return np.array([float(shape[name]) for name in names])

    degrees = float(shape.get("rotation", 0))
    if kind == "polygon":
        points = np.array([[float(one) for one in pair.split(",")] for pair in shape["points"].split(";")])
        return coco.drawn([points.ravel().tolist()], size)
    if kind == "box":
        (left, top), (right, bottom) = first, last = numbers("xtl", "ytl"), numbers("xbr", "ybr")
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        centre = (first + last) / 2
        return coco.drawn([(turned(corners - centre, degrees) + centre).ravel().tolist()], size)
    if kind == "ellipse":
        return outline(ellipse(numbers("cx", "cy"), numbers("rx", "ry"), degrees), size)
    left, top, width, height = (int(float(shape[name])) for name in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(
            f"a mask of {width}x{height} at {left}, {top} leaves the image of {size[0]}x{size[1]}"
        )
    pixels = np.zeros((size[1], size[0]), dtype=bool)
    counts = [int(count) for count in shape["rle"].split(",")]
    pixels[top : top + height, left : left + width] = coco.runs(counts, (width, height))
    return pixels
