"""BADGE: k-means++ on hallucinated last-layer gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, distributed

from sal_fast.ops import _checks, _rows
from sal_fast.ops.badge import blocks

Method = Literal["blocked", "sequential"]
METHODS: tuple[Method, ...] = get_args(Method)


@torch.no_grad()
def badge(
    probs: Tensor,
    features: Tensor,
    k: int,
    *,
    seed: int,
    method: Method = "blocked",
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """Pick rows by D^2 sampling on `g_i = (p_i - onehot(argmax p_i)) x e_i`, factorised.

    g is an outer product of q = p - onehot and the feature e, so `|g|^2 = |q|^2 |e|^2` and
    `g.g' = (q.q')(e.e')`: the C d vectors are never formed. The first pick has the largest norm (lowest index
    on a tie); each next is drawn with chance proportional to its squared distance to the nearest pick. When
    all distances are zero the lowest unpicked index follows.

    Both methods follow this law; for one seed they pick differently. `blocked` draws candidates by bounds of
    the distances and accepts them by the distances (rejection sampling): many picks a pass over the
    pool. `sequential` makes a pass for every pick, all in float64. Float32 inputs are multiplied in float32,
    whose rounding error the bounds include: the distances that decide are float64 in either method.

    Args:
        probs: [N, C], floating, softmax outputs. They and the features may lie on a GPU, in memory or in a
            mapped file (`np.memmap`, `torch.from_file`, safetensors) of any size, which is then read by
            blocks of rows.
        features: [N, d], floating, penultimate features.
        k: how many; min(k, N) rows are picked, none twice.
        seed: 0..2^64-1, keys the draws: two numbers for each, from the seed and the draw's number alone.
        method: `blocked` or `sequential`.
        device: where the arithmetic runs; None: where the inputs are.
        progress: called with (picked, to pick) now and then.
        group: ranks that call with the same inputs, each with its own copy, on machines of one kind with as
            many threads. They divide the passes over the pool, exchange 8 bytes a row after each, and return
            the same picks as one process, bit by bit of every weight.

    Returns:
        int64 [min(k, N)] on the inputs' device, in the order picked. Work at most k N (C + d) in products.
        Memory beside the inputs: 20 bytes a row, and blocks of some MB (CPU) or up to 1 GB (GPU).

    Raises:
        TypeError, ValueError: types and shapes, negative k, an unknown method, a seed out of range; NaN or
            infinity; values above 1e140.
        MemoryError: what is needed beside the inputs is not free.

    Source: Ash et al. 2019; paper App. A.1.
    """
    _checks.floating("badge", probs=probs, features=features)
    _checks.together("badge", probs=probs, features=features)
    _checks.shape("badge", "probs", probs, None, None)
    _checks.shape("badge", "features", features, len(probs), None)
    _checks.choice("badge", "method", method, METHODS)
    if k < 0:
        raise ValueError(f"badge: k must be at least 0, got {k}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"badge: seed must lie in 0..2^64-1, got {seed}")
    k = min(k, len(probs))
    place = _rows.place(probs, device)
    share = _rows.Share("badge", place, group)
    _rows.check_memory("badge", blocks.memory(probs, features, k, place), share)
    run = blocks.blocked if method == "blocked" else blocks.sequential
    with _rows.full_precision():
        picks = run(_rows.Rows(probs, place), _rows.Rows(features, place), k, seed, progress, share)
    return picks.to(probs.device)
