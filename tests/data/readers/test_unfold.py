"""Arrays, DICOM and the pages of a TIFF, where images and masks may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_writers import HEIGHT, WIDTH, blobs, pictures, save
from PIL import Image

from sal_fast.data import Table, files, load_table
from sal_fast.data.readers import Options
from sal_fast.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage  # noqa: E402


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))


def pixels(path: Path | None) -> np.ndarray:
    assert path is not None
    return files.grades(files.read(path))


def one_image(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder with one image; the folder where its mask belongs, and a mask."""
    save(tmp_path / "set/images/c/1.png", next(pictures(1)))
    folder = tmp_path / "set/masks/c"
    folder.mkdir(parents=True)
    return folder, next(blobs(1))


def loaded(tmp_path: Path, columns: str = "") -> Table:
    return load_table(str(tmp_path / "set"), options=Options.of("auto", columns))


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_arrays(suffix: str, kind: type, tmp_path: Path) -> None:
    from scipy import io

    folder, blob = one_image(tmp_path)
    array = blob.astype(kind)
    if kind in (np.int64, np.uint16):
        array = array * kind(700)
    if kind in (np.float32, np.float64):
        array = array * np.linspace(0, 1, WIDTH, dtype=kind)
    if suffix == ".npy":
        np.save(folder / "1.npy", array)
    elif suffix == ".npz":
        np.savez(folder / "1.npz", mask=array, names=np.array(["a", "b"]), size=np.float64(3))
    else:
        io.savemat(folder / "1.mat", {"inst": array, "count": 3.0, "name": "abc"})
    found = pixels(loaded(tmp_path).masks[0])
    if kind is bool and suffix != ".mat":
        np.testing.assert_array_equal(found, blob * np.uint8(255))
    else:
        np.testing.assert_array_equal(found, array.astype(found.dtype))
        assert found.dtype == {"f": np.float32}.get(np.dtype(kind).kind, found.dtype)


def test_an_array_by_name(tmp_path: Path) -> None:
    folder, blob = one_image(tmp_path)
    np.savez(folder / "1.npz", first=blob, second=~blob)
    with pytest.raises(
        InputError, match=r"1\.npz: expected one array .*first \[24, 31\].*--columns mask=NAME"
    ):
        loaded(tmp_path)
    np.testing.assert_array_equal(pixels(loaded(tmp_path, "mask=second").masks[0]), ~blob * np.uint8(255))
    with pytest.raises(
        InputError, match=r"1\.npz: expected an array 'third' .*found first.*--columns mask=NAME"
    ):
        loaded(tmp_path, "mask=third")


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        (
            "1.npy",
            lambda path: np.save(path, np.zeros((2, 3, 4))),
            r"1\.npy: expected one array.*found array \[2, 3, 4\]",
        ),
        (
            "1.npy",
            lambda path: np.save(path, np.array([[{}]]), allow_pickle=True),
            r"1\.npy: the file cannot be read .*expected an array",
        ),
        ("1.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), r"1\.npy: the file cannot be read"),
        ("1.npz", lambda path: path.write_bytes(b"PK\x03\x04abc"), r"1\.npz: the file cannot be read"),
        ("1.mat", lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), r"1\.mat: "),
        (
            "1.mat",
            lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(80)),
            r"1\.mat: .*v7\.3 files.*; save \.mat files with -v7",
        ),
        (
            "1.npy",
            lambda path: np.save(path, np.full((4, 4), -1)),
            r"1\.npy: the array 'array' cannot be read .*from -1 to -1, expected 0 to 65535",
        ),
    ],
)
def test_broken_arrays(name: str, write: Any, said: str, tmp_path: Path) -> None:
    folder, _ = one_image(tmp_path)
    write(folder / name)
    with pytest.raises(InputError, match=said):
        loaded(tmp_path)


def test_pages(tmp_path: Path) -> None:
    images, masks = list(pictures(3)), [mask.astype(np.uint8) * 255 for mask in blobs(3)]
    for kind, several in (("images", images), ("masks", masks)):
        folder = tmp_path / "set" / kind / "c"
        folder.mkdir(parents=True)
        first, *others = (Image.fromarray(one) for one in several)
        first.save(folder / "stack.tif", save_all=True, append_images=others)
    save(tmp_path / "set/images/c/single.tif", images[0])
    table = loaded(tmp_path)
    assert table.ids == ["c/single", "c/stack#0001", "c/stack#0002", "c/stack#0003"]
    assert table.images[0] == tmp_path / "set/images/c/single.tif"
    for row in range(3):
        np.testing.assert_array_equal(pixels(table.images[row + 1]), images[row])
        np.testing.assert_array_equal(pixels(table.masks[row + 1]), masks[row])
    save(tmp_path / "set/masks/c/stack.tif", masks[0])
    with pytest.raises(InputError, match=r"masks/c/stack\.tif: 1 pictures in it, its image .* has 3"):
        loaded(tmp_path)


