"""Images of any kind that people have at hand, as the uint8 pixels that a model's images are made of."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sal_fast.data import decode, reading
from sal_fast.data.files import Unreadable
from sal_fast.data.resize import resize
from sal_fast.errors import InputError

Picture = str | Path | Image.Image | np.ndarray | Tensor
"""An image: a file, an image of Pillow, uint8 [H, W, 3] or [H, W] of numpy, or uint8 [3, H, W] or [1, H, W]
of torch."""
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def stacked(images: Picture | Sequence[Picture], size: int, white: float | None = None) -> Tensor:
    """Pixels of one or more images, each brought to size x size as a run does: uint8 [B, size, size, 3].

    Files and images of Pillow are turned upright by EXIF; alpha is dropped, and grey becomes RGB.

    Args:
        images: one of `Picture` or several, or a batch: uint8 [B, H, W, 3] of numpy, or [B, 3, H, W] of
            torch.
        size: pixels a side of the result.
        white: the number that is white in files of more than 8 bits.

    Raises InputError for a file that cannot be read, and for arrays of another type or shape.
    """
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        images = list(images)
    several = [images] if isinstance(images, str | Path | Image.Image | np.ndarray | Tensor) else list(images)
    if not several:
        raise InputError("no images were given; expected at least one")
    out = torch.empty(len(several), size, size, 3, dtype=torch.uint8)
    paths = {at: Path(one).expanduser() for at, one in enumerate(several) if isinstance(one, str | Path)}
    for at, one in enumerate(several):
        if at not in paths:
            out[at] = resize(_pixels(one), size)
    if paths:
        with closing(decode.choose("torch", torch.device("cpu"))) as decoder:
            try:
                out[list(paths)] = reading.pictures(list(paths.values()), size, decoder, white)
            except Unreadable as error:
                raise InputError(str(error)) from None
    return out


def _pixels(image: Any) -> Tensor:
    """An image as uint8 [H, W, 3]."""
    if isinstance(image, Image.Image):
        if image.mode not in EIGHT_BITS:
            raise InputError(
                f"an image of Pillow's mode {image.mode!r}: expected 8 bits a channel; give its file, or "
                f"convert it first"
            )
        return torch.from_numpy(np.array(ImageOps.exif_transpose(image).convert("RGB")))
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(
            f"expected a path, an image of Pillow, or an array of numpy or torch, got {type(image).__name__}"
        )
    ours = torch.as_tensor(image).cpu()
    kind = "torch" if isinstance(image, Tensor) else "numpy"
    if ours.dtype != torch.uint8:
        raise InputError(f"an array of {kind} with {image.dtype} values: expected uint8, 0 to 255")
    if kind == "numpy" and ours.ndim == 2:
        ours = ours[..., None]
    elif kind == "torch" and ours.ndim == 3:
        ours = ours.permute(1, 2, 0)
    if ours.ndim != 3 or ours.shape[2] not in ((1, 3) if kind == "torch" or image.ndim == 2 else (3,)):
        expected = "[3, H, W] or [1, H, W]" if kind == "torch" else "[H, W, 3] or [H, W]"
        raise InputError(f"an array of {kind} of shape {list(image.shape)}: expected {expected}, uint8")
    if 0 in ours.shape:
        raise InputError(f"an array of {kind} of shape {list(image.shape)}: it has no pixel")
    return ours.expand(-1, -1, 3).contiguous()
