"""Control maps, which take the place of people's maps in training (`--control-maps`).

They show what people's maps are worth. A network that gains as much from the maps of other images as from
those of its own did not learn from where people looked, but perhaps from where objects usually are.
"""

import numpy as np
import torch
from torch import Tensor

from sal_fast import seeds
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store

PURPOSE = "control-maps"  # the name of our streams in the tree of seeds


def people_maps(store: Store, rows: Tensor, kind: str, seed: int) -> Masks:
    """The maps that training gets as people's, one for each of some training images.

    The store stays as it is, so validation and test images keep their own masks. What an image gets follows
    from the seed and from the ids of the images. It does not depend on when the image is labelled.

    Args:
        rows: int64 [k], training images.
        kind: `none` gives their own maps. `shuffled` gives each the map of another training image that has
            one, by a permutation that leaves no map in its place. `inverted` takes 255 minus each pixel.
            `random` puts the pixels of each map into a random order. `centre` sorts them by their distance
            from the middle, the brightest first: a binary map becomes a disc with as many pixels.
        seed: of the run.

    An image without a map gets an empty one. The last three kinds keep graded maps graded.
    """
    if kind == "none":
        return store.masks[rows]
    if kind == "shuffled":
        return store.masks[_givers(store, seed)[rows]]
    maps, has_map = store.masks.unpack(rows), store.has_mask[rows]
    if kind == "inverted":
        maps = 255 - maps
    elif kind == "random":
        maps = _in_random_order(maps, store.keys[rows.cpu().numpy()], seed)
    else:
        maps = _around_the_middle(maps)
    return Masks.pack(maps * has_map[:, None, None])


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of 0 to count - 1 that leaves no number in its place, int64 [count].

    All of them are equally likely. Permutations are drawn until one has this property, which one in 2.7 has.
    Raises ValueError for a single number, which cannot leave its place.
    """
    if count == 1:
        raise ValueError("derangement: a single number cannot leave its place, expected 0 or at least 2")
    while True:
        order = rng.permutation(count)
        if not (order == np.arange(count)).any():
            return order


def _givers(store: Store, seed: int) -> Tensor:
    """The row whose map each row gets, int64 [N]. It is the row itself, except for training images with maps.

    The images are sorted by id, so that the order of the files changes nothing.
    """
    pool = store.rows("train")
    drawn = pool[store.has_mask[pool]].tolist()
    drawn.sort(key=store.table.ids.__getitem__)
    givers = torch.arange(len(store.table))
    at = torch.tensor(drawn, dtype=torch.int64)
    givers[at] = at[torch.from_numpy(derangement(len(drawn), seeds.stream(seed, PURPOSE)))]
    return givers.to(store.device)


def _in_random_order(maps: Tensor, keys: np.ndarray, seed: int) -> Tensor:
    """The maps, uint8 [k, F, F], with their pixels in an order that follows from the key of each image."""
    flat = maps.flatten(1)
    orders = [seeds.stream(seed, PURPOSE, int(key)).permutation(flat.shape[1]) for key in keys]
    index = torch.from_numpy(np.array(orders, dtype=np.int64).reshape(flat.shape)).to(maps.device)
    return flat.gather(1, index).view_as(maps)


def _around_the_middle(maps: Tensor) -> Tensor:
    """The maps, uint8 [k, F, F], with their brightest pixels in the middle. Of equally far ones the first
    gets the brighter pixel.
    """
    side = torch.arange(maps.shape[-1], device=maps.device) - (maps.shape[-1] - 1) / 2
    nearest = (side[:, None] ** 2 + side**2).flatten().argsort(stable=True)
    sorted_maps = torch.empty_like(maps.flatten(1))
    sorted_maps[:, nearest] = maps.flatten(1).sort(descending=True).values
    return sorted_maps.view_as(maps)
