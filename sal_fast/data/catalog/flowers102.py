"""Oxford 102 Flowers: 8,189 photographs of 102 flowers, segmented.

    jpg/image_00001.jpg
    segmim/segmim_00001.jpg
    imagelabels.mat           labels: the class of image 1, 2, ..., from 1 to 102
    setid.mat                 trnid, valid, tstid: image numbers

A segmentation shows the foreground in its colours on blue, (0, 0, 254), and is JPEG-compressed: what is
within 40 of that blue in every channel is background. An image without one has no mask. The splits are the
official ones. The archives have no class names: classes are called 001 to 102.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from sal_fast.data import table
from sal_fast.data.catalog import entry
from sal_fast.data.table import Table
from sal_fast.errors import InputError

KEY = "flowers102"
LAYOUT = (
    "jpg/image_00001.jpg, ..., segmim/segmim_00001.jpg, ..., imagelabels.mat and setid.mat "
    "(the two lists are downloaded by themselves)"
)
CLASSES = 102
SETS = {"train": "trnid", "val": "valid", "test": "tstid"}
BLUE = (0, 0, 254)
# of MATLAB's file format: types of elements, and classes of arrays (double to uint64)
MATRIX, COMPRESSED, NUMBERS, NUMERIC = 14, 15, (1, 2, 3, 4, 5, 6, 7, 9, 12, 13), range(6, 16)
TOLERANCE = 40  # larger takes deep blue petals for ground, smaller leaves JPEG's ringing round every flower


def foreground(pixels: np.ndarray) -> np.ndarray:
    colours = pixels[..., :3] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    return (np.abs(colours.astype(np.int16) - BLUE) > TOLERANCE).any(axis=-1)


def read(root: Path) -> Table:
    images = entry.require(root, "jpg", LAYOUT)
    masks = entry.require(root, "segmim", LAYOUT)
    labels_file = entry.require(root, "imagelabels.mat", LAYOUT)
    sets_file = entry.require(root, "setid.mat", LAYOUT)
    labels = _integers(labels_file, ["labels"])["labels"]
    odd = np.flatnonzero((labels < 1) | (labels > CLASSES))
    if odd.size:
        raise InputError(f"{labels_file}: image {odd[0] + 1} has label {labels[odd[0]]}; expected 1 to 102")
    split: dict[int, str] = {}
    for name, numbers in zip(SETS, _integers(sets_file, list(SETS.values())).values(), strict=True):
        for number in map(int, numbers):
            if not 1 <= number <= len(labels):
                raise InputError(
                    f"{sets_file}: image {number} is in {SETS[name]}; imagelabels.mat has 1 to {len(labels)}"
                )
            if number in split:
                raise InputError(
                    f"{sets_file}: image {number} is in {SETS[split[number]]} and in {SETS[name]}"
                )
            split[number] = name
    left = sorted(set(range(1, len(labels) + 1)) - split.keys())
    if left:
        raise InputError(f"{sets_file}: image {left[0]} is in none of {', '.join(SETS.values())}")
    rows = []
    for number, label in enumerate(labels, start=1):
        mask = masks / f"segmim_{number:05d}.jpg"
        image = images / f"image_{number:05d}.jpg"
        rows.append((image.stem, image, f"{label:03d}", mask if mask.is_file() else None, split[number]))
    entry.refuse_missing(KEY, [(row[1], "imagelabels.mat") for row in rows])
    return table.build(KEY, rows, foreground)


def _integers(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Lists of integers in a MATLAB file, int64 [n] each."""
    from scipy import io  # here: a fifth of a second that only this data set has to spend

    try:
        _check_types(path.read_bytes(), names)
        content = io.loadmat(str(path), appendmat=False, variable_names=names)
    except Exception as error:  # a damaged file makes the reader raise whatever comes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as a MATLAB file: {reason}; download it again") from None
    for name in names:
        if name not in content:
            raise InputError(f"{path}: holds no {name!r}; expected the official {path.name}")
        array = content[name]
        whole = isinstance(array, np.ndarray) and array.size and array.dtype.kind in "iuf"
        if not whole or not np.isfinite(array).all() or (array != np.round(array)).any():
            raise InputError(f"{path}: {name!r} is no list of whole numbers")
    return {name: content[name].ravel().astype(np.int64) for name in names}


def _check_types(data: bytes, names: list[str]) -> None:
    """Raise ValueError for a MATLAB 5 file whose arrays `names` are not of numbers, of types that exist.

    The types of the data are what scipy's reader (1.17) does not check: one it does not know crashes it.
    """
    order: Literal["little", "big"] = "little" if data[126:128] == b"IM" else "big"
    if not data.startswith(b"MATLAB 5"):
        raise ValueError("it does not begin as one of version 5")

    def elements(data: bytes, pad: bool) -> Iterator[tuple[int, bytes]]:
        """Type and contents, one after the other; contents of at most 4 bytes stand in the tag itself."""
        at = 0
        while at < len(data):
            word = int.from_bytes(data[at : at + 4], order)
            kind, size, start = word & 0xFFFF, word >> 16, at + 4
            if not size:
                size, start = int.from_bytes(data[at + 4 : at + 8], order), at + 8
            if start + size > len(data) or (start == at + 4 and size > 4):
                raise ValueError("it ends early")
            yield kind, data[start : start + size]
            at = at + 8 if start == at + 4 else start + (-(-size // 8) * 8 if pad else size)

    for kind, matrix in elements(data[128:], pad=False):
        if kind == COMPRESSED:
            ((kind, matrix),) = elements(zlib.decompress(matrix), pad=True)
        parts = list(elements(matrix, pad=True)) if kind == MATRIX else []
        if len(parts) < 3 or len(parts[0][1]) != 8:
            raise ValueError("an array of it has no flags or no name")
        (_, flags), _, (_, label) = parts[:3]
        name = label.decode("ascii", "replace")
        numeric = int.from_bytes(flags[:4], order) & 0xFF in NUMERIC
        if name in names and not (numeric and all(kind in NUMBERS for kind, _ in parts)):
            raise ValueError(f"{name!r} is no list of whole numbers")


ENTRY = entry.Entry(
    key=KEY,
    title="Oxford 102 Flowers",
    counts={"train": 1020, "val": 1020, "test": 6149, "classes": 102},
    layout=LAYOUT,
    archives=("102flowers.tgz", "102segmentations.tgz"),
    read=read,
)
