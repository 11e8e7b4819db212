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
    some,
    split_in,
    split_of,
)
from sal_fast.data.readers.made import Found, Picture
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
    files = [file for file in some(path, [".jsonl", ".csv"], 1) if file.name in METADATA]
    found = []
    for file in files:
        with open(file, "rb") as stream:
            if b"file_name" in stream.readline():
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
            try:
                reading.found += _samples(file, path if path.is_dir() else path.parent, options, reading)
            except (*BROKEN, ValueError, LookupError, TypeError) as error:
                raise InputError(f"{file}: {type(error).__name__} {error}; {EXPECTED}") from None
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
    pictures, names = _columns(file), list(pl.read_parquet_schema(file))
    columns = {
        "image": _first(("image", "img", *pictures), pictures),
        "mask": _first(MASKS, pictures),
        "label": _first(LABELS, names),
        "split": _first(("split",), names),
    } | {ours: theirs for ours, theirs in options.columns.items() if ours != "id"}
    for ours, theirs in columns.items():
        there = pictures if ours in ("image", "mask") else names
        if theirs and theirs not in there:
            raise InputError(f"{file}: no column {theirs!r} for {ours}; found {', '.join(there)}")
    rest = [name for name in names if name not in columns.values()]
    if rest:
        reading.notes.append(f"columns that are not used: {', '.join(rest)}")
    image, mask, label = (columns[ours] for ours in ("image", "mask", "label"))
    classes = _class_names(file, label)
    wanted = [
        pl.col(columns[ours]).struct.field("bytes").is_not_null().alias(ours)
        for ours in ("image", "mask")
        if columns[ours]
    ]
    wanted += [pl.col(columns[ours]).alias(ours) for ours in ("label", "split") if columns[ours]]
    frame = pl.scan_parquet(file, glob=False).select(wanted).collect()
    batch = lru_cache(maxsize=8)(partial(_batch, file))  # pictures are written in order, by several threads
    split = split_in(file.stem) or split_of(file.parent.name)
    stem = file.relative_to(root).with_suffix("").as_posix()
    for nth, row in enumerate(frame.iter_rows(named=True)):
        if not row["image"]:
            reading.leave_out(f"{file.name} row {nth}", "rows whose image has no bytes in the Parquet file")
            continue
        value = row.get("label")
        if classes:
            text = "" if value is None or value < 0 else classes[value]
        else:
            text = "" if value is None else str(value)
        yield Found(
            f"{stem}/{nth:06d}",
            Picture(file, f"{image} {nth}", partial(_bytes, batch, image, nth)),
            text,
            Picture(file, f"{mask} {nth}", partial(_bytes, batch, mask, nth)) if row.get("mask") else None,
            split_of(str(row.get("split") or "")) or split,
        )


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
    try:
        return rows.select(pl.col(column).struct.field("bytes")).collect().to_series().to_list()
    except BROKEN as error:  # a panic is no Exception
        raise ValueError(str(error)) from None
