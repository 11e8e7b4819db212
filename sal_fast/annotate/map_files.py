"""Maps as PNG files that a person can open: `<folder>/<id>.png`, grey, 0 or 255."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sal_fast._util.files import flush
from sal_fast.errors import InputError


def write(folder: Path, ids: Sequence[str], maps: Tensor) -> None:
    """One PNG a map, exact; the folder is there whole or not at all."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, pixels in zip(ids, maps.cpu().numpy(), strict=True):
        path = aside / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    for path in (aside, *aside.rglob("*")):
        flush(path)
    aside.rename(folder)


def read(folder: Path, ids: Sequence[str], size: int) -> Tensor:
    """What `write` wrote, uint8 [k, size, size]; InputError for a file that is not it."""
    maps = np.zeros((len(ids), size, size), dtype=np.uint8)
    for index, name in enumerate(ids):
        path = folder / f"{name}.png"
        try:
            pixels = np.asarray(Image.open(path))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(
                f"{path}: a map of this run cannot be read ({error}); restore it or use another --out"
            ) from None
        if pixels.shape != (size, size) or pixels.dtype != np.uint8:
            raise InputError(f"{path}: expected {size}x{size} grey pixels, got {pixels.shape} {pixels.dtype}")
        maps[index] = pixels
    return torch.from_numpy(maps)
