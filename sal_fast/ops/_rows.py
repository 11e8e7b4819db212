"""What `kcenter` and `badge` share: rows of matrices that may be larger than the memory at hand.

A pass over the pool walks over blocks of rows that are small enough for the cache (on a GPU: large enough to
fill it). So a few numbers a row are all that is made of the pool's size. The ranks of a group divide the
blocks among them and exchange these numbers.
"""

import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, distributed

from sal_fast._util.memory import free_memory
from sal_fast.ops import _checks

Progress = Callable[[int, int], None]  # called with (picked, to pick) now and then

# The bytes of a block. A GPU is busy only with more rows than a core's cache holds.
_BLOCK = {"cpu": 2 << 20, "cuda": 256 << 20}
# A sum is made of so many parts, each a run of blocks: fixed, so that it does not depend on who sums which.
PARTS = 256
# Float32 holds the squares of values below this, and their sums. Below 1 / _SAFE squares vanish.
_SAFE = 1e15


class Rows:
    """The rows of a matrix [N, d] that stays where it is: in memory, on a GPU or in a mapped file.

    `device` is where the blocks are wanted. A matrix that is elsewhere is copied once if it fits on that
    device.
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
        """The rows with these numbers, in their own dtype."""
        return self.values[index.to(self.values.device)].to(self.device)


class Share:
    """A rank's share of every pass over the pool. Without a group, this process has all of it.

    Blocks of `rows` cover 0..count-1. All have the same size, so that the last overlaps the one before, and
    what is done to a block must bear being done twice. One shape means one order of summation: equal rows get
    equal results wherever they stand.

    The blocks are the same for any number of ranks, and each belongs to one rank. What the ranks found is put
    together so that no bit tells who found it. All ranks must make the same calls of `least`, `most`, `total`
    and `whole`. So whatever decides about a call is known to all ranks, or came from such a call.
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
        """How many parts there are, each a run of blocks."""
        return min(-(-count // rows), PARTS)

    def walk(self, count: int, rows: int) -> Iterator[tuple[int, slice]]:
        """Yield this rank's blocks in turn, each with the number of its part."""
        blocks, parts = -(-count // rows), self.parts(count, rows)
        for part in self._own(parts):
            for block in range(blocks * part // parts, blocks * (part + 1) // parts):
                start = _start(block, count, rows)
                yield part, slice(start, min(start + rows, count))

    def whole(self, values: Tensor, rows: int) -> None:
        """Combine what all ranks wrote in their walks. Where blocks of `rows` overlap, the later one wins."""
        if self.size > 1 and len(values):
            count = len(values)
            blocks, parts = -(-count // rows), self.parts(count, rows)
            own = self._own(parts)
            values[: _start(blocks * own.start // parts, count, rows)] = 0
            if own.stop < parts:
                values[_start(blocks * own.stop // parts, count, rows) :] = 0
            self.total(values)

    def least(self, values: Tensor) -> None:
        """Replace the values by the least of all ranks."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.MIN, self.group)

    def most(self, values: Tensor) -> None:
        """Replace the values by the largest of all ranks."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.MAX, self.group)

    def total(self, values: Tensor) -> None:
        """Replace the values by their sum over the ranks. It is exact where all ranks but one have a zero."""
        if self.size > 1 and values.numel():
            distributed.all_reduce(values, distributed.ReduceOp.SUM, self.group)

    def _own(self, parts: int) -> range:
        return range(parts * self.rank // self.size, parts * (self.rank + 1) // self.size)


def _start(block: int, count: int, rows: int) -> int:
    return max(0, min(block * rows, count - rows))


def block_rows(device: torch.device, row_bytes: int) -> int:
    """How many rows of `row_bytes` a block has: a multiple of 64, because products of odd sizes are slow."""
    return max(64, _BLOCK.get(device.type, _BLOCK["cuda"]) // max(row_bytes, 1) // 64 * 64)


def place(values: Tensor, device: torch.device | str | None) -> torch.device:
    """The device where the arithmetic runs: the one that was asked for, or that of the values."""
    return values.new_empty(0, device=device).device  # of "cuda", this is the current GPU


def picks_of(op: str, k: int, count: int) -> int:
    """How many of `count` rows are picked when k are asked for."""
    k = _checks.integer(op, "k", k)
    if k < 0:
        raise ValueError(f"{op}: k must be at least 0, got {k}")
    return min(k, count)


def working_dtype(largest: float, *dtypes: torch.dtype) -> torch.dtype:
    """Float32 if it has the inputs' precision and its range holds their squares; otherwise float64."""
    within = largest == 0 or 1 / _SAFE < largest < _SAFE
    return torch.float32 if torch.float64 not in dtypes and within else torch.float64


def check_values(op: str, name: str, largest: float) -> None:
    """Raise if the largest `magnitude` stands for NaN or infinity, or is too large to be squared."""
    if largest == float("inf"):
        raise ValueError(f"{op}: {name} contain NaN or infinity; expected finite numbers")
    if largest > 1e140:
        raise ValueError(f"{op}: {name} reach {largest:.0e}, and their squares overflow; scale them down")


def check_memory(op: str, needed: int, share: Share) -> None:
    """Raise MemoryError on all ranks if one of them has less than `needed` bytes free."""
    least = torch.tensor(free_memory(share.device), device=share.device)
    share.least(least)
    free = int(least)
    if needed > free:
        raise MemoryError(
            f"{op}: {needed / 1e9:.2f} GB are needed on {share.device} beside the inputs, "
            f"{free / 1e9:.2f} GB are free; free some, name another device=, or give a part of the pool"
        )


class _FullPrecision:
    """Products in their dtype's precision (no TF32, no bfloat16). The error bounds rely on it.

    Torch has one setting for the whole process. Of several threads the first that enters changes it, and the
    last that leaves puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ""

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("highest")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_float32_matmul_precision(self._before)


full_precision = _FullPrecision()


def product_error(width: int, dtype: torch.dtype) -> float:
    """A bound, relative to |a||b|, of the rounding of a.b and of the steps before and after it.

    Whatever the order, summing `width` terms errs by at most `width` unit roundoffs (Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd ed. 2002, Sec. 3.1). There are 16 more for centring, norms and
    sums, and a tenth for terms of higher order. The float64 sums that the product is compared with count
    twice.
    """
    return (width + 16) * (0.55 * torch.finfo(dtype).eps + torch.finfo(torch.float64).eps)


def magnitude(values: Tensor) -> Tensor:
    """The largest absolute value of a tensor in float64: infinity if it has NaN, 0 if it is empty."""
    if not values.numel():
        return torch.zeros((), dtype=torch.float64, device=values.device)
    low, high = values.aminmax()
    largest = torch.maximum(high, -low).double()
    return largest.masked_fill(largest.isnan(), torch.inf)
