"""D^2 sampling in blocks: exact in distribution, with many picks for one pass over the pool.

Every row has a weight, an upper bound of its squared distance to the nearest pick. Distances only fall, so
the weights stay bounds when picks are added. A batch of candidates is drawn by the weights. Each candidate is
accepted with the chance distance / weight, where the distance to all picks so far is computed in float64. The
accepted rows follow the law of D^2 sampling, however loose the weights are (rejection sampling). Weights come
from products in float32, with the rounding error added, so that rounding costs draws but does not change the
law.

A pass over the pool lowers the weights by the picks since the last pass, which only saves rejected draws. So
a pass is made when the rejected draws have cost as much as it will (ski rental). Where picks are far apart,
as in many dimensions, one pass may serve hundreds of them.

If hardly any draw is accepted, the weights are computed in float64. A weight is then the distance itself.
When all of them are zero, the pool has nothing left to tell apart.

On a CPU the native core makes the first pass and the batches (core.py), and torch the passes that lower the
weights. The loop over batches is here, for every device.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sal_fast.ops import _rows
from sal_fast.ops._rows import Progress, Rows, Share
from sal_fast.ops.badge import core, draws
from sal_fast.ops.badge.reference import ROUNDING

BATCH = 64  # candidates drawn at a time
GROUP = 256  # the most picks in one product
# Costs in multiply-adds of float32. With times instead, picks would depend on the machine's load.
DRAW = 1 << 20  # of a candidate, beside its products
READ = 16  # of a row in a pass, beside its products: as much as so many products
REST = 128  # of a product of two rows, beside its multiply-adds
EXACT = 4  # of a multiply-add in float64
SCARCE = BATCH // 16  # If fewer of a batch are accepted right after a pass, float32 weights are given up.

# Draws BATCH candidates by the weights and their sums over chunks, with two numbers for each, accepts those
# that D^2 sampling would draw, and lowers their weights. The last argument is the list of all picks so far.
# The result is the new picks, or None if all weights are zero.
Batches = Callable[[Tensor, Tensor, np.ndarray, list[int]], list[int] | None]


def blocked(
    probs: Rows, features: Rows, k: int, seed: int, progress: Progress | None, share: Share
) -> Tensor:
    """The method `blocked` of `sal_fast.ops.badge`, for k <= N."""
    pool = _Pool(probs, features, share)
    picks = [pool.longest()][:k]
    batch, numbers = pool.batches(k), draws.batches(seed, BATCH)
    known = 0  # picks that the weights know of
    product = REST + probs.width + features.width
    while len(picks) < k:
        pool.cover(picks[known:])
        known, fresh, wasted = len(picks), True, 0
        row = product * (EXACT if pool.dtype == torch.float64 else 1)
        while len(picks) < k and (fresh or wasted < len(probs) * row * (len(picks) - known + READ)):
            accepted = batch(pool.weights, pool.sums, next(numbers), picks)
            if accepted is None:
                return _lowest(picks, k, pool.device)
            wasted += (BATCH - len(accepted)) * (DRAW + EXACT * product * len(picks))
            picks += accepted
            if progress is not None:
                progress(len(picks), k)
            if fresh and len(accepted) < SCARCE and pool.dtype != torch.float64:
                pool.dtype = torch.float64
                known = 0
                break
            fresh = False
    return torch.tensor(picks, dtype=torch.int64, device=pool.device)


def sequential(
    probs: Rows, features: Rows, k: int, seed: int, progress: Progress | None, share: Share
) -> Tensor:
    """The method `sequential`, for k <= N. Draw t makes pick t, after a pass over the pool in float64."""
    pool = _Pool(probs, features, share, torch.float64)
    picks = [pool.longest()][:k]
    numbers = draws.uniform(seed, 0, k)[:, 0]
    while len(picks) < k:
        pool.cover(picks[-1:])
        drawn = draws.pick(pool.weights, pool.sums, numbers[len(picks) : len(picks) + 1])
        if drawn is None:
            return _lowest(picks, k, pool.device)
        picks.append(int(drawn))
        if progress is not None:
            progress(len(picks), k)
    return torch.tensor(picks, dtype=torch.int64, device=pool.device)


def memory(probs: Tensor, features: Tensor, k: int, device: torch.device) -> int:
    """Bytes that are needed beside the inputs: for rows, a block of a pass, picks and candidates."""
    count, width = len(probs), probs.shape[1] + features.shape[1]
    block = max(
        _rows.block_rows(device, 4 * (width + 2 * GROUP)) * (width + 4 * GROUP) * 8,
        _rows.block_rows(device, 8 * width) * width * 24,
    )
    picks = 8 * k * core.packed_length(probs.shape[1], features.shape[1])
    return 24 * count + 24 * k + picks + block + 16 * (GROUP + BATCH) * width


def _lowest(picks: list[int], k: int, device: torch.device) -> Tensor:
    """Complete the picks by the lowest unpicked rows, when all distances are zero."""
    there = set(picks)
    rest = [row for row in range(k) if row not in there]
    return torch.tensor(picks + rest[: k - len(picks)], dtype=torch.int64, device=device)


class _Gradients(NamedTuple):
    """Gradients of the last layer, kept as the factors of their outer products: g.g' = (q.q')(e.e')."""

    residuals: Tensor  # q [n, C]
    features: Tensor  # e [n, d]
    norms: Tensor  # |g|^2, float64 [n]


class _Pool:
    """The pool, with three numbers for each row.

    `weights` (0 once a row is picked) and `norms` are float64, `tops` is the likeliest class. With float32
    products a weight is a bound of the squared distance; with float64 it is the squared distance. `sums`
    holds the sums of the weights over chunks of rows. The ranks share the passes, and all do everything else
    alike.
    """

    def __init__(self, probs: Rows, features: Rows, share: Share, dtype: torch.dtype | None = None) -> None:
        self.probs, self.features, self.device = probs, features, probs.device
        self.share = share
        count, classes, width = len(probs), probs.width, features.width
        self.weights = draws.padded(count, self.device)
        self.weights[:count] = torch.inf
        self.norms = torch.empty(count, dtype=torch.float64, device=self.device)
        self.tops = torch.empty(count, dtype=torch.int32, device=self.device)
        largest = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.fields = core.fields_of(probs, features)
        # Torch makes copies of a block in float64, and the core does not.
        size = _rows.block_rows(self.device, (classes + width) // 2 if self.fields else 8 * (classes + width))
        for _, at in share.walk(count, size):
            if self.fields:
                core.survey(self.fields, at, self.tops, self.norms, largest)
            else:
                self._survey(at, largest)
        share.most(largest)
        most = largest.tolist()
        product = most[1] * max(1.0, most[0])
        _rows.check_values("badge", "probs or features", max(most))
        _rows.check_values("badge", "products of probs and features", product)
        share.whole(self.tops, size)
        share.whole(self.norms, size)
        self.dtype = dtype or _rows.working_dtype(product, probs.values.dtype, features.values.dtype)
        # Relative to the sum of two squared norms, which is at least twice the product of the norms.
        self.error = _rows.product_error(classes + width, torch.float32)
        scale = (1 + classes * (1 + most[0]) ** 2) * (1 + width * most[1] ** 2)
        self.vanishing = 4 * (classes + width) * torch.finfo(torch.float32).tiny * scale

    def _survey(self, at: slice, largest: Tensor) -> None:
        """Find the likeliest classes and norms of some rows, and raise the largest magnitudes."""
        blocks = self.probs.block(at), self.features.block(at)
        for number, block in enumerate(blocks):
            largest[number] = torch.maximum(largest[number], _rows.magnitude(block))
        if self.probs.width:
            self.tops[at] = blocks[0].argmax(1)
        q = self._residuals(blocks[0], self.tops[at], torch.float64)
        self.norms[at] = q.square_().sum(1) * blocks[1].double().square().sum(1)

    def longest(self) -> int:
        """The row of the largest norm; the first one if several are equal."""
        return int(self.norms.argmax()) if len(self.norms) else 0

    def cover(self, picks: list[int]) -> None:
        """Lower the weights of the whole pool by these picks, with one pass for every GROUP of them."""
        count = len(self.norms)
        for start in range(0, len(picks), GROUP):
            index = torch.tensor(picks[start : start + GROUP], device=self.device)
            others = self._gradients(index, self.dtype)
            row_bytes = 4 * (self.probs.width + self.features.width + 2 * len(index))
            for _, at in self.share.walk(count, _rows.block_rows(self.device, row_bytes)):
                q = self._residuals(self.probs.block(at), self.tops[at], self.dtype)
                rows = _Gradients(q, self.features.block(at).to(self.dtype), self.norms[at])
                exact = self.dtype == torch.float64
                near = _squared(rows, others).amin(1) if exact else self._bound(rows, others)
                self.weights[at] = torch.minimum(self.weights[at], near)
            self.weights[index] = 0.0
        self.share.least(self.weights)
        self.sums = draws.sums(self.weights)

    def batches(self, k: int) -> Batches:
        """The function that draws a batch. It is the core's on a CPU."""
        if self.fields is None:
            return functools.partial(self._batch, k)
        return core.Batches(self.fields, self.tops, self.norms, k, self.dtype, self.vanishing)

    def _batch(
        self, k: int, weights: Tensor, sums: Tensor, numbers: np.ndarray, picks: list[int]
    ) -> list[int] | None:
        candidates = draws.pick(weights, sums, numbers[:, 0])
        return None if candidates is None else self._accept(candidates, numbers[:, 1], picks, k - len(picks))

    def _accept(self, candidates: Tensor, numbers: np.ndarray, picks: list[int], most: int) -> list[int]:
        """Accept the candidates, drawn by the weights, that D^2 sampling would draw; at most `most`."""
        rows = self._gradients(candidates, torch.float64)
        near = torch.full_like(rows.norms, torch.inf)
        for start in range(0, len(picks), GROUP):
            others = self._gradients(torch.tensor(picks[start : start + GROUP]), torch.float64)
            near = torch.minimum(near, _squared(rows, others).amin(1))
        among = _squared(rows, rows).cpu().numpy()
        distance, weight = near.cpu().numpy(), self.weights[candidates].cpu().numpy()
        index = candidates.cpu().numpy()
        distance[np.isin(index, picks)] = 0.0
        accepted: list[int] = []
        for turn, number in enumerate(numbers):
            if len(accepted) < most and number * weight[turn] < distance[turn]:
                accepted.append(int(index[turn]))
                distance = np.minimum(distance, among[turn])
                distance[index == index[turn]] = 0.0
        self.weights[candidates] = torch.from_numpy(np.minimum(weight, distance)).to(self.device)
        chunks = candidates // draws.CHUNK
        self.sums[chunks] = draws.sums(self.weights.view(-1, draws.CHUNK)[chunks].flatten())
        return accepted

    def _bound(self, rows: _Gradients, others: _Gradients) -> Tensor:
        """Upper bounds of the squared distances to the nearest of `others`, float64 [n]."""
        inner = (rows.residuals @ others.residuals.T).mul_(rows.features @ others.features.T)
        low = inner.mul_(-2).add_((others.norms * (1 + self.error)).float()).amin(1)
        return low.double().add_(rows.norms, alpha=1 + self.error).add_(self.vanishing)

    def _gradients(self, index: Tensor, dtype: torch.dtype) -> _Gradients:
        index = index.to(self.device)
        residuals = self._residuals(self.probs.take(index), self.tops[index], dtype)
        return _Gradients(residuals, self.features.take(index).to(dtype), self.norms[index])

    def _residuals(self, probs: Tensor, tops: Tensor, dtype: torch.dtype) -> Tensor:
        """p - onehot(argmax p), as a new tensor."""
        result = probs.to(dtype, copy=True)
        if probs.shape[1]:
            result[torch.arange(len(tops), device=self.device), tops.long()] -= 1
        return result


def _squared(rows: _Gradients, others: _Gradients) -> Tensor:
    """Squared distances in float64, [n, m]. Values that are zero but for rounding are set to zero."""
    scale = rows.norms[:, None] + others.norms
    inner = (rows.residuals @ others.residuals.T).mul_(rows.features @ others.features.T)
    squared = inner.mul_(-2).add_(scale)
    return squared.masked_fill_(squared <= ROUNDING * scale, 0.0)
