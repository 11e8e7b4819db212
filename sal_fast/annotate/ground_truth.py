"""People, played by the data set's own masks."""

from __future__ import annotations

from torch import Tensor

from sal_fast.data.masks import Masks
from sal_fast.data.store import Store


def human(store: Store, rows: Tensor) -> tuple[Masks, Tensor]:
    """The human maps of `rows`, and which of them exist, bool [k]."""
    return store.masks[rows], store.has_mask[rows]
