"""Food201: pixel masks for some of the photographs of Food101.

    images/<class>/<id>.jpg               Food101's, in the root or in food-101/
    new_masks_train/<class>/<id>.png
    new_masks_test/<class>/<id>.png       both at most three levels down

A pixel of a mask is the id of a food, 0 is background: what is not 0 is foreground. The class is the Food101
folder; the samples are the masks that exist. Of new_masks_train, 30 % of each class are val; test is
new_masks_test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sal_fast import seeds
from sal_fast.data import splits, table
from sal_fast.data.catalog import entry
from sal_fast.data.table import Table
from sal_fast.errors import InputError

KEY = "food201"
LAYOUT = (
    "food-101/images/<class>/<id>.jpg, new_masks_train/<class>/<id>.png and new_masks_test/<class>/<id>.png"
)
PARTS = {"new_masks_train": "train", "new_masks_test": "test"}
VAL_SHARE = 0.3


def foreground(pixels: np.ndarray) -> np.ndarray:
    return entry.grey(pixels) != 0


def read(root: Path) -> Table:
    masks = {part: entry.require(root, part, LAYOUT, levels=3) for part in PARTS}
    images = entry.find(root, "food-101/images") or entry.require(root, "images", LAYOUT)
    rows, wanted = [], []
    for part, split in PARTS.items():
        for folder in entry.subfolders(masks[part]):
            for mask in entry.visible(folder):
                if mask.suffix.lower() == ".png":
                    image = images / folder.name / f"{mask.stem}.jpg"
                    rows.append((f"{folder.name}/{mask.stem}", image, folder.name, mask, split))
                    wanted.append((image, str(mask)))
    if not rows:
        raise InputError(f"{masks['new_masks_train']}: no masks in its class folders; expected {LAYOUT}")
    entry.refuse_missing(KEY, wanted)
    samples = table.build(KEY, rows, foreground)
    return splits.with_val(samples, VAL_SHARE, seeds.stream(0, f"catalog-{KEY}"))


ENTRY = entry.Entry(
    key=KEY,
    title="Food201",
    counts={"train": 6244, "val": 2684, "test": 2286, "classes": 99},
    layout=LAYOUT,
    archives=("food-101.tar.gz",),
    read=read,
)
