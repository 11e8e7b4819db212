"""Where samples come from and how they reach the device.

`load_table` (the built-in set, one of the paper's, a folder, a manifest) -> `splits.assign` -> `store.build`
(decode once, keep on the device) -> `augment` (one draw for image and mask).
"""

from __future__ import annotations

import os
from pathlib import Path

from sal_fast.data import builtin, catalog, table
from sal_fast.data.table import Table
from sal_fast.errors import InputError


def load_table(data: str, root: str | Path | None = None) -> Table:
    """The samples named by `--data`: `builtin`, a manifest file (.csv, .parquet), a folder, or a catalog key.

    A key of the catalog (`cub200 flowers102 imagenet-s ham10000 food201`) is read from the folder `root`,
    `--root`. The key wins over a folder of that name: `./cub200` is the folder. Raises InputError that says
    what was expected.
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
    return table.read_folder(path)


__all__ = ["Table", "load_table"]
