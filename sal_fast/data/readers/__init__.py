"""Readers of the formats that `--data` takes; each is an entry point in the group `sal_fast.readers`.

`read` asks every reader whether a path looks like its format. The readers that are sure go first: one of them
is taken, and of several the user has to say which. If none is sure, the same holds for the others.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast.data import mistaken
from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers import unknown
from sal_fast.data.readers.base import Look, Options, Reader, Reading, folded, is_picture, visible, walk
from sal_fast.data.readers.made import Found, Picture, as_table
from sal_fast.data.readers.unfold import ARRAYS, DICOM
from sal_fast.data.readers.unknown import HINTS
from sal_fast.data.table import Table
from sal_fast.errors import InputError

__all__ = ["HINTS", "Found", "Look", "Options", "Picture", "Reader", "Reading", "read"]


def read(path: Path, options: Options) -> Table:
    """Read the samples of a file or folder, with notes on what was not used.

    Raises InputError if no reader knows the path, several do, or the one that does cannot read it.
    """
    name, why = _choose(path, options.format)
    reading = _reader(name).read(path, options)
    if path.is_dir():
        _count_the_rest(path, reading)
    for column in ("group", "subgroup"):
        said = options.columns.get(column)
        if said and not any(getattr(row, column) for row in reading.found):
            raise InputError(
                f"{path}: --columns {column}={said}, and no image has one (read as {name}); a manifest, "
                f"Hugging Face's files, COCO, LabelMe and Label Studio can tell it (docs/data.md)"
            )
    table = as_table(path.resolve().name if path.is_dir() else path.stem, reading.found)
    notes = [f"read as {name}{f', because {why}' if why else ''}", *dict.fromkeys(reading.notes)]
    notes += [f"{what}: {count:,}, such as {first}" for what, (first, count) in reading.counted.items()]
    notes += _alike(table.classes)
    return replace(table, notes=tuple(notes))


def _alike(classes: list[str]) -> list[str]:
    """A note for each two classes whose names differ in case or Unicode form alone."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(folded(name), name), name) for name in classes]
    return [
        f"the classes {one!r} and {other!r} differ in case or Unicode form alone; they are taken for two"
        for one, other in pairs
        if one != other
    ]


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
        raise InputError(unknown.explained(path, _looks, plugins.names("reader")))
    name, look = next(iter(looks.items()))
    if path.is_dir() and not look.sure and (said := unknown.foreign(path)):
        raise InputError(f"{said}; if its folders are classes all the same, say --format {name}")
    if len(looks) > 1:
        both = "; ".join(f"{name}, because {look.why}" for name, look in looks.items())
        raise InputError(f"{path}: looks like {both}; say which with --format {' or '.join(looks)}")
    return name, look.why


def _looks(path: Path) -> dict[str, Look]:
    """What makes a path one of a format, by the names of the readers that know it."""
    found = {name: look for name in plugins.names("reader") if (look := _reader(name).looks(path))}
    return {name: look for name, look in found.items() if look.sure} or found


def _count_the_rest(root: Path, reading: Reading) -> None:
    """Count every file below a folder that nothing has used, by its reason."""
    used = {str(path) for path in reading.used}
    for row in reading.found:
        masks = row.mask if isinstance(row.mask, list | tuple) else [row.mask]
        used.update(str(one.source if isinstance(one, Picture) else one) for one in (row.image, *masks))
        if isinstance(row.mask, Path) and row.mask.suffix.lower() not in SUFFIXES and row.mask.is_dir():
            used.update(map(str, filter(is_picture, visible(row.mask))))
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
