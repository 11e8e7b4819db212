"""The paper's five data sets, read from their official archives: `load(key, root)`.

One module a data set: its layout, reader, split rule and mask rule. A table comes with every split filled,
official where there is an official one, otherwise from a seed of the catalog's own: the run's seed does not
change it, and reading twice gives the same.
"""

from __future__ import annotations

from pathlib import Path

from sal_fast.data.catalog import archives, cub200, flowers102, food201, ham10000, imagenet_s
from sal_fast.data.catalog.entry import Entry
from sal_fast.data.table import SPLITS, Table
from sal_fast.errors import InputError

ENTRIES = {module.ENTRY.key: module.ENTRY for module in (cub200, flowers102, imagenet_s, ham10000, food201)}


def load(key: str, root: Path) -> Table:
    """The data set `key` in the folder `root`.

    Where files are missing and official archives lie there, these are unpacked first. Raises InputError that
    says what was expected.
    """
    entry = ENTRIES[key]
    if not root.is_dir():
        raise InputError(f"--root {root}: no such folder; expected {entry.layout} in it")
    try:
        return entry.read(root)
    except InputError:
        if not archives.unpack(root, entry.archives):
            raise
    return entry.read(root)


def compare(key: str, table: Table) -> list[str]:
    """One line for each count that is not Table 1's, and one for images without a mask."""
    here = {name: len(table.rows(name)) for name in SPLITS} | {"classes": len(table.classes)}
    lines = [
        f"{name}: {here[name]:,} here, {count:,} in Table 1"
        for name, count in ENTRIES[key].counts.items()
        if here[name] != count
    ]
    without = table.masks.count(None)
    if without:
        lines.append(f"no mask: {without:,} of {len(table):,} images")
    return lines


__all__ = ["ENTRIES", "Entry", "compare", "load"]
