"""A manifest: a table with a row for each image, as CSV (comma, semicolon or tab) or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from sal_fast.data.readers import plain
from sal_fast.data.readers.base import (
    COLUMNS,
    SPLIT_WORDS,
    Look,
    Options,
    Reader,
    Reading,
    as_text,
    split_of,
)
from sal_fast.data.readers.made import Found, as_table
from sal_fast.data.table import Table
from sal_fast.errors import InputError

BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)  # damaged files raise these
SHEETS = (".xlsx", ".xls", ".ods")
TEXTS = (".csv", ".tsv", ".tab", ".jsonl")
OTHER_SPLITS = ("set", "subset", "partition", "fold")  # names that may stand for a column of splits
OTHER_NAMES = {  # suggested, never taken by themselves
    "image": ("filename", "file_name", "file", "path", "filepath", "image_path", "img", "image_id"),
    "label": ("class", "category", "dx", "diagnosis", "target", "species", "y"),
    "group": (
        "patient",
        "patient_id",
        "patientid",
        "subject",
        "subject_id",
        "lesion_id",
        "video",
        "video_id",
    ),
}


class Manifest(Reader):
    """The columns are image and label, and perhaps id, mask, split, group and subgroup.

    `--columns` gives other names. Without ids, an image's path without the ending is its id. Relative paths
    start at the manifest's folder and stay inside it. An empty label is one that people have yet to give. A
    group is given for all images or for none.
    """

    def looks(self, path: Path) -> Look | None:
        if not path.is_file() or path.suffix.lower() not in (*SHEETS, *TEXTS, ".parquet"):
            return None
        return Look(f"it is a table ({path.suffix.lower()})", sure=False)

    def read(self, path: Path, options: Options) -> Reading:
        reading = Reading()
        frame = renamed(path, read_frame(path), options.columns, reading)
        add_rows(path, frame, options, reading)
        return reading


def read_manifest(path: Path) -> Table:
    """Read a manifest whose columns have our names (see `Manifest`)."""
    return as_table(path.stem, Manifest().read(path, Options()).found)


def add_rows(path: Path, frame: pl.DataFrame, options: Options, reading: Reading) -> None:
    """Add the rows of a table whose columns have our names."""
    root = path.parent.resolve()

    def inside(value: str, line: int) -> Path:
        if "\0" in value:
            raise InputError(f"{path}, line {line}: {value!r} cannot be a file's name")
        if Path(value).is_absolute():
            return Path(value)
        target = Path(os.path.normpath(root / value))  # we do not follow links: their `..` leads elsewhere
        if not target.is_relative_to(root):
            raise InputError(f"{path}, line {line}: {value!r} leads out of the manifest's folder")
        return target

    names = ("image", "label", "id", "mask", "split", "group", "subgroup")
    for line, (image, label, name, mask, split, group, subgroup) in _rows(frame, names):
        if not image or ("id" in frame.columns and not name):
            raise InputError(f"{path}, line {line}: {'id' if image else 'image'!r} is empty")
        file = inside(image, line)
        if not label:
            reading.count(
                f"{image} in line {line}", f"{path.name}: rows without a label, which people may give"
            )
        name = name or os.path.splitext(os.path.normpath(image).lstrip("/"))[0]
        drawn = inside(mask, line) if mask else None
        row = Found(name, file, label, drawn, split_of(split) or split, group, subgroup)
        plain.add(reading, row, options)


def renamed(path: Path, frame: pl.DataFrame, columns: Mapping[str, str], reading: Reading) -> pl.DataFrame:
    """The table with our names for its columns. Raises InputError for one that is missing or not clear."""
    there = {name.strip().lower(): name for name in reversed(frame.columns)}
    ours = {name: there[name] for name in COLUMNS if name in there}
    said = {name: theirs for name, theirs in columns.items() if theirs}
    ours |= {
        name: theirs if theirs in frame.columns else there.get(theirs.strip().lower(), theirs)
        for name, theirs in said.items()
    }
    ours = {name: theirs for name, theirs in ours.items() if columns.get(name) != ""}
    found = f"found {', '.join(frame.columns)}"
    for name, theirs in ours.items():
        if theirs not in frame.columns:
            raise InputError(
                f"{path}: --columns names a column {theirs!r} for {name}, which is missing; {found}"
            )
    if "split" not in ours and "split" not in columns:
        ours |= _other_split(path, frame, there)
        if "split" in ours:
            reading.notes.append(f"{path.name}: the column {ours['split']!r} is read as the split")
    for name in ("image", "label"):
        if name not in ours:
            raise InputError(
                f"{path}: column {name!r} is missing; expected image, label and, perhaps, id, mask, split, "
                f"group, subgroup; {found}{_hint(ours, there)}"
            )
    rest = [name for name in frame.columns if name not in ours.values()]
    if rest:
        hint = "" if "group" in columns else _group_hint(ours, there)
        reading.notes.append(f"{path.name}: columns that are not known and not used: {', '.join(rest)}{hint}")
    return frame.select(pl.col(theirs).alias(name) for name, theirs in ours.items())


def _hint(ours: Mapping[str, str], there: Mapping[str, str]) -> str:
    """The end of a message: which --columns may be meant, if columns have well-known names."""
    known = {
        name: next((there[word] for word in words if word in there), None)
        for name, words in OTHER_NAMES.items()
        if name not in ours
    }
    pairs = [f"{name}={word}" for name, word in known.items() if word]
    return f"; perhaps --columns {','.join(pairs)}" if pairs else ""


def _group_hint(ours: Mapping[str, str], there: Mapping[str, str]) -> str:
    """The end of a note: which column may be the group, if none is and one has a well-known name."""
    found = next((there[word] for word in OTHER_NAMES["group"] if word in there), None)
    if found is None or found in ours.values() or "group" in ours:
        return ""
    return f"; if images with one {found!r} belong into one split, say --columns group={found}"


def _other_split(path: Path, frame: pl.DataFrame, there: Mapping[str, str]) -> dict[str, str]:
    for name in OTHER_SPLITS:
        if name in there:
            values = [str(value) for value in frame[there[name]].unique().sort() if value is not None]
            meant = [value for value in values if split_of(value)]
            if values and len(meant) == len(values):
                return {"split": there[name]}
            if meant:
                other = next(value for value in values if value not in meant)
                raise InputError(
                    f"{path}: column {there[name]!r} has {meant[0]!r}, a split, and {other!r}, which is none "
                    f"(expected {', '.join(SPLIT_WORDS)}); leave it out with --columns split="
                )
    return {}


def read_rows(
    path: Path, columns: Sequence[str], others: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and values of a table's file: those of `columns`, then of `others`.

    Columns are found in any case. Values are stripped text; "" stands for none, and for those of `others`
    that the file does not have.
    Raises InputError if the file is missing, cannot be read, lacks one of `columns`, or has no rows.
    """
    frame = read_frame(path)
    there = {name.strip().lower(): name for name in reversed(frame.columns)}
    wanted = [name for name in (*columns, *others) if name not in frame.columns and name in there]
    frame = frame.rename({there[name]: name for name in wanted})
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; expected {', '.join(columns)}; "
            f"found {', '.join(frame.columns)}"
        )
    return _rows(frame, (*columns, *others))


