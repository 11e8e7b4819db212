"""Masks that an off-the-shelf segmenter made beforehand, as a folder of files (paper, App. F)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sal_fast.data import store as stores
from sal_fast.data.decode import Decoder
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.errors import InputError


def segmenter_masks(folder: Path, store: Store, rows: Tensor, decoder: Decoder) -> Masks:
    """`<folder>/<id>.png` for every row, in the frame.

    Raises InputError that names the folder or the first file that is missing or cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"--segmenter-masks: folder not found: {folder}")
    paths = [folder / f"{store.table.ids[row]}.png" for row in rows.tolist()]
    images = [store.table.images[row] for row in rows.tolist()]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"--segmenter-masks: {len(missing)} of {len(paths)} training images have no mask; "
            f"the first is {missing[0]}"
        )
    return stores.read_masks(paths, images, store.image_size, decoder).to(store.device)
