"""Locks between processes. The kernel releases a lock when its process ends, however it ends."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sal_fast.errors import DISK_FULL, InputError


class InUse(InputError):
    """Another process holds the lock."""


@contextmanager
def locked(file: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock file `file`, which is made if needed and stays afterwards; its content means nothing.

    If another process holds it, we wait for it. With `busy`, InUse is raised with that message instead.
    Raises OSError if the file cannot be made.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        raise InUse(busy) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def hold(path: Path, mark: str, own: Collection[str] = ()) -> Iterator[None]:
    """Make the folder `path` if needed and hold it, so that one process at a time writes to it.

    `mark` is the name of a file that is written early (by `_util.files`). A folder without this file has to
    be empty, but for what is named `own`. Raises InputError if it is not empty or no folder, and InUse if
    another process holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path} is no folder; name one with --out") from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise InputError(f"{path} cannot be made: {error.strerror}; choose another --out") from None
    if not (path / mark).exists():
        own = (".lock", f"{mark}.part", *own)  # a process that was killed at its start leaves these
        foreign = sorted(item.name for item in path.iterdir() if item.name not in own)
        if foreign:
            raise InputError(
                f"{path} holds other files ({foreign[0]}, ...) and no {mark}; choose a new folder with --out"
            )
    with locked(path / ".lock", f"{path} is in use by another process; wait for it, or name another folder"):
        yield
