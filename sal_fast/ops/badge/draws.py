"""Random numbers keyed by (seed, draw), and the rows that they stand for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHUNK = 1024  # rows of one partial sum: fixed, so that sums do not depend on who holds which rows


def uniform(seed: int, first: int, count: int) -> np.ndarray:
    """float64 [count, 2] in [0, 1): two numbers a draw, from the seed and the draw's number alone."""
    words = np.random.Philox(key=seed, counter=first).random_raw(4 * count).reshape(count, 4)
    return np.asarray((words[:, :2] >> np.uint64(11)) * 2.0**-53)


def padded(count: int, device: torch.device) -> Tensor:
    """A weight for each of `count` rows, and zeros up to a whole chunk."""
    return torch.zeros(-(-count // CHUNK) * CHUNK, dtype=torch.float64, device=device)


def sums(weights: Tensor) -> Tensor:
    """Of each chunk: what `pick` needs, and changes only where weights do."""
    return weights.view(-1, CHUNK).sum(1)


def pick(weights: Tensor, sums: Tensor, numbers: np.ndarray) -> Tensor | None:
    """For each number in [0, 1) a row, with chance proportional to its weight; None where all are zero.

    Float64 sums over chunks of rows, then over rows: no limit of 2^24 rows, as torch.multinomial has, and no
    row without weight.
    """
    chunks, ends = weights.view(-1, CHUNK), sums.cumsum(0)
    if not float(ends[-1]) > 0:
        return None
    target = torch.from_numpy(numbers).to(weights.device) * ends[-1]
    chunk = _after(ends, target)
    inside = chunks[chunk].cumsum(1)
    before = torch.where(chunk > 0, ends[(chunk - 1).clamp_(min=0)], 0.0)
    return chunk * CHUNK + _after(inside, (target - before)[:, None])[:, 0]


def _after(ends: Tensor, target: Tensor) -> Tensor:
    """The first whose running sum exceeds the target; where rounding leaves none, the last with a weight."""
    last = torch.searchsorted(ends, ends[..., -1:].contiguous())
    return torch.minimum(torch.searchsorted(ends, target, right=True), last)
