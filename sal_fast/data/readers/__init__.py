"""Readers of the formats that `--data` takes; each is an entry point in the group `sal_fast.readers`.

`read` asks every reader whether a path looks like its format. The readers that are sure go first: one of them
is taken, and of several the user has to say which. If none is sure, the same holds for the others.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast.data import mistaken
from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.base import Look, Options, Reader, Reading, plural, some, visible, walk
from sal_fast.data.readers.made import Found, Picture, as_table
from sal_fast.data.readers.unfold import ARRAYS, DICOM
from sal_fast.data.table import Table
from sal_fast.errors import InputError

__all__ = ["Found", "Look", "Options", "Picture", "Reader", "Reading", "read"]
HINTS = (".json", ".jsonl", ".xml", ".csv", ".tsv", ".parquet")  # endings of files that a hint looks into
LEVELS = 2  # folders below an unknown one in which a hint looks


def read(path: Path, options: Options) -> Table:
    """Read the samples of a file or folder, with notes on what was not used.

    Raises InputError if no reader knows the path, several do, or the one that does cannot read it.
    """
    name, why = _choose(path, options.format)
    reading = _reader(name).read(path, options)
    if path.is_dir():
        _count_the_rest(path, reading)
    table = as_table(path.resolve().name if path.is_dir() else path.stem, reading.found)
    notes = [f"read as {name}{f', because {why}' if why else ''}", *dict.fromkeys(reading.notes)]
    notes += [f"{what}: {count:,}, such as {first}" for what, (first, count) in reading.counted.items()]
    return replace(table, notes=tuple(notes))


def _reader(name: str) -> Reader:
    made: Reader = plugins.load("reader", name)()
    return made


def _choose(path: Path, format: str) -> tuple[str, str]:
    """The name of the reader of a path, and what makes the path one of its format."""
    if format != "auto":
        if not plugins.is_known("reader", format):
            raise InputError(f"unknown format {format!r}{suggest(format, plugins.names('reader'))}")
        return format, ""
    looks = _looks(path)
    if not looks:
        raise InputError(_explained(path))
    if len(looks) > 1:
        both = "; ".join(f"{name}, because {why}" for name, why in looks.items())
        raise InputError(f"{path}: looks like {both}; say which with --format {' or '.join(looks)}")
    return next(iter(looks.items()))


def _looks(path: Path) -> dict[str, str]:
    """Why a path may be of a format, by the names of the readers that know it."""
    found = {name: look for name in plugins.names("reader") if (look := _reader(name).looks(path))}
    sure = {name: look for name, look in found.items() if look.sure}
    return {name: look.why for name, look in (sure or found).items()}


def _explained(path: Path) -> str:
    """What an unknown path holds, and the command that would take a part of it."""
    if path.is_file():
        with open(path, "rb") as file:
            packed = mistaken.archive(file.read(512))
        if packed is not None:
            return f"{path}: {packed}; unpack it, and name the folder"
        return f"{path}: no known format; expected one of {', '.join(plugins.names('reader'))} (docs/data.md)"
    level, folders = [path], []
    for _ in range(LEVELS):
        level = [one for folder in level for one in visible(folder) if one.is_dir()][:64]
        folders += level
    for part in (*folders, *some(path, HINTS, LEVELS)):
        looks = _looks(part)
        if looks:
            name, why = next(iter(looks.items()))
            return (
                f"{path}: no known format, but {part} looks like {name}, because {why}; try "
                f"`sal-fast data check {part}`"
            )
    endings = Counter(
        file.suffix.lower() or "no ending"
        for file in some(path, [*SUFFIXES, *HINTS, *ARRAYS, *DICOM], LEVELS)
    )
    there = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
    return (
        f"{path}: no known format (it holds {plural(len(folders), 'folder')}"
        f"{', ' * bool(there)}{there}); "
        f"expected a folder images/<class>/ in it, and masks/<class>/ beside it, or another of "
        f"{', '.join(plugins.names('reader'))} (docs/data.md)"
    )


def _count_the_rest(root: Path, reading: Reading) -> None:
    """Count every file below a folder that nothing has used, by its reason."""
    used = {str(path) for path in reading.used}
    for row in reading.found:
        masks = row.mask if isinstance(row.mask, list | tuple) else [row.mask]
        used.update(str(one.source if isinstance(one, Picture) else one) for one in (row.image, *masks))
        if isinstance(row.mask, Path) and row.mask.suffix.lower() not in SUFFIXES and row.mask.is_dir():
            used.update(map(str, visible(row.mask)))
    for file in walk(root):
        if str(file) in used:
            continue
        if file.name.startswith(".") or file.name == "__MACOSX":
            reading.leave_out(file, "hidden")
        elif os.path.islink(file) and not file.exists():
            reading.leave_out(file, "a broken link")
        elif file.suffix.lower() in SUFFIXES | ARRAYS | DICOM:
            reading.leave_out(file, "in a place where this format keeps neither images nor masks")
        else:
            reading.leave_out(file, mistaken.ending(file.suffix))
