"""ImageNet-S: the images of ImageNet-1k that have a segmentation, 919 classes.

    ImageNetS919/train-semi/<wnid>/<name>.JPEG                 ten a class
                 train-semi-segmentation/<wnid>/<name>.png
                 validation/<wnid>/<name>.JPEG
                 validation-segmentation/<wnid>/<name>.png

The folder may have another name, or be the root. The archive holds the segmentations; the images are put
there by the official scripts from a copy of ImageNet-1k. A pixel of a segmentation (RGB) has the id
R + 256 * G: 0 is another category, 1000 is to be ignored, all others are foreground. Of train-semi, 30 % of
each class are val; test is validation (the official test set has no public masks).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sal_fast import seeds
from sal_fast.data import splits, table
from sal_fast.data.catalog import entry
from sal_fast.data.files import SUFFIXES
from sal_fast.data.table import Table
from sal_fast.errors import InputError

KEY = "imagenet-s"
LAYOUT = (
    "ImageNetS919/ with train-semi/<wnid>/<name>.JPEG, train-semi-segmentation/<wnid>/<name>.png, "
    "validation/<wnid>/<name>.JPEG and validation-segmentation/<wnid>/<name>.png"
)
PARTS = {"train-semi": "train", "validation": "test"}
OTHER, IGNORED = 0, 1000
VAL_SHARE = 0.3


def foreground(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels != OTHER
    ids = pixels[..., 0] + 256 * pixels[..., 1].astype(np.int32)
    return (ids != OTHER) & (ids != IGNORED)


def read(root: Path) -> Table:
    base = entry.require(root, "train-semi-segmentation", LAYOUT).parent
    rows, wanted = [], []
    for part, split in PARTS.items():
        folders = {kind: base / f"{part}{kind}" for kind in ("", "-segmentation")}
        for folder in folders.values():
            if not folder.is_dir():
                raise InputError(f"{base}: {folder.name}/ not found; expected {LAYOUT}")
        images = _files(folders[""], SUFFIXES)
        masks = _files(folders["-segmentation"], frozenset({".png"}))
        for sample in sorted(images.keys() | masks.keys()):
            image = images.get(sample, folders[""] / f"{sample}.JPEG")
            mask = masks.get(sample, folders["-segmentation"] / f"{sample}.png")
            wanted += [(image, str(mask)), (mask, str(image))]
            rows.append((sample, image, sample.split("/")[0], mask, split))
    if not rows:
        raise InputError(f"{base}: no segmentations in it; expected {LAYOUT}")
    entry.refuse_missing(KEY, wanted)
    samples = table.build(KEY, rows, foreground)
    return splits.with_val(samples, VAL_SHARE, seeds.stream(0, f"catalog-{KEY}"))


def _files(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """`<class>/<stem>` -> the file."""
    files: dict[str, Path] = {}
    for below in entry.subfolders(folder):
        for path in entry.visible(below):
            if path.suffix.lower() in suffixes:
                sample = f"{below.name}/{path.stem}"
                if sample in files:
                    raise InputError(f"{KEY}: {files[sample]} and {path} are one sample; leave one of them")
                files[sample] = path
    return files


ENTRY = entry.Entry(
    key=KEY,
    title="ImageNet-S (919 classes)",
    counts={"train": 6433, "val": 2757, "test": 12419, "classes": 919},
    layout=LAYOUT,
    archives=("ImageNetS919-5f7f58ae1003d21da9409a8576bf7680.zip",),
    read=read,
)
