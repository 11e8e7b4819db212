"""CUB-200-2011: 11,788 photographs of birds, 200 species, each with a segmentation.

    CUB_200_2011/images.txt               <image number> <class>/<name>.jpg
                 image_class_labels.txt   <image number> <class number>
                 classes.txt              <class number> <class>
                 train_test_split.txt     <image number> <1 training, 0 test>
                 images/<class>/<name>.jpg
    segmentations/<class>/<name>.png      beside CUB_200_2011, or in it

Masks are grey, with several annotators' outlines laid over each other: more than half of white is foreground.
Test is the official split; of each class's official training images 20 % are val.
"""

from pathlib import Path

import numpy as np

from sal_fast.data.catalog.entry import Entry, grey
from sal_fast.data.table import Sample
from sal_fast.errors import InputError

SPLITS = {"0": "test", "1": "train"}


def foreground(pixels: np.ndarray) -> np.ndarray:
    return grey(pixels) > 127


def read(entry: Entry, root: Path) -> list[Sample]:
    base = entry.require(root, "images.txt").parent
    beside = [folder / "segmentations" for folder in (base, base.parent)]
    masks = next((path for path in beside if path.is_dir()), None) or entry.require(root, "segmentations")
    names = _numbered(base / "images.txt")
    classes = _numbered(base / "classes.txt")
    labels = _numbered(base / "image_class_labels.txt", names)
    official = _numbered(base / "train_test_split.txt", names)
    samples = []
    for number, name in names.items():
        label, split = labels[number], official[number]
        if label not in classes:
            raise InputError(
                f"{base / 'image_class_labels.txt'}: image {number} has class {label!r}; "
                f"expected one of the {len(classes)} numbers of classes.txt"
            )
        if split not in SPLITS:
            raise InputError(
                f"{base / 'train_test_split.txt'}: image {number} has {split!r}; expected 0 or 1"
            )
        image, mask = base / "images" / name, (masks / name).with_suffix(".png")
        samples.append(Sample(name.removesuffix(".jpg"), image, classes[label], mask, SPLITS[split]))
    return samples


def _text(path: Path) -> str:
    """The text of a list. Raises InputError if it does not exist or is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"list not found: {path}; unpack the archives again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; unpack the archives again") from None


def _numbered(path: Path, expected: dict[str, str] | None = None) -> dict[str, str]:
    """Read lines of `<number> <value>`; they must have the same numbers as `expected`, if it is given."""
    values: dict[str, str] = {}
    for line, content in enumerate(_text(path).splitlines(), start=1):
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


ENTRY = Entry(
    key="cub200",
    counts={"train": 4794, "val": 1200, "test": 5794, "classes": 200},
    layout=(
        "CUB_200_2011/ with images.txt, image_class_labels.txt, classes.txt, train_test_split.txt and "
        "images/<class>/<name>.jpg; segmentations/<class>/<name>.png beside it or in it"
    ),
    archives=("CUB_200_2011.tgz", "segmentations.tgz"),
    read=read,
    foreground=foreground,
    named_by="images.txt",
    val_share=0.2,
)
load = ENTRY.load
