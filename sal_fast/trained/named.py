"""The images that a command names: files, folders and manifests, as one table."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sal_fast.data import Table
from sal_fast.data.meaning import Rule
from sal_fast.data.readers.manifest import read_rows
from sal_fast.data.readers.plain import below
from sal_fast.data.table import Sample, make_table
from sal_fast.errors import InputError

TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".parquet")


def table(named: Sequence[Path], white: float | None = None) -> Table:
    """The images that paths name, in the order of their ids; an image that is named twice counts once.

    The id of an image is its path, without the ending, below the folder that was named. If several paths are
    named, it is below the folder that they have in common.
    Where two images differ in the ending alone, it stays. A manifest may give other ids.

    Args:
        named: pictures, folders with pictures at any depth, and manifests with a column `image` and perhaps
            `id`, whose relative paths begin in their own folder.
        white: the number that is white in files of more than 8 bits.

    Raises InputError if a path does not exist or has no images in it, and if two images have one id.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for path in named:
        for file, name, top in _images(path):
            found.setdefault(file, (name, top))
    if not found:
        raise InputError("no images were named; expected files, folders or manifests")
    tops = [os.path.abspath(top) for name, top in found.values() if not name]
    root = os.path.commonpath(tops or ["/"])
    short = {file: Path(os.path.relpath(file, root)) for file in found}
    times = Counter(path.with_suffix("") for path in short.values())

    def named_by_path(file: Path) -> str:
        path = short[file]
        return (path if times[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix()

    samples = [Sample(name or named_by_path(file), file) for file, (name, _) in found.items()]
    return replace(make_table("images", samples), rule=Rule(white=white))


def _images(path: Path) -> Iterator[tuple[Path, str, Path]]:
    """The images that one path names, their ids ("" for none yet), and the folder that ids begin in."""
    if path.is_dir():
        images = [file for _, file in below(path)]
        if not images:
            raise InputError(f"{path}: no images in it; expected a folder of pictures")
        yield from ((file, "", path) for file in images)
    elif path.suffix.lower() in TABLES:
        for _, (image, name) in read_rows(path, ("image",), ("id",)):
            file = path.parent / image
            yield file, name, file.parent
    elif path.exists():
        yield path, "", path.parent
    else:
        raise InputError(f"{path}: not found; expected a picture, a folder of pictures, or a manifest")
