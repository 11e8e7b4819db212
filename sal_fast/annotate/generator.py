"""Maps by a generator, which `--generator` names ("any model the engineer selects", paper App. B)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast.annotate.generate import binary_maps
from sal_fast.data import files
from sal_fast.data.meaning import nearest
from sal_fast.data.store import Store
from sal_fast.errors import InputError

Generator = Callable[[Sequence[np.ndarray], Sequence[int]], Sequence[np.ndarray]]
"""A generator gets pictures and their labels, and returns one map for each picture.

A picture is uint8 [H, W, 3], RGB, upright, and of its own size. A label is the position of the class among
the classes; -1 if it is not known yet. A map is [h, w], of any size, and covers the whole picture. A bool map
is a mask. A floating map is a heat map: it is enlarged bilinearly, scaled to 0 to 1, and cut at 0.5, as a CAM
is.
"""

BATCH = 16  # pictures in one call


def maps_of(
    generator: Generator,
    pictures: Sequence[np.ndarray],
    labels: Sequence[int],
    names: Sequence[object] | None = None,
) -> list[np.ndarray]:
    """Call a generator and check that it kept its contract (`Generator`).

    `names` tells the pictures apart in messages; without it they are numbered. Raises InputError if the
    generator is no function, if it does not give one map for each picture, or if a map is empty, is not bool
    or floating [h, w], or has NaN or infinity.
    """
    if not callable(generator):
        raise InputError(f"generator: expected a function of pictures and labels, got {generator!r}")
    maps = [np.asarray(one) for one in generator(pictures, labels)]
    if len(maps) != len(pictures):
        raise InputError(f"generator: {len(maps)} maps of {len(pictures)} pictures; expected one for each")
    for one, name in zip(maps, names or [f"picture {i}" for i in range(len(maps))], strict=True):
        floating = np.issubdtype(one.dtype, np.floating)
        if one.ndim != 2 or not one.size or not (floating or one.dtype == bool):
            raise InputError(
                f"generator: for {name} it gave {one.dtype} {list(one.shape)}; expected bool or floating "
                f"[h, w]"
            )
        if floating and not np.isfinite(one).all():
            raise InputError(f"generator: for {name} it gave a map with NaN or infinity")
    return maps


def draw_maps(generator: Generator, store: Store, rows: Tensor) -> Tensor:
    """A generator's maps of rows of the store, in the frame: uint8 [k, F, F] of 0 or 255."""
    maps = torch.zeros(len(rows), store.image_size, store.image_size, dtype=torch.uint8)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        paths = [store.table.images[row] for row in part.tolist()]
        drawn = maps_of_files(generator, paths, store.labels[part].tolist(), store.table.rule.white)
        for i, one in enumerate(drawn, start):
            maps[i] = resized(one, (store.image_size, store.image_size))
    return maps.to(store.device)


def maps_of_files(
    generator: Generator, paths: Sequence[Path], labels: Sequence[int], white: float | None = None
) -> list[np.ndarray]:
    """A generator's maps of picture files. `white` is as in `Rule`.

    Raises InputError if a file cannot be read, and as `maps_of`.
    """
    try:
        pictures = [files.rgb(files.read(path, white)) for path in paths]
    except files.Unreadable as error:
        raise InputError(f"{error}; maps are drawn from the pictures' own files: restore it") from None
    return maps_of(generator, pictures, labels, paths)


def resized(one: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A map at another size (height, width), as uint8 [H, W] of 0 or 255.

    A mask is resized by nearest neighbour, and a heat map is made binary as a CAM is.
    """
    if one.dtype == bool:
        return torch.from_numpy(nearest(one, (size[1], size[0])).copy())
    return binary_maps(torch.from_numpy(one.astype(np.float32))[None], size)[0]
