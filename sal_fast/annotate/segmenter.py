"""Masks by an off-the-shelf segmenter, kept as a folder of files that all runs share (paper App. F)."""

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.files import write_bytes
from sal_fast._util.locks import locked
from sal_fast.annotate.generator import Generator, maps_of_files, resized
from sal_fast.data import files
from sal_fast.data import store as stores
from sal_fast.data.decode import Decoder
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.errors import InputError


def segmenter_masks(folder: Path, store: Store, rows: Tensor, decoder: Decoder) -> Masks:
    """Read `<folder>/<id>.png` of every row into the frame.

    Raises InputError if the folder is missing, or names the first file that is missing or cannot be used.
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


def make_missing_masks(folder: Path, store: Store, rows: Tensor, load: Callable[[], Generator]) -> None:
    """Draw the masks that are missing, each at its picture's own size; those that exist stay as they are.

    `load` gives the generator; it is called only if a mask is missing. Processes take turns. A process that
    was killed leaves whole files, and the next one goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        todo = zip(rows.tolist(), _paths(folder, store, rows), strict=True)
        missing = [(row, path) for row, path in todo if not path.is_file()]
        if not missing:
            return
        generator = load()
        with progress.bar(f"segmenting {store.table.name}", len(missing)) as advance:
            for row, path in missing:
                image = store.table.images[row]
                white = store.table.rule.white
                (one,) = maps_of_files(generator, [image], [int(store.labels[row])], white)
                width, height = files.read(image).size
                out = io.BytesIO()
                Image.fromarray(resized(one, (height, width)).numpy()).save(out, format="png")
                write_bytes(path, out.getvalue())
                advance()


def _paths(folder: Path, store: Store, rows: Tensor) -> list[Path]:
    return [folder / f"{store.table.ids[row]}.png" for row in rows.tolist()]
