"""Pillow, and what every decoder shares: plain files may go a faster way, and what fails is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sal_fast.data import files
from sal_fast.data.files import Encoded, Unreadable

Result = TypeVar("Result")
MOST_PIXELS = 2**25  # of masks, or by other than Pillow, decoded at a time: 100 MB as RGB


class Decoder:
    """Decodes batches of encoded files by Pillow; holds as many threads as there are cores.

    Others are faster at the files that they take. `name` says what runs, for people.
    """

    name = "Pillow"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.threads = cores()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def images(self, batch: Sequence[Encoded], out: Tensor, places: Sequence[int]) -> dict[int, Unreadable]:
        """Decode to rows `places` of uint8 [N, S, S, 3]: upright, RGB, bilinear with antialias.

        The result says which places are zeros since their file could not be decoded, and why.
        """
        fast = [i for i, file in enumerate(batch) if self.takes(file)]
        left = [i for i, file in enumerate(batch) if not self.takes(file)]
        for part in bounded([batch[i] for i in fast]):
            try:
                self._decode([batch[i] for i in fast[part]], out, [places[i] for i in fast[part]])
            except RuntimeError:  # one of them is damaged: Pillow says which
                left += fast[part]
        broken = {}

        def by_pillow(i: int) -> None:
            try:
                out[places[i]] = files.resize(torch.from_numpy(files.rgb(batch[i])), out.shape[1])
            except Unreadable as error:
                broken[places[i]] = error
                out[places[i]] = 0

        for part in bounded([batch[i] for i in left]):
            self.map(by_pillow, left[part])
        return broken

    def grades(self, batch: Sequence[Encoded]) -> list[np.ndarray | Unreadable]:
        """The pixels of mask files as they are stored (`files.grades`)."""

        def one(file: Encoded) -> np.ndarray | Unreadable:
            try:
                return files.grades(file)
            except Unreadable as error:
                return error

        return self.map(one, batch)

    def map(self, work: Callable[..., Result], *items: Sequence[Any]) -> list[Result]:
        """`work` of each of the items, in order; in all threads, which take turns without a wait.

        Where one raises, the others have ended too before this does.
        """
        each = list(zip(*items, strict=True))
        out: list[Any] = [None] * len(each)
        turns = iter(range(len(each)))

        def run() -> None:
            for turn in turns:
                out[turn] = work(*each[turn])

        running = [self.pool.submit(run) for _ in range(min(self.threads, len(each)))]
        wait(running)
        for thread in running:
            thread.result()
        return out

    def takes(self, file: Encoded) -> bool:
        """Whether `_decode` takes a file; Pillow takes the others."""
        return False

    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        """Write files, decoded and resized, to out[places]; RuntimeError if one is damaged."""
        raise NotImplementedError

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
