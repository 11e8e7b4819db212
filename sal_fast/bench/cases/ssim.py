"""The structural similarity of images."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, compiled, draws
from sal_fast.bench.suite import Case, Variant

WAYS = ("forward", "forward-backward-x", "forward-backward-xy")  # by the number of gradients


def eager(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean over the images."""
    return usual.ssim(x, y).mean()


def msssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean over the images by pytorch-msssim."""
    from pytorch_msssim import ssim

    return ssim(x, y, data_range=1.0)


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """SSIM with a window of 11 pixels and border `valid`, with gradients to no, one or both images.

    The variant `eager` has five convolutions; `msssim` is pytorch-msssim, if it is installed.
    """

    SMALL: ClassVar = {"batch": 2, "side": 24}

    batch: int = 16
    """Pairs of images."""
    channels: int = 3
    """Channels of an image."""
    side: int = 256
    """Pixels a side."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int) -> tuple[Tensor, ...]:
            normal, uniform, _ = draws(device, seed)
            coarse = uniform(self.batch, self.channels, 8, 8)
            x = F.interpolate(coarse, (self.side, self.side), mode="bicubic").clamp(0, 1)
            return x.to(self.kind), (x + 0.1 * normal(x.shape)).clamp(0, 1).to(self.kind)

        named: dict[str, Variant] = {"sal_fast": ops.ssim, "eager": eager}
        if importlib.util.find_spec("pytorch_msssim"):
            named["msssim"] = msssim
        named["compile"] = compiled(eager)
        values = self.batch * self.channels * self.side**2
        for gradients, way in enumerate(WAYS):
            variants = (
                {name: usual.with_gradient(f, gradients) for name, f in named.items()} if gradients else named
            )
            rtol, atol = (1e-2, 1e-2) if gradients else (1e-4, 1e-5)
            yield Case(
                way,
                variants,
                inputs,
                partial(agree, variants["sal_fast"], rtol=rtol, atol=atol),
                bytes_moved=values * (2 + gradients) * self.kind.itemsize,
            )
