"""Files that hold something else than one picture: arrays, DICOM, the pages of a TIFF.

`unfold` gives the pictures in a file. Every layout of files uses it, so that each kind may lie wherever an
image or a mask may.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import io

from sal_fast.data import files
from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.base import Options, Reading
from sal_fast.data.readers.made import Picture, naming
from sal_fast.errors import InputError

ARRAYS = frozenset({".npy", ".npz", ".mat"})
DICOM = frozenset({".dcm", ".dicom"})
TIFF = frozenset({".tif", ".tiff"})
REDUCED = 254  # the tag of a TIFF whose bits 0 and 2 say that a page is a smaller copy or a transparency mask
FULL_RANGE = "DICOM files without a window, of which the full range of stored values is shown"


def is_image(path: Path) -> bool:
    """True if a file's name is that of an image; a file without an ending is looked into for DICOM."""
    return not path.name.startswith(".") and (path.suffix.lower() in SUFFIXES | DICOM or _is_dicom(path))


def is_mask(path: Path) -> bool:
    return path.suffix.lower() in ARRAYS or is_image(path)


def _is_dicom(path: Path) -> bool:
    if path.suffix or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def unfold(
    path: Path, kind: Literal["image", "mask"], options: Options, reading: Reading
) -> list[Path | Picture]:
    """The pictures in a file: itself, unless it is an array, DICOM, or a TIFF of several pages.

    Raises InputError for an array or DICOM that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES - TIFF or not path.is_file():
        return [path]
    if suffix in TIFF:
        return _pages(path, reading)
    if suffix in DICOM or _is_dicom(path):
        return _frames(path, kind, reading)
    if suffix in ARRAYS and kind == "mask":
        return [_array(path, options.columns.get("mask", ""))]
    return [path]


def _pages(path: Path, reading: Reading) -> list[Path | Picture]:
    """The pages of a TIFF; the file itself if it has one page, or if it is damaged, which is found later."""
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            count: int = getattr(image, "n_frames", 1)
            pages = []
            for number in range(count) if count > 1 else ():
                image.seek(number)
                if not int(image.tag_v2.get(REDUCED, 0)) & 5:  # type: ignore[attr-defined]
                    pages.append((number, ".tif" if image.mode in ("I", "F") else ".png"))
    except Exception:  # Pillow raises anything for damaged files
        return [path]
    if len(pages) < count > 1:
        reading.count(path, "TIFF files with smaller copies or transparency masks, which are not used")
    return [
        Picture(path, f"page {number + 1}", partial(_page, path, number), suffix) for number, suffix in pages
    ] or [path]


def _page(path: Path, number: int) -> np.ndarray | bytes:
    with Image.open(path, formats=["TIFF"]) as image:
        image.seek(number)
        width, height = image.size
        if width * height > files.MOST_PIXELS:
            raise ValueError(f"{width}x{height} pixels, at most {files.MOST_PIXELS:,} are decoded")
        if image.mode in ("P", "PA", "CMYK", "LAB", "YCbCr"):
            return np.asarray(image.convert("RGB"))
        return np.asarray(image)


def _array(path: Path, name: str) -> Picture:
    """The mask in an array file: the one two-dimensional variable of numbers, or that of the given name."""
    with naming(path, "the file", "expected an array [height, width] of numbers; save .mat files with -v7"):
        shapes = _variables(path)
    flat = [
        one for one, (kind, shape) in shapes.items() if kind in "biuf" and len(shape) == 2 and min(shape) > 1
    ]
    if name not in flat and (len(flat) != 1 or (name and len(shapes) > 1)):
        wanted = f"an array {name!r}" if name else "one array"
        hint = "; say which with --columns mask=NAME" if flat else ""
        raise InputError(
            f"{path}: expected {wanted} [height, width] of numbers, found {_listed(shapes)}{hint}"
        )
    name = name if name in flat else flat[0]
    deep = shapes[name][0] == "f"
    make = partial(_grey_array, path, name, deep)
    return Picture(path, f"the array {name!r}", make, ".tif" if deep else ".png")


def _grey_array(path: Path, name: str, deep: bool) -> np.ndarray:
    if path.suffix.lower() == ".mat":
        return _grey(io.loadmat(path, variable_names=[name])[name], deep)
    return _grey(_numpy_arrays(path)[name], deep)


def _variables(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The kind (as of a dtype) and shape of each array in a file."""
    if path.suffix.lower() == ".mat":
        kinds = {"logical": "b", "double": "f", "single": "f", "cell": "O", "struct": "O", "char": "U"}
        return {name: (kinds.get(kind, "i"), tuple(shape)) for name, shape, kind in io.whosmat(path)}
    return {name: (array.dtype.kind, array.shape) for name, array in _numpy_arrays(path).items()}


