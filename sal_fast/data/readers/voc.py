"""Pascal VOC: JPEGImages, Annotations with one XML file for each image, and perhaps pictures of masks.

The class of an image is the name whose objects' boxes have the largest area together, the first in the
alphabet of several with as much. Its mask is the union of that class's objects: in SegmentationObject, where
the object at place i of the XML file has the value i; without that file, in SegmentationClass, where a value
stands for a name; without both, the boxes. The value 255 (void) is background.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sal_fast.data import files
from sal_fast.data.readers.base import (
    Look,
    Options,
    Reader,
    Reading,
    is_picture,
    load_xml,
    split_of,
    visible,
)
from sal_fast.data.readers.made import Found, Picture, naming
from sal_fast.data.readers.shapes import Size, size_of
from sal_fast.errors import InputError

SEVERAL = "images with objects of several names, whose class is the one whose boxes have the largest area"
EXPECTED = "expected Pascal VOC's XML, an annotation with objects that have a name and a bndbox"
LABEL_MAP = "labelmap.txt"  # in exports of CVAT: name:r,g,b:parts:actions, a line for each value
NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip  # by their values in SegmentationClass


class Object(NamedTuple):
    """box: left, top, right, bottom in pixels, counted from 0; the last two are not in it."""

    name: str
    box: tuple[int, int, int, int]

    @property
    def area(self) -> int:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class Voc(Reader):
    def looks(self, path: Path) -> Look | None:
        if not (path / "JPEGImages").is_dir() or not (path / "Annotations").is_dir():
            return None
        return Look("it has the folders JPEGImages and Annotations")

    def read(self, path: Path, options: Options) -> Reading:
        reading = Reading()
        images = {file.stem: file for file in visible(path / "JPEGImages") if is_picture(file)}
        splits, names = _splits(path, reading), _label_map(path, reading)
        for file in visible(path / "Annotations"):
            image = images.get(file.stem)
            if file.suffix.lower() != ".xml":
                continue
            if image is None:
                reading.leave_out(file, "its image is not in JPEGImages")
            elif splits and file.stem not in splits:
                reading.leave_out(file, "not in the lists of ImageSets/Main")
            else:
                reading.used.add(file)
                with naming(file, "the annotation", f"{EXPECTED}, and a size"):
                    objects, size = _objects(file)
                if not objects:
                    reading.leave_out(image, "no object, so no class")
                    continue
                areas = Counter[str]()
                for one in sorted(objects):
                    areas[one.name] += one.area
                label = areas.most_common(1)[0][0]
                if len(areas) > 1:
                    reading.count(image, SEVERAL)
                mask = _mask(path, file, objects, label, names, reading, size)
                reading.found.append(Found(file.stem, image, label, mask, splits.get(file.stem, "")))
        if not reading.found:
            raise InputError(f"{path}: no image in JPEGImages has an object in Annotations; {EXPECTED}")
        reading.draw_splits_if_only_train()
        return reading


def _splits(path: Path, reading: Reading) -> dict[str, str]:
    """The split of each image in ImageSets/Main; empty if there are no lists."""
    splits: dict[str, str] = {}
    for file in visible(path / "ImageSets" / "Main"):
        split = split_of(file.stem)
        if file.suffix != ".txt" or not split:
            continue
        reading.used.add(file)
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name = line.split()[0] if line.strip() else ""
            if name and splits.setdefault(name, split) != split:
                raise InputError(f"{file}: {name!r} is in the list of {splits[name]} too; expected it in one")
    return splits


def _label_map(path: Path, reading: Reading) -> list[str]:
    file = path / LABEL_MAP
    if not file.is_file():
        return NAMES
    reading.used.add(file)
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split(":")[0] for line in lines if line.strip() and not line.startswith("#")]


def _objects(file: Path) -> tuple[list[Object], Size]:
    tree = load_xml(file, EXPECTED)
    size = size_of(int(tree.findtext("size/width", "")), int(tree.findtext("size/height", "")))
    objects = []
    for one in tree.findall("object"):
        name = (one.findtext("name") or "").strip()
        sides = (one.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax"))
        left, top, right, bottom = (
            round(float(side)) for side in sides
        )  # counted from 1, all of them inside
        if right < left or bottom < top:
            raise ValueError(f"a box from {left}, {top} to {right}, {bottom}")
        if not name:
            raise ValueError("an object without a name")
        objects.append(Object(name, (max(left - 1, 0), max(top - 1, 0), right, bottom)))
    return objects, size


def _mask(
    path: Path, file: Path, objects: list[Object], label: str, names: list[str], reading: Reading, size: Size
) -> Picture:
    own = [place for place, one in enumerate(objects, start=1) if one.name == label]
    by_object = path / "SegmentationObject" / f"{file.stem}.png"
    by_class = path / "SegmentationClass" / f"{file.stem}.png"
    if by_object.is_file():
        reading.used.add(by_class)
        return Picture(by_object, f"objects {own}", partial(_where, by_object, own))
    if by_class.is_file() and label in names:
        value = names.index(label)
        return Picture(by_class, f"class {value}", partial(_where, by_class, [value]))
    reading.count(
        file, "images whose boxes are their masks, because SegmentationObject and SegmentationClass have none"
    )
    boxes = [objects[place - 1].box for place in own]
    return Picture(file, f"boxes {boxes} of {size}", partial(_boxes, boxes, size))


def _where(file: Path, values: list[int]) -> np.ndarray:
    """The pixels that have one of the values, bool [H, W]. Raises ValueError for a picture of colours."""
    pixels = files.grades(files.read(file))
    if pixels.ndim != 2:
        raise ValueError("its pixels are colours, expected a palette or grey values")
    return np.isin(pixels, values)


def _boxes(boxes: list[tuple[int, int, int, int]], size: Size) -> np.ndarray:
    pixels = np.zeros((size[1], size[0]), dtype=bool)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = True
    return pixels
