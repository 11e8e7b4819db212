"""Maps as PNG files that a person can open: `<folder>/<id>.png`, grey, 0 or 255."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sal_fast._util.files import whole_folder
from sal_fast.errors import InputError


def write_maps(folder: Path, ids: Sequence[str], maps: Tensor) -> None:
    """Write the maps, uint8 [k, F, F], one PNG each. The folder exists whole or not at all."""
    with whole_folder(folder) as aside:
        for name, pixels in zip(ids, maps.cpu().numpy(), strict=True):
            path = aside / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def read_maps(folder: Path, ids: Sequence[str], size: int) -> Tensor:
    """Read what `write_maps` wrote, uint8 [k, size, size]. Raises InputError for any other file."""
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
