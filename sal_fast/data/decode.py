"""Decode one image or mask file to the size it is kept at."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ASPECT_TOLERANCE = 0.02
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoded:
    """One sample: image uint8 [S, S, 3]; mask uint8 [F, F] or None; a digest of both files' bytes."""

    image: np.ndarray
    mask: np.ndarray | None
    digest: bytes


class Unreadable(Exception):
    """A file that cannot be used, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def sample(image: Path, mask: Path | None, image_size: int, mask_size: int) -> Decoded:
    """Decode an image (upright, RGB, bilinear with antialias) and its mask (see `mask_array`).

    Raises Unreadable for a missing, truncated or foreign file and for a mask whose aspect ratio is off by
    more than 2 %.
    """
    picture, digest = _open(image)
    try:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    except BROKEN as error:
        raise Unreadable(image, _reason(error)) from None
    pixels = np.asarray(upright.resize((image_size, image_size), Image.Resampling.BILINEAR))
    if mask is None:
        return Decoded(pixels, None, digest)
    drawn, mask_digest = _open(mask)
    array = mask_array(drawn, mask, mask_size, upright.size)
    return Decoded(pixels, array, digest + mask_digest)


def mask_file(path: Path, size: int) -> np.ndarray:
    """A mask alone, uint8 [size, size]; see `mask_array`."""
    return mask_array(_open(path)[0], path, size, None)


def mask_array(mask: Image.Image, path: Path, size: int, image: tuple[int, int] | None) -> np.ndarray:
    """uint8 [size, size]: 0 or 255 for a binary mask (nearest), 0..255 for a graded one (area average).

    Binary: no value but 0 and one other, whichever it is. `image` is the image's (width, height), if known.
    """
    try:
        array = np.asarray(mask)
    except BROKEN as error:
        raise Unreadable(path, _reason(error)) from None
    if image is not None:
        off = abs((mask.width / mask.height) / (image[0] / image[1]) - 1)
        if off > ASPECT_TOLERANCE:
            raise Unreadable(
                path,
                f"the mask is {mask.width}x{mask.height}, its image {image[0]}x{image[1]}: "
                f"the aspect ratios differ by {off:.0%} (at most 2 %)",
            )
    if array.ndim == 3:
        colours = array[..., :-1] if mask.mode in ("LA", "RGBA") else array
        array = colours.max(axis=-1)
    top = array.max()
    if bool(((array == 0) | (array == top)).all()):
        binary = Image.fromarray(np.where(array != 0, 255, 0).astype(np.uint8))
        return np.asarray(binary.resize((size, size), Image.Resampling.NEAREST))
    graded = array / 257.0 if array.dtype != np.uint8 else array.astype(np.float64)  # 16 bits to 8
    area = Image.fromarray(graded.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    return np.clip(np.rint(np.asarray(area)), 0, 255).astype(np.uint8)


def _open(path: Path) -> tuple[Image.Image, bytes]:
    """The opened file and a digest of its bytes; the pixels are decoded when first asked for."""
    try:
        data = path.read_bytes()
        if not data:
            raise Unreadable(path, "the file is empty")
        return Image.open(io.BytesIO(data)), hashlib.blake2b(data, digest_size=16).digest()
    except BROKEN as error:
        raise Unreadable(path, _reason(error)) from None


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if "truncated" in str(error).lower():
        return "the file is truncated"
    if "cannot identify" in str(error):
        return "not an image, or its first bytes are damaged"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
