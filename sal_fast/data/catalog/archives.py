"""Official archives: find their files in a folder, and unpack them.

Unpacking only puts files below a folder. It takes the contents of plain files, never links, owners or modes.
What is there already is kept. Files are written into a hidden folder beside the archive and then renamed
into place, a whole folder at once if there is none yet. After a kill, whatever has a name has all its bytes,
and the next call brings the rest.
"""

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sal_fast._util import progress
from sal_fast._util.locks import locked
from sal_fast.errors import InputError

ASIDE = ".unpacking"  # the folder that files are written into first
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    ValueError,  # from a header that is none
    RuntimeError,  # from a password, or a compression that is not known
)


class _Member(NamedTuple):
    """A file in an archive. kind: its type, as in the mode of a file. open: gives its contents."""

    name: str
    size: int
    kind: int
    open: Callable[[], Any]


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


def unpack(root: Path, names: Sequence[str]) -> bool:
    """Unpack those archives that lie in `root` or in a folder of it, each beside itself.

    An archive without a folder in it goes into a folder of its own name. Returns True if anything was
    missing.

    Raises:
        InputError: it names archive and member, before anything of that archive is written, for a member that
            would lead out, that is no plain file, that is there with another size, or for which the disk has
            no room.
    """
    made = False
    for name in names:
        for folder in list(folders(root, 1)):
            if (folder / name).is_file():
                made |= _unpack(folder / name)
    return made


def _unpack(path: Path) -> bool:
    """Unpack one archive, one process at a time. Errors of a damaged one become an InputError."""
    try:
        if not os.access(path.parent, os.W_OK) and not _missing(path)[1]:
            return False  # nothing to write, so no lock is needed
        with locked(path.parent / ".lock"):
            target, missing = _missing(path)
            if missing:
                _write(path, target, missing)
            return bool(missing)
    except DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged or incomplete archive ({reason}); download it again") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path}: a file stands where a folder should, or the reverse: {error}") from None
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        raise InputError(f"{path}: cannot be unpacked where it lies: {error.strerror}") from None


def _missing(path: Path) -> tuple[Path, set[str]]:
    """Check every member; return the folder that the archive goes into, and the members not there yet."""
    free = shutil.disk_usage(path.parent).free
    own = path.parent / next(path.name.removesuffix(end) for end in ENDINGS if path.name.endswith(end))
    sizes: dict[str, int] = {}
    needed = 0
    for member in _members(path):
        _check(path, member)
        if not any((folder / member.name).is_file() for folder in (path.parent, own)):
            needed += member.size
        if needed > free:
            raise InputError(
                f"{path}: with {member.name!r} its files take {needed / 1e9:,.1f} GB, "
                f"{free / 1e9:,.1f} GB are free; nothing was unpacked"
            )
        sizes[member.name] = member.size
    target = path.parent if any("/" in name for name in sizes) else own
    missing = set()
    for name, size in sizes.items():
        try:
            there = (target / name).stat()
        except FileNotFoundError:
            missing.add(name)
            continue
        if not stat.S_ISREG(there.st_mode):
            raise FileExistsError(f"{target / name}")
        if there.st_size != size:
            raise InputError(
                f"{path}: {target / name} is there with {there.st_size:,} bytes, {size:,} in the archive; "
                f"remove it, it will be unpacked again"
            )
    return target, missing


def _check(path: Path, member: _Member) -> None:
    name = PurePosixPath(member.name)
    out = not name.parts or name.is_absolute() or ".." in name.parts or {"\\", "\0"} & set(member.name)
    kind = "link" if stat.S_ISLNK(member.kind) else "special file"
    for refused, why in (
        (out, "leads out of the folder"),
        (not stat.S_ISREG(member.kind), f"is a {kind}, only plain files are unpacked"),
        (member.size < 0, "has a size below 0"),
    ):
        if refused:
            raise InputError(f"{path}: member {member.name!r} {why}; nothing was unpacked")


def _write(path: Path, target: Path, missing: set[str]) -> None:
    aside = path.parent / ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # a killed process has left it
    try:
        with progress.bar(f"unpacking {path.name}", len(missing)) as advance:
            for member in _members(path):
                if member.name in missing:
                    file = aside / member.name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with member.open() as source, open(file, "wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
                    if file.stat().st_size != member.size:
                        raise EOFError(f"{member.name} ends early")
                    advance()
        _settle(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _settle(source: Path, target: Path) -> None:
    """Rename into place: a folder at once if there is none yet, else what is in it."""
    if target.is_dir() and source.is_dir():
        for below in sorted(source.iterdir()):
            _settle(below, target / below.name)
    else:
        os.rename(source, target)


def _members(path: Path) -> Iterator[_Member]:
    """The files of an archive in its order, without folders and what macOS adds."""
    for member in _zip(path) if path.suffix == ".zip" else _tar(path):
        if PurePosixPath(member.name).parts[:1] != ("__MACOSX",):
            yield member


def _tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            if not info.isdir():
                link = stat.S_IFLNK if info.issym() or info.islnk() else 0
                kind = stat.S_IFREG if info.isreg() else link
                yield _Member(_plain(info.name), info.size, kind, partial(archive.extractfile, info))


def _zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                kind = stat.S_IFMT(info.external_attr >> 16) or stat.S_IFREG
                yield _Member(_plain(info.filename), info.file_size, kind, partial(archive.open, info))


def _plain(name: str) -> str:
    """`./a//b` as `a/b`."""
    return str(PurePosixPath(name))
