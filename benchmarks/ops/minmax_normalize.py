"""minmax_normalize: ours, eager torch, torch.compile of it. Eager gives NaN for a flat map; ours does not."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast import ops
from sal_fast.ops.minmax_normalize import reference

SIZES = {"maps": 64, "side": 224}


def eager(maps: Tensor) -> Tensor:
    maps = maps.float()
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def _verify(maps: Tensor) -> None:
    exact = reference.minmax_normalize(maps.double())
    torch.testing.assert_close(ops.minmax_normalize(maps).double(), exact, rtol=1e-5, atol=1e-6)


def cases(dtype: torch.dtype, maps: int, side: int) -> list[Case]:
    def inputs(device: torch.device, seed: int, side: int) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        return (torch.randn(maps, side, side, generator=draws, device=device).to(dtype),)

    result = []
    for length in (7, side):
        for backward in (False, True):
            variants: dict[str, Variant] = {
                "sal_fast": ops.minmax_normalize,
                "eager": eager,
                "compile": torch.compile(eager, dynamic=False),
            }
            if backward:
                variants = {name: with_gradient(function) for name, function in variants.items()}
            values = maps * length * length
            result.append(
                Case(
                    op="minmax_normalize",
                    name=f"{length}-{'forward-backward' if backward else 'forward'}",
                    inputs=functools.partial(inputs, side=length),
                    variants=variants,
                    verify=_verify,
                    # The extremes need the whole map before a value is written; it stays in the cache.
                    bytes_moved=values * (dtype.itemsize + 4) * (2 if backward else 1),
                    shape=(maps, length, length),
                    dtype=name_of(dtype),
                )
            )
    return result
