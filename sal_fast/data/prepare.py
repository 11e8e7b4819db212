"""Decode a data set once, for all runs: `sal-fast data prepare` (the files: `sal_fast.data.prepared`).

Files only grow, and the index is written last, so a process that is killed loses at most the work on BLOCK
samples. A sample is decoded again only if the bytes of its files have changed. If only paths or times have
changed, the files are read and compared. Files that cannot be used are tried again each time.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from sal_fast._util import progress
from sal_fast._util.files import flush, read_json, write_bytes, write_json
from sal_fast._util.locks import hold
from sal_fast._util.memory import resident_memory
from sal_fast.data import meaning, reading, store
from sal_fast.data.decode import Decoder
from sal_fast.data.files import Unreadable
from sal_fast.data.meaning import Seen
from sal_fast.data.prepared import FORMAT, INDEX, PREPARED, SAMPLES, Recipe, cut, stamps
from sal_fast.data.table import Mask, Table
from sal_fast.errors import InputError

DONE = ("digest", "stamp", "at", "graded")  # what table.parquet has of an entry, besides its id
BLOCK = 512  # samples between two flushes to the disk
ENTRY_BYTES = 4096  # memory for a sample in the table and the index, generously

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished sample, as the index has it.

    at: the place in images.bin and masks.bin. graded: the place in graded.bin, or -1 for a binary map.
    seen: what was seen in its mask files (`Seen.to_json`).
    """

    id: str
    digest: str
    stamp: str
    at: int
    graded: int
    seen: list[dict[str, Any]]


def prepare(table: Table, out: Path, recipe: Recipe, decoder: Decoder) -> list[Unreadable]:
    """Decode what the folder `out` does not hold yet, and return the files that cannot be used.

    Nothing is written for those. The same call continues one that was interrupted.

    Raises:
        InputError: the disk is too small, or `out` holds something else or is in use; or the masks mean
            nothing that can be told.
    """
    _check_names(table)
    with hold(out, INDEX):
        head = {"format": FORMAT, "data": table.name, "rule": str(table.rule), **asdict(recipe)}
        index, now = _Index(out, head), stamps(table)
        kept = _kept(table, now, index)
        rows = [row for row, name in enumerate(table.ids) if name not in kept]
        _check_disk(out, recipe, len(rows))
        if rows:
            (out / PREPARED).unlink(missing_ok=True)  # until it is true of all samples again
        memory = resident_memory() + reading.memory(decoder.threads) + ENTRY_BYTES * len(rows)
        log.info(
            "%s: %d samples, %d prepared before; memory: at most %.0f MB, of pictures up to %d megapixels; "
            "decoder %s",
            table.name, len(table), len(kept), memory / 1e6, reading.PICTURE // 10**6, decoder.name,
        )  # fmt: skip
        options = reading.StoreOptions(recipe.image_size, recipe.stored_size, decoder)
        broken: list[Unreadable] = []
        deep: list[int] = []
        with (
            _Growing(out, recipe, index) as files,
            progress.bar(f"preparing {table.name}", len(rows)) as advance,
        ):
            for part in reading.parts(table, rows, options):
                kept |= {entry.id: entry for entry in files.add(part, table, now)}
                broken += part.broken.values()
                deep += part.deep.values()
                advance(len(part.rows))
        if not broken:
            entries = [kept[name] for name in table.ids]
            seen = [(entry.id, Seen.from_json(one)) for entry in entries for one in entry.seen]
            store.accept(meaning.judge(seen, table.rule), deep, table)
            _finish(table, out, recipe, entries)
        return broken


