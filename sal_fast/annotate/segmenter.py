"""Masks by an off-the-shelf segmenter, as a folder of files (paper, App. F): made once, for all runs."""

from __future__ import annotations

import fcntl
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.files import write_bytes
from sal_fast.annotate.generator import Generator, asked, in_frame
from sal_fast.data import files
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
    paths = _paths(folder, store, rows)
    images = [store.table.images[row] for row in rows.tolist()]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"--segmenter-masks: {len(missing)} of {len(paths)} training images have no mask; the first is "
            f"{missing[0]}; --segmenter-weights or --generator makes them"
        )
    return stores.read_masks(paths, images, store.image_size, decoder).to(store.device)


def make_missing(folder: Path, store: Store, rows: Tensor, load: Callable[[], Generator]) -> None:
    """Draw the masks that are not there, each at its picture's size; what is there stays.

    `load` is called only where one is missing.

    Processes take turns; one that was killed leaves whole files, and the next goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        paths = _paths(folder, store, rows)
        order = rows.tolist()
        missing = [i for i, path in enumerate(paths) if not path.is_file()]
        if not missing:
            return
        generator = load()
        with progress.bar(f"segmenting {store.table.name}", len(missing), log=True) as advance:
            for i in missing:
                image = store.table.images[order[i]]
                (one,) = asked(generator, [image], [int(store.labels[order[i]])])
                width, height = files.read(image).size
                out = io.BytesIO()
                Image.fromarray(in_frame(one, (height, width)).numpy()).save(out, format="png")
                write_bytes(paths[i], out.getvalue())
                advance()


def _paths(folder: Path, store: Store, rows: Tensor) -> list[Path]:
    return [folder / f"{store.table.ids[row]}.png" for row in rows.tolist()]
