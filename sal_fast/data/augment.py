"""Images and maps as a model sees them: crop, flip and colour, the image and its map by the same draw.

Draws are made on the host and depend on (seed, round, epoch, id) alone: not on the order of batches, their
size, the rank, or what else is in the table.
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
from sal_fast._util.words import Augment as Preset

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, in RGB
STD = (0.229, 0.224, 0.225)
AREA = (0.5, 1.0)  # share of the image that a crop keeps
RATIO = (3 / 4, 4 / 3)
JITTER = 0.4  # brightness, contrast and saturation are multiplied by 1 - JITTER .. 1 + JITTER
LUMA = (0.299, 0.587, 0.114)  # of RGB, ITU-R BT.601
GREY = 127.5  # contrast turns around it

# Values 0..255 of RGB to what a network takes, (v / 255 - mean) / std, as an affine map [3, 4].
NORMALISE = np.concatenate(
    [np.diag(1 / (255 * np.array(STD))), -(np.array(MEAN) / np.array(STD))[:, None]], axis=1
)
FIRST, LEFT, TOP, FLIP = range(4)  # which draw decides what; then ratio, brightness, contrast, saturation


def stored_size(preset: Preset, image_size: int) -> int:
    """Pixels a side that images are kept at: 8/7 of the frame where crops are drawn from them."""
    return image_size if preset == "none" else math.ceil(image_size * 8 / 7)


def keys(ids: Sequence[str]) -> np.ndarray:
    """64 bits of each id, uint64 [N]: what its draws depend on."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True)
class Draws:
    """How each of B images is cropped and coloured (see `ops.crop_images`).

    box: float32 [B, 4], (left, top, right, bottom) in 0..1 of the image, right < left mirrored; None: all of
    it. color: float32 [3, 4] or [B, 3, 4], from RGB in 0..255 to what the network takes.
    """

    box: Tensor | None
    color: Tensor

    def to(self, device: torch.device) -> Draws:
        box = None if self.box is None else self.box.to(device, non_blocking=True)
        return Draws(box, self.color.to(device, non_blocking=True))

    def split(self, sizes: Sequence[int]) -> list[Draws]:
        """The draws of consecutive groups of so many images."""
        count = len(sizes)
        boxes = [None] * count if self.box is None else self.box.split(list(sizes))
        colors = [self.color] * count if self.color.dim() == 2 else self.color.split(list(sizes))
        return [Draws(box, color) for box, color in zip(boxes, colors, strict=True)]


@dataclass(frozen=True)
class Augmentation:
    """The draws of one epoch: `none`; `standard`: a crop of 0.5 to 1 of the area, of a ratio of 3/4 to 4/3
    (log-uniform), mirrored with chance 1/2; `color`: that, and brightness, contrast and saturation each
    multiplied by 0.6 to 1.4.
    """

    preset: Preset
    seed: int
    round: int
    epoch: int

    def draw(self, keys: np.ndarray) -> Draws:
        """The draws of the images with these keys, in their order."""
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
    """All of every image, normalised."""
    return Draws(None, torch.from_numpy(NORMALISE.astype(np.float32)))


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each of uint64 keys [N]: float64 [N, count].

    SplitMix64 (Steele, Lea, Flood 2014) as a hash of (key, position): Philox, behind every other stream here,
    takes 20 us to set up for an image.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = _mix(keys)[:, None] + steps
    return (_mix(z) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _jitter(brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """Brightness, then contrast around mid-grey, then saturation around luma: [B, 3, 4] on RGB in 0..255.

    As torchvision's ColorJitter, but affine: contrast does not turn around the image's own mean, and values
    are not cut off at 0 and 255.
    """
    grey = np.broadcast_to(np.array(LUMA), (3, 3))
    mix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    scale = (brightness * contrast)[:, None, None] * mix
    shift = np.broadcast_to((GREY * (1 - contrast))[:, None, None], (len(contrast), 3, 1))
    return np.concatenate([scale, shift], axis=2)  # rows of `mix` sum to 1: a grey shift passes through it


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine map `outer` [3, 4] after `inner` [B, 3, 4]."""
    product = outer[:, :3] @ inner
    product[..., 3] += outer[:, 3]
    return product
