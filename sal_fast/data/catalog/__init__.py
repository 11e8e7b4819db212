"""The paper's five data sets, read from their official archives.

There is one module per data set, with its layout, reader, split rule and mask rule. A table comes with every
split filled: the official split if there is one, otherwise one from a seed of the catalog's own. The run's
seed does not change it, and reading twice gives the same.
"""

from sal_fast.data.catalog import cub200, flowers102, food201, ham10000, imagenet_s
from sal_fast.data.table import SPLITS, Table

ENTRIES = {module.ENTRY.key: module.ENTRY for module in (cub200, flowers102, imagenet_s, ham10000, food201)}


def compare(key: str, table: Table) -> list[str]:
    """One line for each count that differs from Table 1 of the paper, and one for images without a mask."""
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


def allows(table: Table, allow_leaks: bool) -> bool:
    """True if pictures in several splits or classes are only told of.

    A prepared folder has the name of the data set that it was made from.
    """
    return allow_leaks or table.name in ENTRIES
