"""Picture files as a network sees them, outside a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util.words import Augment
from sal_fast.data import augment, decode, reading
from sal_fast.data.files import Unreadable
from sal_fast.errors import InputError


def read_batch(paths: Sequence[Path], image_size: int, augmentation: Augment = "none") -> Tensor:
    """float32 [B, 3, image_size, image_size]: the views that `Store.views` gives of these files in testing.

    Raises InputError that names a file which cannot be read.
    """
    decoder = decode.choose("torch", torch.device("cpu"))
    try:
        pixels = reading.pictures(paths, augment.stored_size(augmentation, image_size), decoder)
    except Unreadable as error:
        raise InputError(str(error)) from None
    finally:
        decoder.close()
    return ops.crop_images(pixels, None, size=image_size, color=augment.plain().color)
