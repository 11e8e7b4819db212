"""Random numbers that depend on (seed, draw) alone, and the rows that they stand for."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CHUNK = 1024  # The rows of a partial sum: fixed, so that sums do not depend on who holds which rows.


def uniform(seed: int, first: int, count: int) -> np.ndarray:
    """Two numbers in [0, 1) for each draw, float64 [count, 2], from the seed and the draw's number alone."""
    words = np.random.Philox(key=seed, counter=first).random_raw(4 * count).reshape(count, 4)
    return np.asarray((words[:, :2] >> np.uint64(11)) * 2.0**-53)


def batches(seed: int, size: int) -> Iterator[np.ndarray]:
    """Yield the numbers of `size` draws at a time, [size, 2]. Making many at once costs little more."""
    for first in itertools.count(0, 16 * size):
        yield from uniform(seed, first, 16 * size).reshape(16, size, 2)


def padded(count: int, device: torch.device) -> Tensor:
    """A weight for each of `count` rows, followed by zeros up to a whole chunk."""
    return torch.zeros(-(-count // CHUNK) * CHUNK, dtype=torch.float64, device=device)


def sums(weights: Tensor) -> Tensor:
    """The sum of each chunk's weights, which `pick` needs. It changes only where weights of its chunk do."""
    return weights.view(-1, CHUNK).sum(1)


def pick(weights: Tensor, sums: Tensor, numbers: np.ndarray) -> Tensor | None:
    """A row for each number in [0, 1), with a chance proportional to its weight. None if all are zero.

    The sums are float64, over chunks of rows and then over rows. So there is no limit of 2^24 rows, as
    torch.multinomial has, and no row without weight is picked. Running sums are made on the CPU, in the order
    of the rows: on a GPU their order is not fixed, and deterministic mode refuses them.
    """
    chunks, ends = weights.view(-1, CHUNK), sums.cpu().cumsum(0)
    if not float(ends[-1]) > 0:
        return None
    target = torch.from_numpy(numbers) * ends[-1]
    chunk = _after(ends, target)
    inside = chunks[chunk.to(weights.device)].cpu().cumsum(1)
    before = torch.where(chunk > 0, ends[(chunk - 1).clamp_(min=0)], 0.0)
    return (chunk * CHUNK + _after(inside, (target - before)[:, None])[:, 0]).to(weights.device)


def _after(ends: Tensor, target: Tensor) -> Tensor:
    """The first place whose running sum exceeds the target, or the last with a weight if there is none."""
    last = torch.searchsorted(ends, ends[..., -1:].contiguous())
    return torch.minimum(torch.searchsorted(ends, target, right=True), last)
