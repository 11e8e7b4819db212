"""sal_fast.ops.dice against counting in Python and against torchmetrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from precision import assert_replays, on_gpu
from torch import Tensor

from sal_fast import ops
from sal_fast.ops import BitMask

SIZES = [(4, 1, 1), (5, 7, 31), (5, 8, 32), (3, 9, 70), (2, 64, 64), (2, 224, 224), (0, 5, 9), (2, 0, 4)]


def pair(batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """From empty to full."""
    draw = torch.Generator().manual_seed(seed)
    share = torch.linspace(-0.1, 1.1, batch)[:, None, None] if batch else torch.zeros(0, 1, 1)
    first = torch.rand(batch, height, width, generator=draw) < share
    return first, torch.rand(batch, height, width, generator=draw) < share


def by_counting(first: Tensor, second: Tensor, empty: float) -> list[float]:
    sets = [
        [{i for i, bit in enumerate(image) if bit} for image in x.flatten(1).tolist()]
        for x in (first, second)
    ]
    return [2 * len(a & b) / (len(a) + len(b)) if a or b else empty for a, b in zip(*sets, strict=True)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_values(size: tuple[int, int, int], device: torch.device) -> None:
    first, second = pair(*size)
    expected = by_counting(first, second, math.nan)
    kinds = (lambda mask: mask.to(device), lambda mask: BitMask.pack(mask).to(device))
    for left, right in itertools.product(kinds, kinds):
        got = ops.dice(left(first), right(second))
        assert got.dtype == torch.float32
        assert got.device.type == device.type
        assert got.tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(("empty", "value"), [("skip", math.nan), ("zero", 0.0), ("one", 1.0)])
def test_empty_policy(empty: ops.topn.Empty, value: float, device: torch.device) -> None:
    first, second = torch.zeros(2, 3, 5, 9, dtype=torch.bool, device=device).unbind()
    second[1, 2, 3] = True
    second[2] = True
    got = ops.dice(first, second, empty=empty)
    assert got.tolist() == pytest.approx([value, 0.0, 0.0], nan_ok=True)


def test_against_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.segmentation")
    first, second = (x[1:] for x in pair(6, 40, 33))
    expected = functional.dice_score(
        first[:, None].long(), second[:, None].long(), num_classes=1, input_format="one-hot", average=None
    )
    torch.testing.assert_close(ops.dice(first, second), expected.reshape(-1).float())


def test_counts_of_many_pixels_are_exact(device: torch.device) -> None:
    """Where a sum in float16 is infinite, and one in float32 misses the last pixels."""
    mask = torch.ones(1, 4200, 4100, dtype=torch.bool, device=device)
    other = mask.clone()
    other[0, 0, 0] = False
    area = mask[0].numel()
    assert float(ops.dice(mask, other)) == pytest.approx(2 * (area - 1) / (2 * area - 1), abs=6e-8)
    assert float(ops.dice(BitMask.pack(mask), BitMask.pack(mask))) == 1.0


def test_strides(device: torch.device) -> None:
    first, second = (x.to(device) for x in pair(4, 40, 96))
    words = BitMask.pack(first)
    for change in (
        lambda x: x[:, ::2], lambda x: x[:, :, 1::3], lambda x: x.transpose(1, 2),
        lambda x: x[:, 3:, 16:80], lambda x: x[:1].expand(4, -1, -1), lambda x: x[:, :, 1:],
    ):  # fmt: skip
        a, b = change(first), change(second)
        expected = ops.dice(a.contiguous(), b.contiguous())
        torch.testing.assert_close(ops.dice(a, b), expected, rtol=0, atol=0, equal_nan=True)
    expected = ops.dice(first, second)
    turned = BitMask(words.words.transpose(1, 2).contiguous().transpose(1, 2), 96)
    torch.testing.assert_close(ops.dice(turned, second), expected, rtol=0, atol=0, equal_nan=True)
    rows = BitMask(words.words[:, ::2], 96)
    torch.testing.assert_close(
        ops.dice(rows, second[:, ::2]),
        ops.dice(first[:, ::2], second[:, ::2]),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(device: torch.device) -> None:
    for batch in (3, 0):
        first, second = (x.to(device) for x in pair(batch, 9, 45))
        kinds = (lambda mask: mask, lambda mask: BitMask.pack(mask).words)
        for left, right in itertools.product(kinds, kinds):
            arguments = (left(first), right(second), 45, 0.0)  # opcheck finds NaN unequal to itself
            torch.library.opcheck(torch.ops.sal_fast.dice.default, arguments)


def test_meta() -> None:
    mask = torch.empty(3, 5, 7, dtype=torch.bool, device="meta")
    assert ops.dice(mask, mask).shape == (3,)


@on_gpu
@pytest.mark.parametrize("packed", [False, True])
def test_replayed_graph_on_a_side_stream(packed: bool) -> None:
    first, second = (x[1:4].cuda() for x in pair(5, 64, 64))
    left, right = ((BitMask.pack(x) if packed else x) for x in (first, second))

    def change() -> None:
        for mask, other in zip((left, right), pair(6, 64, 64, seed=1), strict=True):
            if isinstance(mask, BitMask):
                mask.words.copy_(BitMask.pack(other[1:4]).words)
            else:
                mask.copy_(other[1:4])

    assert_replays(lambda: [ops.dice(left, right)], change)


MASK = torch.ones(2, 4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.dice(MASK.float(), MASK), TypeError, "pred must be bool or a BitMask, got torch.fl"),
        (lambda: ops.dice(MASK, 3), TypeError, "mask must be a tensor or a BitMask, got int"),
        (lambda: ops.dice(MASK[0], MASK), ValueError, r"pred must have shape \[\*, \*, \*\], got \[4, 5\]"),
        (lambda: ops.dice(MASK, MASK[:, :, 1:]), ValueError, r"shape \[2, 4, 5\] as pred, got \[2, 4, 4\]"),
        (lambda: ops.dice(MASK, MASK, empty="nan"), ValueError, "empty must be one of skip, zero, one"),
        (lambda: ops.dice(MASK, MASK.to("meta")), ValueError, "pred on cpu, mask on meta"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
