"""A data set looked through once, and kept ready: `sal-fast data prepare`.

    prepared.json   when it is finished: what it was made from and for
    table.parquet   the samples: id, image, label, mask, split, digest, and where its pixels and map are
    images.bin      uint8 [M, S, S, 3], decoded and resized; not there with --copy False
    masks.bin       int32 [M, F, ceil(F / 32)], a bit a pixel (ops.BitMask)
    graded.bin      uint8 [G, F, F], the graded maps
    index.jsonl     what the folder is for, then a line for each finished sample; what is not in it does not
                    count, and of two lines for a sample the later one does
    .lock           held by the process that prepares

Files only grow, and the index last, so a process that is killed loses at most BLOCK samples' work. A sample
is decoded again only if the bytes of its files have changed since; where their paths or times alone have,
they are read and compared. What cannot be used is tried again each time.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util import progress
from sal_fast._util.files import flush, read_json, write_bytes, write_json
from sal_fast._util.locks import hold
from sal_fast._util.memory import resident_memory
from sal_fast.data import reading, store
from sal_fast.data.decode import Decoder
from sal_fast.data.files import Unreadable
from sal_fast.data.masks import Masks
from sal_fast.data.table import UNLABELLED, Table
from sal_fast.errors import InputError

FORMAT = 1
INDEX, PREPARED = "index.jsonl", "prepared.json"
BLOCK = 512  # samples between two flushes to the disk
ENTRY_BYTES = 4096  # of memory an entry of the table and the index takes, generously


@dataclass(frozen=True)
class Recipe:
    """What a folder is prepared for; another one needs another folder."""

    image_size: int
    stored_size: int
    copy: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished sample: its place in images.bin and masks.bin, in graded.bin (-1: not graded)."""

    digest: str
    stamp: str
    at: int
    graded: int


def prepare(table: Table, out: Path, recipe: Recipe, decoder: Decoder) -> list[Unreadable]:
    """Decode what `out` does not hold yet; returns the files that cannot be used, nothing written for them.

    The same call continues one that was interrupted. Raises InputError where the disk is too small, or `out`
    holds something else or is in use.
    """
    _check_names(table)
    with hold(out, INDEX):
        return _prepare(table, out, recipe, decoder)


def _prepare(table: Table, out: Path, recipe: Recipe, decoder: Decoder) -> list[Unreadable]:
    index = _Index(out, _head(table, recipe))
    entries = index.read()
    stamps = list(
        reading.each(lambda row: _stamp(table, row), range(len(table)), "looking for changed files")
    )
    kept = _kept(table, stamps, entries, index)
    rows = [row for row, name in enumerate(table.ids) if name not in kept]
    _check_disk(out, recipe, len(rows))
    if rows:
        (out / PREPARED).unlink(missing_ok=True)  # until it tells of all of them
    count = 1 + max((entry.at for entry in entries.values()), default=-1)
    graded = 1 + max((entry.graded for entry in entries.values()), default=-1)
    memory = resident_memory() + reading.memory(decoder.threads) + ENTRY_BYTES * len(rows)
    print(
        f"{table.name}: {len(table)} samples, {len(table) - len(rows)} prepared before; memory: at most "
        f"{memory / 1e6:.0f} MB, of pictures up to {reading.PICTURE // 10**6} megapixels; "
        f"decoder {decoder.name}",
        flush=True,
    )
    broken: list[Unreadable] = []
    lines: list[str] = []
    with (
        _Growing(out, recipe, count, graded) as files_out,
        progress.bar(f"preparing {table.name}", len(rows)) as advance,
    ):

        def keep() -> None:
            nonlocal lines
            new, lines = lines, []  # what cannot be flushed is not told of by a later flush either
            files_out.flush()
            index.append(new)

        try:
            for part in reading.parts(table, rows, recipe.stored_size, recipe.image_size, decoder):
                whole = [i for i in range(len(part.rows)) if i not in part.broken]
                broken += part.broken.values()
                maps = store.packed([part.masks[i] for i in whole], recipe.image_size)
                files_out.add(part.images[whole], maps)
                for i, place in zip(whole, maps.place.tolist(), strict=True):
                    row = part.rows[i]
                    graded_at = graded + place if place >= 0 else -1
                    kept[table.ids[row]] = Entry(part.digests[i].hex(), stamps[row], count, graded_at)
                    lines.append(_line(table.ids[row], kept[table.ids[row]]))
                    count += 1
                graded += len(maps.graded)
                if len(lines) > BLOCK - reading.BATCH:
                    keep()
                advance(len(part.rows))
        finally:  # interrupted or not
            keep()
    if not broken:
        _finish(table, out, recipe, kept)
    return broken


