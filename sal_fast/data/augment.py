"""Crop, flip and colour of images and maps; an image and its map get the same draw.

Draws are made on the host and depend on (seed, round, epoch, id) alone, not on the order or size of batches,
the rank, or what else is in the table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sal_fast import seeds
from sal_fast._util.words import MEAN, STD
from sal_fast._util.words import Augment as Preset

AREA = (0.5, 1.0)  # the share of the image that a crop keeps
RATIO = (3 / 4, 4 / 3)  # width to height of a crop, in shares of the image's sides
JITTER = 0.4  # brightness, contrast and saturation are multiplied by 1 - JITTER .. 1 + JITTER
LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B in brightness, ITU-R BT.601
GREY = 127.5  # the level that contrast does not change

# The affine map [3, 4] from RGB in 0..255 to what a network takes, (v / 255 - mean) / std.
NORMALISE = np.column_stack([np.diag(1 / (255 * np.array(STD))), -np.divide(MEAN, STD)])
# the meaning of the eight draws of an image; then come ratio, brightness, contrast and saturation
FIRST, LEFT, TOP, FLIP = range(4)


def stored_size(preset: Preset, image_size: int) -> int:
    """Pixels a side at which images are kept: 8/7 of the frame if crops are drawn from them."""
    return image_size if preset == "none" else math.ceil(image_size * 8 / 7)


def keys(ids: Sequence[str]) -> np.ndarray:
    """The keys that draws depend on: 64 bits of BLAKE2b of each id, uint64 [N]."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True)
class Draws:
    """How each of B images is cropped and coloured (see `ops.crop_images`).

    box: float32 [B, 4], (left, top, right, bottom) in 0..1 of the image; right < left mirrors it. None: the
        whole image.
    color: float32 [3, 4] or [B, 3, 4], the affine map from RGB in 0..255 to what the network takes.
    """

    box: Tensor | None
    color: Tensor

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        box = None if self.box is None else self.box.to(device, non_blocking=True)
        return Draws(box, self.color.to(device, non_blocking=True))

    def split(self, sizes: Sequence[int]) -> list[Draws]:
        """Cut the draws into those of consecutive groups of images, of these sizes."""
        count = len(sizes)
        boxes = [None] * count if self.box is None else self.box.split(list(sizes))
        colors = [self.color] * count if self.color.dim() == 2 else self.color.split(list(sizes))
        return [Draws(box, color) for box, color in zip(boxes, colors, strict=True)]


@dataclass(frozen=True)
class Augmentation:
    """The draws of one epoch.

    The preset `none` shows whole images. `standard` takes a crop with 0.5 to 1 of the area and sides of ratio
    3/4 to 4/3 (log-uniform), and mirrors it with probability 1/2. `color` also multiplies brightness,
    contrast and saturation by 0.6 to 1.4 each.
    """

    preset: Preset
    seed: int
    round: int
    epoch: int

    def draw(self, keys: np.ndarray) -> Draws:
        """Draw for the images with these keys (uint64 [B]), in their order."""
        if self.preset == "none":
            return plain()
        stream = seeds.integer(self.seed, "augment", self.round, self.epoch)
        u = uniform(keys ^ np.uint64(stream), 8)
        ratio, brightness, contrast, saturation = u[:, 4], *(1 + JITTER * (2 * u[:, 5:8].T - 1))
        area = AREA[0] + (AREA[1] - AREA[0]) * u[:, FIRST]
        root = np.exp((np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * ratio) / 2)
        width, height = np.minimum(np.sqrt(area) * root, 1.0), np.minimum(np.sqrt(area) / root, 1.0)
        left, top = (1 - width) * u[:, LEFT], (1 - height) * u[:, TOP]
        right = left + width
        flip = u[:, FLIP] < 0.5
        box = np.stack([np.where(flip, right, left), top, np.where(flip, left, right), top + height], axis=1)
        color = NORMALISE
        if self.preset == "color":
            color = _compose(NORMALISE, _jitter(brightness, contrast, saturation))
        return Draws(torch.from_numpy(box.astype(np.float32)), torch.from_numpy(color.astype(np.float32)))


def plain() -> Draws:
    """The draws that show every image whole and normalised."""
    return Draws(None, torch.from_numpy(NORMALISE.astype(np.float32)))


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` numbers in [0, 1) for each of the keys (uint64 [N]): float64 [N, count].

    SplitMix64 (Steele, Lea, Flood 2014) serves as a hash of (key, position). Philox, which every other stream
    here uses, would take 20 us to set up for each image.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = _mix(keys)[:, None] + steps
    return (_mix(z) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _jitter(brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """The affine maps [B, 3, 4] on RGB in 0..255 that change brightness, then contrast, then saturation.

    They do what torchvision's ColorJitter does, but are affine: contrast keeps mid-grey instead of the
    image's own mean, and values are not cut off at 0 and 255.
    """
    grey = np.broadcast_to(np.array(LUMA), (3, 3))
    mix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    scale = (brightness * contrast)[:, None, None] * mix
    shift = np.broadcast_to((GREY * (1 - contrast))[:, None, None], (len(contrast), 3, 1))
    # rows of `mix` sum to 1, so it does not change a grey shift
    return np.concatenate([scale, shift], axis=2)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine maps [B, 3, 4] that do `inner` [B, 3, 4] first, then `outer` [3, 4]."""
    product = outer[:, :3] @ inner
    product[..., 3] += outer[:, 3]
    return product