def test_deep_pages_lose_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = [rng.integers(0, 65536, (6, 8), dtype=np.uint16), rng.random((6, 8), dtype=np.float32)]
    folder = tmp_path / "set/images/c"
    folder.mkdir(parents=True)
    Image.fromarray(deep[0]).save(folder / "s.tif", save_all=True, append_images=[Image.fromarray(deep[1])])
    table = loaded(tmp_path)
    for path, expected in zip(table.images, deep, strict=True):
        np.testing.assert_array_equal(pixels(path), expected)


def test_smaller_copies_in_a_tiff_are_left_out(tmp_path: Path) -> None:
    image = next(pictures(1))
    folder = tmp_path / "set/images/c"
    folder.mkdir(parents=True)
    thumbnail = Image.fromarray(image[::2, ::2])
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(image).save(folder / "s.tif", save_all=True, append_images=[thumbnail])
    table = loaded(tmp_path)
    np.testing.assert_array_equal(pixels(table.images[0]), image)
    assert len(table) == 1


def dicom(path: Path, array: np.ndarray, **more: Any) -> None:
    """A secondary capture of grey or RGB pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SOPClassUID = SecondaryCaptureImageStorage
    colour = array.ndim == 3 and array.shape[-1] == 3
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = array.shape[:2] if colour or array.ndim == 2 else array.shape[1:]
    data.BitsAllocated = data.BitsStored = array.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(array.dtype.kind == "i")
    data.PixelData = array.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The linear function of PS3.3 C.11.2.1.2, to 0..255."""
    shown = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(shown.clip(0, 255)).astype(np.uint8)


def test_windows_of_dicom(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(-200, 1800, (HEIGHT, WIDTH)).astype(np.int16)
    set_ = tmp_path / "set/images/c"
    scale = {"RescaleSlope": 1, "RescaleIntercept": -100}
    dicom(set_ / "a.dcm", stored, WindowCenter=40, WindowWidth=400, **scale)
    dicom(
        set_ / "b.dcm",
        stored,
        WindowCenter=[40, 500],
        WindowWidth=[400, 9],
        PhotometricInterpretation="MONOCHROME1",
        **scale,
    )
    dicom(set_ / "c.dcm", (stored + 200).astype(np.uint16), BitsStored=12, HighBit=11)
    dicom(set_ / "d", next(pictures(1)))
    table = loaded(tmp_path)
    assert table.ids == ["c/a", "c/b", "c/c", "c/d"]
    expected = window(stored - 100.0, 40, 400)
    np.testing.assert_array_equal(pixels(table.images[0]), expected)
    np.testing.assert_array_equal(pixels(table.images[1]), 255 - expected)
    np.testing.assert_array_equal(pixels(table.images[2]), np.rint((stored + 200) / 4095 * 255))
    np.testing.assert_array_equal(pixels(table.images[3]), next(pictures(1)))
    (noted,) = [note for note in table.notes if "window" in note]
    assert noted.endswith(f"is shown: 1, such as {set_ / 'c.dcm'}")


def test_frames_and_masks_of_dicom(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    masks = np.stack(list(blobs(3))).astype(np.uint8)
    dicom(tmp_path / "set/images/c/a.dcm", frames, NumberOfFrames=3)
    dicom(tmp_path / "set/masks/c/a.dcm", masks, NumberOfFrames=3)
    table = loaded(tmp_path)
    assert table.ids == ["c/a#0001", "c/a#0002", "c/a#0003"]
    for row in range(3):
        np.testing.assert_array_equal(pixels(table.images[row]), frames[row])
        np.testing.assert_array_equal(pixels(table.masks[row]), masks[row])


def test_broken_dicom(tmp_path: Path) -> None:
    path = tmp_path / "set/images/c/a.dcm"
    dicom(path, next(pictures(1)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    with pytest.raises(InputError, match=r"a\.dcm: image, frame None cannot be read"):
        loaded(tmp_path)
    path.write_bytes(b"no DICOM at all" * 20)
    with pytest.raises(
        InputError, match=r"a\.dcm: the DICOM header cannot be read .*expected a file with pixels"
    ):
        loaded(tmp_path)
