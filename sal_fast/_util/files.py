"""Write files and folders whole or not at all: they are written aside, flushed, and then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sal_fast.errors import InputError

LONGEST = 255  # bytes of a name that file systems take


def cache_folder() -> Path:
    """The folder of what can be made again: $SAL_FAST_CACHE, or sal-fast in $XDG_CACHE_HOME or ~/.cache."""
    own, shared = os.environ.get("SAL_FAST_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own or os.path.join(shared or os.path.expanduser("~/.cache"), "sal-fast"))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield `<path>.part` to write to, or a file with a shorter name if that is too long.

    After the block the file is flushed to the disk and renamed to `path`. A file that is there already is
    replaced. If the block raises, the partial file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    if len(os.fsencode(aside.name)) > LONGEST:
        aside = path.with_name(hashlib.blake2b(os.fsencode(path.name), digest_size=16).hexdigest() + ".part")
    try:
        yield aside
        flush(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield the new, empty folder `<path>.part` to fill. After the block it is renamed to `path`.

    Before that, the folder and all that is in it are flushed to the disk.

    With `replace`, a folder that is there already is removed just before the renaming. Without it, only an
    empty one is replaced, and OSError is raised for any other. If anything fails, the partial folder is
    removed. A partial folder that a killed process has left is removed at the start, so only one process at a
    time may make a folder.
    """
    aside = path.with_name(path.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for part in (aside, *aside.rglob("*")):
            flush(part)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    flush(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write the file `path`, whole or not at all (see `whole_file`)."""
    with whole_file(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file. Raises InputError if it cannot be read or holds anything but an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def stamp(path: Path) -> str:
    """The absolute path of a file with its size and its time of change, which tell if it is another one."""
    try:
        there = path.stat()
    except OSError:
        return f"{path.absolute()}\0missing"
    return f"{path.absolute()}\0{there.st_size} {there.st_mtime_ns}"


def claim(path: Path, identity: Mapping[str, Any], holds: str) -> dict[str, Any]:
    """Write to the JSON file `path` what the results beside it belong to, or compare with what it says.

    Returns its content, which may have more entries. Raises InputError that names the first difference; it
    calls the results `holds`.
    """
    if not path.exists():
        write_json(path, identity)
    kept = read_json(path)
    differing = [name for name in identity if kept.get(name) != identity[name]]
    if differing:
        raise InputError(f"{path.parent} holds {holds} that differ in {differing[0]!r}; choose another --out")
    return kept


def flush(path: Path) -> None:
    """Wait until the disk holds the bytes of a file, or the list of names of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
