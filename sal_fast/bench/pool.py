"""A store of noise with a blob for a mask, made in memory: what it costs does not depend on what it shows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sal_fast.data.masks import Masks
from sal_fast.data.store import Resident, Store, assembled
from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.models import Arch, Classifier, Precision, build, feature_size


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


def model(
    arch: Arch,
    classes: int,
    image_size: int,
    output_stride: int | None,
    precision: Precision,
    compiled: bool,
) -> Classifier:
    """A network with random weights, the same each time; InputError where its maps are too small.

    output_stride: None is 16 for small images, as in the preset of the built-in set.
    """
    small = image_size <= 96 and arch.startswith("resnet")
    stride = output_stride or (16 if small else 32)
    made = build(arch, classes, output_stride=stride, precision=precision, compiled=compiled)
    size = feature_size(made, image_size)
    if min(size) < 3:
        raise InputError(
            f"{arch} has {size[0]}x{size[1]} features at --image-size {image_size}: too few to "
            f"compare maps at (3x3 at least); lower --output-stride (it is {stride}) or raise --image-size"
        )
    return made
