"""Pictures that are no files of their own are written once, without loss, to a folder of the cache."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from sal_fast._util.files import cache_folder, whole_folder
from sal_fast._util.locks import locked
from sal_fast.data.files import Unreadable
from sal_fast.data.reading import each
from sal_fast.data.table import Mask, Sample, Table, make_table
from sal_fast.errors import InputError

VERSION = 1  # to be raised when a pixel changes that a reader makes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture that is no file of its own.

    source: the file that holds it.
    part: which part of that file it is, with everything else that the pixels depend on.
    make: gives the pixels (bool [H, W] is a mask), or the bytes of a picture file.
    suffix: .png, or .tif for pixels of 32 bits, which a PNG cannot hold.
    """

    source: Path
    part: str
    make: Callable[[], np.ndarray | bytes]
    suffix: str = ".png"


Made = Path | Picture | list[Picture] | tuple[Path | Picture, ...]


class Found(NamedTuple):
    """A `Sample` whose files may be yet to be made.

    A list of masks has one for each annotator, a tuple one for each instance.
    """

    id: str
    image: Path | Picture
    label: str = ""
    mask: Made | None = None
    split: str = ""
    group: str = ""
    subgroup: str = ""

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The pictures to be made, with the names of their files below the folder of the cache."""
        if isinstance(self.image, Picture):
            yield f"images/{self.id}{self.image.suffix}", self.image
        if isinstance(self.mask, Picture):
            yield f"masks/{self.id}{self.mask.suffix}", self.mask
        elif isinstance(self.mask, list | tuple):
            for number, one in enumerate(self.mask, start=1):
                if isinstance(one, Picture):
                    yield f"masks/{self.id}/{number:03d}{one.suffix}", one


def as_table(name: str, found: list[Found]) -> Table:
    """Make the table of what was found, and the files that it needs.

    These lie in `$XDG_CACHE_HOME/sal-fast/readers/<digest>`, a folder that is there as a whole or not at all.
    The digest is of every picture's part, and of the path, size and time of its source, so that a folder is
    used again until a source changes. Raises InputError if ids cannot be used or a picture cannot be made.
    """
    pictures = [pair for row in found for pair in row.pictures()]
    folder = cache_folder() / "readers" / _digest(pictures)

    def placed(row: Found, what: Path | Picture, kind: str, number: str = "") -> Path:
        return folder / kind / f"{row.id}{number}{what.suffix}" if isinstance(what, Picture) else what

    def mask(row: Found) -> Mask | None:
        if isinstance(row.mask, list):
            return folder / "masks" / row.id
        if isinstance(row.mask, tuple):
            return tuple(placed(row, one, "masks", f"/{n:03d}") for n, one in enumerate(row.mask, start=1))
        return None if row.mask is None else placed(row, row.mask, "masks")

    table = make_table(  # it refuses ids that cannot name files, before any is written
        name,
        (
            Sample(**row._asdict() | {"image": placed(row, row.image, "images"), "mask": mask(row)})
            for row in found
        ),
    )
    if pictures:
        _write(name, folder, pictures)
    return table


@contextmanager
def naming(source: Path, part: str, then: str = "mend or remove it") -> Iterator[None]:
    """Turn any error into an InputError that names the file, its part, and what to do `then`.

    Libraries raise anything for damaged files. A panic of polars is no Exception.
    """
    try:
        yield
    except InputError:
        raise
    except Unreadable as error:
        raise InputError(str(error)) from None
    except FileNotFoundError as error:
        raise InputError(f"file not found: {error.filename or source}") from None
    except (Exception, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [""])[0]
        if not isinstance(error, ValueError):  # whose texts users understand
            reason = f"{type(error).__name__}: {reason}"
        raise InputError(f"{source}: {part} cannot be read ({reason}); {then}") from None


def encoded(pixels: np.ndarray | bytes, suffix: str) -> bytes:
    """The bytes of a picture file that holds the pixels without loss."""
    if isinstance(pixels, bytes):
        return pixels
    if pixels.dtype == bool:
        pixels = pixels.view(np.uint8) * np.uint8(255)
    data, image = io.BytesIO(), Image.fromarray(pixels)
    if suffix == ".tif":
        image.save(data, "TIFF", compression="tiff_deflate")
    else:
        image.save(data, "PNG", compress_level=1)
    return data.getvalue()


def _digest(pictures: Iterable[tuple[str, Picture]]) -> str:
    digest = hashlib.blake2b(f"{VERSION}".encode(), digest_size=16)
    stamps: dict[Path, str] = {}
    for name, picture in pictures:
        source = picture.source
        if source not in stamps:
            there = source.stat()
            stamps[source] = f"{source.absolute()}\0{there.st_size}\0{there.st_mtime_ns}"
        digest.update(f"{name}\0{picture.part}\0{stamps[source]}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _write(name: str, folder: Path, pictures: list[tuple[str, Picture]]) -> None:
    what = f"{name}: {len(pictures)} pictures that are no files of their own are"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / ".lock"):
            if not folder.exists():  # else another process was first
                with whole_folder(folder) as aside:
                    size = sum(each(partial(_write_one, aside), pictures, f"writing the pictures of {name}"))
                log.info("%s written to %s (%.1f MB)", what, folder, size / 1e6)
                return
    log.info("%s kept in %s", what, folder)


def _write_one(folder: Path, named: tuple[str, Picture]) -> int:
    name, picture = named
    with naming(picture.source, picture.part):
        data = encoded(picture.make(), picture.suffix)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(data)
