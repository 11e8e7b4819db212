"""Networks with random weights and stores of noise: their cost does not depend on what they show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from sal_fast.bench import suite
from sal_fast.bench.single import distances
from sal_fast.bench.suite import Precision
from sal_fast.data.masks import Masks
from sal_fast.data.store import Resident, Store, assembled
from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.models import Classifier, build, feature_size


@dataclass(frozen=True)
class NetworkBenchmark(suite.Benchmark):
    """The options of a benchmark with a network."""

    arch: str = "resnet18"
    """The network, with random weights."""
    image_size: int = 64
    """Pixels a side of its images."""
    output_stride: int | None = None
    """Pixels a feature (ResNets). None stands for 16 up to 96 pixels a side, and for 32 above."""
    classes: int = 200
    """Outputs of the network."""
    precision: Precision = "float32"
    """The network's arithmetic: float32, or bfloat16 by autocast."""
    compile: bool = False
    """Run the network of every variant through torch.compile; on a GPU it becomes CUDA graphs."""


def store(images: int, classes: int, image_size: int, stored_size: int, device: torch.device) -> Store:
    """Return a store on the device in which every image has a label and a mask, a disc."""
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
    discs = distances(images, image_size, partial(torch.rand, generator=draws)) < 1
    masks = Masks.pack(discs.to(torch.uint8) * 255)
    return assembled(table, Resident(pixels.to(device)), masks.to(device), "")


def model(options: NetworkBenchmark, device: torch.device) -> Classifier:
    """Return the network, the same each time; InputError if its feature maps are too small for a loss."""
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
