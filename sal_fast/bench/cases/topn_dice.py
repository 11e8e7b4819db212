"""Dice of the top-N pixels of class activation maps with human masks."""

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
from sal_fast.bench.single import OpBenchmark, compiled, distances, draws
from sal_fast.bench.suite import Case, Variant


def fused(cam: Tensor, mask: Tensor) -> Tensor:
    """Return the Dice with masks of bytes."""
    return ops.topn_dice(cam, mask).dice


def packed(cam: Tensor, words: Tensor, width: int) -> Tensor:
    """Return the Dice with masks of bits."""
    return ops.topn_dice(cam, ops.BitMask(words, width)).dice


def sort(cam: Tensor, mask: Tensor) -> Tensor:
    """Return the Dice of a batch by a stable sort."""
    size = (mask.shape[1], mask.shape[2])
    large = F.interpolate(cam.float()[:, None], size, mode="bilinear").flatten(1)
    human = mask.flatten(1)
    n = human.sum(1)
    order = large.argsort(dim=1, descending=True, stable=True)
    hits = human.gather(1, order) & (torch.arange(large.shape[1], device=cam.device) < n[:, None])
    return hits.sum(1) / n


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """Dice of the top-N pixels of CAMs with human masks of bytes or bits, and of CAMs after a ReLU.

    The ReLU leaves a third of the pixels. `topk` goes image by image, since N differs; `sort` sorts a batch.
    """

    SMALL: ClassVar = {"batch": 2, "frame": 32}

    batch: int = 64
    """Images."""
    side: int = 7
    """Pixels a side of the CAMs."""
    frame: int = 224
    """Pixels a side of the masks."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int, case: str) -> tuple[Tensor, ...]:
            normal, uniform, _ = draws(device, seed)
            cam = normal(self.batch, self.side, self.side)
            mask = distances(self.batch, self.frame, uniform) < 1
            if case == "relu":
                cam = (cam - 0.43).relu()
            return cam.to(self.kind), ops.BitMask.pack(mask).words if case == "packed" else mask

        def verify(cam: Tensor, stored: Tensor) -> None:
            mask = stored if stored.dtype == torch.bool else ops.BitMask(stored, self.frame)
            got, expected = ops.topn_dice(cam, mask), ops.topn_dice(cam.double(), mask)
            assert torch.equal(got.n, expected.n)
            # float32 may exchange neighbours of the N-th pixel.
            assert int((got.hits - expected.hits).abs().max()) <= 2

        eager: dict[str, Variant] = {"topk": usual.topn_dice, "sort": sort, "compile": compiled(sort)}
        for case in ("bool", "packed", "relu"):
            bits = case == "packed"
            row = 4 * -(-self.frame // 32) if bits else self.frame
            yield Case(
                case,
                {"sal_fast": partial(packed, width=self.frame)} if bits else {"sal_fast": fused} | eager,
                partial(inputs, case=case),
                verify,
                # The mask's size is needed before a pixel is chosen; its second read finds it in the cache.
                bytes_moved=self.batch * (self.frame * row + self.side**2 * self.kind.itemsize + 20),
            )
