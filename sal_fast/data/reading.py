"""Rows of a table, decoded batch by batch, while the next batch's files are being read."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.words import Keep
from sal_fast.data import duplicates, files, meaning
from sal_fast.data.decode.base import MOST_PIXELS, Decoder, consecutive, cores
from sal_fast.data.files import Encoded, Unreadable, or_unreadable
from sal_fast.data.meaning import Map, Seen
from sal_fast.data.table import Table

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH = 64  # samples decoded together
READ = 2**26  # bytes of files read together, unless one sample has more
LOOK = 1024  # items that wait for a thread in `each`
PICTURE = 12 * 10**6  # pixels of a large photograph, for `memory`


@dataclass(frozen=True)
class StoreOptions:
    """How the files of a table are decoded, and where its images are kept.

    image_size: the frame, pixels a side: what a network sees.
    stored_size: pixels a side of an image before it is cropped (`augment.stored_size`); 0: of images only the
        headers are read.
    decoder: what decodes, and for which device.
    keep: `resident` keeps images on the device, `stream` decodes them in every epoch; `auto` is for
        `open_store`, which decides by the memory that is free.
    """

    image_size: int
    stored_size: int
    decoder: Decoder
    keep: Keep = "resident"


class Part(NamedTuple):
    """Some rows of a table, decoded.

    images: uint8 [B, S, S, 3] on the decoder's device.
    masks: uint8 [F, F] each, or None for a row without a mask.
    seen: what was seen in the mask files of each row.
    deep: the brightest channel of each image of more than 8 bits, as it was decoded, by position.
    digests: of all bytes that a row was read from; the first 16 bytes are the image's own.
    looks: what images look like, uint8 [B, 3, 16, 16] (`duplicates.looks`); None if only headers were read.
    broken: why rows cannot be used, by their position in the part.
    """

    rows: Sequence[int]
    images: Tensor
    masks: list[np.ndarray | None]
    seen: list[list[Seen]]
    deep: dict[int, int]
    digests: list[bytes]
    looks: Tensor | None
    broken: dict[int, Unreadable]


class _Files(NamedTuple):
    """The files of one row, read and not yet decoded."""

    image: Encoded
    masks: list[Encoded]
    digest: bytes


def parts(
    table: Table, rows: Sequence[int], options: StoreOptions, out: Tensor | None = None
) -> Iterator[Part]:
    """Decode rows of a table, at most BATCH at a time. `memory` says how much that takes beside the result.

    Args:
        table: whose rows they are.
        rows: their numbers, in the order in which they come.
        options: the sizes, and what decodes.
        out: where images are written to, uint8 [len(rows), S, S, 3] on the decoder's device, if it is given.
    """
    decoder = options.decoder
    load = or_unreadable(partial(_load, table))
    groups = consecutive((_bytes(table, row) for row in rows), READ, BATCH)
    for group, loaded in ahead(((group, decoder.map(load, rows[group])) for group in groups), depth=1):
        images = _empty(len(loaded), options.stored_size, decoder) if out is None else out[group]
        yield _decoded(table, rows[group], loaded, images, options)


def _load(table: Table, row: int) -> _Files:
    image, *masks = (files.read(path, table.rule.white) for path in sources(table, row))
    return _Files(image, masks, b"".join(file.digest for file in (image, *masks)))


def memory(threads: int) -> int:
    """The bytes that `parts` takes at most if no picture has more than PICTURE pixels.

    These are: files, twice; graded maps of 16 bits, at 17 bytes a pixel; and in each thread a photograph, as
    Pillow's image and as an array.
    """
    return 2 * READ + 17 * MOST_PIXELS + threads * 6 * PICTURE


def sources(table: Table, row: int) -> list[Path]:
    """The files of a row: the image, then its masks. Raises Unreadable for a folder of masks without any."""
    mask = table.masks[row]
    return [table.images[row], *([] if mask is None else files.of_mask(mask))]


def digest(table: Table, row: int) -> bytes | None:
    """A row's entry of `Part.digests`, with nothing decoded; None if its files cannot be used."""
    found = or_unreadable(_load)(table, row)
    return None if isinstance(found, Unreadable) else found.digest


