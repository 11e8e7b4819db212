"""One model trained by several ranks, a part of every batch each.

`Replicated` is DistributedDataParallel. The global batch is that of one process, but each rank has batch
statistics of its own (rank 0's are kept), so the model depends on the number of ranks. `Sharded` gives the
same bits with any number of ranks: it cuts the batch into a fixed number of shards, each with its own batch
statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sal_fast.distributed import Ranks

Batch = tuple[Any, ...]  # the arguments of a loss; each can be sliced by images
Norm = nn.modules.batchnorm._BatchNorm


def pieces(count: int, most: int) -> list[slice]:
    """Cut 0..count-1 into at most `most` slices, of at least two where it can be (batch norm needs two)."""
    parts = max(1, min(most, count // 2))
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


class Replicated:
    """The gradient of each rank's part of the batch, averaged by images."""

    def __init__(self, loss: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        self.loss = DistributedDataParallel(loss)

    def __call__(self, batch: Batch) -> Tensor:
        count = len(batch[0])
        part = self.ranks.share(count)
        # DDP divides by the number of ranks; a rank without an image goes along and adds nothing
        share = len(part) / count
        mine = slice(part.start, part.stop) if part else slice(0, min(2, count))
        loss = self.loss(*(values[mine] for values in batch)) * (share * self.ranks.count)
        loss.backward()
        return self.ranks.total(loss.detach() / self.ranks.count)


class Sharded:
    """Gradients and batch statistics of the shards, summed in their order, whichever rank made them.

    A step keeps a gradient for each shard, and the ranks exchange them.
    """

    def __init__(self, loss: nn.Module, ranks: Ranks, shards: int) -> None:
        self.loss, self.ranks, self.shards = loss, ranks, shards
        self.parameters = list(loss.parameters())
        self.norms = [module for module in loss.modules() if isinstance(module, Norm)]
        self.momenta = [0.1 if norm.momentum is None else norm.momentum for norm in self.norms]
        counters = [norm.num_batches_tracked for norm in self.norms]
        self.counters = [value for value in counters if value is not None]
        kept = [(norm.running_mean, norm.running_var) for norm in self.norms]
        self.statistics: list[Tensor] = [value for pair in kept for value in pair if value is not None]

    def __call__(self, batch: Batch) -> Tensor:
        count = len(batch[0])
        parts = pieces(count, self.shards)
        sizes = [1, *(value.numel() for value in (*self.parameters, *self.statistics))]
        device = self.parameters[0].device
        # a row for each shard: its loss, gradient and statistics, weighted by its share of the images
        rows = self.parameters[0].new_zeros(len(parts), sum(sizes))
        seeds = torch.randint(2**62, (len(parts),)).tolist()  # of the network's draws: alike on all ranks
        before = [value.clone() for value in self.statistics]
        counted = [value.clone() for value in self.counters]
        for i in self.ranks.share(len(parts)):
            with torch.random.fork_rng([device] if device.type == "cuda" else []), self._statistics_of_one():
                torch.manual_seed(seeds[i])
                loss = self.loss(*(values[parts[i]] for values in batch))
            gradients = torch.autograd.grad(loss, self.parameters)
            found = (loss.detach(), *gradients, *self.statistics)
            rows[i] = torch.cat([value.flatten() for value in found]) * len(range(count)[parts[i]]) / count
        self.ranks.total(rows)  # all ranks but one give zeros: exact
        whole = rows[0].clone()
        for row in rows[1:]:
            whole += row
        total, *values = whole.split(sizes)
        for parameter, gradient in zip(self.parameters, values, strict=False):
            parameter.grad = gradient.view_as(parameter)
        seen = values[len(self.parameters) :]
        for i, (kept, old, new) in enumerate(zip(self.statistics, before, seen, strict=True)):
            kept.copy_(old.lerp(new, self.momenta[i // 2]))
        for counter, there in zip(self.counters, counted, strict=True):
            counter.copy_(there + 1)
        return total[0]

    @contextmanager
    def _statistics_of_one(self) -> Iterator[None]:
        """Make the running statistics those of the batch that runs."""
        for norm in self.norms:
            norm.momentum = 1.0
        yield
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            norm.momentum = momentum