@dataclass(frozen=True)
class Prepared:
    """A finished folder: its recipe, and for each row of its table the entry."""

    folder: Path
    recipe: Recipe
    at: Tensor
    graded: Tensor
    digests: list[bytes]
    stamps: list[str]


def is_prepared(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def read(folder: Path) -> Table:
    """The table of a finished folder, `prepared` set."""
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
        frame = pl.read_parquet(folder / "table.parquet", glob=False)
        columns = frame.to_dict(as_series=False)
        prepared = Prepared(
            folder,
            Recipe(**about["recipe"]),
            torch.tensor(columns["at"], dtype=torch.int64),
            torch.tensor(columns["graded"], dtype=torch.int64),
            [bytes.fromhex(digest) for digest in columns["digest"]],
            columns["stamp"],
        )
        classes = about["classes"]
        number = {"": UNLABELLED} | {name: label for label, name in enumerate(classes)}
        return Table(
            name=about["name"],
            classes=classes,
            ids=columns["id"],
            images=[Path(path) for path in columns["image"]],
            labels=[number[label] for label in columns["label"]],
            masks=[None if path is None else Path(path) for path in columns["mask"]],
            split=columns["split"],
            prepared=prepared,
        )
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{folder}: cannot be read as a prepared data set ({error}); prepare it again"
        ) from None


