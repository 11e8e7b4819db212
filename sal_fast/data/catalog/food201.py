"""Food201: pixel masks for some of the photographs of Food101.

    images/<class>/<id>.jpg               Food101's, in the root or in food-101/
    new_masks_train/<class>/<id>.png
    new_masks_test/<class>/<id>.png       both at most three levels down

A pixel of a mask is the id of a food, and 0 is background: every other value is foreground. The class is the
Food101 folder, and the samples are the masks that exist. Of each class in new_masks_train 30 % are val;
new_masks_test is test.
"""

from pathlib import Path

import numpy as np

from sal_fast.data.catalog.archives import find, subfolders, visible
from sal_fast.data.catalog.entry import Entry, grey
from sal_fast.data.table import Sample
from sal_fast.errors import InputError

PARTS = {"new_masks_train": "train", "new_masks_test": "test"}


def foreground(pixels: np.ndarray) -> np.ndarray:
    return grey(pixels) != 0


def read(entry: Entry, root: Path) -> list[Sample]:
    masks = {part: entry.require(root, part, levels=3) for part in PARTS}
    images = find(root, "food-101/images") or entry.require(root, "images")
    samples = [
        Sample(
            f"{folder.name}/{mask.stem}", images / folder.name / f"{mask.stem}.jpg", folder.name, mask, split
        )
        for part, split in PARTS.items()
        for folder in subfolders(masks[part])
        for mask in visible(folder)
        if mask.suffix.lower() == ".png"
    ]
    if not samples:
        raise InputError(
            f"{masks['new_masks_train']}: no masks in its class folders; expected {entry.layout}"
        )
    return samples


ENTRY = Entry(
    key="food201",
    counts={"train": 6244, "val": 2684, "test": 2286, "classes": 99},
    layout=(
        "food-101/images/<class>/<id>.jpg, new_masks_train/<class>/<id>.png and "
        "new_masks_test/<class>/<id>.png"
    ),
    archives=("food-101.tar.gz",),
    read=read,
    foreground=foreground,
    val_share=0.3,
)
load = ENTRY.load
