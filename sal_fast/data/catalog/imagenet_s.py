"""ImageNet-S: the images of ImageNet-1k that have a segmentation, 919 classes.

    ImageNetS919/train-semi/<wnid>/<name>.JPEG                 ten per class
                 train-semi-segmentation/<wnid>/<name>.png
                 validation/<wnid>/<name>.JPEG
                 validation-segmentation/<wnid>/<name>.png

The folder may have another name, or be the root. The archive holds the segmentations; the official scripts
put the images there from a copy of ImageNet-1k. A pixel of a segmentation (RGB) has the id R + 256 * G: 0 is
another category, 1000 is to be ignored, and all others are foreground. Of each class in train-semi 30 % are
val; validation is test, because the official test set has no public masks.
"""

from pathlib import Path

import numpy as np

from sal_fast.data.catalog.archives import subfolders, visible
from sal_fast.data.catalog.entry import Entry
from sal_fast.data.files import SUFFIXES
from sal_fast.data.table import Sample
from sal_fast.errors import InputError

PARTS = {"train-semi": "train", "validation": "test"}
OTHER, IGNORED = 0, 1000


def foreground(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels != OTHER
    ids = pixels[..., 0] + 256 * pixels[..., 1].astype(np.int32)
    return np.ma.masked_array(ids != OTHER, mask=ids == IGNORED)


def read(entry: Entry, root: Path) -> list[Sample]:
    base = entry.require(root, "train-semi-segmentation").parent
    samples = []
    for part, split in PARTS.items():
        names = (f"{part}/", f"{part}-segmentation/")
        below, drawn = (entry.require(base, name, levels=0) for name in names)
        images, masks = _files(below, SUFFIXES), _files(drawn, frozenset({".png"}))
        for name in sorted(images.keys() | masks.keys()):
            image = images.get(name, below / f"{name}.JPEG")
            mask = masks.get(name, drawn / f"{name}.png")
            samples.append(Sample(name, image, name.split("/")[0], mask, split))
    if not samples:
        raise InputError(f"{base}: no segmentations in it; expected {entry.layout}")
    return samples


def _files(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """The files of a folder of class folders by `<class>/<stem>`."""
    files: dict[str, Path] = {}
    for below in subfolders(folder):
        for path in visible(below):
            if path.suffix.lower() in suffixes:
                other = files.setdefault(f"{below.name}/{path.stem}", path)
                if other != path:
                    raise InputError(f"imagenet-s: {other} and {path} are one sample; leave one of them")
    return files


ENTRY = Entry(
    key="imagenet-s",
    counts={"train": 6433, "val": 2757, "test": 12419, "classes": 919},
    layout=(
        "ImageNetS919/ with train-semi/<wnid>/<name>.JPEG, train-semi-segmentation/<wnid>/<name>.png, "
        "validation/<wnid>/<name>.JPEG and validation-segmentation/<wnid>/<name>.png"
    ),
    archives=("ImageNetS919-5f7f58ae1003d21da9409a8576bf7680.zip",),
    read=read,
    foreground=foreground,
    val_share=0.3,
)
load = ENTRY.load
