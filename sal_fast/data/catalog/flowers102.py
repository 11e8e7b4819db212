"""Oxford 102 Flowers: 8,189 photographs of 102 flowers, segmented.

    jpg/image_00001.jpg
    segmim/segmim_00001.jpg
    imagelabels.mat           labels: the class of image 1, 2, ..., from 1 to 102
    setid.mat                 trnid, valid, tstid: image numbers

A segmentation shows the foreground in its colours on blue, (0, 0, 254), and is JPEG-compressed: what is
within 40 of that blue in every channel is background. An image without a segmentation has no mask. The splits
are the official ones. The archives have no class names, so classes are called 001 to 102.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sal_fast.data.catalog.entry import Entry
from sal_fast.data.table import Sample
from sal_fast.errors import InputError

CLASSES = 102
SETS = {"trnid": "train", "valid": "val", "tstid": "test"}
BLUE = (0, 0, 254)
TOLERANCE = 40  # a larger one takes deep blue petals for ground, a smaller one keeps JPEG's ringing
# MATLAB's file format: types of elements, and classes of arrays (double to uint64)
NUMBERS = dict(zip((1, 2, 3, 4, 5, 6, 7, 9, 12, 13), "bBhHiIfdqQ", strict=True))
MATRIX, COMPRESSED, NUMERIC = 14, 15, range(6, 16)


def foreground(pixels: np.ndarray) -> np.ndarray:
    colours = pixels[..., :3] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    return (np.abs(colours.astype(np.int16) - BLUE) > TOLERANCE).any(axis=-1)


def read(entry: Entry, root: Path) -> list[Sample]:
    names = ("jpg", "segmim", "imagelabels.mat", "setid.mat")
    images, masks, labels_file, sets_file = (entry.require(root, name) for name in names)
    labels = _integers(labels_file, ["labels"])["labels"]
    odd = np.flatnonzero((labels < 1) | (labels > CLASSES))
    if odd.size:
        raise InputError(f"{labels_file}: image {odd[0] + 1} has label {labels[odd[0]]}; expected 1 to 102")
    sets: dict[int, str] = {}
    for name, numbers in _integers(sets_file, list(SETS)).items():
        for number in map(int, numbers):
            if not 1 <= number <= len(labels):
                raise InputError(
                    f"{sets_file}: image {number} is in {name}; imagelabels.mat has 1 to {len(labels)}"
                )
            if number in sets:
                raise InputError(f"{sets_file}: image {number} is in {sets[number]} and in {name}")
            sets[number] = name
    samples = []
    for number, label in enumerate(labels, start=1):
        if number not in sets:
            raise InputError(f"{sets_file}: image {number} is in none of {', '.join(SETS)}")
        image, mask = images / f"image_{number:05d}.jpg", masks / f"segmim_{number:05d}.jpg"
        drawn = mask if mask.is_file() else None
        samples.append(Sample(image.stem, image, f"{label:03d}", drawn, SETS[sets[number]]))
    return samples


def _integers(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read lists of integers from a MATLAB file, int64 [n] each."""
    try:
        arrays = dict(_arrays(path.read_bytes()))
    except (ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as a MATLAB file: {error}; download it again") from None
    found = {}
    for name in names:
        if name not in arrays:
            raise InputError(f"{path}: holds no {name!r}; expected the official {path.name}")
        array = arrays[name]
        if array is None or not array.size or not np.isfinite(array).all() or (array % 1).any():
            raise InputError(f"{path}: {name!r} is no list of whole numbers")
        found[name] = array.astype(np.int64)
    return found


def _arrays(data: bytes) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield name and values of the arrays in a MATLAB 5 file; None for one that is not of real numbers.

    scipy's reader (1.17) crashes at a type of numbers that does not exist, so files are not given to it.
    Raises ValueError, struct.error or zlib.error if the file is damaged.
    """
    if not data.startswith(b"MATLAB 5") or data[126:128] != b"IM":
        raise ValueError("it does not begin as one of version 5, little-endian")

    def elements(data: bytes, align: int = 8) -> Iterator[tuple[int, bytes]]:
        """Yield types and contents in turn; contents of at most 4 bytes stand in the tag itself."""
        at = 0
        while at < len(data):
            kind, size = struct.unpack_from("<II", data, at)
            start = at + 8
            if kind >> 16:
                kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if start + size > len(data) or (start == at + 4 and size > 4):
                raise ValueError("it ends early")
            yield kind, data[start : start + size]
            at = -(-(start + size) // align) * align

    for kind, matrix in elements(data[128:], align=1):
        if kind == COMPRESSED:
            ((kind, matrix),) = elements(zlib.decompress(matrix))
        parts = list(elements(matrix)) if kind == MATRIX else []
        if len(parts) < 3 or len(parts[0][1]) != 8:
            raise ValueError("an array of it has no flags or no name")
        (_, flags), _, (_, name), *values = parts
        array = None
        if flags[0] in NUMERIC and len(values) == 1:
            number, content = values[0]
            if number not in NUMBERS:
                raise ValueError(f"an array of it has numbers of the unknown type {number}")
            array = np.frombuffer(content, f"<{NUMBERS[number]}")
        yield name.decode("ascii", "replace"), array


ENTRY = Entry(
    key="flowers102",
    counts={"train": 1020, "val": 1020, "test": 6149, "classes": 102},
    layout=(
        "jpg/image_00001.jpg, ..., segmim/segmim_00001.jpg, ..., imagelabels.mat and setid.mat "
        "(the two lists are downloaded by themselves)"
    ),
    archives=("102flowers.tgz", "102segmentations.tgz"),
    read=read,
    foreground=foreground,
    named_by="imagelabels.mat",
)
load = ENTRY.load
