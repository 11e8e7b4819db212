from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sal_fast import seeds
from sal_fast.data import decode, load_table, splits, store


@pytest.fixture(scope="session")
def samples(shared_folder: Path) -> store.Store:
    """The shared folder's thirty images at 32 pixels, kept in memory."""
    table = splits.assign(load_table(str(shared_folder)), seeds.stream(0, "split"))
    return store.build(table, store.StoreOptions(32, 32, decode.choose("torch", torch.device("cpu"))))
