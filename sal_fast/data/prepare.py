"""A data set looked through once, and kept ready: `sal-fast data prepare`.

    prepared.json   what it was made from and for
    table.parquet   the samples: id, image, label, mask, split, digest, and where its pixels and map are
    images.bin      uint8 [M, S, S, 3], decoded and resized; not there with --no-copy
    masks.bin       int32 [M, F, ceil(F / 32)], a bit a pixel (ops.BitMask)
    graded.bin      uint8 [G, F, F], the graded maps
    index.jsonl     a line for each finished sample; what is not in it does not count

Files only grow, and the index last, so a process that is killed loses at most BLOCK samples' work. A sample
is decoded again only if its files have changed since.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sal_fast import ops, progress
from sal_fast.data import files, reading, store
from sal_fast.data.decode import Decoder
from sal_fast.data.files import Unreadable
from sal_fast.data.masks import Masks
from sal_fast.data.table import Table
from sal_fast.errors import InputError
from sal_fast.whole_files import write_bytes, write_json

FORMAT = 1
BLOCK = 512  # samples between two flushes to the disk
ENTRY_BYTES = 4096  # of memory an entry of the table and the index takes, generously


@dataclass(frozen=True)
class Recipe:
    """What a folder is prepared for; another one needs another folder."""

    image_size: int
    stored_size: int
    copy: bool


@dataclass(frozen=True)
class Entry:
    """A finished sample: its place in images.bin and masks.bin, in graded.bin (-1: not graded)."""

    digest: str
    stamp: list[list[int]]
    at: int
    graded: int


def prepare(table: Table, out: Path, recipe: Recipe, decoder: Decoder) -> list[Unreadable]:
    """Decode what `out` does not hold yet; returns the files that cannot be used, nothing written for them.

    The same call continues one that was interrupted. Raises InputError where the disk is too small or `out`
    holds something else.
    """
    index = _claim(out, recipe)
    stamps = list(
        reading.each(lambda row: _stamp(table, row), range(len(table)), "looking for changed files")
    )
    entries = _read_index(index)
    rows = [
        row for row, name in enumerate(table.ids) if name not in entries or entries[name].stamp != stamps[row]
    ]
    _check_disk(out, recipe, len(rows))
    count = 1 + max((entry.at for entry in entries.values()), default=-1)
    graded = 1 + max((entry.graded for entry in entries.values()), default=-1)
    print(
        f"{table.name}: {len(table)} samples, {len(table) - len(rows)} prepared before; memory: about "
        f"{(2 * reading.MEMORY + ENTRY_BYTES * len(table)) / 1e6:.0f} MB; decoder {decoder.name}",
        flush=True,
    )
    broken: list[Unreadable] = []
    lines: list[str] = []
    with (
        _Growing(out, recipe, count, graded) as files_out,
        progress.bar(f"preparing {table.name}", len(rows)) as advance,
    ):
        try:
            for part in reading.parts(table, rows, recipe.stored_size, recipe.image_size, decoder):
                whole = [i for i in range(len(part.rows)) if i not in part.broken]
                broken += part.broken.values()
                maps = store.packed([part.masks[i] for i in whole], recipe.image_size)
                files_out.add(part.images[whole], maps)
                for i, place in zip(whole, maps.place.tolist(), strict=True):
                    row = part.rows[i]
                    graded_at = graded + place if place >= 0 else -1
                    entry = Entry(part.digests[i].hex(), stamps[row], count, graded_at)
                    entries[table.ids[row]] = entry
                    lines.append(json.dumps({"id": table.ids[row], **asdict(entry)}))
                    count += 1
                graded += len(maps.graded)
                if len(lines) >= BLOCK:
                    files_out.flush()
                    _append(index, lines)
                    lines.clear()
                advance(len(part.rows))
        finally:  # interrupted or not
            files_out.flush()
            _append(index, lines)
    if not broken:
        _finish(table, out, recipe, entries)
    return broken


@dataclass(frozen=True)
class Prepared:
    """A finished folder: its recipe, and for each row of its table the entry."""

    folder: Path
    recipe: Recipe
    at: Tensor
    graded: Tensor
    digests: list[bytes]
    stamps: list[list[list[int]]]


def is_prepared(folder: Path) -> bool:
    return (folder / "index.jsonl").is_file()


def read(folder: Path) -> Table:
    """The table of a finished folder, `prepared` set."""
    meta = folder / "prepared.json"
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
            [json.loads(stamp) for stamp in columns["stamp"]],
        )
        classes = about["classes"]
        number = {name: label for label, name in enumerate(classes)}
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
    words = _mapped(folder / "masks.bin", np.int32, image_size, -(-image_size // 32))
    graded = _mapped(folder / "graded.bin", np.uint8, image_size, image_size)
    used = prepared.graded[prepared.graded >= 0]
    place = torch.where(prepared.graded < 0, -1, (prepared.graded >= 0).cumsum(0) - 1)
    masks = Masks(ops.BitMask(words[prepared.at], image_size), graded[used], place).to(decoder.device)
    return store.assembled(
        table, _images(table, prepared, decoder, keep), masks, _fingerprint(table, prepared)
    )


def _images(table: Table, prepared: Prepared, decoder: Decoder, keep: store.Keep) -> store.Images:
    size = prepared.recipe.stored_size
    if prepared.recipe.copy:
        pixels = _mapped(prepared.folder / "images.bin", np.uint8, size, size, 3)
        if keep == "resident" and decoder.device.type != "cpu":
            return store.Resident(
                torch.cat([pixels[at].to(decoder.device) for at in prepared.at.split(4096)])
            )
        return store.Mapped(pixels, prepared.at, decoder.device)
    for row, stamp in enumerate(prepared.stamps):
        if _stamp(table, row) != stamp:
            raise InputError(
                f"{table.images[row]}: it or its mask has changed since {prepared.folder} was prepared; "
                f"repeat `sal-fast data prepare`"
            )
    if keep == "stream":
        return store.Streamed(table.images, size, decoder)
    pixels = torch.empty(len(table), size, size, 3, dtype=torch.uint8, device=decoder.device)
    broken: list[Unreadable] = []
    with progress.bar(f"decoding {table.name}", len(table), log=len(table) > 2000) as advance:
        for part in reading.parts(table, range(len(table)), size, None, decoder):
            pixels[part.rows[0] : part.rows[-1] + 1] = part.images
            broken += part.broken.values()
            advance(len(part.rows))
    store.refuse(broken)
    return store.Resident(pixels)


def _fingerprint(table: Table, prepared: Prepared) -> str:
    digest = store.Fingerprint(table)
    for row, one in enumerate(prepared.digests):
        digest.add(row, one)
    return digest.hexdigest()


def _claim(out: Path, recipe: Recipe) -> Path:
    """The index of `out`, empty if it is new; refuses a folder of something else, or of another recipe."""
    index = out / "index.jsonl"
    head = json.dumps({"format": FORMAT, "recipe": asdict(recipe)})
    out.mkdir(parents=True, exist_ok=True)
    if not index.exists():
        foreign = sorted(item.name for item in out.iterdir())
        if foreign:
            raise InputError(f"{out} holds other files ({foreign[0]}, ...); choose a new folder with --out")
        _append(index, [head])
        return index
    first = index.open(encoding="utf-8").readline().strip()
    if first != head:
        raise InputError(f"{out} was begun otherwise ({first}, asked {head}); choose another --out")
    return index


def _read_index(index: Path) -> dict[str, Entry]:
    """Finished samples by id; a line that a kill tore off is cut away, and what it tells of is done again."""
    data = index.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(index, len(whole))
    entries = {}
    for number, line in enumerate(whole.splitlines()[1:], start=2):
        try:
            values = json.loads(line)
            entries[values.pop("id")] = Entry(**values)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(
                f"{index}, line {number}: damaged; remove the folder and prepare it again"
            ) from None
    return entries


class _Growing:
    """images.bin, masks.bin and graded.bin, open at the end of what the index knows."""

    def __init__(self, out: Path, recipe: Recipe, count: int, graded: int) -> None:
        size, stored = recipe.image_size, recipe.stored_size
        widths = {
            "masks.bin": count * size * -(-size // 32) * 4,
            "graded.bin": graded * size * size,
            **({"images.bin": count * 3 * stored * stored} if recipe.copy else {}),
        }
        self._files = {}
        for name, end in widths.items():
            file = open(out / name, "r+b" if (out / name).exists() else "w+b")  # noqa: SIM115
            file.truncate(end)
            file.seek(end)
            self._files[name] = file

    def __enter__(self) -> _Growing:
        return self

    def add(self, images: Tensor, maps: Masks) -> None:
        if "images.bin" in self._files:
            self._files["images.bin"].write(images.cpu().numpy().data)
        self._files["masks.bin"].write(maps.binary.words.numpy().data)
        self._files["graded.bin"].write(maps.graded.numpy().data)

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()


def _append(path: Path, lines: list[str]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _finish(table: Table, out: Path, recipe: Recipe, entries: dict[str, Entry]) -> None:
    own = [entries[name] for name in table.ids]
    frame = pl.DataFrame(
        {
            "id": table.ids,
            "image": [str(path.absolute()) for path in table.images],
            "label": [table.classes[label] for label in table.labels],
            "mask": [None if path is None else str(path.absolute()) for path in table.masks],
            "split": table.split,
            "digest": [entry.digest for entry in own],
            "stamp": [json.dumps(entry.stamp) for entry in own],
            "at": [entry.at for entry in own],
            "graded": [entry.graded for entry in own],
        },
        schema_overrides={"mask": pl.String},
    )
    about = {"format": FORMAT, "recipe": asdict(recipe), "name": table.name, "classes": table.classes}
    data = io.BytesIO()
    frame.write_parquet(data)
    write_bytes(out / "table.parquet", data.getvalue())
    write_json(out / "prepared.json", about)


def _stamp(table: Table, row: int) -> list[list[int]]:
    """Sizes and times of a sample's files: what tells that they have changed."""
    paths = [table.images[row]]
    mask = table.masks[row]
    if mask is not None:
        try:
            paths += files.annotators(mask)
        except (OSError, Unreadable):
            paths.append(mask)
    out = []
    for path in paths:
        try:
            there = path.stat()
            out.append([there.st_size, there.st_mtime_ns])
        except OSError:
            out.append([-1, -1])
    return out


def _check_disk(out: Path, recipe: Recipe, rows: int) -> None:
    size = recipe.image_size
    needed = rows * (size * -(-size // 32) * 4 + (3 * recipe.stored_size**2 if recipe.copy else 0))
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            f"{out}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; choose an --out "
            f"elsewhere, a lower --image-size, or --no-copy"
        )


def _mapped(path: Path, dtype: type, *shape: int) -> Tensor:
    """A file as a tensor [M, *shape] that is read when it is looked at."""
    if path.stat().st_size == 0:
        return torch.from_numpy(np.empty((0, *shape), dtype=dtype))
    # copy on write: torch has no read-only tensors
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c").reshape(-1, *shape))
