"""CUB-200-2011: 11,788 photographs of birds, 200 species, each with a segmentation.

    CUB_200_2011/images.txt               <image number> <class>/<name>.jpg
                 image_class_labels.txt   <image number> <class number>
                 classes.txt              <class number> <class>
                 train_test_split.txt     <image number> <1 training, 0 test>
                 images/<class>/<name>.jpg
    segmentations/<class>/<name>.png      beside CUB_200_2011, or in it

Masks are grey, several annotators' outlines laid over each other: more than half of white is foreground.
Test is the official one; of each class's official training images 20 % are val.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sal_fast import seeds
from sal_fast.data import splits, table
from sal_fast.data.catalog import entry
from sal_fast.data.table import Table
from sal_fast.errors import InputError

KEY = "cub200"
LAYOUT = (
    "CUB_200_2011/ with images.txt, image_class_labels.txt, classes.txt, train_test_split.txt and "
    "images/<class>/<name>.jpg; segmentations/<class>/<name>.png beside it or in it"
)
VAL_SHARE = 0.2


def foreground(pixels: np.ndarray) -> np.ndarray:
    return entry.grey(pixels) > 127


def read(root: Path) -> Table:
    base = entry.require(root, "images.txt", LAYOUT).parent
    beside = [folder / "segmentations" for folder in (base, base.parent)]
    masks = next((path for path in beside if path.is_dir()), None)
    masks = masks or entry.require(root, "segmentations", LAYOUT)
    names = _numbered(base / "images.txt")
    classes = _numbered(base / "classes.txt")
    labels = _numbered(base / "image_class_labels.txt", names)
    official = _numbered(base / "train_test_split.txt", names)
    rows, wanted = [], []
    for number, name in names.items():
        if labels[number] not in classes:
            raise InputError(
                f"{base / 'image_class_labels.txt'}: image {number} has class {labels[number]!r}; "
                f"expected one of the {len(classes)} numbers of classes.txt"
            )
        if official[number] not in ("0", "1"):
            raise InputError(
                f"{base / 'train_test_split.txt'}: image {number} has {official[number]!r}; expected 0 or 1"
            )
        image, mask = base / "images" / name, (masks / name).with_suffix(".png")
        wanted += [(image, "images.txt"), (mask, "images.txt")]
        split = "train" if official[number] == "1" else "test"
        rows.append((name.removesuffix(".jpg"), image, classes[labels[number]], mask, split))
    samples = table.build(KEY, rows, foreground)
    entry.refuse_missing(KEY, wanted)
    return splits.with_val(samples, VAL_SHARE, seeds.stream(0, f"catalog-{KEY}"))


def _numbered(path: Path, expected: dict[str, str] | None = None) -> dict[str, str]:
    """Lines of `<number> <value>`, the same numbers as `expected` has."""
    values: dict[str, str] = {}
    for line, content in enumerate(entry.text(path).splitlines(), start=1):
        if not content.strip():
            continue
        number, _, value = content.strip().partition(" ")
        if not number.isdecimal() or not value:
            raise InputError(f"{path}, line {line}: {content!r}; expected a number and a value")
        if number in values:
            raise InputError(f"{path}, line {line}: number {number} stands twice")
        values[number] = value
    if not values:
        raise InputError(f"{path}: no lines; unpack the archives again")
    odd = sorted(values.keys() ^ expected.keys(), key=int) if expected is not None else []
    if odd:
        place = "not in images.txt" if odd[0] in values else "only in images.txt"
        raise InputError(f"{path}: image {odd[0]} is {place}; the lists belong to different archives")
    return values


ENTRY = entry.Entry(
    key=KEY,
    title="CUB-200-2011",
    counts={"train": 4794, "val": 1200, "test": 5794, "classes": 200},
    layout=LAYOUT,
    archives=("CUB_200_2011.tgz", "segmentations.tgz"),
    read=read,
)
