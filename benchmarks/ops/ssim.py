"""ssim with border `valid`: ours, eager torch, pytorch-msssim, torch.compile of eager."""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.ops.ssim import reference

SIZES = {"batch": 16, "channels": 3, "side": 256}
WINDOW = 11


def eager(x: Tensor, y: Tensor) -> Tensor:
    return usual.ssim(x, y, WINDOW).mean()


def msssim(x: Tensor, y: Tensor) -> Tensor:
    from pytorch_msssim import ssim

    return ssim(x, y, data_range=1.0)


def _verify(x: Tensor, y: Tensor) -> None:
    def exact(x: Tensor, y: Tensor) -> Tensor:
        return reference.ssim(x, y, WINDOW, 1.5, "valid", 1.0).mean()

    x, y = x[:2], y[:2]
    torch.testing.assert_close(ops.ssim(x, y).double(), exact(x.double(), y.double()), rtol=1e-4, atol=1e-5)
    for got, expected in zip(
        with_gradient(ops.ssim, 2)(x, y), with_gradient(exact, 2)(x.double(), y.double()), strict=True
    ):
        torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


def cases(dtype: torch.dtype, batch: int, channels: int, side: int) -> list[Case]:
    def inputs(device: torch.device, seed: int) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        shape = (batch, channels, side, side)
        coarse = torch.rand(batch, channels, 8, 8, generator=draws, device=device)
        x = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
        noise = torch.randn(shape, generator=draws, device=device)
        return x.to(dtype), (x + 0.1 * noise).clamp(0, 1).to(dtype)

    values = batch * channels * side * side
    result = []
    for gradients in (0, 1, 2):
        variants: dict[str, Variant] = {"sal_fast": ops.ssim, "eager": eager}
        if importlib.util.find_spec("pytorch_msssim"):
            variants["msssim"] = msssim
        variants["compile"] = torch.compile(eager, dynamic=False)
        if gradients:
            variants = {name: with_gradient(function, gradients) for name, function in variants.items()}
        result.append(
            Case(
                op="ssim",
                name=("forward", "forward-backward-x", "forward-backward-xy")[gradients],
                inputs=inputs,
                variants=variants,
                verify=_verify,
                bytes_moved=values * (2 + gradients) * dtype.itemsize,
                shape=(batch, channels, side, side),
                dtype=name_of(dtype),
            )
        )
    return result
