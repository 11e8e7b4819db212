"""Maps by anyone's function: what `--generator` names ("any model the engineer selects", paper App. B)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast.annotate.generate import binary_maps
from sal_fast.data import files
from sal_fast.data.store import Store
from sal_fast.errors import InputError

Generator = Callable[[Sequence[np.ndarray], Sequence[int]], Sequence[np.ndarray]]
"""Pictures uint8 [H, W, 3], upright, each of its own size, and their labels -> a map for each, [h, w] of any
size over the whole picture: bool is a mask; floating a heat map, which takes the path of a CAM (enlarged
bilinearly, min-max, above 0.5)."""

BATCH = 16  # pictures that are given together


def load(spec: str) -> Generator:
    """`package.module:function` or `file.py:function`; raises InputError for what cannot be had."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise InputError(f"--generator {spec}: expected package.module:function or file.py:function")
    try:
        if place.endswith(".py"):
            path = Path(os.path.expanduser(place)).resolve()
            if not path.is_file():
                raise InputError(f"--generator {spec}: file not found: {path}")
            made = importlib.util.spec_from_file_location(f"sal_fast_generator_{path.stem}", path)
            assert made is not None
            assert made.loader is not None
            module = importlib.util.module_from_spec(made)
            sys.modules[made.name] = module
            made.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--generator {spec}: {place} cannot be imported ({error!r})") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"--generator {spec}: {place} has no function {name!r}")
    return found


def source_file(spec: str) -> Path | None:
    """Where it is written, so that a change of it can be told; nothing of it is run."""
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(os.path.expanduser(place)).resolve()
    else:
        found = importlib.util.find_spec(place)
        path = Path(found.origin if found is not None and found.origin is not None else "")
    return path if path.is_file() else None


def drawn(generator: Generator, store: Store, rows: Tensor) -> Tensor:
    """Its maps of some rows in the frame, uint8 [k, F, F] of 0 or 255; InputError for a map that is none."""
    maps = torch.zeros(len(rows), store.image_size, store.image_size, dtype=torch.uint8)
    order = rows.tolist()
    labels = store.labels[rows].tolist()
    for start in range(0, len(order), BATCH):
        part = slice(start, start + BATCH)
        paths = [store.table.images[row] for row in order[part]]
        for i, one in enumerate(asked(generator, paths, labels[part])):
            maps[start + i] = in_frame(one, (store.image_size, store.image_size))
    return maps.to(store.device)


def asked(generator: Generator, paths: Sequence[Path], labels: Sequence[int]) -> list[np.ndarray]:
    """Its maps of some pictures, looked at; InputError for a map that is none, and a file that is gone."""
    try:
        pictures = [files.rgb(files.read(path)) for path in paths]
    except files.Unreadable as error:
        raise InputError(f"{error}; maps are drawn from the pictures' own files: restore it") from None
    maps = list(generator(pictures, labels))
    if len(maps) != len(pictures):
        raise InputError(f"--generator: {len(maps)} maps of {len(pictures)} pictures; expected one for each")
    return [_looked_at(np.asarray(one), path) for one, path in zip(maps, paths, strict=True)]


def in_frame(one: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A mask by nearest, a heat map as a CAM: uint8 [H, W] of 0 or 255."""
    if one.dtype == bool:
        return torch.from_numpy(files.nearest(one, (size[1], size[0])).copy())
    return binary_maps(torch.from_numpy(one.astype(np.float32))[None], size)[0]


def _looked_at(one: np.ndarray, path: Path) -> np.ndarray:
    floating = np.issubdtype(one.dtype, np.floating)
    if one.ndim != 2 or not one.size or not (floating or one.dtype == bool):
        raise InputError(
            f"--generator: of {path} it gave {one.dtype} {list(one.shape)}; expected bool or floating [h, w]"
        )
    if floating and not np.isfinite(one).all():
        raise InputError(f"--generator: of {path} it gave a map with NaN or infinity")
    return one
