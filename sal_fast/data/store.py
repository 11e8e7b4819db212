"""All samples, decoded once, resident on the device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sal_fast import progress
from sal_fast.data import decode
from sal_fast.data.table import Table
from sal_fast.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Store:
    """Row i of every tensor is row i of the table.

    images uint8 [N, 3, S, S] at the stored size; masks uint8 [N, F, F] in the frame (F = image_size), 0 or
    255 where binary, 0..255 where graded, 0 where there is none; has_mask bool [N]; labels int64 [N].
    `fingerprint` covers ids, labels, splits and the bytes of every file.
    """

    table: Table
    images: Tensor
    masks: Tensor
    has_mask: Tensor
    labels: Tensor
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def image_size(self) -> int:
        return self.masks.shape[-1]

    def rows(self, split: str) -> Tensor:
        return torch.tensor(self.table.rows(split), dtype=torch.int64, device=self.device)


def build(table: Table, image_size: int, stored_size: int, device: torch.device) -> Store:
    """Decode every file of the table, with a progress bar, and move the result to the device.

    Raises InputError that names the files that cannot be used, or the memory that is missing.
    """
    check_memory(table, image_size, stored_size, device)
    count = len(table)
    images = np.empty((count, 3, stored_size, stored_size), dtype=np.uint8)
    masks = np.zeros((count, image_size, image_size), dtype=np.uint8)
    print_hash = hashlib.sha256()

    def one(row: int) -> decode.Decoded | decode.Unreadable:
        try:
            return decode.sample(table.images[row], table.masks[row], stored_size, image_size)
        except decode.Unreadable as error:
            return error

    broken: list[decode.Unreadable] = []
    for row, result in enumerate(each(one, range(count), f"decoding {table.name}")):
        if isinstance(result, decode.Unreadable):
            broken.append(result)
            continue
        images[row] = result.image.transpose(2, 0, 1)
        if result.mask is not None:
            masks[row] = result.mask
        line = f"{table.ids[row]}\t{table.classes[table.labels[row]]}\t{table.split[row]}\t"
        print_hash.update(line.encode() + result.digest)
    _refuse(broken)
    return Store(
        table=table,
        images=torch.from_numpy(images).to(device),
        masks=torch.from_numpy(masks).to(device),
        has_mask=torch.tensor([mask is not None for mask in table.masks], device=device),
        labels=torch.tensor(table.labels, dtype=torch.int64, device=device),
        fingerprint=print_hash.hexdigest(),
    )


def check_memory(table: Table, image_size: int, stored_size: int, device: torch.device) -> None:
    """Raise InputError where the decoded samples do not fit in what is free, on the host or on the device."""
    needed = len(table) * (3 * stored_size**2 + image_size**2)
    for place in {torch.device("cpu"), device}:
        free = free_memory(place)
        if needed > free:
            raise InputError(
                f"{table.name}: {len(table)} images at {stored_size} px need {needed / 1e9:.1f} GB "
                f"on {place}, {free / 1e9:.1f} GB are free; lower --image-size or use a larger machine"
            )


def read_masks(masks: Sequence[Path], images: Sequence[Path], size: int) -> np.ndarray:
    """Mask files for these images, uint8 [k, size, size]; InputError names those that cannot be used."""

    def one(files: tuple[Path, Path]) -> np.ndarray | decode.Unreadable:
        try:
            return decode.mask_file(files[0], size, decode.upright_size(files[1]))
        except decode.Unreadable as error:
            return error

    results = list(each(one, zip(masks, images, strict=True), "reading masks"))
    _refuse([result for result in results if isinstance(result, decode.Unreadable)])
    return np.stack([result for result in results if not isinstance(result, decode.Unreadable)])


def each(work: Callable[[Item], Result], items: Iterable[Item], description: str) -> Iterator[Result]:
    """`work` of every item, in order, in as many threads as there are cores (Pillow leaves the GIL)."""
    items = list(items)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress.bar(description, len(items), log=len(items) > 2000) as advance,
    ):
        for result in pool.map(work, items):
            advance()
            yield result


def _refuse(broken: Sequence[decode.Unreadable]) -> None:
    if broken:
        more = f" (and {len(broken) - 1} more; `sal-fast data check` lists them)" if len(broken) > 1 else ""
        raise InputError(f"{broken[0]}{more}")


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; of the host's memory what the kernel says can be had."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
