"""Greedy k-center (Core-Set)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed

from sal_fast.ops import _checks, _rows
from sal_fast.ops.kcenter import blocks


@torch.no_grad()
def kcenter(
    features: Tensor,
    k: int,
    *,
    centers: Tensor | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """Pick rows one by one, each the farthest (L2) from all centres so far.

    `i_t = argmax_i min_{c in centres} |x_i - x_c|`; the lowest index wins a tie. Without given centres the
    first pick is the row of the largest norm. When all distances are zero the lowest unpicked index follows.

    The picks are those of one at a time in float64, whatever the dtype: float32 products bound the distances,
    with their rounding error, and what the bounds leave open is computed in float64 (see `blocks`).

    Args:
        features: [N, d], floating, finite. They may lie on a GPU, in memory or in a mapped file (`np.memmap`,
            `torch.from_file`, safetensors) of any size, which is then read by blocks of rows.
        k: how many; min(k, N) rows are picked, none twice.
        centers: [L, d], rows that are centres already (the labelled set).
        device: where the arithmetic runs; None: where the features are.
        progress: called with (picked, to pick) now and then.
        group: ranks that call with the same inputs, each with its own copy, on machines of one kind with as
            many threads. They divide the passes over the pool, exchange 8 bytes a row after each, and return
            the same picks as one process, bit by bit of every bound.

    Returns:
        int64 [min(k, N)] on the features' device, in the order picked. Work at most (k + L) N d in products.
        Memory beside the inputs: 16 bytes a row, and blocks of some MB (CPU) or some 100 MB (GPU).

    Raises:
        TypeError, ValueError: types and shapes, negative k; NaN or infinity; values above 1e140.
        MemoryError: what is needed beside the inputs is not free.

    Source: Sener and Savarese 2017; paper App. A.1.
    """
    _checks.floating("kcenter", features=features)
    _checks.together("kcenter", features=features, centers=centers)
    _checks.shape("kcenter", "features", features, None, None)
    if centers is not None:
        _checks.floating("kcenter", centers=centers)
        _checks.shape("kcenter", "centers", centers, None, features.shape[1])
    if k < 0:
        raise ValueError(f"kcenter: k must be at least 0, got {k}")
    k = min(k, len(features))
    place = _rows.place(features, device)
    share = _rows.Share("kcenter", place, group)
    _rows.check_memory("kcenter", blocks.memory(features, k, place), share)
    given = _rows.Rows(centers, place) if centers is not None and len(centers) else None
    with _rows.full_precision():
        picks = blocks.kcenter(_rows.Rows(features, place), k, given, progress, share)
    return picks.to(features.device)
