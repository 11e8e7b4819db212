"""Every sample of a table, as batches on the device: kept there, or streamed.

Either way an image is brought to the stored size first, then cropped, so both give the same batches. Maps are
always kept, a bit a pixel where they are binary.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util import progress
from sal_fast._util.memory import free_memory
from sal_fast._util.words import Keep
from sal_fast.data import augment, reading
from sal_fast.data.augment import Augmentation, Draws
from sal_fast.data.decode import Decoder
from sal_fast.data.files import Unreadable
from sal_fast.data.masks import Masks
from sal_fast.data.table import Table
from sal_fast.errors import InputError

SHARE = 0.5  # of the memory that is free: what `auto` takes for images, so that a network fits beside them


class Images(ABC):
    """uint8 images [N, S, S, 3] by row."""

    @abstractmethod
    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each group of rows: images on the device, and which of them (None: these, in order)."""


class Resident(Images):
    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        for rows in groups:
            yield self.pixels, rows


class Streamed(Images):
    """Decoded from their files each time, while the batch before is used."""

    def __init__(self, paths: Sequence[Path], stored_size: int, decoder: Decoder) -> None:
        self.paths, self.stored_size, self.decoder = paths, stored_size, decoder

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        asked = [rows.tolist() for rows in groups]  # all at once: a copy from a device waits for it
        yield from reading.ahead((self._decode(rows), None) for rows in asked)

    def _decode(self, rows: Sequence[int]) -> Tensor:
        try:
            return reading.pictures([self.paths[row] for row in rows], self.stored_size, self.decoder)
        except Unreadable as error:
            raise InputError(
                f"{error} (it was readable before); restore it, then repeat the command"
            ) from None


class Mapped(Images):
    """Decoded before, in a file that the system reads when it is looked at and keeps while it can."""

    def __init__(self, pixels: Tensor, at: Tensor, device: torch.device) -> None:
        self.pixels, self.at, self.device = pixels, at, device

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.device.type == "cpu":
            for rows in groups:
                yield self.pixels, self.at[rows]
            return
        asked = [self.at[rows.cpu()] for rows in groups]
        for pixels in reading.ahead(self.pixels[at].pin_memory() for at in asked):
            yield pixels.to(self.device, non_blocking=True), None


