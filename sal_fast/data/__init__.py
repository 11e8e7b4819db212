"""Where samples come from and how they reach the device.

`load_table` (the built-in set, one of the paper's, a folder, a manifest, a prepared folder) ->
`splits.assign` -> `open_store` (images kept on the device, streamed from their files, or mapped; maps kept)
-> `Store.views` (batches, image and map cropped by one draw).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from sal_fast.data import builtin, catalog, prepare, store, table
from sal_fast.data.decode import Decoder
from sal_fast.data.store import Keep, Store
from sal_fast.data.table import Table
from sal_fast.errors import InputError


def load_table(data: str, root: str | Path | None = None) -> Table:
    """The samples named by `--data`: `builtin`, a manifest (.csv, .parquet), a folder, a prepared folder, or
    a key of the catalog.

    A key (`cub200 flowers102 imagenet-s ham10000 food201`) is read from the folder `root`, `--root`. The key
    wins over a folder of that name: `./cub200` is the folder. Raises InputError that says what was expected.
    """
    if data in catalog.ENTRIES:
        if root is None:
            entry = catalog.ENTRIES[data]
            raise InputError(
                f"--data {data} needs --root DIR, the folder with {entry.layout}, or with the official "
                f"archives {', '.join(entry.archives)}"
            )
        return catalog.load(data, Path(os.path.expanduser(root)))
    if root is not None:
        raise InputError(f"--root goes with --data {', '.join(catalog.ENTRIES)}; --data {data} takes none")
    path = Path(os.path.expanduser(data))
    if data == "builtin":
        return builtin.load()
    if path.suffix.lower() in (".csv", ".parquet"):
        return table.read_manifest(path)
    if prepare.is_prepared(path):
        return prepare.read(path)
    return table.read_folder(path)


def open_store(samples: Table, image_size: int, stored_size: int, decoder: Decoder, keep: Keep) -> Store:
    """The store of a table; says first what is kept where, in how much memory.

    Where the device's memory runs out all the same, images are streamed, and that is said. Raises InputError
    that names the files that cannot be used, or the memory that is missing.
    """
    keep = store.plan(samples, image_size, stored_size, decoder.device, keep)
    print(store.describe(samples, image_size, stored_size, decoder, keep), flush=True)
    build = store.build if samples.prepared is None else prepare.build
    try:
        return build(samples, image_size, stored_size, decoder, keep)
    except torch.OutOfMemoryError:
        if keep == "stream":
            raise
    torch.cuda.empty_cache()
    print(
        f"sal-fast: note: {decoder.device} has too little memory left for all images: they are streamed",
        file=sys.stderr,
    )
    return build(samples, image_size, stored_size, decoder, "stream")


__all__ = ["Keep", "Store", "Table", "load_table", "open_store"]
