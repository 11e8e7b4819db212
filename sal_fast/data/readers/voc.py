"""Pascal VOC: JPEGImages, Annotations with one XML file for each image, and perhaps pictures of masks.

The pixels of an object are those in SegmentationObject, where the object at place i of the XML file has the
value i; without that file those in SegmentationClass, where a value stands for a name; without both, its box.
The value 255 (void) is background. Of several names, `annotations` says which is the class.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from sal_fast.data import files
from sal_fast.data.readers.annotations import Annotations, Entry, Marks, Source
from sal_fast.data.readers.base import Look, Reading, is_picture, load_xml, split_of, visible
from sal_fast.data.readers.made import naming
from sal_fast.data.readers.shapes import Draw, Size, size_of
from sal_fast.errors import InputError

BOXES = "images whose boxes are their masks, because SegmentationObject and SegmentationClass have none"
FLAG = re.compile(r"\s+(?:-1|0|1)\s*$")  # whether a class is in an image, behind its name in a list
LABEL_MAP = "labelmap.txt"  # in exports of CVAT: name:r,g,b:parts:actions, a line for each value
NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip  # by their values in SegmentationClass


Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels from 0; the last two are not in it


class Voc(Annotations):
    expected = "expected Pascal VOC's XML, an annotation with a size and objects with a name and a bndbox"

    def looks(self, path: Path) -> Look | None:
        if not (path / "JPEGImages").is_dir() or not (path / "Annotations").is_dir():
            return None
        return Look("it has the folders JPEGImages and Annotations")

    def sources(self, path: Path) -> dict[Path, str]:
        return {path: ""}

    def entries(self, source: Source) -> Iterator[Entry]:
        path, reading = source.path, source.reading
        images = {file.stem: file for file in visible(path / "JPEGImages") if is_picture(file)}
        splits, classes = _splits(path, reading), _label_map(path, reading)
        for file in visible(path / "Annotations"):
            name = file.stem
            if file.suffix.lower() != ".xml":
                continue
            if splits and name not in splits:
                reading.leave_out(file, "not in the lists of ImageSets/Main")
                continue
            reading.used.add(file)
            with naming(file, "the annotation", self.expected):
                objects, size = _objects(file, self.expected)
            drawn_in, part, shapes = _shapes(path, file, objects, size, classes, reading)
            yield Entry(drawn_in, part, name, images.get(name), [Marks(shapes)], splits.get(name, ""), name)


def _splits(path: Path, reading: Reading) -> dict[str, str]:
    """The split of each image in ImageSets/Main; empty if there are no lists."""
    splits: dict[str, str] = {}
    for file in visible(path / "ImageSets" / "Main"):
        split = split_of(file.stem)
        if file.suffix != ".txt" or not split:
            continue
        reading.used.add(file)
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name = FLAG.sub("", line).strip()
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


def _objects(file: Path, expected: str) -> tuple[list[tuple[str, Box]], Size]:
    """The name and the box of each object, and the size of the image."""
    tree = load_xml(file, expected)
    size = size_of(int(tree.findtext("size/width", "")), int(tree.findtext("size/height", "")))
    objects = []
    for one in tree.findall("object"):
        name = one.findtext("name", "").strip()
        sides = [one.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = (round(float(side)) for side in sides)  # from 1, and all are in the box
        if right < left or bottom < top:
            raise ValueError(f"a box from {left}, {top} to {right}, {bottom}")
        if not name:
            raise ValueError("an object without a name")
        objects.append((name, (max(left - 1, 0), max(top - 1, 0), right, bottom)))
    return objects, size


def _shapes(
    path: Path, xml: Path, objects: list[tuple[str, Box]], size: Size, classes: list[str], reading: Reading
) -> tuple[Path, str, dict[str, list[Draw]]]:
    """The file with the objects' pixels, which values these have in words, and the shapes of each name."""
    by_object = path / "SegmentationObject" / f"{xml.stem}.png"
    by_class = path / "SegmentationClass" / f"{xml.stem}.png"
    shapes: dict[str, list[Draw]] = defaultdict(list)
    values: dict[str, list[int]] = defaultdict(list)
    for place, (name, _) in enumerate(objects, start=1):
        values[name].append(place)
    if by_object.is_file():
        reading.used.add(by_class)
    elif by_class.is_file() and values.keys() <= set(classes):
        by_object, values = by_class, {name: [classes.index(name)] for name in values}
    else:
        for name, box in objects:
            shapes[name].append(partial(_box, box, size))
        if objects:
            reading.count(xml, BOXES)
        return xml, "boxes", shapes
    return (
        by_object,
        f"values {dict(values)}",
        {name: [partial(_where, by_object, its)] for name, its in values.items()},
    )


def _where(file: Path, values: list[int]) -> np.ndarray:
    """The pixels that have one of the values, bool [H, W]. Raises ValueError for a picture of colours."""
    pixels = files.grades(files.read(file))
    if pixels.ndim != 2:
        raise ValueError("its pixels are colours, expected a palette or grey values")
    return np.isin(pixels, values)


def _box(box: Box, size: Size) -> np.ndarray:
    left, top, right, bottom = box
    pixels = np.zeros((size[1], size[0]), dtype=bool)
    pixels[top:bottom, left:right] = True
    return pixels
