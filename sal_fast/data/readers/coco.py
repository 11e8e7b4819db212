"""COCO: one JSON file, or one for each split, with images, annotations and categories.

A segmentation is a list of polygons, which become pixels by pycocotools, COCO's own tool, or RLE. Of the
categories of an image, `annotations` says which is its class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sal_fast.data.readers.annotations import Annotations, Entry, Marks, Source
from sal_fast.data.readers.base import load_json, split_in
from sal_fast.data.readers.made import naming
from sal_fast.data.readers.shapes import Draw, Size, counts_of, polygons, rle, size_of
from sal_fast.errors import InputError


class Coco(Annotations):
    levels = 1
    marks = b"{", b'"images"', b'"annotations"', b'"categories"'
    why = "has images, annotations and categories"
    expected = "expected COCO's JSON, an object with images, annotations and categories"

    def files(self, path: Path) -> list[Path]:
        """Those called instances_* alone, if there are any; captions and key points lie beside them."""
        files = super().files(path)
        return [file for file in files if file.name.startswith("instances")] or files

    def sources(self, path: Path) -> dict[Path, str]:
        files = self.files(path)
        if len(files) < 2:
            return super().sources(path)
        splits = {file: split_in(file.stem) or split_in(file.parent.name) for file in files}
        if "" in splits.values() or len(set(splits.values())) < len(files):
            raise InputError(
                f"{path}: {', '.join(file.name for file in files)} are all COCO files; expected one, or one "
                f"for each of train, val and test in their names; name the file that is meant"
            )
        return splits

    def entries(self, source: Source) -> Iterator[Entry]:
        file, data = source.path, load_json(source.path, self.expected)
        names = {one["id"]: str(one["name"]) for one in data["categories"]}
        of_image: dict[Any, list[tuple[str, Any]]] = {one["id"]: [] for one in data["images"]}
        for one in data["annotations"]:
            image, category = one["image_id"], one["category_id"]
            if image not in of_image or category not in names:
                raise InputError(
                    f"{file}: annotation {one.get('id')} has image_id {image!r} and category_id "
                    f"{category!r}; expected ids that images and categories have"
                )
            if one.get("segmentation"):
                of_image[image].append((names[category], one["segmentation"]))
            else:
                reason = f"annotations in {file.name} without a segmentation, by id"
                source.reading.leave_out(one.get("id"), reason)
        for one in data["images"]:
            with naming(file, f"image {one['id']}", self.expected):
                size = size_of(int(one["width"]), int(one["height"]))
                shapes: dict[str, list[Draw]] = defaultdict(list)
                for label, segmentation in of_image[one["id"]]:
                    shapes[label].append(partial(drawn, segmentation, size))
                name, split = str(one["file_name"]), source.split or split_in(file.stem)
                image = source.pictures.find(name, split, file.parent)
                marks, part = [Marks(shapes)], f"image {one['id']}"
                yield Entry(file, part, name, image, marks, source.split, fields=one)


def drawn(segmentation: Any, size: Size) -> np.ndarray:
    """The pixels of a segmentation, bool [H, W]. Raises ValueError for a damaged one."""
    if not isinstance(segmentation, dict):
        return polygons(segmentation, size)
    width, height = size
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"RLE of [height, width] {segmentation['size']}, expected {[height, width]}")
    counts = segmentation["counts"]
    return rle(counts_of(counts) if isinstance(counts, str) else counts, (height, width)).T
