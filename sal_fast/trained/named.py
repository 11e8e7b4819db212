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


def table(named: Sequence[Path], white: float | None = None, out: Path | None = None) -> Table:
    """The images that paths name, in the order of their ids; an image that is named twice counts once.

    The id of an image is its path, without the ending, below the folder that was named. If several paths are
    named, it is below the folder that they have in common.
    Where two images differ in the ending alone, it stays. A manifest may give other ids.

    Args:
        named: pictures, folders with pictures at any depth, and manifests with a column `image` and perhaps
            `id`, whose relative paths begin in their own folder.
        white: the number that is white in files of more than 8 bits.
        out: a folder whose pictures are left out, because the command itself writes them.

    Raises InputError if a path does not exist or has no images in it, and if two images have one id.
    """
    found: dict[tuple[str, str], Path] = {}  # files by their absolute paths and the ids that manifests give
    tops = []
    for path in named:
        for file, name, top in _images(path):
            place = Path(os.path.abspath(file))
            if out is not None and place.is_relative_to(os.path.abspath(out)):
                continue
            found.setdefault((str(place), name), file)
            if not name:
                tops.append(os.path.abspath(top))
    if not found:
        raise InputError("no images were named; expected files, folders or manifests")
    own = {place for place, name in found if name}
    found = {key: file for key, file in found.items() if key[1] or key[0] not in own}
    ids = _named_by_path([place for place, name in found if not name], os.path.commonpath(tops or ["/"]))
    samples = [Sample(name or ids[place], file) for (place, name), file in found.items()]
    return replace(make_table("images", samples), rule=Rule(white=white))


def _named_by_path(places: Sequence[str], root: str) -> dict[str, str]:
    """The ids of files: their paths below `root`, without the ending unless two differ in it alone."""
    short = {place: Path(os.path.relpath(place, root)) for place in places}
    times = Counter(path.with_suffix("") for path in short.values())
    ids = {
        place: (path if times[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix()
        for place, path in short.items()
    }
    if len(set(ids.values())) < len(ids):  # such as a.jpg, a.png and a.jpg.png
        return {place: path.as_posix() for place, path in short.items()}
    return ids


def _images(path: Path) -> Iterator[tuple[Path, str, Path]]:
    """The images that one path names, their ids ("" for none yet), and the folder that ids begin in."""
    if path.is_dir():
        images = [file for _, file in below(path)]
        if not images:
            raise InputError(f"{path}: no images in it; expected a folder of pictures")
        yield from ((file, "", path) for file in images)
    elif path.suffix.lower() in TABLES:
        for line, (image, name) in read_rows(path, ("image",), ("id",)):
            if not image:
                raise InputError(f"{path}, line {line}: 'image' is empty")
            file = path.parent / image
            yield file, name, file.parent
    elif path.exists():
        yield path, "", path.parent
    else:
        raise InputError(f"{path}: not found; expected a picture, a folder of pictures, or a manifest")
