"""Features of a network that is not trained: computed once, and kept in half precision in a mapped file.

A folder of features belongs to one network, one data set and one way of cropping, which its name stands for:

features.json  what the features are of, and their shape; written first
features.bin   float16 [E, h, w, C], written in order, so that a file which is too short is continued

Entry i is the whole image of row i of the table. After these N come the crops of the training images: entry
N + j T + i is crop j of the training image i of T, in the order of the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.files import read_json, write_json
from sal_fast._util.locks import locked
from sal_fast._util.memory import free_memory, roomy
from sal_fast.data import augment
from sal_fast.data.augment import Augmentation, Draws
from sal_fast.data.store import Store
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError

BLOCK = 64  # images that go through the network together
OFTEN = 8  # blocks between two records of what is done
SHARE = 0.5  # features are copied to a GPU if they take at most this share of its free memory


@dataclass(frozen=True, kw_only=True)
class FeatureStore(Store):
    """A store that shows features in the place of images.

    features: float16 [E, h, w, C], as the head of this file describes the entries. They lie on the device, or
        in a mapped file.
    draws_of_crops: for each crop, how the T training images are cropped.
    """

    features: Tensor
    draws_of_crops: Sequence[Draws] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of an image's features."""
        height, width, channels = self.features.shape[1:]
        return channels, height, width

    @cached_property
    def pooled(self) -> Tensor:
        """The mean of each row's features over all pixels, float32 [N, C], on the device."""
        rows = self.features[: len(self.labels)].split(BLOCK)
        means = [part.mean((1, 2), dtype=torch.float32).to(self.device) for part in rows]
        return torch.cat(means) if means else torch.zeros(0, self.shape[0], device=self.device)

    def entries(self, rows: Tensor) -> Tensor:
        """The entries of training images, int64 [V, L]: of each crop, or of the whole image without crops."""
        if not self.draws_of_crops:
            return rows[None]
        train = self.rows("train")
        at, step = torch.searchsorted(train, rows), len(train)
        return torch.stack([len(self.labels) + j * step + at for j in range(len(self.draws_of_crops))])

    def crops(self, rows: Tensor) -> list[Draws | None]:
        """How training images are cropped in each crop; [None] without crops."""
        if not self.draws_of_crops:
            return [None]
        at = torch.searchsorted(self.rows("train"), rows)
        return [drawn[at] for drawn in self.draws_of_crops]

    def views(self, groups: Sequence[Tensor], draws: Sequence[Draws] | None = None) -> Iterator[Tensor]:
        """Yield the features of each group of rows, float16 [B, C, h, w]; their pixels are contiguous.

        Raises ValueError for draws, because the crops are fixed when the features are computed.
        """
        if draws is not None:
            raise ValueError("features of crops are fixed: expected no draws")
        for rows in groups:
            yield self.seen(rows).permute(0, 3, 1, 2)

    def seen(self, entries: Tensor) -> Tensor:
        """A copy of some entries on the device, float16 [B, h, w, C]."""
        return self.features[entries.to(self.features.device)].to(self.device, non_blocking=True)


def feature_store(
    store: Store,
    folder: Path,
    about: dict[str, Any],
    look: Callable[[Tensor], Tensor],
    augmentations: Sequence[Augmentation],
    ranks: Ranks,
) -> FeatureStore:
    """The store of a network's features. What the folder does not hold yet is computed.

    Args:
        store: the images.
        folder: where the first rank keeps the features. The other ranks keep them in their memory.
        about: what the features are of, for features.json.
        look: gives the features [B, C, h, w] of images [B, 3, F, F].
        augmentations: one for each crop.
        ranks: each looks at some blocks of images, and all get the whole.

    A computation that was interrupted is continued. Raises InputError for features that are not finite in
    half precision.
    """
    crops = [store.draws([store.rows("train")], one)[0] for one in augmentations]
    blocks = _blocks(store, crops)
    shape = (sum(len(rows) for rows, _ in blocks), *_shape(store, look))
    if not ranks.first:
        entries = roomy(shape, torch.float16, torch.device("cpu"))
        for _ in _filled(entries, int(ranks.number(0)), store, blocks, look, ranks):
            pass
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            kept = _Kept(folder, shape, about)
            entries = kept.entries
            try:
                for done in _filled(entries, int(ranks.number(kept.done)), store, blocks, look, ranks):
                    kept.done = done
                    if done % OFTEN == 0:
                        kept.record()
            finally:
                kept.record()
    return FeatureStore(**vars(store), features=_placed(entries, store.device), draws_of_crops=crops)


