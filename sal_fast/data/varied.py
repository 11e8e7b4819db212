"""Training batches: images and their maps, varied together as an augmentation says."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data import augment
from sal_fast.data.augment import Augmentation, Function
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.errors import InputError

Batch = tuple[Tensor, Tensor | ops.BitMask]


def varied(
    store: Store, rows: Tensor, maps: Masks, groups: Sequence[Tensor], augmentation: Augmentation
) -> Iterator[Batch]:
    """Yield images, float32 [B, 3, F, F], and their maps for each group, one draw for an image and its map.

    Args:
        rows: int64 [L], rows of the store. maps: L maps, one for each of these rows.
        groups: the batches, int64 places in `rows` each.
    """
    if callable(augmentation.how):
        yield from _by_plug_in(store, rows, maps, groups, augmentation)
        return
    at = [rows[group] for group in groups]
    draws = store.draws(at, augmentation)
    for group, drawn, images in zip(groups, draws, store.views(at, draws), strict=True):
        yield images, maps.batch(group, *drawn.of_map)


def _by_plug_in(
    store: Store, rows: Tensor, maps: Masks, groups: Sequence[Tensor], augmentation: Augmentation
) -> Iterator[Batch]:
    function = augmentation.how
    assert callable(function)
    color = augment.plain().color.to(store.device)
    for group in groups:
        at = rows[group]
        pictures, drawn = store.pictures(at).cpu().numpy(), maps.unpack(group).cpu().numpy()
        made = [
            call(function, image, map_, augmentation.rng(store.keys[row]), store.table.ids[row])
            for image, map_, row in zip(pictures, drawn, at.tolist(), strict=True)
        ]
        images, after = (
            torch.from_numpy(np.stack(parts)).to(store.device) for parts in zip(*made, strict=True)
        )
        yield ops.crop_images(images, size=store.image_size, color=color), after


def call(
    function: Function, image: np.ndarray, map_: np.ndarray, rng: np.random.Generator, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """An image and its map as a plug-in varies them. `name` is the image's, for messages.

    Raises InputError if it returns anything but two uint8 arrays of the shapes that it was given.
    """
    given = {"image": image, "map": map_}
    answer = function(image, map_, rng)
    if not isinstance(answer, tuple | list) or len(answer) != len(given):
        raise InputError(
            f"--augment: the plug-in must return an image and its map, got {type(answer).__name__} for {name}"
        )
    found = [np.asarray(one) for one in answer]
    for one, (kind, before) in zip(found, given.items(), strict=True):
        if one.dtype != np.uint8 or one.shape != before.shape:
            raise InputError(
                f"--augment: the plug-in must return the {kind} as uint8 {list(before.shape)}, got "
                f"{one.dtype} {list(one.shape)} for {name}"
            )
    return found[0], found[1]
