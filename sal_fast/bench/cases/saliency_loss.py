"""The saliency loss between class activation maps and human maps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, both_ways, compiled, distances, draws
from sal_fast.bench.suite import Case, Variant

BYTES = {"bool": 1, "packed": 1 / 8, "graded": 4}  # of a pixel of the human map


def packed(cam: Tensor, words: Tensor, width: int, map_size: int | None) -> Tensor:
    """Return the loss against masks whose pixels are bits."""
    return ops.saliency_loss(cam, ops.BitMask(words, width), map_size=map_size)


def msssim(cam: Tensor, target: Tensor, map_size: int | None) -> Tensor:
    """Return the loss by pytorch-msssim."""
    from pytorch_msssim import ssim

    x, y = usual.at_one_size(cam, target, map_size)
    window = 7 if map_size is None else 11
    return 1 - ssim(x, y, data_range=1.0, win_size=window) + (x - y).abs().mean()


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """The saliency loss, 1 - SSIM + L1, at the size of the human map and at that of the CAM.

    Human maps are masks of bytes, masks of bits, or graded. `eager` has five convolutions with a Gaussian;
    `msssim` is pytorch-msssim, if it is installed.
    """

    SMALL: ClassVar = {"batch": 2, "frame": 32}

    batch: int = 64
    """Images."""
    side: int = 7
    """Pixels a side of the CAMs."""
    frame: int = 224
    """Pixels a side of the human maps."""

    def inputs(self, device: torch.device, seed: int, target: str) -> tuple[Tensor, ...]:
        """Return CAMs, and human maps of one blob an image."""
        normal, uniform, _ = draws(device, seed)
        cam = normal(self.batch, self.side, self.side).to(self.kind)
        far = distances(self.batch, self.frame, uniform)
        if target == "graded":
            return cam, torch.exp(-(far**2))
        return cam, ops.BitMask.pack(far < 1).words if target == "packed" else far < 1

    def cases(self, device: torch.device) -> Iterator[Case]:
        for map_size in (self.frame, None):
            for target in BYTES:
                named: dict[str, Variant] = {"sal_fast": partial(packed, width=self.frame)}
                if target != "packed":
                    named = {"sal_fast": ops.saliency_loss, "eager": usual.saliency_loss}
                    if importlib.util.find_spec("pytorch_msssim"):
                        named["msssim"] = msssim
                    named["compile"] = compiled(usual.saliency_loss)
                named = {name: partial(function, map_size=map_size) for name, function in named.items()}
                for way, backward, variants in both_ways(named):
                    cams = self.batch * self.side**2 * (self.kind.itemsize + (4 if backward else 0))
                    tolerance = 1e-2 if backward else 1e-5
                    yield Case(
                        f"{map_size or self.side}-{target}-{way}",
                        variants,
                        partial(self.inputs, device, target=target),
                        partial(agree, variants["sal_fast"], rtol=tolerance, atol=tolerance),
                        bytes_moved=int(self.batch * self.frame**2 * BYTES[target]) + cams,
                    )
