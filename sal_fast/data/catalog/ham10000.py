"""HAM10000: 10,015 dermatoscopic images of 7,470 pigmented lesions, seven diagnoses, segmented.

    HAM10000_images_part_1/<image_id>.jpg      part_1, part_2, or any folder
    HAM10000_images_part_2/<image_id>.jpg
    HAM10000_segmentations_lesion_tschandl/<image_id>_segmentation.png      or any folder
    HAM10000_metadata.csv                      lesion_id, image_id, dx; also without .csv, or as .tab

A pixel of a mask that is not 0 is foreground; an image without one has no mask. The class is `dx`. There is
no official split of these images: they are shared out as Table 1 has them, images of one lesion in one split.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from sal_fast import seeds
from sal_fast.data import splits, table
from sal_fast.data.catalog import entry
from sal_fast.data.table import Table
from sal_fast.errors import InputError

KEY = "ham10000"
LAYOUT = (
    "HAM10000_metadata.csv, HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg and "
    "HAM10000_segmentations_lesion_tschandl/*_segmentation.png"
)
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
COLUMNS = ("lesion_id", "image_id", "dx")
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COUNTS = {"train": 4893, "val": 2092, "test": 3030, "classes": 7}
LEVELS = 3  # folders below the root in which files are looked for
MASK_ENDING = "_segmentation.png"


def foreground(pixels: np.ndarray) -> np.ndarray:
    return entry.grey(pixels) != 0


def read(root: Path) -> Table:
    metadata = _metadata(root)
    images, masks = _files(root)
    if not masks:
        raise InputError(f"{root}: no file *{MASK_ENDING} found; expected {LAYOUT}")
    lesions, rows = {}, []
    for line, (lesion, sample, diagnosis) in enumerate(_rows(metadata), start=2):
        if not (lesion and sample):
            raise InputError(f"{metadata}, line {line}: {'image_id' if lesion else 'lesion_id'!r} is empty")
        if diagnosis not in DIAGNOSES:
            raise InputError(
                f"{metadata}, line {line}: dx {diagnosis!r}; expected one of {', '.join(DIAGNOSES)}"
            )
        image = images.get(sample, root / f"{sample}.jpg")
        rows.append((sample, image, diagnosis, masks.get(sample), ""))
        lesions[sample] = lesion
    if not rows:
        raise InputError(f"{metadata}: no rows")
    samples = table.build(KEY, rows, foreground)
    entry.refuse_missing(KEY, [(image, metadata.name) for image in samples.images])
    return samples.with_split(
        splits.by_group(
            samples.labels,
            [lesions[sample] for sample in samples.ids],
            [COUNTS[name] for name in table.SPLITS],
            seeds.stream(0, f"catalog-{KEY}"),
        )
    )


def _metadata(root: Path) -> Path:
    """The first of its names that is a file: archives of that name may have been unpacked into a folder."""
    for name in METADATA:
        path = entry.find(root, name)
        if path is not None and path.is_file():
            return path
    raise InputError(f"{root}: {METADATA[0]} not found; expected {LAYOUT}")


def _rows(path: Path) -> list[tuple[str, ...]]:
    """Values of COLUMNS, line by line; separated by commas or, as in a .tab, by tabs."""
    header = entry.text(path).partition("\n")[0]
    try:
        frame = pl.read_csv(path, infer_schema=False, glob=False, separator="\t" if "\t" in header else ",")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}; "
            f"found {', '.join(frame.columns)}"
        )
    return [tuple((value or "").strip() for value in row) for row in frame.select(COLUMNS).iter_rows()]


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by image id. Copies of the archive hold some images twice: the first is taken."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for place, folders, names in os.walk(root, followlinks=True):
        here = Path(place)
        deep = len(here.relative_to(root).parts) >= LEVELS
        folders[:] = [] if deep else [path.name for path in entry.subfolders(here)]
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.endswith(MASK_ENDING):
                masks.setdefault(name.removesuffix(MASK_ENDING), here / name)
            elif name.lower().endswith(".jpg"):
                images.setdefault(name[:-4], here / name)
    return images, masks


ENTRY = entry.Entry(
    key=KEY,
    title="HAM10000",
    counts=COUNTS,
    layout=LAYOUT,
    archives=(
        "dataverse_files.zip",
        "HAM10000_images_part_1.zip",
        "HAM10000_images_part_2.zip",
        "HAM10000_segmentations_lesion_tschandl.zip",
    ),
    read=read,
)
