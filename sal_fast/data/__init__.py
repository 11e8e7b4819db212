"""Where samples come from and how they reach the device.

`load_table` (the built-in set, a folder, a manifest) -> `splits.assign` -> `store.build` (decode once, keep
on the device) -> `augment` (one draw for image and mask).
"""

from __future__ import annotations

import os
from pathlib import Path

from sal_fast.data import builtin, table
from sal_fast.data.table import Table


def load_table(data: str) -> Table:
    """The samples named by `--data`: `builtin`, a manifest file (.csv, .parquet), or a folder.

    Raises InputError that says what was expected.
    """
    path = Path(os.path.expanduser(data))
    if data == "builtin":
        return builtin.load()
    if path.suffix.lower() in (".csv", ".parquet"):
        return table.read_manifest(path)
    return table.read_folder(path)


__all__ = ["Table", "load_table"]
