"""What every decoder shares: plain files go the fast way, the others to Pillow, and what fails is named."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from sal_fast.data import files
from sal_fast.data.files import Encoded, Unreadable

MOST_PIXELS = 2**25  # of masks, or by other than Pillow, decoded at a time: 100 MB as RGB


class Decoder(ABC):
    """Decodes batches of encoded files; holds as many threads as there are cores.

    `name` says what runs, for people.
    """

    name: str

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.threads = cores()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def images(self, batch: Sequence[Encoded], size: int) -> tuple[Tensor, dict[int, Unreadable]]:
        """uint8 [B, size, size, 3] on the device: upright, RGB, bilinear with antialias.

        The second result says which of the batch could not be decoded, and why; those are zeros.
        """
        out = torch.zeros(len(batch), size, size, 3, dtype=torch.uint8, device=self.device)
        fast = [i for i, file in enumerate(batch) if self.takes(file)]
        left = [i for i, file in enumerate(batch) if not self.takes(file)]
        for part in bounded([batch[i] for i in fast]):
            try:
                self._decode([batch[i] for i in fast[part]], out, fast[part])
            except RuntimeError:  # one of them is damaged: Pillow says which
                left += fast[part]
        broken = {}

        def by_pillow(place: int) -> None:
            try:
                out[place] = files.resize(torch.from_numpy(files.rgb(batch[place])), size)
            except Unreadable as error:
                broken[place] = error

        for part in bounded([batch[i] for i in left]):
            list(self.pool.map(by_pillow, left[part]))
        return out, broken

    def grades(self, batch: Sequence[Encoded]) -> list[np.ndarray | Unreadable]:
        """The pixels of mask files as they are stored (`files.grades`)."""

        def one(file: Encoded) -> np.ndarray | Unreadable:
            try:
                return files.grades(file)
            except Unreadable as error:
                return error

        return list(self.pool.map(one, batch))

    @abstractmethod
    def takes(self, file: Encoded) -> bool:
        """Whether `_decode` takes a file; Pillow takes the others."""

    @abstractmethod
    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        """Write files, decoded and resized, to out[places]; RuntimeError if one is damaged."""

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bounded(batch: Sequence[Encoded]) -> Iterator[slice]:
    """Cut a batch so that no part has more than MOST_PIXELS, if it has more than one file."""
    start = pixels = 0
    for i, file in enumerate(batch):
        if i > start and pixels + file.pixels > MOST_PIXELS:
            yield slice(start, i)
            start, pixels = i, 0
        pixels += file.pixels
    if start < len(batch):
        yield slice(start, len(batch))
