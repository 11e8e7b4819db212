"""The order of a pool's rows that decides ties. It depends on the seed and the ids, not on the positions."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sal_fast._util.memory import roomy
from sal_fast.query.pool import ROWS, Pool


def key_order(ids: Sequence[str], seed: int) -> Tensor:
    """Positions of the ids sorted by their key, then by id, int64 [N].

    The key of an id is the first 64 bits of BLAKE2b of the seed (8 bytes, big-endian) and the id (UTF-8),
    read as a big-endian number. The seed is 0 to 2^64 - 1.
    """
    keys = _keys(ids, seed)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        order = np.array(sorted(range(len(ids)), key=lambda at: (keys[at], ids[at])))
    return torch.from_numpy(order.astype(np.int64))


def unsorted_order(ids: Sequence[str], seed: int) -> Tensor | None:
    """`key_order`, or None if the ids stand in that order already."""
    order = key_order(ids, seed)
    return None if torch.equal(order, torch.arange(len(ids))) else order


def in_order(pool: Pool, order: Tensor) -> Pool:
    """The pool with its rows in another order. Each matrix is copied once, to where `roomy` puts it."""
    return pool.replace(
        ids=[pool.ids[at] for at in order.tolist()],
        logits=_rows(pool.logits, order) if pool.has("logits") else None,
        features=_rows(pool.features, order) if pool.has("features") else None,
        images=(lambda positions: pool.images(order[positions])) if pool.has("images") else None,
    )


def _keys(ids: Sequence[str], seed: int) -> np.ndarray:
    start = hashlib.blake2b(seed.to_bytes(8, "big"))
    keys = bytearray()
    for one in ids:
        state = start.copy()
        state.update(one.encode())
        keys += state.digest()[:8]
    return np.frombuffer(bytes(keys), dtype=">u8").astype(np.uint64)


def _rows(values: Tensor, order: Tensor) -> Tensor:
    out = roomy(tuple(values.shape), values.dtype, values.device)
    for into, at in zip(out.split(ROWS), order.to(values.device).split(ROWS), strict=True):
        into.copy_(values[at])
    return out