class _Index:
    """index.jsonl. Its first line says what the folder is for: another table or recipe needs another folder.

    entries: the finished samples by id; a last line that a kill tore off does not count.
    """

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        self._path = out / INDEX
        self.entries: dict[str, Entry] = {}
        if not self._path.exists():
            write_bytes(self._path, (json.dumps(head) + "\n").encode())
        number = 1
        try:
            with open(self._path, "rb") as file:
                line = file.readline()
                _compare(out, dict(json.loads(line)), head)
                self._end = len(line)  # of the last whole line
                for line in file:
                    number += 1
                    if not line.endswith(b"\n"):
                        break
                    entry = Entry(**json.loads(line))
                    self.entries[entry.id] = entry
                    self._end += len(line)
        except (ValueError, TypeError):
            raise InputError(
                f"{self._path}, line {number}: damaged; restore it, or choose another --out"
            ) from None

    def append(self, entries: list[Entry]) -> None:
        """Add entries and wait until the disk holds them."""
        data = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries).encode()
        with open(self._path, "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(data)


def _compare(out: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse a folder that was begun for something else."""
    differing = [name for name in asked | there if there.get(name) != asked.get(name)]
    if differing:
        named = (f"{name} {there.get(name)!r} there, {asked.get(name)!r} asked" for name in differing)
        raise InputError(f"{out} was begun for something else ({', '.join(named)}); choose another --out")


def _kept(table: Table, now: list[str], index: _Index) -> dict[str, Entry]:
    """The entries of samples whose files are as they were, with new stamps where only these have changed."""
    kept = {name: index.entries[name] for name in table.ids if name in index.entries}
    doubtful = [row for row, name in enumerate(table.ids) if name in kept and kept[name].stamp != now[row]]
    digests = reading.each(lambda row: reading.digest(table, row), doubtful, "comparing touched files")
    touched = []
    for row, digest in zip(doubtful, digests, strict=True):
        entry = kept.pop(table.ids[row])
        if digest is not None and digest.hex() == entry.digest:
            touched.append(replace(entry, stamp=now[row]))
    if touched:
        index.append(touched)
    return kept | {entry.id: entry for entry in touched}


class _Growing:
    """The .bin files, open at the end of what the index knows, and the index itself.

    At the end of the `with` block, however it is left, all that was added is flushed and then indexed.
    """

    def __init__(self, out: Path, recipe: Recipe, index: _Index) -> None:
        self._index, self._size = index, recipe.image_size
        self._new: list[Entry] = []
        self._count = 1 + max((entry.at for entry in index.entries.values()), default=-1)
        self._graded = 1 + max((entry.graded for entry in index.entries.values()), default=-1)
        with ExitStack() as stack:
            self._files: dict[str, io.FileIO] = {}
            for name, shape in recipe.shapes().items():
                known = self._graded if name == "graded.bin" else self._count
                end = known * math.prod(shape)
                # no buffer: what a full disk refuses must not be written when the file is closed
                file = self._files[name] = stack.enter_context(io.FileIO(out / name, "a"))
                if file.tell() < end:
                    raise cut(out / name, file.tell(), end)
                file.truncate(end)
            flush(out)  # the names of the files
            self._close = stack.pop_all()

    def __enter__(self) -> _Growing:
        return self

    def add(self, part: reading.Part, table: Table, now: list[str]) -> list[Entry]:
        """Write the samples of a part that can be used; return their entries."""
        whole = [i for i in range(len(part.rows)) if i not in part.broken]
        maps = store.packed([part.masks[i] for i in whole], self._size)
        if "images.bin" in self._files:
            _write(self._files["images.bin"], part.images[whole])
        _write(self._files["masks.bin"], maps.binary.words)
        _write(self._files["graded.bin"], maps.graded)
        assert part.looks is not None
        _write(self._files["looks.bin"], part.looks[whole])
        added: list[Entry] = []
        for at, (i, place) in enumerate(zip(whole, maps.place.tolist(), strict=True), start=self._count):
            row, graded = part.rows[i], self._graded + place if place >= 0 else -1
            seen = [one.to_json() for one in part.seen[i]]
            added.append(Entry(table.ids[row], part.digests[i].hex(), now[row], at, graded, seen))
        self._count += len(added)
        self._graded += len(maps.graded)
        self._new += added
        if len(self._new) > BLOCK - reading.BATCH:
            self._keep()
        return added

    def _keep(self) -> None:
        new, self._new = self._new, []  # if a flush fails, no later one may index these samples
        for file in self._files.values():
            os.fsync(file.fileno())
        self._index.append(new)

    def __exit__(self, *error: object) -> None:
        with self._close:
            self._keep()


def _write(file: io.FileIO, values: Tensor) -> None:
    left = values.cpu().numpy().reshape(-1).view(np.uint8).data
    while left:
        left = left[file.write(left) :]


def _finish(table: Table, out: Path, recipe: Recipe, entries: list[Entry]) -> None:
    """Write table.parquet and prepared.json, unless both are there already."""
    frame = pl.DataFrame(
        {
            "id": table.ids,
            "image": [str(path.absolute()) for path in table.images],
            "label": [table.class_name(row) for row in range(len(table))],
            "mask": [[str(path.absolute()) for path in _paths(mask)] for mask in table.masks],
            "split": table.split,
            **({"group": table.group} if table.group else {}),
            **({"subgroup": table.subgroup} if table.subgroup else {}),
            **{name: [getattr(entry, name) for entry in entries] for name in DONE},
        },
        schema_overrides={"mask": pl.List(pl.String)},
    )
    about = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "name": table.name,
        "classes": table.classes,
        "rule": str(table.rule),
        "white": table.rule.white,
        "notes": list(table.notes),
    }
    data = io.BytesIO()
    frame.write_parquet(data)
    samples, done = out / SAMPLES, out / PREPARED
    if done.is_file() and samples.read_bytes() == data.getvalue() and read_json(done) == about:
        return
    done.unlink(missing_ok=True)  # a kill must not leave it beside another table
    write_bytes(samples, data.getvalue())
    write_json(done, about)


def _paths(mask: Mask | None) -> tuple[Path, ...]:
    """The paths of a mask; none if there is none, and two or more for those of instances."""
    return () if mask is None else mask if isinstance(mask, tuple) else (mask,)


def _check_names(table: Table) -> None:
    """Refuse names that table.parquet could not hold at the end."""
    for path in (Path.cwd(), *table.images, *(path for mask in table.masks for path in _paths(mask))):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(path)!r}: the name is not UTF-8; rename it") from None


def _check_disk(out: Path, recipe: Recipe, rows: int) -> None:
    """Refuse a disk that is too small; graded maps are not counted, since how many come is not known."""
    needed = rows * sum(math.prod(shape) for name, shape in recipe.shapes().items() if name != "graded.bin")
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            f"{out}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; choose an --out "
            f"elsewhere, a lower --image-size, or --copy False"
        )
