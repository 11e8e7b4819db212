"""Rows of a table, decoded batch by batch, with the next batch's files read meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sal_fast._util import progress
from sal_fast.data import files
from sal_fast.data.decode.base import MOST_PIXELS, Decoder, bounded, cores
from sal_fast.data.files import Encoded, Unreadable
from sal_fast.data.table import Table

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH = 64  # samples decoded together
READ = 2**26  # bytes of files read together, unless one sample has more
LOOK = 1024  # items that wait for a thread in `each`
PICTURE = 12 * 10**6  # pixels of a large photograph, for `memory`


@dataclass(frozen=True)
class Part:
    """Some rows of a table, decoded.

    images: uint8 [B, S, S, 3] on the decoder's device. masks: uint8 [F, F] each, or None where there is none.
    digests: of all bytes that a sample was read from. broken: why samples cannot be used, by position.
    """

    rows: Sequence[int]
    images: Tensor
    masks: list[np.ndarray | None]
    digests: list[bytes]
    broken: dict[int, Unreadable]


@dataclass(frozen=True)
class _Sample:
    image: Encoded
    masks: list[Encoded]
    digest: bytes


def parts(
    table: Table,
    rows: Sequence[int],
    stored_size: int,
    mask_size: int | None,
    decoder: Decoder,
    out: Tensor | None = None,
) -> Iterator[Part]:
    """Decode images to stored_size and masks to mask_size (None: no masks), at most BATCH rows at a time.

    The images go to `out`, uint8 [len(rows), S, S, 3] on the decoder's device, if it is given. Memory:
    `memory`, and the result.
    """
    masked = mask_size is not None
    start = 0

    def load(row: int) -> _Sample | Unreadable:
        return _load(table, row, masked)

    waiting: list[tuple[Sequence[int], list[Future[_Sample | Unreadable]]]] = []
    for group in chain(_groups(table, rows, masked), [()]):
        waiting.append((group, [decoder.pool.submit(load, row) for row in group]))
        if len(waiting) == 2:
            now, loading = waiting.pop(0)
            images = _empty(len(now), stored_size, decoder) if out is None else out[start : start + len(now)]
            start += len(now)
            yield _decoded(table, now, loading, images, mask_size, decoder)


def memory(threads: int) -> int:
    """Bytes that `parts` takes at most where no picture has more than PICTURE pixels.

    Files twice; a graded map of 16 bits at 17 bytes a pixel; a photograph in each thread, as Pillow's and as
    an array.
    """
    return 2 * READ + 17 * MOST_PIXELS + threads * 6 * PICTURE


def sources(table: Table, row: int, masked: bool = True) -> list[Path]:
    """The files of a sample: the image, then its masks; Unreadable where a folder of masks is none."""
    mask = table.masks[row] if masked else None
    return [table.images[row], *([] if mask is None else files.annotators(mask))]


def digest(table: Table, row: int) -> bytes | None:
    """`Part.digests` of a row, nothing decoded; None if its files cannot be used."""
    try:
        return b"".join(files.read(path).digest for path in sources(table, row))
    except Unreadable:
        return None


def pictures(paths: Sequence[Path], size: int, decoder: Decoder) -> Tensor:
    """Images that were looked at before, uint8 [B, size, size, 3]; raises Unreadable if one has gone bad."""
    images = _empty(len(paths), size, decoder)
    for error in decoder.images(decoder.map(files.read, paths), images, range(len(paths))).values():
        raise error
    return images


def masks(
    paths: Sequence[Path], images: Sequence[Path], size: int, decoder: Decoder
) -> list[np.ndarray | Unreadable]:
    """Mask files for these images, uint8 [size, size] each."""

    def load(mask: Path, image: Path) -> tuple[Encoded, Encoded] | Unreadable:
        try:
            return files.read(mask), files.read(image)
        except Unreadable as error:
            return error

    out: list[np.ndarray | Unreadable] = []
    for start in range(0, len(paths), BATCH):
        part = slice(start, start + BATCH)
        loaded = decoder.map(load, paths[part], images[part])
        whole = [pair for pair in loaded if not isinstance(pair, Unreadable)]
        drawn = iter(
            _masks([mask for mask, _ in whole], [image.size for _, image in whole], size, None, decoder)
        )
        out += [pair if isinstance(pair, Unreadable) else next(drawn) for pair in loaded]
    return out


def _empty(count: int, size: int, decoder: Decoder) -> Tensor:
    return torch.empty(count, size, size, 3, dtype=torch.uint8, device=decoder.device)


def _groups(table: Table, rows: Sequence[int], masked: bool) -> Iterator[Sequence[int]]:
    """Rows in order, at most BATCH and READ bytes in a group."""
    start = total = 0
    for i, row in enumerate(rows):
        size = _bytes(table, row, masked)
        if i > start and (i - start == BATCH or total + size > READ):
            yield rows[start:i]
            start, total = i, 0
        total += size
    if start < len(rows):
        yield rows[start:]


def _bytes(table: Table, row: int, masked: bool) -> int:
    try:
        return sum(path.stat().st_size for path in sources(table, row, masked))
    except (OSError, ValueError, Unreadable):  # said when it is read
        return 0


def _load(table: Table, row: int, masked: bool) -> _Sample | Unreadable:
    try:
        image, *drawn = (files.read(path) for path in sources(table, row, masked))
        return _Sample(image, drawn, b"".join(file.digest for file in (image, *drawn)))
    except Unreadable as error:
        return error


def _decoded(
    table: Table,
    group: Sequence[int],
    loading: Sequence[Future[_Sample | Unreadable]],
    images: Tensor,
    mask_size: int | None,
    decoder: Decoder,
) -> Part:
    samples = [future.result() for future in loading]
    broken = {i: sample for i, sample in enumerate(samples) if isinstance(sample, Unreadable)}
    found = {i: sample for i, sample in enumerate(samples) if isinstance(sample, _Sample)}
    whole = list(found)
    images[list(broken)] = 0
    broken |= decoder.images([found[i].image for i in whole], images, whole)
    drawn: list[np.ndarray | None] = [None] * len(group)
    if mask_size is not None:
        owners = [i for i in whole for _ in found[i].masks]
        arrays = _masks(
            [mask for i in whole for mask in found[i].masks],
            [found[i].image.size for i in owners],
            mask_size,
            table.foreground,
            decoder,
        )
        several: dict[int, list[np.ndarray]] = {}
        for i, array in zip(owners, arrays, strict=True):
            if isinstance(array, Unreadable):
                broken.setdefault(i, array)
            else:
                several.setdefault(i, []).append(array)
        for i, one in several.items():
            drawn[i] = files.average(one)
    digests = [found[i].digest if i in found else b"" for i in range(len(group))]
    return Part(group, images, drawn, digests, broken)


def _masks(
    masks: Sequence[Encoded],
    images: Sequence[tuple[int, int]],
    size: int,
    foreground: files.Foreground | None,
    decoder: Decoder,
) -> list[np.ndarray | Unreadable]:
    """Decode mask files and bring them to their frame."""

    def one(
        file: Encoded, grades: np.ndarray | Unreadable, image: tuple[int, int]
    ) -> np.ndarray | Unreadable:
        if isinstance(grades, Unreadable):
            return grades
        try:
            return files.mask(file, grades, size, image, foreground)
        except Unreadable as error:
            return error

    out: list[np.ndarray | Unreadable] = []
    for part in bounded(masks):
        grades = decoder.grades(masks[part])
        out += decoder.map(one, masks[part], grades, images[part])
    return out


def each(work: Callable[[Item], Result], items: Iterable[Item], description: str) -> Iterator[Result]:
    """`work` of every item, in order, with a progress bar, in as many threads as there are cores."""
    items = list(items)
    with (
        ThreadPoolExecutor(cores()) as pool,
        progress.bar(description, len(items), log=len(items) > 2000) as advance,
    ):
        for start in range(0, len(items), LOOK):
            for result in pool.map(work, items[start : start + LOOK]):
                advance()
                yield result


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield the same items; a thread makes up to `depth` of them before they are asked for.

    These belong to this iterator: when it is closed or left, none of them remains.
    """
    source, last = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        made = deque(thread.submit(next, source, last) for _ in range(depth))
        try:
            while (item := made.popleft().result()) is not last:
                made.append(thread.submit(next, source, last))
                yield item  # type: ignore[misc]
        finally:
            for one in made:
                one.cancel()
