"""Decoding by Pillow, and what all decoders share: a faster way for plain files, errors that name a file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sal_fast.data import files
from sal_fast.data.files import Encoded, Unreadable, or_unreadable
from sal_fast.data.resize import resize

Result = TypeVar("Result")
MOST_PIXELS = 2**25  # pixels of masks, or of any files not for Pillow, decoded at a time: 100 MB as RGB


class Decoder:
    """Decodes batches of encoded files by Pillow, in as many threads as there are cores.

    Subclasses are faster at the files that they take. `name` tells people what decodes. `takes_masks`: mask
    files are decoded in batches.
    """

    name = "Pillow"
    takes_masks = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.threads = cores()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def images(self, batch: Sequence[Encoded], out: Tensor, places: Sequence[int]) -> dict[int, Unreadable]:
        """Decode files to the rows `places` of `out`, uint8 [N, S, S, 3]: upright, RGB, bilinear with
        antialias.

        Returns why files could not be decoded, by their place, which holds zeros then.
        """
        fast = [i for i, file in enumerate(batch) if self.takes(file)]
        left = [i for i, file in enumerate(batch) if not self.takes(file)]
        for part in consecutive((batch[i].pixels for i in fast), MOST_PIXELS):
            try:
                self._decode([batch[i] for i in fast[part]], out, [places[i] for i in fast[part]])
            except RuntimeError:  # one of them is damaged: Pillow says which
                left += fast[part]
        # For a GPU they are staged in pinned memory, and copied at once on the caller's stream.
        there = out.device.type == "cpu"
        staged = out if there else torch.empty(len(left), *out.shape[1:], dtype=torch.uint8, pin_memory=True)
        broken = {}

        def by_pillow(i: int, row: int) -> None:
            try:
                staged[row] = resize(torch.from_numpy(files.rgb(batch[i])), out.shape[1])
            except Unreadable as error:
                broken[places[i]] = error
                staged[row] = 0

        rows = [places[i] for i in left] if there else list(range(len(left)))
        for part in consecutive((batch[i].pixels for i in left), MOST_PIXELS):
            self.map(by_pillow, left[part], rows[part])
        if left and not there:
            out[[places[i] for i in left]] = staged.to(out.device, non_blocking=True)
        return broken

    def grades(self, batch: Sequence[Encoded]) -> list[np.ndarray | Unreadable]:
        """Decode the pixels of mask files as they are stored (`files.grades`), or say why they cannot be."""
        return self.map(or_unreadable(files.grades), batch)

    def map(self, work: Callable[..., Result], *items: Sequence[Any]) -> list[Result]:
        """Call `work` with each of the items and return the results in order. All threads take turns.

        If a call raises, all threads have ended before this raises too.
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
        """True if `_decode` takes a file; Pillow takes the others."""
        return False

    def _decode(self, batch: list[Encoded], out: Tensor, places: list[int]) -> None:
        """Decode and resize files to out[places]. Raises RuntimeError if one is damaged."""
        raise NotImplementedError

    def close(self) -> None:
        """End the threads; the decoder cannot be used afterwards.

        The threads finish all work that was asked for before. If it were cancelled, a thread that waits for
        it in `map` would wait for ever.
        """
        self.pool.shutdown()


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def consecutive(sizes: Iterable[int], most: int, count: int | None = None) -> Iterator[slice]:
    """Cut items into parts of at most `most` in size, by the items' sizes, and at most `count` items.

    A part of one item may be larger.
    """
    start = end = total = 0
    for size in sizes:
        if end > start and (total + size > most or end - start == count):
            yield slice(start, end)
            start, total = end, 0
        end, total = end + 1, total + size
    if end > start:
        yield slice(start, end)
