"""The torch operators sal_fast::minmax_normalize and sal_fast::minmax_normalize_backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.minmax_normalize import reference


def _inputs(maps: Tensor) -> dict[str, Any]:
    size = maps.shape[-2] * maps.shape[-1]
    count = maps.numel() // max(1, size)
    return {"maps": maps, "dtype": _launch.DTYPES[maps.dtype], "count": count, "size": size}


def _kernel(maps: Tensor) -> Tensor:
    maps = maps.contiguous()
    result = torch.empty_like(maps, dtype=torch.float32)
    _launch.launch("minmax_normalize", maps.device, **_inputs(maps), out=result)
    return result


def _fake(maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape, dtype=torch.float32)


def _reference(maps: Tensor) -> Tensor:
    return reference.minmax_normalize(maps if maps.dtype == torch.float64 else maps.float())


def _backward_kernel(upstream: Tensor, maps: Tensor) -> Tensor:
    maps = maps.contiguous()
    grad = torch.empty_like(maps)
    _launch.launch(
        "minmax_normalize_backward", maps.device, **_inputs(maps), upstream=upstream.contiguous(), grad=grad
    )
    return grad


def _backward_fake(upstream: Tensor, maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _differentiate(ctx: Any, upstream: Tensor) -> Tensor:
    return minmax_normalize_backward(upstream, *ctx.saved_tensors)


minmax_normalize_backward = _launch.operator(
    "minmax_normalize_backward(Tensor upstream, Tensor maps) -> Tensor", _backward_kernel, _backward_fake
)
minmax_normalize = _launch.operator(
    "minmax_normalize(Tensor maps) -> Tensor",
    _kernel,
    _fake,
    _launch.Fallback(_launch.native, _reference),
    _launch.Derivative(_save, _differentiate),
)