def build(table: Table, image_size: int, stored_size: int, decoder: Decoder, keep: store.Keep) -> store.Store:
    """The store of a prepared table: nothing is decoded where there is a copy.

    Raises InputError where it was prepared for other sizes, or its files have changed since.
    """
    prepared = table.prepared
    assert prepared is not None
    recipe, folder = prepared.recipe, prepared.folder
    if (image_size, stored_size) != (recipe.image_size, recipe.stored_size):
        raise InputError(
            f"{folder} is prepared for --image-size {recipe.image_size}, images kept at {recipe.stored_size} "
            f"px; this run needs {image_size} and {stored_size} (--augment): prepare another folder, or use "
            f"the originals"
        )
    used = prepared.graded[prepared.graded >= 0]
    words = _mapped(folder / "masks.bin", np.int32, prepared.at, image_size, -(-image_size // 32))
    graded = _mapped(folder / "graded.bin", np.uint8, used, image_size, image_size)
    place = torch.where(prepared.graded < 0, -1, (prepared.graded >= 0).cumsum(0) - 1)
    masks = Masks(ops.BitMask(words[prepared.at], image_size), graded[used], place).to(decoder.device)
    return store.assembled(
        table, _images(table, prepared, decoder, keep), masks, _fingerprint(table, prepared)
    )


def _images(table: Table, prepared: Prepared, decoder: Decoder, keep: store.Keep) -> store.Images:
    size = prepared.recipe.stored_size
    if prepared.recipe.copy:
        pixels = _mapped(prepared.folder / "images.bin", np.uint8, prepared.at, size, size, 3)
        if keep == "resident" and decoder.device.type != "cpu":
            kept = torch.empty(len(table), size, size, 3, dtype=torch.uint8, device=decoder.device)
            for rows in torch.arange(len(table)).split(BLOCK):
                kept[rows[0] : rows[-1] + 1] = pixels[prepared.at[rows]].to(decoder.device)
            return store.Resident(kept)
        return store.Mapped(pixels, prepared.at, decoder.device)
    now = reading.each(lambda row: _stamp(table, row), range(len(table)), "looking for changed files")
    for row, stamp in enumerate(now):
        if stamp != prepared.stamps[row]:
            raise InputError(
                f"{table.images[row]}: it or its mask has changed since {prepared.folder} was prepared; "
                f"repeat `sal-fast data prepare`"
            )
    if keep == "stream":
        return store.Streamed(table.images, size, decoder)
    return store.resident(table, size, None, decoder)


def _fingerprint(table: Table, prepared: Prepared) -> str:
    digest = store.Fingerprint(table)
    for row, one in enumerate(prepared.digests):
        digest.add(row, one)
    return digest.hexdigest()


def _head(table: Table, recipe: Recipe) -> dict[str, Any]:
    """What a folder is for; another table or recipe needs another folder."""
    rule = None if table.foreground is None else table.foreground.__module__
    return {"format": FORMAT, "data": table.name, "foreground": rule, **asdict(recipe)}


class _Index:
    """index.jsonl, open where its last whole line ends."""

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        self._path, self._end = out / INDEX, 0
        if not self._path.exists():
            write_bytes(self._path, (json.dumps(head) + "\n").encode())
        with open(self._path, "rb") as file:
            line = file.readline()
        try:
            there = dict(json.loads(line))
        except (ValueError, TypeError):
            raise InputError(f"{self._path}, line 1: damaged; choose another --out") from None
        differing = [name for name in head | there if there.get(name) != head.get(name)]
        if differing:
            listed = ", ".join(
                f"{name} {there.get(name)!r} there, {head.get(name)!r} asked" for name in differing
            )
            raise InputError(f"{out} was begun for something else ({listed}); choose another --out")
        self._end = len(line)

    def read(self) -> dict[str, Entry]:
        """Finished samples by id; a last line that a kill tore off does not count."""
        entries = {}
        with open(self._path, "rb") as file:
            file.seek(self._end)
            for number, line in enumerate(file, start=2):
                if not line.endswith(b"\n"):
                    break
                try:
                    values = json.loads(line)
                    name = values.pop("id")
                    entries[name] = Entry(**values)
                except (ValueError, TypeError, KeyError, AttributeError):
                    raise InputError(
                        f"{self._path}, line {number}: damaged; restore it, or choose another --out"
                    ) from None
                self._end += len(line)
        return entries

    def append(self, lines: list[str]) -> None:
        data = "".join(lines).encode()
        with open(self._path, "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(data)


def _line(name: str, entry: Entry) -> str:
    return json.dumps({"id": name, **asdict(entry)}) + "\n"


def _kept(table: Table, stamps: list[str], entries: dict[str, Entry], index: _Index) -> dict[str, Entry]:
    """The entries of samples whose files are as they were; new stamps where these alone have changed."""
    kept, doubtful = {}, []
    for row, name in enumerate(table.ids):
        entry = entries.get(name)
        if entry is not None and entry.stamp == stamps[row]:
            kept[name] = entry
        elif entry is not None:
            doubtful.append(row)
    lines = []
    digests = reading.each(lambda row: reading.digest(table, row), doubtful, "comparing touched files")
    for row, digest in zip(doubtful, digests, strict=True):
        entry = entries[table.ids[row]]
        if digest is not None and digest.hex() == entry.digest:
            kept[table.ids[row]] = replace(entry, stamp=stamps[row])
            lines.append(_line(table.ids[row], kept[table.ids[row]]))
    if lines:
        index.append(lines)
    return kept


def _shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Of a sample's part of each file, in bytes."""
    size, stored = recipe.image_size, recipe.stored_size
    shapes = {"masks.bin": (size, -(-size // 32), 4), "graded.bin": (size, size)}
    return {"images.bin": (stored, stored, 3), **shapes} if recipe.copy else shapes


class _Growing:
    """images.bin, masks.bin and graded.bin, open at the end of what the index knows."""

    def __init__(self, out: Path, recipe: Recipe, count: int, graded: int) -> None:
        with ExitStack() as stack:
            self._files: dict[str, io.FileIO] = {}
            for name, shape in _shapes(recipe).items():
                path, end = out / name, (graded if name == "graded.bin" else count) * math.prod(shape)
                there = path.stat().st_size if path.exists() else 0
                if there < end:
                    raise _cut(path, there, end)
                # no buffer: what a full disk refuses must not be written when the file is closed
                file = stack.enter_context(io.FileIO(path, "r+" if path.exists() else "w+"))
                file.truncate(end)
                file.seek(end)
                self._files[name] = file
            flush(out)  # their names
            self._close = stack.pop_all()

    def __enter__(self) -> _Growing:
        return self

    def add(self, images: Tensor, maps: Masks) -> None:
        if "images.bin" in self._files:
            _write(self._files["images.bin"], images)
        _write(self._files["masks.bin"], maps.binary.words)
        _write(self._files["graded.bin"], maps.graded)

    def flush(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())

    def __exit__(self, *error: object) -> None:
        self._close.close()


def _write(file: io.FileIO, values: Tensor) -> None:
    left = values.cpu().numpy().reshape(-1).view(np.uint8).data
    while left:
        left = left[file.write(left) :]


def _cut(path: Path, there: int, end: int) -> InputError:
    return InputError(
        f"{path} has {there} bytes, the index tells of {end}: restore it, or prepare another folder"
    )


def _finish(table: Table, out: Path, recipe: Recipe, entries: dict[str, Entry]) -> None:
    own = [entries[name] for name in table.ids]
    frame = pl.DataFrame(
        {
            "id": table.ids,
            "image": [str(path.absolute()) for path in table.images],
            "label": [table.class_name(row) for row in range(len(table))],
            "mask": [None if path is None else str(path.absolute()) for path in table.masks],
            "split": table.split,
            "digest": [entry.digest for entry in own],
            "stamp": [entry.stamp for entry in own],
            "at": [entry.at for entry in own],
            "graded": [entry.graded for entry in own],
        },
        schema_overrides={"mask": pl.String},
    )
    about = {"format": FORMAT, "recipe": asdict(recipe), "name": table.name, "classes": table.classes}
    data = io.BytesIO()
    frame.write_parquet(data)
    samples, done = out / "table.parquet", out / PREPARED
    if done.is_file() and samples.read_bytes() == data.getvalue() and read_json(done) == about:
        return
    done.unlink(missing_ok=True)  # a kill must not leave it with another table
    write_bytes(samples, data.getvalue())
    write_json(done, about)


def _check_names(table: Table) -> None:
    """Refuse now what table.parquet cannot hold at the end."""
    for path in (Path.cwd(), *table.images, *(mask for mask in table.masks if mask is not None)):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(path)!r}: the name is not UTF-8; rename it") from None


def _stamp(table: Table, row: int) -> str:
    """Of paths, sizes and times of a sample's files: what tells that they may have changed."""
    try:
        paths = reading.sources(table, row)
    except Unreadable as error:
        paths = [table.images[row], error.path]
    told = []
    for path in paths:
        try:
            there = path.stat()
            told.append(f"{path.absolute()}\0{there.st_size} {there.st_mtime_ns}")
        except OSError:
            told.append(f"{path.absolute()}\0missing")
    return hashlib.blake2b("\0".join(told).encode(), digest_size=16).hexdigest()


def _check_disk(out: Path, recipe: Recipe, rows: int) -> None:
    sizes = {name: math.prod(shape) for name, shape in _shapes(recipe).items() if name != "graded.bin"}
    needed = rows * sum(sizes.values())
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            f"{out}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; choose an --out "
            f"elsewhere, a lower --image-size, or --copy False"
        )


def _mapped(path: Path, dtype: type, at: Tensor, *shape: int) -> Tensor:
    """A file as a tensor [M, *shape] that is read when it is looked at; all places `at` are in it."""
    count = 1 + int(at.max()) if len(at) else 0
    if not count:
        return torch.from_numpy(np.empty((0, *shape), dtype=dtype))
    there, end = path.stat().st_size, count * math.prod(shape) * np.dtype(dtype).itemsize
    if there < end:
        raise _cut(path, there, end)
    # copy on write: torch has no read-only tensors
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", shape=(count, *shape)))
