"""Finding the files of an official archive in a folder, and reading its lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sal_fast.errors import InputError


def find(root: Path, name: str, levels: int = 2) -> Path | None:
    """Find `name`, which may have several parts, in `root` or in folders at most `levels` below it.

    The nearest one is taken, and the first by name of several as near.
    """
    return next((folder / name for folder in folders(root, levels) if (folder / name).exists()), None)


def folders(root: Path, levels: int) -> Iterator[Path]:
    """Yield `root` and the folders at most `levels` below it, the nearest first."""
    level = [root]
    yield root
    for _ in range(levels):
        level = [below for folder in level for below in subfolders(folder)]
        yield from level


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and those that macOS adds to archives."""
    return [path for path in visible(folder) if path.is_dir() and path.name != "__MACOSX"]


def visible(folder: Path) -> list[Path]:
    """Everything in a folder, sorted, without hidden files."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def text(path: Path) -> str:
    """The text of a list. Raises InputError if it does not exist or is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"list not found: {path}; unpack the archives again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; unpack the archives again") from None
