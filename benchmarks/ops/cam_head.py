"""cam_head: ours, eager with the logits alone, eager with an einsum for the map, torch.compile of that."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.ops.cam import reference

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def fused(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    head = ops.cam_head(features, weight, bias, target)
    return head.logits, head.cam


def logits_only(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """No map: what the head costs anyway."""
    return (F.linear(features.float().mean((2, 3)), weight, bias),)


def _verify(backward: bool, features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> None:
    part = (features[:4], weight, bias, target[:4])
    exact = (*(x.double() for x in part[:3]), part[3])
    if not backward:
        for got, expected in zip(fused(*part), reference.cam_head(*exact, "cam"), strict=False):
            torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
        return
    double = with_gradient(lambda *args: reference.cam_head(*args, "cam")[:2], 3)
    for got, expected in zip(with_gradient(fused, 3)(*part), double(*exact), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=1e-3)


SIZES = {"batch": 64, "channels": 2048, "side": 7, "classes": 1000}


def cases(dtype: torch.dtype, batch: int, channels: int, side: int, classes: int) -> list[Case]:
    """Features of `dtype`, the linear layer in float32 (as under AMP)."""

    def inputs(device: torch.device, seed: int, layout: str) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        features = torch.randn(batch, channels, side, side, generator=draws, device=device).relu()
        weight, bias = (
            0.1 * torch.randn(size, generator=draws, device=device)
            for size in ((classes, channels), (classes,))
        )
        target = torch.randint(classes, (batch,), generator=draws, device=device)
        return features.to(dtype).contiguous(memory_format=FORMATS[layout]), weight, bias, target

    features_size = batch * channels * side * side * dtype.itemsize
    head = 4 * (classes * channels + batch * (classes + channels + side * side))
    result = []
    for layout in FORMATS:
        for backward in (False, True):
            variants: dict[str, Variant] = {
                "sal_fast": fused,
                "logits": logits_only,
                "eager": usual.cam_head,
                "compile": torch.compile(usual.cam_head, dynamic=False),
            }
            if backward:
                variants = {name: with_gradient(function, 3) for name, function in variants.items()}
            result.append(
                Case(
                    op="cam_head",
                    name=f"{layout}-{'forward-backward' if backward else 'forward'}",
                    inputs=functools.partial(inputs, layout=layout),
                    variants=variants,
                    verify=functools.partial(_verify, backward),
                    # Backward reads the features for the weight's gradient, and writes theirs.
                    bytes_moved=(3 if backward else 1) * features_size + (3 if backward else 1) * head,
                    shape=(batch, channels, side, side, classes),
                    dtype=name_of(dtype),
                )
            )
    return result
