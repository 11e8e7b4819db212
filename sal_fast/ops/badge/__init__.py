"""BADGE: k-means++ on hallucinated gradients of the last layer."""

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
    progress: _rows.Progress | None = None,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """Pick rows by D^2 sampling on `g_i = (p_i - onehot(argmax p_i)) x e_i`, without forming the g_i.

    g is an outer product of q = p - onehot and the feature e, so that products and norms factorise:
    `|g|^2 = |q|^2 |e|^2` and `g.g' = (q.q')(e.e')`. The first pick has the largest norm (the lowest index on
    a tie). Each next one is drawn with a chance proportional to its squared distance to the nearest pick.
    When all distances are zero, the lowest unpicked index follows.
    Both methods follow this law, but pick differently for one seed. `blocked` draws candidates by bounds of
    the distances and accepts them by the distances (rejection sampling), so that a pass over the pool gives
    many picks; the bounds include the rounding error of float32. `sequential` makes a pass for every pick, in
    float64. The distances that decide are float64 in either method.

    On a CPU the native core reads the pool the first time, and draws and accepts the candidates, with as many
    threads as torch has. Its sums have one order, so the picks depend neither on the threads nor on the
    instruction set of the core. Torch makes the passes that lower the bounds, as it makes everything on a GPU
    or where there is no core.

    Args:
        probs: [N, C], floating, softmax outputs. They and the features may be on a GPU, in memory, or in a
            mapped file of any size (`np.memmap`, `torch.from_file`, safetensors), read by blocks of rows.
        features: [N, d], floating, penultimate features.
        k: min(k, N) rows are picked, none of them twice.
        seed: 0..2^64-1. Each draw uses two numbers, made from the seed and the draw's own number.
        method: `blocked` or `sequential`.
        device: where the arithmetic runs. None means where the inputs are.
        progress: called with (picked, to pick) now and then.
        group: ranks that call with the same inputs, each with its own copy, on machines of one kind with
            equally many threads. They divide the passes over the pool, exchange 8 bytes a row after each, and
            return the picks of one process, and every weight has the same bits.

    Returns:
        int64 [min(k, N)] on the inputs' device, in the order of picking. The work is at most k N (C + d) in
        products. Beside the inputs it takes 20 bytes a row, the picked rows on a CPU, and blocks of some MB
            (CPU) or up to 1 GB (GPU).

    Raises:
        TypeError, ValueError: wrong types or shapes; a k, seed or method out of range; NaN, infinity, values
            above 1e140. MemoryError: too little memory is free.

    Source: Ash et al. 2019, arXiv:1906.03671; paper App. A.1.
    """
    _checks.floating("badge", probs=probs, features=features)
    _checks.together("badge", probs=probs, features=features)
    _checks.shape("badge", "probs", probs, None, None)
    _checks.shape("badge", "features", features, len(probs), None)
    _checks.choice("badge", "method", method, METHODS)
    if not 0 <= seed < 2**64:
        raise ValueError(f"badge: seed must lie in 0..2^64-1, got {seed}")
    k = _rows.picks_of("badge", k, len(probs))
    place = _rows.place(probs, device)
    share = _rows.Share("badge", place, group)
    _rows.check_memory("badge", blocks.memory(probs, features, k, place), share)
    run = blocks.blocked if method == "blocked" else blocks.sequential
    with _rows.full_precision:
        picks = run(_rows.Rows(probs, place), _rows.Rows(features, place), k, seed, progress, share)
    return picks.to(probs.device)
