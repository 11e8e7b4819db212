"""Greedy k-center (Core-Set)."""

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
    progress: _rows.Progress | None = None,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """Pick rows one by one, each the farthest (in L2 distance) from all centres so far.

    `i_t = argmax_i min_{c in centres} |x_i - x_c|`, and the lowest index wins a tie. If no centres are given,
    the first pick is the row of the largest norm. When all distances are zero, the lowest unpicked index
    follows.

    Whatever the dtype, the picks are those of one at a time in float64. Products in float32, with their
    rounding error, bound the distances; whatever the bounds leave open is computed in float64 (see `blocks`).

    Args:
        features: [N, d], floating, finite. They may be on a GPU, in memory, or in a mapped file of any size
            (`np.memmap`, `torch.from_file`, safetensors), which is read by blocks of rows.
        k: min(k, N) rows are picked, none of them twice.
        centers: [L, d], rows that are centres already (the labelled set).
        device: where the arithmetic runs. None means where the features are.
        progress: called with (picked, to pick) now and then.
        group: ranks that call with the same inputs, each with its own copy, on machines of one kind with
            equally many threads. They divide the passes over the pool, exchange 8 bytes a row after each, and
            return the picks of one process; every bound has the same bits.

    Returns:
        int64 [min(k, N)] on the features' device, in the order of picking. The work is at most (k + L) N d in
        products. Beside the inputs it takes 16 bytes a row, and blocks of some MB (CPU) or 100 MB (GPU).

    Raises:
        TypeError, ValueError: wrong types or shapes, a negative k, NaN or infinity, values above 1e140.
        MemoryError: too little memory is free.

    Source: Sener and Savarese 2017, arXiv:1708.00489; paper App. A.1.
    """
    _checks.floating("kcenter", features=features)
    _checks.together("kcenter", features=features, centers=centers)
    _checks.shape("kcenter", "features", features, None, None)
    if centers is not None:
        _checks.floating("kcenter", centers=centers)
        _checks.shape("kcenter", "centers", centers, None, features.shape[1])
    k = _rows.picks_of("kcenter", k, len(features))
    place = _rows.place(features, device)
    share = _rows.Share("kcenter", place, group)
    _rows.check_memory("kcenter", blocks.memory(features, k, place), share)
    given = _rows.Rows(centers, place) if centers is not None and len(centers) else None
    with _rows.full_precision:
        picks = blocks.kcenter(_rows.Rows(features, place), k, given, progress, share)
    return picks.to(features.device)
