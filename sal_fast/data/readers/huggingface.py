"""Hugging Face: image folders with metadata, and the Parquet files that the library `datasets` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from sal_fast.data.readers.manifest import add_rows, read_frame
from sal_fast.data.readers.plain import METADATA
from sal_fast.errors import InputError

MASKS = ("mask", "mask_file_name", "segmentation", "segmentation_mask", "annotation")
LABELS = ("label", "labels", "class", "fine_label")
BATCH = 64  # rows of a Parquet file that are read together
EXPECTED = "expected Parquet with a column of images, as the library datasets writes it"


class HuggingFaceFolder(Reader):
    """metadata.jsonl or metadata.csv with file_name, label perhaps mask_file_name; one or one a split."""

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
            start = len(reading.found)
            frame = read_frame(file)
            ours = {"image": options.columns.get("image", "file_name")}
            for name, words in (("label", LABELS), ("mask", MASKS), ("split", ("split",))):
                theirs = options.columns.get(name) or next(
                    (word for word in words if word in frame.columns), ""
                )
                if theirs:
                    ours[name] = theirs
            for name, theirs in ours.items():
                if theirs not in frame.columns:
                    raise InputError(
                        f"{file}: column {theirs!r} ({name}) is missing; found {', '.join(frame.columns)}"
                    )
            rest = [name for name in frame.columns if name not in ours.values()]
            if rest:
                reading.notes.append(f"columns of {file.name} that are not used: {', '.join(rest)}")
            add_rows(
                file,
                frame.select(pl.col(theirs).alias(name) for name, theirs in ours.items()),
                options,
                reading,
            )
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
            except (pl.exceptions.PolarsError, OSError, ValueError, KeyError, TypeError) as error:
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
    except (pl.exceptions.PolarsError, OSError):
        return []
    structs = {name: one for name, one in schema.items() if isinstance(one, pl.Struct)}
    return [name for name, one in structs.items() if {part.name for part in one.fields} == {"bytes", "path"}]


def _samples(file: Path, root: Path, options: Options, reading: Reading) -> Iterator[Found]:
    pictures, names = _columns(file), list(pl.read_parquet_schema(file))
    image, mask, label = (
        options.columns.get(ours) or next((name for name in words if name in there), default)
        for ours, words, there, default in (
            ("image", ("image", "img"), pictures, pictures[0]),
            ("mask", MASKS, pictures, ""),
            ("label", LABELS, names, ""),
        )
    )
    for ours, theirs, there in (
        ("image", image, pictures),
        ("mask", mask, pictures),
        ("label", label, names),
    ):
        if theirs and theirs not in there:
            raise InputError(f"{file}: no column {theirs!r} for {ours}; found {', '.join(there)}")
    rest = [name for name in names if name not in (image, mask, label, "split")]
    if rest:
        reading.notes.append(f"columns of {file.name} that are not used: {', '.join(rest)}")
    classes = _class_names(file, label)
    columns = [
        pl.col(name).struct.field("bytes").is_not_null().alias(f"{kind} there")
        for kind, name in (("image", image), ("mask", mask))
        if name
    ]
    columns += [
        pl.col(name).alias(kind) for kind, name in (("label", label), ("split", "split")) if name in names
    ]
    frame = pl.scan_parquet(file, glob=False).select(columns).collect()
    split = split_in(file.stem) or split_of(file.parent.name)
    stem = file.relative_to(root).with_suffix("").as_posix()
    for nth, row in enumerate(frame.iter_rows(named=True)):
        if not row["image there"]:
            reading.leave_out(f"{file.name} row {nth}", "rows whose image has no bytes in the Parquet file")
            continue
        one = row.get("label")
        text = "" if one is None else classes[one] if classes and one >= 0 else "" if classes else str(one)
        yield Found(
            f"{stem}/{nth:06d}",
            Picture(file, f"{image} {nth}", partial(_bytes, file, image, nth)),
            text,
            Picture(file, f"{mask} {nth}", partial(_bytes, file, mask, nth))
            if row.get("mask there")
            else None,
            split_of(str(row.get("split") or "")) or split,
        )


def _class_names(file: Path, label: str) -> list[str]:
    """The names of the classes by number, which `datasets` writes into the file; empty if there are none."""
    text = pl.read_parquet_metadata(file).get("huggingface", "{}")
    feature: Any = json.loads(text).get("info", {}).get("features", {}).get(label, {})
    return list(feature.get("names", [])) if isinstance(feature, dict) else []


def _bytes(file: Path, column: str, row: int) -> bytes:
    return _batch(file, column, row // BATCH)[row % BATCH]


@lru_cache(maxsize=8)  # pictures are written in order, by several threads
def _batch(file: Path, column: str, number: int) -> list[bytes]:
    rows = pl.scan_parquet(file, glob=False).slice(number * BATCH, BATCH)
    return rows.select(pl.col(column).struct.field("bytes")).collect().to_series().to_list()
