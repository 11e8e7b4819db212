"""The torch operators sal_fast::minmax_normalize and sal_fast::minmax_normalize_backward."""

from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.minmax_normalize import reference


def _inputs(maps: Tensor) -> dict[str, Any]:
    size = maps.shape[-2] * maps.shape[-1]
    count = maps.numel() // max(1, size)
    return {"maps": maps.contiguous(), "dtype": _launch.DTYPES[maps.dtype], "count": count, "size": size}


def _fill(result: Tensor, maps: Tensor) -> None:
    _launch.launch("minmax_normalize", maps.device, **_inputs(maps), out=result)


def _empty(maps: Tensor) -> Tensor:
    return torch.empty_like(maps, dtype=torch.float32, memory_format=torch.contiguous_format)


def _reference(maps: Tensor) -> Tensor:
    return reference.minmax_normalize(maps if maps.dtype == torch.float64 else maps.float())


def _backward_fill(grad: Tensor, upstream: Tensor, maps: Tensor) -> None:
    _launch.launch(
        "minmax_normalize_backward", maps.device, **_inputs(maps), upstream=upstream.contiguous(), grad=grad
    )


def _backward_empty(upstream: Tensor, maps: Tensor) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _differentiate(ctx: Any, upstream: Tensor) -> Tensor:
    return minmax_normalize_backward(upstream, *ctx.saved_tensors)


minmax_normalize_backward = _launch.operator(
    "minmax_normalize_backward(Tensor upstream, Tensor maps) -> Tensor", _backward_empty, _backward_fill
)
minmax_normalize = _launch.operator(
    "minmax_normalize(Tensor maps) -> Tensor",
    _empty,
    _fill,
    _launch.Fallback(_launch.native, _reference),
    _launch.Derivative(_save, _differentiate),
)
