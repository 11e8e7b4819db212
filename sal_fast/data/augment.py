"""Images and masks as a model sees them, on the device, image and mask by the same draw."""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Preset = Literal["none", "standard"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, in RGB
STD = (0.229, 0.224, 0.225)
AREA = (0.5, 1.0)  # share of the image that a crop keeps
RATIO = (3 / 4, 4 / 3)


def stored_size(preset: Preset, image_size: int) -> int:
    """Pixels a side that images are kept at: 8/7 of the frame where crops are drawn from them."""
    return image_size if preset == "none" else math.ceil(image_size * 8 / 7)


def view(images: Tensor, image_size: int) -> Tensor:
    """The plain view: uint8 [B, 3, S, S] -> normalised float32 [B, 3, image_size, image_size]."""
    pixels = images.float()
    if images.shape[-1] != image_size:
        pixels = F.interpolate(pixels, (image_size, image_size), mode="bilinear", antialias=True)
    return _normalise(pixels)


def draws(preset: Preset, rng: np.random.Generator, count: int, device: torch.device) -> Tensor | None:
    """One epoch's crops and flips for `count` rows, as affine maps [count, 2, 3]; None for `none`.

    Row i's draw depends on the stream and on i alone: not on the order of batches, their size or the rank.
    `standard`: a crop of 0.5 to 1 of the area, ratio 3/4 to 4/3 (log-uniform), then a flip with chance 1/2.
    """
    if preset == "none":
        return None
    area, ratio, x, y, flip = rng.random((count, 5)).T
    area = AREA[0] + (AREA[1] - AREA[0]) * area
    root = np.exp(np.log(RATIO[0]) / 2 + (np.log(RATIO[1]) - np.log(RATIO[0])) / 2 * ratio)
    width = np.minimum(np.sqrt(area) * root, 1.0)
    height = np.minimum(np.sqrt(area) / root, 1.0)
    theta = np.zeros((count, 2, 3))
    theta[:, 0, 0] = np.where(flip < 0.5, width, -width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * x - 1)
    theta[:, 1, 2] = (1 - height) * (2 * y - 1)
    return torch.from_numpy(theta.astype(np.float32)).to(device)


def apply(images: Tensor, masks: Tensor, theta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Augment a batch: uint8 [B, 3, S, S] and uint8 [B, F, F] -> float32 [B, 3, F, F] and uint8 [B, F, F].

    The image is sampled bilinearly, the mask by nearest, from the same rectangle in relative coordinates.
    """
    size = masks.shape[-1]
    if theta is None:
        return view(images, size), masks
    grid = F.affine_grid(theta, [len(images), 1, size, size], align_corners=False)
    pixels = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    nearest = F.grid_sample(
        masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return _normalise(pixels), nearest[:, 0].to(torch.uint8)


def _normalise(pixels: Tensor) -> Tensor:
    mean, std = _statistics(pixels.device)
    return (pixels - mean) / std


@functools.cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and deviation for pixels in 0..255, [3, 1, 1] each: copied to a device once."""
    mean, std = (torch.tensor(values).mul_(255)[:, None, None].to(device) for values in (MEAN, STD))
    return mean, std
