"""Crop, flip, rotation and colour of images and maps; an image and its map get the same draw.

Draws are made on the host and depend on (seed, round, epoch, id) alone, not on the order or size of batches,
the rank, or what else is in the table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sal_fast import plugins, seeds
from sal_fast._util.words import MEAN, STD

AREA = (0.5, 1.0)  # the share of the image that a crop keeps
RATIO = (3 / 4, 4 / 3)  # width to height of a crop, in shares of the image's sides
JITTER = 0.4  # brightness, contrast and saturation are multiplied by 1 - JITTER .. 1 + JITTER
ANGLE = 15.0  # degrees; `rotate` turns by at most so many, either way
LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B in brightness, ITU-R BT.601
GREY = 127.5  # the level that contrast does not change


def normalising(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The affine map, float64 [3, 4], from RGB in 0..255 to what a network takes, (v / 255 - mean) / std."""
    return np.column_stack([np.diag(1 / (255 * np.array(std))), -np.divide(mean, std)])


NORMALISE = normalising(MEAN, STD)
# the meaning of the draws of an image; ratio, brightness, contrast and saturation stand between
FIRST, LEFT, TOP, FLIP = range(4)
VERTICAL, QUARTERS, TURN = range(8, 11)

Function = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""A plug-in `f(image, map, rng)`, which returns another image and its map (docs/plugins.md)."""


def load(augment: str) -> str | Function:
    """What `Augmentation` takes for an option's value: its words as they are, or the plug-in that it names.

    Raises InputError for a plug-in that cannot be imported.
    """
    if not plugins.is_reference(augment):
        return augment
    function: Function = plugins.load("augmentation", augment)
    return function


def stored_size(augment: str, image_size: int) -> int:
    """Pixels a side at which images are kept: 8/7 of the frame if crops are drawn from them.

    A plug-in is given images in the size of the frame, which is that of the maps.
    """
    whole = augment == "none" or plugins.is_reference(augment)
    return image_size if whole else math.ceil(image_size * 8 / 7)


def keys(ids: Sequence[str]) -> np.ndarray:
    """The keys that draws depend on: 64 bits of BLAKE2b of each id, uint64 [N]."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True)
class Draws:
    """How each of B images is cropped and coloured (see `ops.crop_images`).

    box: float32 [B, 4], (left, top, right, bottom) in 0..1 of the image; right < left mirrors it, and so does
        bottom < top. None: the whole image.
    color: float32 [3, 4] or [B, 3, 4], the affine map from RGB in 0..255 to what the network takes.
    angle: float32 [B], degrees by which the crop is then rotated, counter-clockwise (`rotated`). None: 0.
    """

    box: Tensor | None
    color: Tensor
    angle: Tensor | None = None

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        box, angle = (
            None if values is None else values.to(device, non_blocking=True)
            for values in (self.box, self.angle)
        )
        return Draws(box, self.color.to(device, non_blocking=True), angle)

    def __getitem__(self, rows: Tensor) -> Draws:
        """The draws of some images (int64), in that order."""
        box, angle = (None if values is None else values[rows] for values in (self.box, self.angle))
        return Draws(box, self.color if self.color.dim() == 2 else self.color[rows], angle)

    @property
    def of_map(self) -> tuple[Tensor | None, Tensor | None]:
        """The boxes and the angles, which move a map as they move its image."""
        return self.box, self.angle

    def split(self, sizes: Sequence[int]) -> list[Draws]:
        """Cut the draws into those of consecutive groups of images, of these sizes."""
        count = len(sizes)
        boxes = [None] * count if self.box is None else self.box.split(list(sizes))
        colors = [self.color] * count if self.color.dim() == 2 else self.color.split(list(sizes))
        angles = [None] * count if self.angle is None else self.angle.split(list(sizes))
        return [Draws(*drawn) for drawn in zip(boxes, colors, angles, strict=True)]


