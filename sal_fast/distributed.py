"""Processes that share one run, as `torchrun` starts them: who does which part, and how all come to know it.

Everything else asks `Ranks`, and one process alone is the same code with nothing to exchange. Only tensors
are exchanged. Each rank does whole blocks whose borders do not depend on how many ranks there are.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sal_fast._util import progress
from sal_fast.errors import InputError

# A rank waits for as long as another trains; one that died is seen by torchrun.
PATIENCE = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `count`, and what they exchange; `local` is its rank on its own machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """The one that writes and tells."""
        return self.rank == 0

    @property
    def group(self) -> distributed.ProcessGroup | None:
        return distributed.group.WORLD if self.count > 1 else None

    def share(self, blocks: int, rank: int | None = None) -> range:
        """The blocks of a rank (None: this one's): contiguous, all dealt, one more or less."""
        rank = self.rank if rank is None else rank
        return range(blocks * rank // self.count, blocks * (rank + 1) // self.count)

    def broadcast(self, values: Tensor, source: int = 0) -> Tensor:
        """The tensor of rank `source`; the others give one of its shape and dtype, to be written over."""
        if self.count > 1 and values.numel():
            values = values.contiguous()
            distributed.broadcast(values.view(-1).view(torch.uint8), source)
        return values

    def number(self, value: float, source: int = 0) -> float:
        """A number of rank `source`."""
        return float(self.broadcast(torch.tensor([value], dtype=torch.float64), source))

    def of_first(self, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What the first rank makes, on `like`'s device; it has that shape and dtype.

        Where it raises InputError there, all ranks raise one: none waits for what does not come.
        """
        values, error = like, None
        if self.first:
            try:
                values = make().to(like.device)
            except InputError as found:
                error = found
        if self.number(error is not None):
            raise error or InputError("the first process cannot go on; it says why")
        return self.broadcast(values)

    def complete(self, values: Tensor, block: int) -> Tensor:
        """Fill in what the others did, in place: of `values` [N, ...], in blocks of `block` rows, each rank
        has written its `share`.
        """
        blocks = -(-len(values) // block)
        for source in range(self.count if self.count > 1 else 0):
            part = self.share(blocks, source)
            for at in part:  # a block at a time: the whole may be larger than the memory
                rows = values[at * block : (at + 1) * block]
                rows.copy_(self.broadcast(rows.clone(), source))
        return values

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place; exact for integers, and where all but one rank give zeros."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def same(self, module: nn.Module, source: int = 0) -> None:
        """Give every rank the parameters and buffers that rank `source` has."""
        if self.count > 1:
            for values in module.state_dict().values():
                values.copy_(self.broadcast(values.clone(), source))


ALONE = Ranks()


def is_first() -> bool:
    """Whether this process is the one that tells and writes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone; only the first says anything on stdout.

    Raises InputError where a machine has fewer GPUs than processes.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise InputError(
                f"local rank {local} has no GPU: this machine has {torch.cuda.device_count()}; "
                f"start as many processes (torchrun --nproc-per-node), or hide all (CUDA_VISIBLE_DEVICES=)"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)
    found = Ranks(distributed.get_rank(), distributed.get_world_size(), local)
    try:
        with ExitStack() as quiet:
            if not found.first:
                quiet.enter_context(redirect_stdout(quiet.enter_context(open(os.devnull, "w"))))
                quiet.enter_context(progress.hidden())
            yield found
    finally:
        distributed.destroy_process_group()
