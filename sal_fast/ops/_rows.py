"""Rows of matrices that may be larger than the memory at hand: what `kcenter` and `badge` share.

A pass over the pool is a walk over blocks of rows that stay in the cache (on a GPU: that fill it), so nothing
of the size of the pool is made but a few numbers a row. Ranks of a group divide the blocks among them and
exchange these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from sal_fast._util.memory import free_memory

# Bytes of a block. A GPU needs more rows to be busy than a core's cache holds.
_BLOCK = {"cpu": 1 << 20, "cuda": 256 << 20}
PARTS = 256  # runs of blocks that a sum is made of: fixed, so that it does not depend on who sums which
_SAFE = 1e15  # of values whose squares and their sums float32 holds; below 1 / _SAFE they vanish


class Rows:
    """The rows of a matrix [N, d], which stays where it is: in memory, on a GPU, in a mapped file.

    `device` is where the blocks are wanted. A matrix that lives elsewhere and fits there is copied once.
    """

    def __init__(self, values: Tensor, device: torch.device) -> None:
        if values.device != device and 1.25 * values.nbytes < free_memory(device) and device.type != "cpu":
            values = values.to(device)
        self.values, self.device = values, device

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def block(self, at: slice) -> Tensor:
        return self.values[at].to(self.device)

    def take(self, index: Tensor) -> Tensor:
        """Rows by number, in their own dtype."""
        return self.values[index.to(self.values.device)].to(self.device)


class Share:
    """A rank's share of every pass over the pool; all of it where there is no group.

    Blocks of `rows` cover 0..count-1, all of one size: the last overlaps the one before. One shape, one order
    of summation: equal rows get equal results wherever they stand. What is done to a block must bear being
    done twice.

    The blocks are the same for any number of ranks, each is one rank's, and what the ranks found is put
    together so that no bit tells who found it. All ranks must call `least`, `most`, `total` and `whole`
    alike: what decides whether to is known to all, or went through them.
    """

    def __init__(self, op: str, device: torch.device, group: distributed.ProcessGroup | None) -> None:
        self.device, self.group = device, group
        self.rank, self.size = 0, 1
        if group is not None:
            self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
            if self.rank < 0:
                raise ValueError(f"{op}: this process is not in the group that it names")

    @staticmethod
    def parts(count: int, rows: int) -> int:
        """How many runs of blocks there are."""
        return min(-(-count // rows), PARTS)

    def walk(self, count: int, rows: int) -> Iterator[tuple[int, slice]]:
        """This rank's blocks in turn, each with the number of its part."""
        blocks, parts = -(-count // rows), self.parts(count, rows)
        for part in self._own(parts):
            for block in range(blocks * part // parts, blocks * (part + 1) // parts):
                start = _start(block, count, rows)
                yield part, slice(start, min(start + rows, count))

    def whole(self, values: Tensor, rows: int) -> None:
        """Give every rank what each wrote in its walk over blocks of `rows`: where two overlap, the later."""
        if self.size > 1 and len(values):
            count = len(values)
            blocks, parts = -(-count // rows), self.parts(count, rows)
            own = self._own(parts)
            values[: _start(blocks * own.start // parts, count, rows)] = 0
            if own.stop < parts:
                values[_start(blocks * own.stop // parts, count, rows) :] = 0
            self.total(values)

    def least(self, values: Tensor) -> None:
        """Over the ranks, in place."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.MIN, self.group)

    def most(self, values: Tensor) -> None:
        """Over the ranks, in place."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.MAX, self.group)

    def total(self, values: Tensor) -> None:
        """Over the ranks, in place. Of any number of ranks the same where all but one have a zero."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.SUM, self.group)

    def _own(self, parts: int) -> range:
        return range(parts * self.rank // self.size, parts * (self.rank + 1) // self.size)


def _start(block: int, count: int, rows: int) -> int:
    return max(0, min(block * rows, count - rows))


def block_rows(device: torch.device, row_bytes: int) -> int:
    """How many rows of this size a block has; a multiple of 64, so that products are not all edge."""
    return max(64, _BLOCK.get(device.type, _BLOCK["cuda"]) // max(row_bytes, 1) // 64 * 64)


def place(values: Tensor, device: torch.device | str | None) -> torch.device:
    """Where the arithmetic runs: as asked, or where the values are."""
    found = values.device if device is None else torch.device(device)
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", torch.cuda.current_device())
    return found


def working_dtype(largest: float, *dtypes: torch.dtype) -> torch.dtype:
    """float32 for inputs of at most its precision, if the squares of their values are within its range."""
    within = largest == 0 or 1 / _SAFE < largest < _SAFE
    return torch.float32 if torch.float64 not in dtypes and within else torch.float64


def check_values(op: str, name: str, total: Tensor, largest: float) -> None:
    """Raise for NaN and infinity, which a sum keeps, and for what no arithmetic here can square."""
    if not bool(total.isfinite().all()) or not largest < float("inf"):
        raise ValueError(f"{op}: {name} contain NaN or infinity; expected finite numbers")
    if largest > 1e140:
        raise ValueError(f"{op}: {name} reach {largest:.0e}, and their squares overflow; scale them down")


def check_memory(op: str, needed: int, share: Share) -> None:
    """Raise, on all ranks alike, where one has too little."""
    least = torch.tensor(free_memory(share.device), device=share.device)
    share.least(least)
    free = int(least)
    if needed > free:
        raise MemoryError(
            f"{op}: {needed / 1e9:.2f} GB are needed on {share.device} beside the inputs, "
            f"{free / 1e9:.2f} GB are free; free some, name another device=, or give a part of the pool"
        )


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in the precision of their dtype (no TF32, no bfloat16): bounds of their error rely on it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_error(width: int, dtype: torch.dtype) -> float:
    """A bound, relative to |a||b|, of the rounding of a.b and of what is done to it before and after.

    Any order of summing `width` terms errs by at most width unit roundoffs (Higham, Accuracy and Stability
    of Numerical Algorithms, Sec. 3.1); 16 more for centring, norms and sums, a tenth for higher orders, and
    twice that of the float64 sums that it is held against.
    """
    return (width + 16) * (0.55 * torch.finfo(dtype).eps + torch.finfo(torch.float64).eps)


def magnitude(values: Tensor) -> Tensor:
    """The largest absolute value of what is not empty, in float64; NaN where there is one."""
    low, high = values.aminmax()
    return torch.maximum(high, -low).double()
