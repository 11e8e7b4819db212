"""The linear head of a network, and the class activation map from the same read of the features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, both_ways, compiled, draws
from sal_fast.bench.suite import Case

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def fused(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Return logits and map by the op."""
    return ops.cam_head(features, weight, bias, target)[:2]


def logits_only(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Return the logits without a map, which a network computes anyway."""
    return (F.linear(features.float().mean((2, 3)), weight, bias),)


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """Logits and class activation maps from features.

    The variant `logits` is the head without a map; `eager` computes the map by an einsum. The linear layer is
    float32, as under AMP.
    """

    SMALL: ClassVar = {"batch": 3, "channels": 16, "classes": 5}

    batch: int = 64
    """Images."""
    channels: int = 2048
    """Channels of the features."""
    side: int = 7
    """Rows and columns of the features."""
    classes: int = 1000
    """Outputs of the linear layer."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int, layout: str) -> tuple[Tensor, ...]:
            normal, _, below = draws(device, seed)
            features = normal(self.batch, self.channels, self.side, self.side).relu().to(self.kind)
            weight, bias = 0.1 * normal(self.classes, self.channels), 0.1 * normal(self.classes)
            target = below(self.classes, (self.batch,))
            return features.contiguous(memory_format=FORMATS[layout]), weight, bias, target

        features = self.batch * self.channels * self.side**2 * self.kind.itemsize
        head = 4 * (self.classes * self.channels + self.batch * (self.classes + self.channels + self.side**2))
        named = {
            "sal_fast": fused,
            "logits": logits_only,
            "eager": usual.cam_head,
            "compile": compiled(usual.cam_head),
        }
        for layout in FORMATS:
            for way, backward, variants in both_ways(named, leaves=3):
                rtol, atol = (1e-2, 1e-4) if backward else (1e-4, 1e-5)
                yield Case(
                    f"{layout}-{way}",
                    variants,
                    partial(inputs, layout=layout),
                    partial(agree, variants["sal_fast"], rtol=rtol, atol=atol),
                    # Backward reads the features for the weight's gradient, and writes their own.
                    bytes_moved=(3 if backward else 1) * (features + head),
                )
