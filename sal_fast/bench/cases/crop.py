"""Crops of stored images and masks, made into a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.single import OpBenchmark, agree, compiled, draws
from sal_fast.bench.suite import Case, Variant
from sal_fast.bench.usual import MEAN, STD

COVERED = 0.49  # of an image, by a box on average: 0.7 of each side


def fresh(
    images: Tensor, rows: Tensor, *box: Tensor, frame: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    """Return the batch in new memory, or in `out`."""
    scale = torch.tensor([1 / (255 * std) for std in STD]).diag()
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    color = torch.cat([scale, shift[:, None]], 1).to(images.device)
    edges = box[0] if box else None
    return ops.crop_images(images, rows, edges, size=frame, color=color, dtype=dtype, out=out)


class Kept:
    """Writes to the memory of the batch before, as a training loop does."""

    def __init__(self, frame: int, dtype: torch.dtype) -> None:
        self.function = partial(fresh, frame=frame, dtype=dtype)
        self.out: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.out = self.function(*inputs, out=self.out)
        return self.out


def crop_masks(words: Tensor, rows: Tensor, box: Tensor, frame: int) -> Tensor:
    """Return crops of masks whose pixels are bits."""
    return ops.crop_masks(ops.BitMask(words, frame), rows, box, size=frame)


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """Batches from stored images: whole images, boxes of larger ones, and boxes of masks of bits.

    The variant `sal_fast` writes to the memory of the batch before, `fresh` to new memory. `eager` indexes,
    converts, calls grid_sample and normalises.
    """

    SMALL: ClassVar = {"batch": 3, "stored": 4, "side": 20, "frame": 16}

    batch: int = 64
    """Images of a batch."""
    stored: int = 1000
    """Images that are stored."""
    side: int = 256
    """Pixels a side of the larger images."""
    frame: int = 224
    """Pixels a side of the batch, of the smaller images and of the masks."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        def inputs(seed: int, case: str) -> tuple[Tensor, ...]:
            _, uniform, below = draws(device, seed)
            rows = below(self.stored, (self.batch,))
            corners = 0.3 * uniform(self.batch, 4)
            box = torch.cat([corners[:, :2], 1 - corners[:, 2:]], 1)
            if case == "masks":
                masks = uniform(self.stored, self.frame, self.frame) < 0.3
                return ops.BitMask.pack(masks).words, rows, box
            side = self.frame if case == "frame" else self.side
            images = below(256, (self.stored, side, side, 3), dtype=torch.uint8)
            return (images, rows) if case == "frame" else (images, rows, box)

        def verify(words: Tensor, rows: Tensor, box: Tensor) -> None:
            assert torch.equal(masks["sal_fast"](words, rows, box), masks["eager"](words, rows, box.double()))

        sizes: dict[str, Any] = {"frame": self.frame, "dtype": self.kind}
        eager = partial(usual.crop_images, **sizes)
        exact = partial(usual.crop_images, frame=self.frame, dtype=torch.float64)
        eps = torch.finfo(self.kind).eps
        masks: dict[str, Variant] = {
            "sal_fast": partial(crop_masks, frame=self.frame),
            "eager": partial(usual.crop_masks, frame=self.frame),
        }
        area = self.frame**2
        for case, read in (("frame", 3 * area), ("crop", 3 * COVERED * self.side**2)):
            yield Case(
                case,
                {
                    "sal_fast": Kept(**sizes),
                    "fresh": partial(fresh, **sizes),
                    "eager": eager,
                    "compile": compiled(eager),
                },
                partial(inputs, case=case),
                partial(agree, partial(fresh, **sizes), rtol=eps, atol=1.5 * eps, against=exact),
                bytes_moved=round(self.batch * (read + 3 * self.kind.itemsize * area)),
            )
        yield Case(
            "masks",
            masks,
            partial(inputs, case="masks"),
            verify,
            bytes_moved=round(self.batch * (COVERED * self.frame * 4 * -(-self.frame // 32) + area)),
        )