def _rows(frame: pl.DataFrame, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for line, row in enumerate(frame.iter_rows(named=True), start=2):
        values = (row.get(name) for name in names)
        yield line, [as_text(value) for value in values]


def read_frame(path: Path) -> pl.DataFrame:
    """Read a file as a table; of text, every value is text.

    Raises InputError if it is missing, cannot be read, or has no rows.
    """
    suffix = path.suffix.lower()
    if suffix in SHEETS:
        raise InputError(f"{path}: a spreadsheet; save it as CSV (or as {path.stem}.csv by `Save as`)")
    try:
        if suffix == ".parquet":
            frame = pl.read_parquet(path, glob=False)
        elif suffix == ".jsonl":
            frame = pl.read_ndjson(path)
        else:
            with open(path, "rb") as file:
                first = file.readline()
            if first.startswith(b"PK"):
                raise InputError(f"{path}: a ZIP archive or a spreadsheet; save it as CSV")
            separator = max(
                "\t;,", key=lambda mark: (mark == "\t" and b"\t" in first, first.count(mark.encode()))
            )
            frame = pl.read_csv(path, infer_schema=False, glob=False, separator=separator)
    except FileNotFoundError:
        raise InputError(f"manifest not found: {path}") from None
    except BROKEN as error:
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    if not len(frame):
        raise InputError(f"{path}: no rows")
    return frame
