"""HAM10000: 10,015 dermatoscopic images of 7,470 pigmented lesions, seven diagnoses, segmented.

    HAM10000_images_part_1/<image_id>.jpg      part_1, part_2, or any folder
    HAM10000_images_part_2/<image_id>.jpg
    HAM10000_segmentations_lesion_tschandl/<image_id>_segmentation.png      or any folder
    HAM10000_metadata.csv                      lesion_id, image_id, dx; also without .csv, or as .tab

A pixel of a mask that is not 0 is foreground; an image without a mask file has no mask. The class is `dx`.
These images have no official split: they are shared out as in Table 1, with the images of one lesion in one
split.
"""

from pathlib import Path

import numpy as np

from sal_fast.data import splits
from sal_fast.data.catalog.archives import find, folders, visible
from sal_fast.data.catalog.entry import Entry, grey
from sal_fast.data.readers.manifest import read_rows
from sal_fast.data.table import SPLITS, Sample
from sal_fast.errors import InputError

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
LEVELS = 3  # folders below the root in which files are looked for
MASK_ENDING = "_segmentation.png"


def foreground(pixels: np.ndarray) -> np.ndarray:
    return grey(pixels) != 0


def read(entry: Entry, root: Path) -> list[Sample]:
    found = (find(root, name) for name in METADATA)  # archives of that name may be unpacked into a folder
    metadata = next((path for path in found if path is not None and path.is_file()), None)
    if metadata is None:
        raise InputError(f"{root}: {METADATA[0]} not found; expected {entry.layout}")
    images, masks = _files(root)
    if not masks:
        raise InputError(f"{root}: no file *{MASK_ENDING} found; expected {entry.layout}")
    samples = []
    for line, (lesion, name, diagnosis) in read_rows(metadata, ("lesion_id", "image_id", "dx")):
        if not (lesion and name):
            raise InputError(f"{metadata}, line {line}: {'image_id' if lesion else 'lesion_id'!r} is empty")
        if diagnosis not in DIAGNOSES:
            raise InputError(
                f"{metadata}, line {line}: dx {diagnosis!r}; expected one of {', '.join(DIAGNOSES)}"
            )
        image = images.get(name, root / f"{name}.jpg")
        samples.append(Sample(name, image, diagnosis, masks.get(name), group=lesion))
    samples.sort(key=lambda sample: sample.id)
    shared = splits.by_group(
        [sample.label for sample in samples],
        [sample.group for sample in samples],
        [entry.counts[name] for name in SPLITS],
        entry.stream(),
    )
    return [sample._replace(split=split) for sample, split in zip(samples, shared, strict=True)]


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by image id. Copies of the archive hold some images twice; the first is taken."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for folder in folders(root, LEVELS):
        for path in visible(folder):
            if path.name.endswith(MASK_ENDING):
                masks.setdefault(path.name.removesuffix(MASK_ENDING), path)
            elif path.suffix.lower() == ".jpg":
                images.setdefault(path.stem, path)
    return images, masks


ENTRY = Entry(
    key="ham10000",
    counts={"train": 4893, "val": 2092, "test": 3030, "classes": 7},
    layout=(
        "HAM10000_metadata.csv, HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg and "
        "HAM10000_segmentations_lesion_tschandl/*_segmentation.png"
    ),
    archives=(
        "dataverse_files.zip",
        "HAM10000_images_part_1.zip",
        "HAM10000_images_part_2.zip",
        "HAM10000_segmentations_lesion_tschandl.zip",
    ),
    read=read,
    foreground=foreground,
    named_by="the metadata",
)
load = ENTRY.load
