"""Files that are not what their names say: each message names the thing and the way out."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sal_fast.data import check, files, load_table, mistaken
from sal_fast.data.files import Unreadable
from sal_fast.errors import InputError


def archived(kind: str) -> bytes:
    data = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("a.txt", "text")
    else:
        with tarfile.open(fileobj=data, mode=f"w:{kind}") as archive:
            archive.addfile(tarfile.TarInfo("a.txt"))
    return data.getvalue()


def npy() -> bytes:
    data = io.BytesIO()
    np.save(data, np.zeros(3))
    return data.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FILES = {
    "LFS": (LFS, "a Git LFS pointer in place of the file itself; .*`git lfs pull`"),
    "HEIC": (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
        "a HEIC picture, .*convert it to JPEG or PNG",
    ),
    "mif1": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 40, "a HEIC picture, .*convert"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + b"\0" * 40, "an AVIF picture, .*convert"),
    "HTML": (
        b"\r\n <!DOCTYPE html><html><body>404</body></html>",
        r"a web page \(HTML\) .*download it again",
    ),
    "html": (b"\xef\xbb\xbf<html><head></head></html>", r"a web page \(HTML\)"),
    "JSON": (b'{"error": "quota exceeded"}', "a text .*download it again"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a text .*download it again"),
    "SVG": (b"<?xml version='1.0'?>\n<svg width='10'></svg>", "an SVG drawing, .*convert"),
    "zip": (archived("zip"), "a ZIP archive, .*unpack it"),
    "tar": (archived(""), "a TAR archive, .*unpack it"),
    "tgz": (archived("gz"), "a gzip archive, .*unpack it"),
    "xz": (archived("xz"), "an xz archive, .*unpack it"),
    "gz": (gzip.compress(b"text"), "a gzip archive, .*unpack it"),
    "PDF": (b"%PDF-1.7\n", "a PDF document, .*convert"),
    "npy": (npy(), "a NumPy array, .*convert"),
    "DICOM": (b"\0" * 128 + b"DICM" + b"\2\0", "a DICOM file, .*convert"),
    "zeros": (b"\0" * 5000, "nothing but zeros, .*copy or download it again"),
    "empty": (b"", r"the file is empty \(0 bytes\); copy or download it again"),
    "noise": (b"some words", "not an image, or its first bytes are damaged"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_under_a_picture_s_name(tmp_path: Path, kind: str, suffix: str) -> None:
    data, message = FILES[kind]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=f"^{path}: {message}"):
        files.read(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_pictures_are_read(tmp_path: Path, kind: str) -> None:
    """Under any name, and zeros that follow do not matter."""
    path = tmp_path / "x.jpg"
    Image.new("RGB", (9, 7)).save(path, kind)
    assert files.read(path).size == (9, 7)
    assert mistaken.picture(path.read_bytes()) is None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("zip", "a ZIP archive; unpack it, and name the folder"),
        ("tar", "a TAR archive; unpack it"),
        ("tgz", "a gzip archive; unpack it"),
        ("noise", "no known format; expected one of"),
    ],
)
def test_a_file_as_data(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "butterflies"
    path.write_bytes(FILES[kind][0])
    with pytest.raises(InputError, match=f"{path}: {message}"):
        load_table(str(path))


def test_pictures_that_are_not_read_are_counted(folder: Path) -> None:
    for name in ("red/b.HEIC", "red/a.heic", "blue/c.heif", "blue/.hidden.heic", "green/d.avif"):
        (folder / "images" / name).write_bytes(FILES["HEIC"][0])
    notes = check.look(str(folder)).notes
    for said in (
        "the ending .avif, which AVIF pictures have; convert them to JPEG or PNG: 1, such as ",
        "the ending .heic, which HEIC pictures have; convert them to JPEG or PNG: 2, such as ",
    ):
        assert any(said in note for note in notes), notes
    for path in (folder / "images").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match=r"that are not read \(1 in AVIF, 3 in HEIC\): convert"):
        load_table(str(folder))
