"""Processes that share one run, as `torchrun` starts them: their parts of the work, and their exchange.

All other modules ask `Ranks`. A single process runs the same code and has nothing to exchange. Only tensors
are exchanged. Each rank does whole blocks, whose borders do not depend on the number of ranks.
"""

import datetime
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sal_fast._util import progress
from sal_fast.errors import InputError

# A rank waits for as long as another trains. If one dies, torchrun sees it.
PATIENCE = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `count`, and the exchange between them; `local` counts on one machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """True for the one rank that writes and tells."""
        return self.rank == 0

    @property
    def group(self) -> distributed.ProcessGroup | None:
        """The group of torch.distributed; None for a single process."""
        return distributed.group.WORLD if self.count > 1 else None

    def share(self, blocks: int, rank: int | None = None) -> range:
        """The blocks, of 0..blocks-1, that a rank does (None: this one): contiguous, in equal parts."""
        rank = self.rank if rank is None else rank
        return range(blocks * rank // self.count, blocks * (rank + 1) // self.count)

    def broadcast(self, values: Tensor, source: int = 0) -> Tensor:
        """The tensor of rank `source`. The others pass one of its shape and dtype, which is written over."""
        if self.count > 1 and values.numel():
            values = values.contiguous()
            distributed.broadcast(values.view(-1).view(torch.uint8), source)
        return values

    def number(self, value: float, source: int = 0) -> float:
        """The number that rank `source` passes."""
        return float(self.broadcast(torch.tensor([value], dtype=torch.float64), source))

    def text(self, value: str) -> str:
        """The text that the first rank passes."""
        data = value.encode() if self.first else b""
        size = int(self.number(len(data)))
        values = torch.tensor(list(data or bytes(size)), dtype=torch.uint8)
        return bytes(self.broadcast(values).tolist()).decode()

    def of_first(self, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """The tensor that `make` gives on the first rank, of the shape, dtype and device of `like`.

        If `make` raises InputError there, all ranks raise one, so that none waits in vain.
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
        """Fill in, in place, the rows that other ranks made.

        Each rank has written its `share` of `values` [N, ...], counted in blocks of `block` rows.
        """
        blocks = -(-len(values) // block)
        for source in range(self.count if self.count > 1 else 0):
            for at in self.share(blocks, source):  # a block at a time: the whole may not fit in memory
                rows = values[at * block : (at + 1) * block]
                rows.copy_(self.broadcast(rows.clone(), source))
        return values

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place. It is exact for integers, and if all ranks but one give zeros."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def same(self, module: nn.Module, source: int = 0) -> None:
        """Give all ranks the parameters and buffers of rank `source`."""
        if self.count > 1:
            for values in module.state_dict().values():
                values.copy_(self.broadcast(values.clone(), source))


ALONE = Ranks()


def is_first() -> bool:
    """True for the process that writes and tells."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone.

    Only the first rank prints, shows progress and logs below the level of warnings. Raises InputError if a
    machine has fewer GPUs than processes.
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
                quiet.callback(logging.disable, logging.NOTSET)
                logging.disable(logging.INFO)
            yield found
    finally:
        distributed.destroy_process_group()
