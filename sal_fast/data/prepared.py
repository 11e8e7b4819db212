"""A prepared folder, as `sal-fast data prepare` leaves it, read as a table and opened as a store.

prepared.json   what the folder was made from and for; written last, so it marks a finished folder
table.parquet   the samples: id, image, label, mask, split, digest, and where their pixels and maps are; group
                and subgroup if there are any
images.bin      uint8 [M, S, S, 3], decoded and resized; missing with --copy False
masks.bin       int32 [M, F, ceil(F / 32)], one bit per pixel (ops.BitMask)
graded.bin      uint8 [G, F, F], the graded maps
looks.bin       uint8 [M, 3, 16, 16], what images look like, to find pictures that occur twice
index.jsonl     one line that says what the folder is for, then one line per finished sample; a sample
                without a line does not count, and the last of several lines holds
.lock           held by the process that prepares
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util.files import stamp
from sal_fast.data import reading, store
from sal_fast.data.duplicates import SIDE, Traits
from sal_fast.data.files import Unreadable
from sal_fast.data.images import Images, Mapped, Resident, Streamed
from sal_fast.data.masks import Masks
from sal_fast.data.meaning import Rule
from sal_fast.data.table import Mask, Table, numbered
from sal_fast.errors import InputError

FORMAT = 3
INDEX, PREPARED, SAMPLES = "index.jsonl", "prepared.json", "table.parquet"


@dataclass(frozen=True)
class Recipe:
    """The sizes that a folder is prepared for; another recipe needs another folder.

    image_size, stored_size: as in `StoreOptions`. copy: whether decoded images are kept.
    """

    image_size: int
    stored_size: int
    copy: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample in each of the .bin files, in bytes."""
        size, stored = self.image_size, self.stored_size
        shapes: dict[str, tuple[int, ...]] = {
            "masks.bin": (size, -(-size // 32), 4),
            "graded.bin": (size, size),
            "looks.bin": (3, SIDE, SIDE),
        }
        return {"images.bin": (stored, stored, 3), **shapes} if self.copy else shapes


@dataclass(frozen=True, kw_only=True)
class PreparedTable(Table):
    """The table of a finished folder, with one entry per sample in each column.

    at: int64 [N], the place in images.bin and masks.bin. graded: int64 [N], the place in graded.bin, or -1
    for a binary map. digests: of the files that a sample was read from. stamps: see `stamp`. said: the rule
    by which its masks were read, in words.
    """

    folder: Path
    recipe: Recipe
    at: Tensor
    graded: Tensor
    digests: list[bytes]
    stamps: list[str]
    said: str


def is_prepared(folder: Path) -> bool:
    """True if a folder is prepared, to its end or not."""
    return (folder / INDEX).is_file()


def read(folder: Path) -> PreparedTable:
    """Read the table of a prepared folder. Raises InputError if it is not finished, or damaged."""
    meta = folder / PREPARED
    if not meta.is_file():
        raise InputError(
            f"{folder} is not prepared to its end; repeat the `sal-fast data prepare` that began it"
        )
    try:
        about = json.loads(meta.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise InputError(
                f"{folder}: prepared in format {about['format']}, expected {FORMAT}; prepare it again"
            )
        columns = pl.read_parquet(folder / SAMPLES, glob=False).to_dict(as_series=False)
        return PreparedTable(
            name=about["name"],
            classes=about["classes"],
            ids=columns["id"],
            images=[Path(path) for path in columns["image"]],
            labels=numbered(columns["label"], about["classes"]),
            masks=[_mask([Path(path) for path in paths]) for paths in columns["mask"]],
            split=columns["split"],
            group=columns.get("group", []),
            subgroup=columns.get("subgroup", []),
            rule=Rule(white=about["white"]),
            notes=tuple(about["notes"]),
            said=about["rule"],
            folder=folder,
            recipe=Recipe(**about["recipe"]),
            at=torch.tensor(columns["at"], dtype=torch.int64),
            graded=torch.tensor(columns["graded"], dtype=torch.int64),
            digests=[bytes.fromhex(digest) for digest in columns["digest"]],
            stamps=columns["stamp"],
        )
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{folder}: cannot be read as a prepared data set ({error}); prepare it again"
        ) from None


def _mask(paths: list[Path]) -> Mask | None:
    return tuple(paths) if len(paths) > 1 else next(iter(paths), None)


def build(table: PreparedTable, options: reading.StoreOptions) -> store.Store:
    """Make the store of a prepared table. Nothing is decoded if the folder has a copy of the images.

    Raises InputError if the folder was prepared for other sizes, or its files have changed since.
    """
    recipe, folder, size = table.recipe, table.folder, options.image_size
    if (size, options.stored_size) != (recipe.image_size, recipe.stored_size):
        raise InputError(
            f"{folder} is prepared for --image-size {recipe.image_size}, images kept at "
            f"{recipe.stored_size} px; this run needs {size} and {options.stored_size} (--augment): "
            f"prepare another folder, or use the originals"
        )
    words = _mapped(folder / "masks.bin", np.int32, table.at, size, -(-size // 32))
    graded = _mapped(folder / "graded.bin", np.uint8, table.graded, size, size)
    place = torch.where(table.graded < 0, -1, (table.graded >= 0).cumsum(0) - 1)
    used = graded[table.graded[table.graded >= 0]]
    masks = Masks(ops.BitMask(words[table.at], size), used, place).to(options.decoder.device)
    return store.assembled(table, _images(table, options), masks, table.digests, traits(table))


def traits(table: PreparedTable) -> Traits:
    """What tells whether two pictures of a prepared table are one."""
    looks = _mapped(table.folder / "looks.bin", np.uint8, table.at, 3, SIDE, SIDE)
    return store.traits_of(table.digests, looks[table.at])


def _images(table: PreparedTable, options: reading.StoreOptions) -> Images:
    size, decoder, keep = options.stored_size, options.decoder, options.keep
    if table.recipe.copy:
        pixels = _mapped(table.folder / "images.bin", np.uint8, table.at, size, size, 3)
        if keep == "stream" or decoder.device.type == "cpu":
            return Mapped(pixels, table.at, decoder.device)
        kept = torch.empty(len(table), size, size, 3, dtype=torch.uint8, device=decoder.device)
        for rows in torch.arange(len(table)).split(reading.BATCH):
            kept[rows[0] : rows[-1] + 1] = pixels[table.at[rows]].to(decoder.device)
        return Resident(kept)
    for row, now in enumerate(stamps(table)):
        if now != table.stamps[row]:
            raise InputError(
                f"{table.images[row]}: it or its mask has changed since {table.folder} was prepared; "
                f"repeat `sal-fast data prepare`"
            )
    if keep == "stream":
        return Streamed(table.images, size, decoder, table.rule.white)
    return store.decoded(replace(table, masks=[None] * len(table)), options)[0]  # its maps are in masks.bin


def stamps(table: Table) -> list[str]:
    """The stamp of every sample: a digest of the paths, sizes and times of its files.

    A stamp that has changed says that the bytes may have changed too.
    """
    return list(reading.each(lambda row: _stamp(table, row), range(len(table)), "looking for changed files"))


def _stamp(table: Table, row: int) -> str:
    try:
        paths = reading.sources(table, row)
    except Unreadable as error:
        paths = [table.images[row], error.path]
    told = "\0".join(map(stamp, paths))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def cut(path: Path, there: int, end: int) -> InputError:
    """The error for a .bin file that is shorter than what the index says is in it."""
    return InputError(
        f"{path} has {there} bytes, the index tells of {end}: restore it, or prepare another folder"
    )


def _mapped(path: Path, dtype: type, at: Tensor, *shape: int) -> Tensor:
    """Map a file as a tensor [M, *shape], read when it is used; all places `at` must be in it."""
    count = 1 + int(at.max()) if len(at) else 0
    if not count:
        return torch.from_numpy(np.empty((0, *shape), dtype=dtype))
    there, end = path.stat().st_size, count * math.prod(shape) * np.dtype(dtype).itemsize
    if there < end:
        raise cut(path, there, end)
    # copy on write, because torch has no read-only tensors
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", shape=(count, *shape)))