def pictures(paths: Sequence[Path], size: int, decoder: Decoder, white: float | None = None) -> Tensor:
    """Decode images that were looked at before to uint8 [B, size, size, 3]. `white` is as in `Rule`.

    Raises Unreadable if one has gone bad since.
    """
    images = _empty(len(paths), size, decoder)
    read = decoder.map(partial(files.read, said=white), paths)
    for error in decoder.images(read, images, range(len(paths))).values():
        raise error
    return images


def _empty(count: int, size: int, decoder: Decoder) -> Tensor:
    return torch.empty(count, size, size, 3, dtype=torch.uint8, device=decoder.device)


def _bytes(table: Table, row: int) -> int:
    """How large the files of a row are; 0 if that cannot be told, as the error comes when they are read."""
    try:
        return sum(path.stat().st_size for path in sources(table, row))
    except (OSError, ValueError, Unreadable):
        return 0


def _decoded(
    table: Table,
    rows: Sequence[int],
    loaded: Sequence[_Files | Unreadable],
    images: Tensor,
    options: StoreOptions,
) -> Part:
    decoder = options.decoder
    broken = {i: error for i, error in enumerate(loaded) if isinstance(error, Unreadable)}
    found = {i: sample for i, sample in enumerate(loaded) if isinstance(sample, _Files)}
    images[list(broken)] = 0
    if images.shape[1]:
        broken |= decoder.images([sample.image for sample in found.values()], images, list(found))
    drawn: dict[int, list[Map]] = {}
    pairs = [(i, sample.image, mask) for i, sample in found.items() for mask in sample.masks]
    for i, one in _maps(pairs, options.image_size, table, decoder):
        if isinstance(one, Unreadable):
            broken.setdefault(i, one)
        else:
            drawn.setdefault(i, []).append(one)
    maps = [drawn.get(i, []) for i in range(len(rows))]
    united = [isinstance(table.masks[row], tuple) for row in rows]
    both = list(zip(maps, united, strict=True))
    masks = [meaning.joined(several, one) if several else None for several, one in both]
    seen = [[m.seen for m in several] if one else meaning.compared(several) for several, one in both]
    deep = [i for i, sample in found.items() if images.shape[1] and sample.image.depth != "8 bits"]
    brightest = {i: int(images[i].max()) for i in deep if i not in broken}
    digests = [found[i].digest if i in found else b"" for i in range(len(rows))]
    looks = duplicates.looks(images) if images.shape[1] else None
    return Part(rows, images, masks, seen, brightest, digests, looks, broken)


def _maps(
    pairs: Sequence[tuple[int, Encoded, Encoded]], size: int, table: Table, decoder: Decoder
) -> Iterator[tuple[int, Map | Unreadable]]:
    """Decode mask files and bring them to their frame; pairs are (position, image file, mask file)."""

    @or_unreadable
    def one(pixels: np.ndarray | Unreadable, image: Encoded, mask: Encoded) -> Map:
        if isinstance(pixels, Unreadable):
            raise pixels
        return meaning.read(mask, pixels, size, image, table.rule)

    def alone(image: Encoded, mask: Encoded) -> Map | Unreadable:
        return one(or_unreadable(files.grades)(mask), image, mask)

    for part in consecutive((mask.pixels for _, _, mask in pairs), MOST_PIXELS):
        at, images, masks = zip(*pairs[part], strict=True)
        if decoder.takes_masks:
            maps = decoder.map(one, decoder.grades(masks), images, masks)
        else:  # We do both in one go, so that one thread decodes while another reads pixels.
            maps = decoder.map(alone, images, masks)
        yield from zip(at, maps, strict=True)


def each(work: Callable[[Item], Result], items: Iterable[Item], description: str) -> Iterator[Result]:
    """Yield `work` of every item, in order, with a progress bar, from as many threads as there are cores."""
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
