"""A folder that one process at a time writes to, and that holds nothing of others'."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sal_fast.errors import DISK_FULL, InputError


class InUse(InputError):
    """Another process holds the folder."""


@contextmanager
def hold(path: Path, mark: str) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when the process ends, however it ends.

    `mark` is the file that is written first (by `whole_files`): a folder without it has to be empty. Raises
    InputError where it is not, where it is no folder, or where another process holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path} is no folder; --out names one") from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise InputError(f"{path} cannot be made: {error.strerror}; choose another --out") from None
    if not (path / mark).exists():
        own = (".lock", f"{mark}.part")  # a killed start leaves these
        foreign = sorted(item.name for item in path.iterdir() if item.name not in own)
        if foreign:
            raise InputError(
                f"{path} holds other files ({foreign[0]}, ...) and no {mark}; choose a new folder with --out"
            )
    with open(path / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUse(f"{path} is in use by another process; wait for it, or name another folder") from None
        yield
