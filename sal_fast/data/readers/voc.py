"""Pascal VOC: JPEGImages, Annotations with one XML file for each image, and perhaps pictures of masks.

The class of an image is the name whose objects' boxes have the largest area together, the first in the
alphabet of several with as much. Its mask is the union of that class's objects: in SegmentationObject, where
the object at place i of the XML file has the value i; without that file, in SegmentationClass, where a value
stands for a name; without both, the boxes. The value 255 (void) is background.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sal_fast.data import files
from sal_fast.data.readers.base import Look, Options, Reader, Reading, is_picture, split_of, visible
from sal_fast.data.readers.cvat import parse
from sal_fast.data.readers.made import Found, Picture
from sal_fast.data.readers.shapes import Size, size_of
from sal_fast.errors import InputError

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


class Voc(Reader):
    def looks(self, path: Path) -> Look | None:
        if not (path / "JPEGImages").is_dir() or not (path / "Annotations").is_dir():
            return None
        return Look("it has the folders JPEGImages and Annotations")

    def read(self, path: Path, options: Options) -> Reading:
        reading = Reading()
        images = {file.stem: file for file in visible(path / "JPEGImages") if is_picture(file)}
        splits = _splits(path, reading)
        maps = _label_map(path, reading)
        for file in visible(path / "Annotations"):
            if file.suffix.lower() != ".xml":
                continue
            image = images.get(file.stem)
            if image is None or (splits and file.stem not in splits):
                why = (
                    "its image is not in JPEGImages"
                    if image is None
                    else "not in the lists of ImageSets/Main"
                )
                reading.leave_out(file, why)
                continue
            objects, size = _objects(file)
            reading.used.add(file)
            if not objects:
                reading.leave_out(image, "no object, so no class")
                continue
            label = _largest(objects)
            mask = _mask(path, file, objects, label, maps, reading, size)
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
    tree = parse(file, EXPECTED)
    try:
        size = size_of(int(tree.findtext("size/width", "")), int(tree.findtext("size/height", "")))
        objects = []
        for one in tree.findall("object"):
            left, top, right, bottom = (
                round(float(one.findtext(f"bndbox/{side}", ""))) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if right < left or bottom < top:
                raise ValueError(f"a box from {left}, {top} to {right}, {bottom}")
            objects.append(
                Object(
                    (one.findtext("name") or "").strip(), (max(left - 1, 0), max(top - 1, 0), right, bottom)
                )
            )
        if not all(one.name for one in objects):
            raise ValueError("an object without a name")
    except ValueError as error:
        raise InputError(f"{file}: {error}; {EXPECTED}, and a size") from None
    return objects, size


def _largest(objects: list[Object]) -> str:
    areas: dict[str, int] = {}
    for name, (left, top, right, bottom) in sorted(objects):
        areas[name] = areas.get(name, 0) + (right - left) * (bottom - top)
    return max(areas, key=lambda name: areas[name])


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
