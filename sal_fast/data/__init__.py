"""Samples: where they come from, and how they reach the device.

`load_table` reads what `--data` names into a `Table`; from outside, `make_table` builds one. `splits.assign`
draws the splits that it does not have. `open_store` decodes its files into a `Store`, whose `views` are the
batches: an image and its map are cropped by one draw.

Importing this package is cheap: torch is imported when a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sal_fast.data.table import Sample, Table, make_table

if TYPE_CHECKING:
    from sal_fast.data.load import load_originals, load_table, open_store, plan_store
    from sal_fast.data.reading import Keep, StoreOptions
    from sal_fast.data.store import Store

_PLACES = {
    "Keep": "sal_fast.data.reading",
    "Store": "sal_fast.data.store",
    "StoreOptions": "sal_fast.data.reading",
    "load_originals": "sal_fast.data.load",
    "load_table": "sal_fast.data.load",
    "open_store": "sal_fast.data.load",
    "plan_store": "sal_fast.data.load",
}
__all__ = [
    "Keep",
    "Sample",
    "Store",
    "StoreOptions",
    "Table",
    "load_originals",
    "load_table",
    "make_table",
    "open_store",
    "plan_store",
]


def __getattr__(name: str) -> Any:
    """Import a name that needs torch when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'sal_fast.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value
