"""COCO: one JSON file, or one for each split, with images, annotations and categories.

Polygons and run-length codes become pixels by pycocotools, which is COCO's own tool. The class of an image is
the category whose instances cover most of its pixels, the one with the lowest id of several with as many. Its
mask is the union of that category's instances.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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
    split_in,
)
from sal_fast.data.readers.made import Found
from sal_fast.data.readers.shapes import Draw, Size, class_and_mask, size_of
from sal_fast.errors import InputError

FAR = (
    2**17
)  # pixels from the corner of the image that a point may be away; pycocotools walks along every edge
EXPECTED = "expected COCO's JSON, an object with images, annotations and categories"


class Coco(Reader):
    def looks(self, path: Path) -> Look | None:
        files = _files(path)
        return Look(f"{files[0].name} has images, annotations and categories") if files else None

    def read(self, path: Path, options: Options) -> Reading:
        files = _files(path) or ([path] if path.is_file() else [])
        if not files:
            raise InputError(f"{path}: no COCO file in it or one folder below; {EXPECTED}")
        root = path if path.is_dir() else path.parent
        if root.name == "annotations" and path.is_file():
            root = root.parent  # the images lie beside this folder
        splits = [
            split_in(file.stem) or (split_in(file.parent.name) if file.parent != root else "")
            for file in files
        ]
        if len(files) > 1 and (len(set(splits)) < len(files) or "" in splits):
            raise InputError(
                f"{path}: {', '.join(file.name for file in files)} are all COCO files; expected one, or one "
                f"for each of train, val and test in their names; name the file that is meant"
            )
        reading, pictures = Reading(), Pictures(root)
        for file, split in zip(files, splits, strict=True):
            reading.used.add(file)
            _read(file, split if len(files) > 1 else "", pictures, reading)
        return reading


def _files(path: Path) -> list[Path]:
    """The COCO files in a folder, or one level below; those called instances_* alone if there are any."""
    files = [path] if path.is_file() else some(path, [".json"], 1)
    files = [file for file in files if holds(file, b"{", b'"images"', b'"annotations"', b'"categories"')]
    return [file for file in files if file.name.startswith("instances")] or files


def _read(file: Path, split: str, pictures: Pictures, reading: Reading) -> None:
    data = load_json(file, EXPECTED)
    try:
        names = {int(one["id"]): str(one["name"]) for one in data["categories"]}
        images = {
            one["id"]: (str(one["file_name"]), size_of(int(one["width"]), int(one["height"])))
            for one in data["images"]
        }
        drawings: dict[Any, dict[int, list[Draw]]] = defaultdict(lambda: defaultdict(list))
        for one in data["annotations"]:
            if one["image_id"] not in images or one["category_id"] not in names:
                raise InputError(
                    f"{file}: annotation {one.get('id')} has image_id {one['image_id']!r} and category_id "
                    f"{one['category_id']!r}; expected ids that images and categories have"
                )
            if one.get("segmentation"):
                size = images[one["image_id"]][1]
                drawings[one["image_id"]][one["category_id"]].append(
                    partial(drawn, one["segmentation"], size)
                )
            else:
                reading.leave_out(one.get("id"), f"annotations in {file.name} without a segmentation, by id")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: {type(error).__name__} {error}; {EXPECTED}") from None
    before = len(reading.found)
    for key, (name, _) in images.items():
        image = pictures.find(name, split or split_in(file.stem), file.parent)
        if image is None:
            pictures.missing.append(name)
            continue
        if key not in drawings:
            reading.leave_out(image, f"no instance in {file.name}, so no class")
            continue
        by_id: dict[str, list[Draw]] = defaultdict(list)
        for category in sorted(drawings[key]):
            by_id[names[category]] += drawings[key][category]
        label, mask = class_and_mask(by_id, (), file, f"image {key}")
        reading.found.append(Found(sample_id(image, pictures.root), image, label, mask, split))
    pictures.finish(file, EXPECTED, reading, before)


def drawn(segmentation: Any, size: Size) -> np.ndarray:
    """The pixels of a segmentation, bool [H, W]: polygons [[x, y, x, y, ...], ...] or a run-length code.

    Raises InputError if pycocotools is not installed, and ValueError for a damaged segmentation.
    """
    width, height = size
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(
                f"a code of [height, width] {segmentation.get('size')}, expected {[height, width]}"
            )
        counts = segmentation["counts"]
        return runs(counts if isinstance(counts, list) else _unpacked(counts), (height, width)).T
    for ring in segmentation:
        if len(ring) < 6 or len(ring) % 2 or not np.abs(np.asarray(ring, dtype=float)).max() <= FAR:
            raise ValueError("a polygon with a damaged outline, expected three points or more near the image")
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError('polygons need pycocotools: pip install "sal-fast[formats]"') from None
    code = mask.merge(mask.frPyObjects(segmentation, height, width))
    return runs(_unpacked(code["counts"].decode()), (height, width)).T


def runs(counts: list[int], size: Size) -> np.ndarray:
    """Runs of pixels, outside and inside in turn, row by row: bool [H, W]. ValueError if they do not fit."""
    lengths = np.asarray(counts)
    if len(counts) == 0 or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
        raise ValueError(f"a run-length code of {lengths.sum()} pixels, expected {size[0] * size[1]}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, lengths).reshape(size[1], size[0])


def _unpacked(text: str) -> list[int]:
    """The lengths in a compressed code: each character has 5 bits, the lowest first, and a bit that tells if
    more follow. From the fourth on, a length is the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