@dataclass(frozen=True)
class Store:
    """Row i is row i of the table.

    masks: in the frame (F = image_size), of all rows; has_mask bool [N]; labels int64 [N]; keys uint64 [N],
    on the host, from which draws follow. `fingerprint` covers ids, labels, splits and the bytes of all files.
    """

    table: Table
    images: Images
    masks: Masks
    has_mask: Tensor
    labels: Tensor
    keys: np.ndarray
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def image_size(self) -> int:
        return self.masks.size

    def rows(self, split: str) -> Tensor:
        return torch.tensor(self.table.rows(split), dtype=torch.int64, device=self.device)

    def draws(self, groups: Sequence[Tensor], augmentation: Augmentation) -> list[Draws]:
        """How an epoch crops and colours the images of each group of rows."""
        at = torch.cat(tuple(groups)).cpu().numpy()
        return augmentation.draw(self.keys[at]).to(self.device).split([len(group) for group in groups])

    def views(self, groups: Sequence[Tensor], draws: Sequence[Draws] | None = None) -> Iterator[Tensor]:
        """What a network sees of each group of rows: float32 [B, 3, F, F], cropped, coloured, normalised."""
        plain = augment.plain().to(self.device)
        for number, (pixels, rows) in enumerate(self.images.batches(groups)):
            drawn = plain if draws is None else draws[number]
            yield ops.crop_images(pixels, rows, drawn.box, size=self.image_size, color=drawn.color)

    def pictures(self, rows: Tensor) -> Tensor:
        """Images for people: uint8 [B, F, F, 3]."""
        exact = torch.eye(3, 4, device=self.device)
        out = []
        for pixels, at in self.images.batches(rows.split(reading.BATCH)):
            view = ops.crop_images(pixels, at, size=self.image_size, color=exact)
            out.append(view.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
        return torch.cat(out)


def build(
    table: Table, image_size: int, stored_size: int, decoder: Decoder, keep: Keep = "resident"
) -> Store:
    """Decode every file once; keep the maps, and the images too unless `keep` is stream.

    Raises InputError that names the files that cannot be used.
    """
    masks: list[Masks] = []
    digest = Fingerprint(table)

    def take(part: reading.Part) -> None:
        masks.append(packed(part.masks, image_size).to(decoder.device))
        for row, one in zip(part.rows, part.digests, strict=True):
            digest.add(row, one)

    if keep == "stream":
        for part in decoded(table, stored_size, image_size, decoder):
            take(part)
        images: Images = Streamed(table.images, stored_size, decoder)
    else:
        images = resident(table, stored_size, image_size, decoder, take)
    return assembled(table, images, Masks.cat(masks), digest.hexdigest())


def resident(
    table: Table,
    stored_size: int,
    mask_size: int | None,
    decoder: Decoder,
    take: Callable[[reading.Part], None] = lambda part: None,
) -> Resident:
    """Every image decoded and kept; `take` is given what else is in a part."""
    pixels = torch.empty(len(table), stored_size, stored_size, 3, dtype=torch.uint8, device=decoder.device)
    for part in decoded(table, stored_size, mask_size, decoder, pixels):
        take(part)
    return Resident(pixels)


def decoded(
    table: Table, stored_size: int, mask_size: int | None, decoder: Decoder, out: Tensor | None = None
) -> Iterator[reading.Part]:
    """`reading.parts` of all rows with a progress bar; at the end refuses what cannot be used."""
    broken: list[Unreadable] = []
    with progress.bar(f"decoding {table.name}", len(table), log=len(table) > 2000) as advance:
        parts = reading.parts(table, range(len(table)), stored_size, mask_size, decoder, out)
        for part in reading.ahead(parts, depth=1):
            broken += part.broken.values()
            yield part
            advance(len(part.rows))
    refuse(broken)


def assembled(table: Table, images: Images, masks: Masks, fingerprint: str) -> Store:
    device = masks.place.device
    return Store(
        table=table,
        images=images,
        masks=masks,
        has_mask=torch.tensor([mask is not None for mask in table.masks], device=device),
        labels=torch.tensor(table.labels, dtype=torch.int64, device=device),
        keys=augment.keys(table.ids),
        fingerprint=fingerprint,
    )


def packed(masks: Sequence[np.ndarray | None], size: int) -> Masks:
    """Masks of one part; no pixel where there is none."""
    maps = np.zeros((len(masks), size, size), dtype=np.uint8)
    for row, mask in enumerate(masks):
        if mask is not None:
            maps[row] = mask
    return Masks.pack(torch.from_numpy(maps))


class Fingerprint:
    """A digest of ids, labels, splits and files, row by row in order."""

    def __init__(self, table: Table) -> None:
        self._table, self._hash = table, hashlib.sha256()

    def add(self, row: int, digest: bytes) -> None:
        table = self._table
        line = f"{table.ids[row]}\t{table.class_name(row)}\t{table.split[row]}\t"
        self._hash.update(line.encode() + digest)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def plan(table: Table, image_size: int, stored_size: int, device: torch.device, keep: Keep) -> Keep:
    """Whether images are kept or streamed; InputError where neither fits in what is free on the device."""
    images, maps = _needed(table, image_size, stored_size)
    free = free_memory(device)
    if keep == "auto":
        keep = "resident" if images + maps <= SHARE * free else "stream"
    mapped = table.prepared is not None and table.prepared.recipe.copy and device.type == "cpu"
    needed = maps + (images if keep == "resident" and not mapped else 0)
    if needed > free:
        advice = "--store stream" if keep == "resident" else "a lower --image-size, or a larger machine"
        raise InputError(
            f"{table.name}: {len(table)} images at {stored_size} px, {keep}, need {needed / 1e9:,.1f} GB "
            f"on {device}, {free / 1e9:.1f} GB are free; use {advice}"
        )
    return keep


def describe(table: Table, image_size: int, stored_size: int, decoder: Decoder, keep: Keep) -> str:
    images, maps = _needed(table, image_size, stored_size)
    free = free_memory(decoder.device)
    what = f"{table.name}: {len(table)} images at {stored_size} px"
    if table.prepared is not None and table.prepared.recipe.copy:
        return f"{what}, decoded before ({images / 1e9:.2f} GB)"
    kept = (
        f"kept on {decoder.device} ({(images + maps) / 1e9:.2f} GB of {free / 1e9:.1f} free)"
        if keep == "resident"
        else f"streamed each epoch (kept, they would take {images / 1e9:.2f} GB of {free / 1e9:.1f} free)"
    )
    return f"{what}, {kept}; decoder {decoder.name}"


def _needed(table: Table, image_size: int, stored_size: int) -> tuple[int, int]:
    """Bytes of images, and of maps if all are binary."""
    return len(table) * 3 * stored_size**2, len(table) * image_size * -(-image_size // 32) * 4


def read_masks(masks: Sequence[Path], images: Sequence[Path], size: int, decoder: Decoder) -> Masks:
    """Mask files for these images, in the frame; InputError names those that cannot be used."""
    drawn = reading.masks(masks, images, size, decoder)
    refuse([mask for mask in drawn if isinstance(mask, Unreadable)])
    return packed([mask for mask in drawn if not isinstance(mask, Unreadable)], size)


def refuse(broken: Sequence[Unreadable]) -> None:
    if broken:
        more = f" (and {len(broken) - 1} more; `sal-fast data check` lists them)" if len(broken) > 1 else ""
        raise InputError(f"{broken[0]}{more}")
