"""People, played by the data set's own masks."""

from __future__ import annotations

from torch import Tensor

from sal_fast.data.store import Store


def human(store: Store, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The human maps of `rows`: uint8 [k, F, F], and which of them exist, bool [k]."""
    return store.masks[rows], store.has_mask[rows]