@dataclass(frozen=True)
class Augmentation:
    """The draws of one epoch.

    how: words joined by +, or a plug-in. `none` shows whole images. `standard` takes a crop with 0.5 to 1 of
    the area and sides of ratio 3/4 to 4/3 (log-uniform), and mirrors it left to right with probability 1/2.
    Every other word does this, too, and more. `color` multiplies brightness, contrast and saturation by 0.6
    to 1.4 each. `vflip` also mirrors top to bottom with probability 1/2. `turn` rotates by 0, 90, 180 or 270
    degrees, `rotate` by up to 15 degrees either way. A plug-in draws for itself (`rng`).
    """

    how: str | Function
    seed: int
    round: int
    epoch: int

    def rng(self, key: np.uint64) -> np.random.Generator:
        """The generator that a plug-in draws from for the image with this key."""
        return np.random.default_rng([self._stream, int(key)])

    @property
    def _stream(self) -> int:
        return seeds.integer(self.seed, "augment", self.round, self.epoch)

    def draw(self, keys: np.ndarray) -> Draws:
        """Draw for the images with these keys (uint64 [B]), in their order. Not for a plug-in."""
        assert isinstance(self.how, str)
        words = self.how.split("+")
        if words == ["none"]:
            return plain()
        u = uniform(keys ^ np.uint64(self._stream), 11)
        ratio, brightness, contrast, saturation = u[:, 4], *(1 + JITTER * (2 * u[:, 5:8].T - 1))
        area = AREA[0] + (AREA[1] - AREA[0]) * u[:, FIRST]
        root = np.exp((np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * ratio) / 2)
        width, height = np.minimum(np.sqrt(area) * root, 1.0), np.minimum(np.sqrt(area) / root, 1.0)
        left, top = (1 - width) * u[:, LEFT], (1 - height) * u[:, TOP]
        right, bottom = left + width, top + height
        flip, over = u[:, FLIP] < 0.5, (u[:, VERTICAL] < 0.5) & ("vflip" in words)
        edges = [np.where(flip, right, left), np.where(over, bottom, top)]
        edges += [np.where(flip, left, right), np.where(over, top, bottom)]
        color = NORMALISE
        if "color" in words:
            color = _compose(NORMALISE, _jitter(brightness, contrast, saturation))
        quarters = 90 * np.floor(4 * u[:, QUARTERS]) * ("turn" in words)
        angle = quarters + ANGLE * (2 * u[:, TURN] - 1) * ("rotate" in words)
        turns = {"turn", "rotate"} & {*words}
        made = [torch.from_numpy(one.astype(np.float32)) for one in (np.stack(edges, axis=1), color, angle)]
        return Draws(*made) if turns else Draws(*made[:2])


def plain() -> Draws:
    """The draws that show every image whole and normalised."""
    return Draws(None, torch.from_numpy(NORMALISE.astype(np.float32)))


def rotated(values: Tensor, angle: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
    """Rotate squares about their centre, counter-clockwise as one looks at them.

    Places outside the square have the value of its edge, as those outside a crop do.

    Args:
        values: [B, C, F, F], of any dtype; bilinear needs a floating one.
        angle: float32 [B], in degrees. Multiples of 90 move pixels onto pixels.
        mode: how values between pixels are made.
    """
    # Sines and cosines of multiples of 90 degrees are exact in this way. The grid is made element by element,
    # because a matrix product may round otherwise in another batch.
    turns = angle.double() % 360
    sin, cos = (
        torch.where(turns % 90 == 0, wave.round(), wave).float()[:, None, None]
        for wave in (torch.sin(turns.deg2rad()), torch.cos(turns.deg2rad()))
    )
    side = values.shape[-1]
    at = (2 * torch.arange(side, device=values.device, dtype=torch.float32) + 1) / side - 1
    x, y = at[None, None, :], at[None, :, None]
    grid = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    pixels = values if values.is_floating_point() else values.float()
    found = functional.grid_sample(pixels, grid, mode, padding_mode="border", align_corners=False)
    return found.to(values.dtype)


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
