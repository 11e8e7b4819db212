"""What a catalog entry says of itself, and what the readers share: finding, listing and refusing files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sal_fast.data.table import Table
from sal_fast.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One data set of the paper.

    `counts`: train, val, test and classes of the paper's Table 1; `layout`: one line on what is expected in
    the folder; `archives`: the names of the official archives; `read`: from that folder to a table whose
    splits are filled.
    """

    key: str
    title: str
    counts: Mapping[str, int]
    layout: str
    archives: tuple[str, ...]
    read: Callable[[Path], Table]


def find(root: Path, name: str, levels: int = 2) -> Path | None:
    """`name` (may have several parts) in `root` or at most `levels` folders below: nearest, then first."""
    folders = [root]
    for level in range(levels + 1):
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        if level < levels:
            folders = [below for folder in folders for below in subfolders(folder)]
    return None


def require(root: Path, name: str, layout: str, levels: int = 2) -> Path:
    """`find`, or the error that says what was expected."""
    found = find(root, name, levels)
    if found is None:
        raise InputError(f"{root}: {name} not found; expected {layout}")
    return found


def subfolders(folder: Path) -> list[Path]:
    """Sorted; hidden ones and what macOS adds to archives are passed over."""
    return [path for path in visible(folder) if path.is_dir() and path.name != "__MACOSX"]


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def refuse_missing(key: str, pairs: Iterable[tuple[Path, str]]) -> None:
    """Raise InputError where one of the files does not exist: the first by name, the others counted.

    A pair is a file and who asks for it.
    """
    missing = [(path, source) for path, source in pairs if not path.is_file()]
    if missing:
        path, source = missing[0]
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{key}: {path} is missing, {source} names it{more}; is the archive wholly unpacked?"
        )


def text(path: Path) -> str:
    """A list's text; InputError where it is not there or no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"list not found: {path}; unpack the archives again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; unpack the archives again") from None


def grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W] of a grey file that was stored with colours (their largest) or with alpha (left out)."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3].max(axis=-1)
