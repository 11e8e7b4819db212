"""A network, and a store of noise with blobs for masks: what they cost does not depend on what they show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sal_fast.bench import timing
from sal_fast.bench.timing import Precision
from sal_fast.data.masks import Masks
from sal_fast.data.store import Resident, Store, assembled
from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.models import Classifier, build, feature_size


@dataclass(frozen=True)
class Network(timing.Options):
    """The options of a benchmark with a network."""

    arch: str = "resnet18"
    """The network, with random weights."""
    image_size: int = 64
    """Pixels a side that it sees."""
    output_stride: int | None = None
    """Pixels per feature (ResNets); None: 16 up to 96 pixels a side, else 32."""
    classes: int = 200
    """Outputs of the network."""
    precision: Precision = "float32"
    """Of the network: float32, or bfloat16 by autocast."""
    compile: bool = False
    """Run the network, of every variant, through torch.compile, on a GPU as CUDA graphs."""


def store(images: int, classes: int, image_size: int, stored_size: int, device: torch.device) -> Store:
    """Resident on the device; every image has a label and a mask."""
    draws = torch.Generator().manual_seed(0)
    shape = (images, stored_size, stored_size, 3)
    pixels = torch.randint(256, shape, generator=draws, dtype=torch.uint8)
    table = Table(
        name="noise",
        classes=[f"{number:04d}" for number in range(classes)],
        ids=[f"{number:06d}" for number in range(images)],
        images=[Path()] * images,
        labels=torch.randint(classes, (images,), generator=draws).tolist(),
        masks=[Path()] * images,
        split=["train"] * images,
    )
    masks = Masks.pack(blobs(images, image_size, draws).to(torch.uint8) * 255)
    return assembled(table, Resident(pixels.to(device)), masks.to(device), "")


def blobs(count: int, size: int, draws: torch.Generator) -> Tensor:
    """A disc in each of `count` masks, bool [count, size, size], as people draw them: 7 to 28 % of it."""
    at = (torch.arange(size) + 0.5) / size
    down, across, far = torch.rand(3, count, 1, 1, generator=draws)
    down, across, radius = 0.3 + 0.4 * down, 0.3 + 0.4 * across, 0.15 + 0.15 * far
    return (at[:, None] - down) ** 2 + (at - across) ** 2 < radius**2


def model(options: Network, device: torch.device) -> Classifier:
    """A network with random weights, the same each time; InputError where its maps are too small."""
    small = options.image_size <= 96 and options.arch.startswith("resnet")
    stride = options.output_stride or (16 if small else 32)
    made = build(
        options.arch,
        options.classes,
        output_stride=stride,
        precision=options.precision,
        compiled=options.compile,
    )
    size = feature_size(made, options.image_size)
    if min(size) < 3:
        raise InputError(
            f"{options.arch} has {size[0]}x{size[1]} features at --image-size {options.image_size}: too few "
            f"to compare maps at (3x3 at least); lower --output-stride (it is {stride}) or raise --image-size"
        )
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return made.to(device, memory_format=layout)  # type: ignore[call-overload]
