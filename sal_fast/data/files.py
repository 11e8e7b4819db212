"""One image or mask file: what its header says, its pixels, and why it cannot be used.

Pillow decides what can be used. Faster decoders (`sal_fast.data.decode`) get only plain files.
"""

import hashlib
import io
import stat
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from sal_fast.data import mistaken

MOST_PIXELS = 178_956_970  # a header that claims more is a decompression bomb; this is Pillow's limit
MOST_SIDE = 2**16  # more than a JPEG can have; a resize takes 16 bytes for each pixel of a side
MOST_BYTES = 2**30  # in a file, enough for MOST_PIXELS without compression
MOST_FOLD = 2048  # pixels per byte of a JPEG; a blank picture has some 250
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
NO_IMAGE = "not an image, or its first bytes are damaged"
DIGEST = 16  # bytes of a file's digest
ORIENTATION = 0x0112  # the tag in EXIF
TURNS = {  # how a picture of each orientation is turned upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_TURNS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks that can hold an orientation

EXPECTED = (OSError, ValueError, SyntaxError)  # errors whose texts users understand

Image.init()  # without it Pillow does not find the formats that we name
# Pillow warns of odd metadata and large pictures. What matters is checked here. We silence it for the whole
# process, because a filter that one thread sets holds for all threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

Result = TypeVar("Result")


class Unreadable(Exception):
    """A file that cannot be used, and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def or_unreadable(work: Callable[..., Result]) -> Callable[..., Result | Unreadable]:
    """Make a function return Unreadable errors instead of raising them."""

    def attempt(*args: Any) -> Result | Unreadable:
        try:
            return work(*args)
        except Unreadable as error:
            return error

    return attempt


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, and what its header says.

    size: (width, height) of the upright picture.
    orientation: how Pillow decodes it, 1 to 8 as in EXIF.
    turned: its orientation in EXIF, also where Pillow turns the picture by itself.
    mode: Pillow's name for the kind of its pixels.
    depth: `8 bits`, `16 bits`, `32 bits` or `fractions`, by channel.
    said: the number that is white if it is deeper than 8 bits, as the user said it.
    plain: an upright JPEG of 8-bit RGB or grey, without visible damage.
    grey: an upright PNG of 8-bit grey.
    """

    path: Path
    data: bytes
    size: tuple[int, int]
    orientation: int
    turned: int
    mode: str
    depth: str
    said: float | None
    plain: bool
    grey: bool

    @property
    def pixels(self) -> int:
        """Width * height."""
        return self.size[0] * self.size[1]

    @property
    def digest(self) -> bytes:
        """BLAKE2b of the bytes, DIGEST bytes long."""
        return hashlib.blake2b(self.data, digest_size=DIGEST).digest()


def read(path: Path, said: float | None = None) -> Encoded:
    """Read a file and its header. `said` is what the user said is white (`white`).

    Raises Unreadable for a file that is missing, empty, no picture, several pictures, or a decompression
    bomb.
    """
    with naming(path):
        there = path.stat()
        if not stat.S_ISREG(there.st_mode):  # a pipe would never end
            raise Unreadable(path, f"{'a folder' if stat.S_ISDIR(there.st_mode) else 'a device'}, not a file")
        if there.st_size > MOST_BYTES:
            raise Unreadable(path, f"{there.st_size / 1e9:.1f} GB, at most {MOST_BYTES / 1e9:.1f} are read")
        data = path.read_bytes()
        if not data:
            raise Unreadable(path, "the file is empty (0 bytes); copy or download it again")
        stream = io.BytesIO(data)
        try:
            image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError:
            raise Unreadable(path, mistaken.picture(data) or NO_IMAGE) from None
        start = stream.tell()  # the first scan of a JPEG begins here
        width, height = image.size
        # Pillow turns a TIFF by itself, old versions only when they decode
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            width, height = image.tag_v2[256], image.tag_v2[257]
        if not 0 < width * height <= MOST_PIXELS or max(width, height) > MOST_SIDE:
            raise Unreadable(
                path,
                f"its header claims {width}x{height} pixels; 1 to {MOST_PIXELS:,} are decoded, "
                f"at most {MOST_SIDE:,} a side",
            )
        if image.format in ("JPEG", "MPO") and width * height > MOST_FOLD * len(data):
            raise Unreadable(
                path, f"its header claims {width}x{height} pixels, which {len(data):,} bytes cannot hold"
            )
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise Unreadable(path, f"{frames} pictures in one file, expected one; save the one that is meant")
        orientation = _orientation(image, data)
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
        if plain and "progressive" not in image.info:
            plain = _one_scan(data, start)
        grey = image.format == "PNG" and image.mode == "L" and orientation == 1
        if grey:  # if there are two headers, Pillow uses the last and other decoders the first
            grey = struct.unpack(">II", data[16:24]) == (width, height)
        shown = (height, width) if orientation >= 5 else (width, height)
        left = 1 if image.format == "TIFF" else orientation
        depth = _depth(image)
        return Encoded(path, data, shown, left, orientation, image.mode, depth, said, plain, grey)


def rgb(file: Encoded) -> np.ndarray:
    """Decode an upright picture, uint8 [H, W, 3]. Alpha is dropped.

    Deeper pictures are scaled so that `white(file)` becomes 255. Raises Unreadable if the pixels cannot
    be decoded, or are out of range.
    """
    with naming(file.path):
        image = _upright(file)
        if file.depth != "8 bits":
            deep = np.asarray(image)
            check_range(file, float(deep.min()), float(deep.max()))
            scaled = np.rint(deep * (255 / white(file))).astype(np.uint8)
            return np.repeat(scaled[..., None], 3, axis=2)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def white(file: Encoded) -> float:
    """The number that is white in a file: what the user said (`--white`), else what its depth has.

    It never depends on the pixels of the file, so that all files of a set have one scale. Raises Unreadable
    for 32 bits if nobody said it.
    """
    if file.depth == "8 bits":
        return 255.0
    usual = {"16 bits": 65535.0, "fractions": 1.0}.get(file.depth)
    if file.said is not None:
        return file.said
    if usual is None:
        raise Unreadable(file.path, f"{file.depth} a pixel, of which nobody knows what is white; say --white")
    return usual


def check_range(file: Encoded, low: float, high: float) -> None:
    """Raise Unreadable if the numbers of a deep file, from `low` to `high`, are not between 0 and white."""
    top = white(file)
    if not low <= high:
        raise Unreadable(file.path, f"its {file.depth} are not all numbers; expected 0 to {top:g}")
    if not 0 <= low <= high <= top:
        raise Unreadable(
            file.path,
            f"its {file.depth} go from {low:g} to {high:g}, expected 0 to {top:g}; say with --white which "
            f"number is white",
        )


def grades(file: Encoded) -> np.ndarray:
    """Decode the pixels of a mask file as they are stored, but upright: [H, W], or [H, W, 3] of colours.

    A palette file gives its indices, and one of one bit 0 and 1. Alpha is dropped. Raises Unreadable if they
    cannot be decoded.
    """
    with naming(file.path):
        image = _upright(file)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        if image.mode == "1":  # numpy takes Pillow's bytes of 255 for booleans
            return np.asarray(image.convert("L")) & 1
        array = np.asarray(image)
        if array.ndim == 3:
            return array[..., 0] if array.shape[-1] < 3 else array[..., :3]
        return array


def rgba(file: Encoded) -> np.ndarray:
    """Decode an upright picture with its transparency, uint8 [H, W, 4]; palettes are looked up.

    Raises Unreadable if the pixels cannot be decoded.
    """
    with naming(file.path):
        return np.asarray(_upright(file).convert("RGBA"))


def of_mask(path: Path | tuple[Path, ...]) -> list[Path]:
    """The files of a mask (`table.Mask`): a folder stands for each picture in it.

    Raises Unreadable for a folder without pictures, or one that cannot be listed.
    """
    if isinstance(path, tuple):
        return list(path)
    with naming(path):
        if not path.is_dir():
            return [path]
        found = [file for file in path.iterdir() if not file.name.startswith(".")]
    files = sorted(file for file in found if file.suffix.lower() in SUFFIXES)
    if not files:
        raise Unreadable(path, "a folder of several annotators' masks, and no picture in it")
    return files


def _depth(image: Image.Image) -> str:
    """The depth of a channel. Pillow opens some PNG files of 16 bits as if they had 32."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return "16 bits"
    return {"I": "32 bits", "F": "fractions"}.get(image.mode, "8 bits")


def _orientation(image: Image.Image, data: bytes) -> int:
    """The orientation of a picture; 1 if it cannot be told, as its metadata alone may be damaged."""
    if image.format == "PNG" and not any(name in data for name in PNG_TURNS):
        return 1  # to find this out Pillow would decode the picture
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        return int(orientation) if orientation in TURNS else 1
    except Exception:
        return 1


def _one_scan(data: bytes, start: int) -> bool:
    """True if a JPEG has one scan, without another marker in it: Pillow would stop there, DALI would not."""
    scan = np.frombuffer(data, dtype=np.uint8)[start:]
    after = scan[1:][scan[:-1] == 0xFF]
    # neither an escaped byte nor a restart
    markers = after[(after != 0) & (after != 0xFF) & (after & 0xF8 != 0xD0)]
    return bool(markers.size) and int(markers[0]) == 0xD9


def _upright(file: Encoded) -> Image.Image:
    image = Image.open(io.BytesIO(file.data), formats=FORMATS)
    return image if file.orientation == 1 else image.transpose(TURNS[file.orientation])


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn any error into an Unreadable that names the file; damaged ones make Pillow raise anything."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(path, _reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be decoded ({str(error).split(';')[0].rstrip('.')})"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if "truncated" in str(error).lower():
        return "the file is truncated"
    if "cannot identify" in str(error):
        return NO_IMAGE
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, EXPECTED) and first else f"damaged ({type(error).__name__}: {first})"
