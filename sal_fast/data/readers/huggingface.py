"""Hugging Face: image folders with metadata, and the Parquet files that the library `datasets` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from sal_fast.data.readers.base import (
    Look,
    Options,
    Reader,
    Reading,
    as_text,
    some,
    split_in,
    split_of,
)
from sal_fast.data.readers.made import Found, Picture, naming
from sal_fast.data.readers.manifest import BROKEN, add_rows, read_frame, renamed
from sal_fast.data.readers.plain import METADATA
from sal_fast.errors import InputError

MASKS = ("mask", "mask_file_name", "segmentation", "segmentation_mask", "annotation")
LABELS = ("label", "labels", "class", "fine_label")
BATCH = 64  # rows of a Parquet file that are read together
EXPECTED = "expected Parquet with a column of images, as the library datasets writes it"


class HuggingFaceFolder(Reader):
    """metadata.jsonl or metadata.csv, one for all or one a split: file_name, label, mask_file_name."""

    def looks(self, path: Path) -> Look | None:
        files = _metadata(path)
        return Look(f"it has {files[0].relative_to(path)} with a file_name") if files else None

    def read(self, path: Path, options: Options) -> Reading:
        reading = Reading()
        files = _metadata(path)
        if not files:
            raise InputError(
                f"{path}: expected {' or '.join(METADATA)} with a column file_name in it or one folder below"
            )
        for file in files:
            reading.used.add(file)
            start, frame = len(reading.found), read_frame(file)
            words = {"image": ("file_name",), "label": LABELS, "mask": MASKS}
            columns = {ours: _first(its, frame.columns) for ours, its in words.items()}
            columns = {ours: theirs for ours, theirs in columns.items() if theirs}
            columns |= options.columns
            add_rows(file, renamed(file, frame, columns, reading), options, reading)
            place = file.parent.relative_to(path)
            for nth, row in enumerate(reading.found[start:], start=start):
                split = row.split or split_of(place.name) or split_of(Path(row.id).parts[0])
                reading.found[nth] = row._replace(id=(place / row.id).as_posix(), split=split)
        reading.draw_splits_if_only_train()
        return reading


def _metadata(path: Path) -> list[Path]:
    found = []
    for file in some(path, METADATA, 1):
        with open(file, "rb") as stream:
            if file.name in METADATA and b"file_name" in stream.readline():
                found.append(file)
    return found


class HuggingFaceParquet(Reader):
    """Parquet files with a column of images: structs of bytes and path. Masks are a second such column."""

    def looks(self, path: Path) -> Look | None:
        files = _parquet(path)
        return Look(f"{files[0].name} has a column of images") if files else None

    def read(self, path: Path, options: Options) -> Reading:
        files = _parquet(path)
        if not files:
            raise InputError(f"{path}: {EXPECTED}")
        reading = Reading()
        for file in files:
            reading.used.add(file)
            with naming(file, "the table", EXPECTED):
                reading.found += _samples(file, path if path.is_dir() else path.parent, options, reading)
        reading.draw_splits_if_only_train()
        return reading


def _parquet(path: Path) -> list[Path]:
    files = [path] if path.is_file() else some(path, [".parquet"], 2)
    return [file for file in files if file.suffix.lower() == ".parquet" and _columns(file)]


def _columns(file: Path) -> list[str]:
    """The columns of images in a Parquet file; none if it cannot be read."""
    try:
        schema = pl.read_parquet_schema(file)
    except BROKEN:
        return []
    structs = {name: one for name, one in schema.items() if isinstance(one, pl.Struct)}
    return [name for name, one in structs.items() if {part.name for part in one.fields} == {"bytes", "path"}]


def _samples(file: Path, root: Path, options: Options, reading: Reading) -> Iterator[Found]:
    columns = _used_columns(file, options, reading)
    classes = _class_names(file, columns["label"])
    wanted = [
        pl.col(theirs).struct.field("bytes").is_not_null().alias(ours)
        if ours in ("image", "mask")
        else pl.col(theirs).alias(ours)
        for ours, theirs in columns.items()
        if theirs
    ]
    frame = pl.scan_parquet(file, glob=False).select(wanted).collect()
    batch = lru_cache(maxsize=8)(partial(_batch, file))  # pictures are written in order, by several threads

    def picture(kind: str, row: int) -> Picture:
        return Picture(file, f"{columns[kind]} {row}", partial(_bytes, batch, columns[kind], row))

    split = split_in(file.stem) or split_of(file.parent.name)
    stem = file.relative_to(root).with_suffix("").as_posix()
    for nth, row in enumerate(frame.iter_rows(named=True)):
        if not row["image"]:
            reading.leave_out(f"{file.name} row {nth}", "rows whose image has no bytes in the Parquet file")
            continue
        label = row.get("label")
        if classes and label is not None:
            label = classes[label] if label >= 0 else None  # -1 is how `datasets` writes that there is none
        mask = picture("mask", nth) if row.get("mask") else None
        name = "" if label is None else str(label)
        own = split_of(str(row.get("split") or "")) or split
        group, subgroup = (as_text(row.get(ours)) for ours in ("group", "subgroup"))
        yield Found(f"{stem}/{nth:06d}", picture("image", nth), name, mask, own, group, subgroup)


def _used_columns(file: Path, options: Options, reading: Reading) -> dict[str, str]:
    """The columns of a file by our names; "" for one that is not there."""
    pictures, names = _columns(file), list(pl.read_parquet_schema(file))
    columns = {
        "image": _first(("image", "img", *pictures), pictures),
        "mask": _first(MASKS, pictures),
        "label": _first(LABELS, names),
        **{ours: _first((ours,), names) for ours in ("split", "group", "subgroup")},
    } | {ours: theirs for ours, theirs in options.columns.items() if ours != "id"}
    for ours, theirs in columns.items():
        there = pictures if ours in ("image", "mask") else names
        if theirs and theirs not in there:
            raise InputError(f"{file}: no column {theirs!r} for {ours}; found {', '.join(there)}")
    rest = [name for name in names if name not in columns.values()]
    if rest:
        reading.notes.append(f"columns that are not used: {', '.join(rest)}")
    return columns


def _first(words: Iterable[str], there: Sequence[str]) -> str:
    """The first of the words that is there; "" if none is."""
    return next((word for word in words if word in there), "")


def _class_names(file: Path, label: str) -> list[str]:
    """The names of the classes by number, which `datasets` writes into the file; empty if there are none."""
    text = pl.read_parquet_metadata(file).get("huggingface", "{}")
    feature: Any = json.loads(text).get("info", {}).get("features", {}).get(label, {})
    return list(feature.get("names", [])) if isinstance(feature, dict) else []


def _bytes(batch: Callable[[str, int], list[bytes]], column: str, row: int) -> bytes:
    return batch(column, row // BATCH)[row % BATCH]


def _batch(file: Path, column: str, number: int) -> list[bytes]:
    rows = pl.scan_parquet(file, glob=False).slice(number * BATCH, BATCH)
    return rows.select(pl.col(column).struct.field("bytes")).collect().to_series().to_list()
