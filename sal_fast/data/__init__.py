"""Samples: where they come from, and how they reach the device.

`load_table` reads what `--data` names into a `Table`; from outside, `make_table` builds one. `splits.assign`
draws the splits that it does not have. `open_store` decodes its files into a `Store`, whose `views` are the
batches: an image and its map are cropped by one draw.
"""

from sal_fast.data.load import load_originals, load_table, open_store, plan_store
from sal_fast.data.reading import Keep, StoreOptions
from sal_fast.data.store import Store
from sal_fast.data.table import Sample, Table, make_table

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
