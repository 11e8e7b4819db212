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


class MisSized(Unreadable):
    """A mask that cannot be its image's: another aspect ratio."""


def sample(image: Path, mask: Path | None, image_size: int, mask_size: int | None) -> Decoded:
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


def mask_file(path: Path, size: int, image: tuple[int, int] | None = None) -> np.ndarray:
    """A mask alone, uint8 [size, size]; see `mask_array`."""
    return mask_array(_open(path)[0], path, size, image)


def mask_array(mask: Image.Image, path: Path, size: int | None, image: tuple[int, int] | None) -> np.ndarray:
    """uint8 [size, size]: 0 or 255 for a binary mask (nearest), 0..255 for a graded one (area average).

    Binary: no value but 0 and one other, whichever it is. `image` is the image's (width, height), if known.
    `size` None keeps the file's own.
    """
    try:
        array = np.asarray(mask)
    except BROKEN as error:
        raise Unreadable(path, _reason(error)) from None
    if image is not None:
        off = abs((mask.width / mask.height) / (image[0] / image[1]) - 1)
        if off > ASPECT_TOLERANCE:
            raise MisSized(
                path,
                f"the mask is {mask.width}x{mask.height}, its image {image[0]}x{image[1]}: "
                f"the aspect ratios differ by {off:.0%} (at most 2 %)",
            )
    if array.ndim == 3:
        colours = array[..., :-1] if mask.mode in ("LA", "RGBA") else array
        array = colours.max(axis=-1)
    top = array.max()
    frame = mask.size if size is None else (size, size)
    if bool(((array == 0) | (array == top)).all()):
        binary = Image.fromarray(np.where(array != 0, 255, 0).astype(np.uint8))
        return np.asarray(binary.resize(frame, Image.Resampling.NEAREST))
    graded = _graded(array, path)
    area = Image.fromarray(graded.astype(np.float32)).resize(frame, Image.Resampling.BOX)
    return np.clip(np.rint(np.asarray(area)), 0, 255).astype(np.uint8)


def _graded(array: np.ndarray, path: Path) -> np.ndarray:
    """Grades as 0..255: 8 bits as they are, 16 bits reduced, floating ones from 0..1."""
    top = float(array.max())
    if array.min() < 0 or not np.isfinite(array).all() or top > 65535:
        raise Unreadable(
            path, f"grades must lie in 0..1, 0..255 or 0..65535, got {array.min()}..{array.max()}"
        )
    scale = 255.0 if top <= 1 else 1.0 if top <= 255 else 1 / 257
    return array * scale


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image as it is shown, from its header."""
    image = _open(path)[0]
    turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 lie on their side
    return (image.height, image.width) if turned else image.size


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
