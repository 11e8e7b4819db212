"""Rows of matrices that may be larger than the memory at hand: what `kcenter` and `badge` share.

A pass over the pool is a walk over blocks of rows that stay in the cache (on a GPU: that fill it), so nothing
of the size of the pool is made but a few numbers a row. A block is all that a pass asks of the pool: ranks
that keep contiguous shards of it would walk over theirs and gather the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sal_fast._memory import free_memory

# Bytes of a block. A GPU needs more rows to be busy than a core's cache holds.
_BLOCK = {"cpu": 1 << 20, "cuda": 256 << 20}
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


def walk(count: int, rows: int) -> Iterator[slice]:
    """Blocks of `rows` that cover 0..count-1, all of one size: the last overlaps the one before.

    One shape, one order of summation: equal rows get equal results wherever they stand. What is done to a
    block must bear being done twice.
    """
    for start in range(0, count, rows):
        start = max(0, min(start, count - rows))
        yield slice(start, min(start + rows, count))


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


def check_memory(op: str, needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if needed > free:
        raise MemoryError(
            f"{op}: {needed / 1e9:.2f} GB are needed on {device} beside the inputs, {free / 1e9:.2f} GB are "
            f"free; free some, name another device=, or give a part of the pool"
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