def _numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a .npy or .npz file. Nothing is unpickled."""
    if path.suffix.lower() == ".npy":
        return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _listed(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, (_, shape) in shapes.items()) or "nothing"


def _grey(array: np.ndarray, deep: bool) -> np.ndarray:
    """An array as pixels that a file can hold without loss: bool, uint8, uint16, or float32 for fractions."""
    if deep:
        return array.astype(np.float32)
    if array.dtype == bool:
        return array
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ValueError(f"whole numbers from {low} to {high}, expected 0 to 65535")
    return array.astype(np.uint8 if high <= 255 else np.uint16)


def _frames(path: Path, kind: Literal["image", "mask"], reading: Reading) -> list[Path | Picture]:
    try:
        import pydicom
    except ImportError:
        raise InputError(f'{path}: DICOM needs pydicom: pip install "sal-fast[formats]"') from None
    with naming(path, "the DICOM header", "expected a file with pixels, or remove it"):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        count, grey = int(data.get("NumberOfFrames") or 1), data.PhotometricInterpretation.startswith("MONO")
    if kind == "image" and grey and "WindowWidth" not in data and "VOILUTSequence" not in data:
        reading.count(path, FULL_RANGE)
    frames = range(count) if count > 1 else (None,)
    return [Picture(path, f"{kind}, frame {frame}", partial(_frame, path, kind, frame)) for frame in frames]


def _frame(path: Path, kind: str, frame: int | None) -> np.ndarray:
    """One frame of a DICOM file: a mask as it is stored, an image as it is shown, in 8 bits."""
    import pydicom
    from pydicom import pixels

    data = pydicom.dcmread(path)
    array = data.pixel_array if frame is None else data.pixel_array[frame]
    if kind == "mask":
        return _grey(array, deep=False)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        array = pixels.apply_color_lut(array, data)
    if array.ndim == 3:  # pydicom has turned YBR into RGB
        return array if array.dtype == np.uint8 else (array >> (data.BitsStored - 8)).astype(np.uint8)
    shown = _windowed(array, data)
    return 255 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown


def _windowed(array: np.ndarray, data: Any) -> np.ndarray:
    """Grey values through the file's modality and its first window or table, uint8 [H, W].

    The darkest and brightest values are those that the file could hold, not those that it holds, so that the
    pictures of a set can be compared.
    """
    from pydicom import pixels

    bits, signed = int(data.BitsStored), bool(data.PixelRepresentation)
    stored = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    values, ends = (pixels.apply_modality_lut(one, data) for one in (array, stored))
    if "VOILUTSequence" in data:
        table = data.VOILUTSequence[0]
        values = pixels.apply_voi(values.astype(np.int64), data)
        ends = np.array([0, 2 ** int(table.LUTDescriptor[2]) - 1])
    elif "WindowWidth" in data:
        values = pixels.apply_windowing(values, data)
        ends = pixels.apply_windowing(np.array([-1e12, 1e12]), data)
    low, high = float(ends.min()), float(ends.max())
    return np.rint((values - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