def _filled(
    entries: Tensor,
    done: int,
    store: Store,
    blocks: Sequence[tuple[Tensor, Draws]],
    look: Callable[[Tensor], Tensor],
    ranks: Ranks,
) -> Iterator[int]:
    """Fill the entries block by block, all but the first `done`, and yield how many are done."""
    places = entries.split([len(rows) for rows, _ in blocks])
    for place in places[:done] if ranks.count > 1 else ():
        place.copy_(ranks.broadcast(place.clone()))
    mine = blocks[done + ranks.rank :: ranks.count]
    views = store.views([rows for rows, _ in mine], [drawn for _, drawn in mine])
    with progress.bar(f"features of {store.table.name}", len(blocks), log=True) as advance:
        advance(done)
        for start in range(done, len(blocks), ranks.count):
            together = places[start : start + ranks.count]
            if ranks.rank < len(together):
                together[ranks.rank].copy_(_half(look(next(views)), store))
            for source, place in enumerate(together if ranks.count > 1 else ()):
                place.copy_(ranks.broadcast(place.clone(), source))
            advance(len(together))
            yield start + len(together)


def _blocks(store: Store, crops: Sequence[Draws]) -> list[tuple[Tensor, Draws]]:
    """The rows of each block of entries, and how they are cropped."""
    every, train = torch.arange(len(store.labels), device=store.device), store.rows("train")
    whole = augment.plain().to(store.device)
    blocks = [(rows, whole) for rows in every.split(BLOCK)]
    for drawn in crops:
        parts = train.split(BLOCK)
        blocks += zip(parts, drawn.split([len(part) for part in parts]), strict=True)
    return blocks


def _shape(store: Store, look: Callable[[Tensor], Tensor]) -> tuple[int, int, int]:
    """(h, w, C) of the features of one image."""
    side = store.image_size
    _, channels, height, width = look(torch.zeros(1, 3, side, side, device=store.device)).shape
    return height, width, channels


def _half(features: Tensor, store: Store) -> Tensor:
    """Features [B, C, h, w] as float16 [B, h, w, C] in the host's memory."""
    half = features.permute(0, 2, 3, 1).to("cpu", torch.float16).contiguous()
    if not bool(half.isfinite().all()):
        raise InputError(
            f"{store.table.name}: the network gives features above {torch.finfo(torch.float16).max:g}, which "
            f"cannot be kept in half precision; take another network, or --train all"
        )
    return half


def _placed(entries: Tensor, device: torch.device) -> Tensor:
    """The entries on the device, if they take at most `SHARE` of its free memory; else where they are."""
    fits = entries.numel() * entries.element_size() <= SHARE * free_memory(device)
    return entries.to(device) if device.type == "cuda" and fits else entries


class _Kept:
    """The files of a folder, open to be continued.

    entries: float16 [E, h, w, C]. done: the number of blocks that are there.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], about: dict[str, Any]) -> None:
        self._path, self._about = folder / "features.json", {**about, "shape": list(shape)}
        data = folder / "features.bin"
        self.done = self._recorded = int(read_json(self._path)["done"]) if self._path.exists() else 0
        with open(data, "r+b" if self.done else "w+b") as file:  # a mapped file cannot tell of a full disk
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * 2)
        self._mapped = np.memmap(data, np.float16, "r+", shape=shape)
        self.entries = torch.from_numpy(self._mapped)

    def record(self) -> None:
        """Wait until the disk holds the blocks that are done, and write down their number."""
        if self.done > self._recorded:
            self._mapped.flush()
            write_json(self._path, {**self._about, "done": self.done})
            self._recorded = self.done
