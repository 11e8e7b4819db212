"""Files that are no pictures although their names say so, or that we do not read: what they are, and what to
do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

CONVERT = "convert it to JPEG or PNG"
BRANDS = {  # of ISO media files, at byte 8
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC",
    b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF",
}  # fmt: skip
ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive", b"PK\x05\x06": "an empty ZIP archive", b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive", b"\x28\xb5\x2f\xfd": "a zstd archive",
}  # fmt: skip
OTHERS = {
    b"%PDF": "a PDF document", b"8BPS": "a Photoshop picture", b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file", b"MATLAB 5.0": "a MATLAB file", b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture", b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 picture",
}  # fmt: skip
UNREAD = {  # suffixes of pictures that we do not read
    ".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".jxl": "JPEG XL", ".jp2": "JPEG 2000",
    ".psd": "Photoshop", ".svg": "SVG", ".dng": "raw", ".cr2": "raw", ".cr3": "raw", ".nef": "raw",
    ".arw": "raw",
}  # fmt: skip


def picture(data: bytes) -> str | None:
    """What the bytes of a file are that should be a picture, and the way out; None if we do not know."""
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file itself; fetch the files with `git lfs pull`"
    if data[4:8] == b"ftyp" and data[8:12] in BRANDS:
        return f"{_an(BRANDS[data[8:12]])} picture, whatever its name says; {CONVERT}"
    if data[128:132] == b"DICM":
        return f"a DICOM file, whatever its name says; {CONVERT}"
    kind = archive(data)
    if kind is not None:
        return f"{kind}, whatever its name says; unpack it"
    for start, name in OTHERS.items():
        if data.startswith(start):
            return f"{name}, whatever its name says; {CONVERT}"
    if not data.strip(b"\0"):
        return "nothing but zeros, as an interrupted copy leaves them; copy or download it again"
    return _text(data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _text(head: bytes) -> str | None:
    """What a file is that begins with this text in small letters."""
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return (
            "a web page (HTML) in place of the picture, as a failed download leaves it; open its address in "
            "a browser, and download it again"
        )
    if b"<svg" in head and head.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return f"an SVG drawing, whatever its name says; {CONVERT}"
    if head.startswith((b"<?xml", b'{"', b"{\n", b"{\r")):
        return "a text (XML or JSON) in place of the picture, such as a server's error; download it again"
    return None


def archive(data: bytes) -> str | None:
    """The kind of archive that begins with these bytes (262 suffice); None if it is none."""
    if data[257:262] == b"ustar":
        return "a TAR archive"
    return next((kind for start, kind in ARCHIVES.items() if data.startswith(start)), None)


def ending(suffix: str) -> str:
    """Why a file with this suffix is not used, and what to do with a picture that we do not read."""
    kind = UNREAD.get(suffix.lower())
    if kind is None:
        return f"the ending {suffix or '(none)'}"
    return f"the ending {suffix.lower()}, which {kind} pictures have; {CONVERT.replace(' it ', ' them ')}"


def unread(paths: Iterable[Path]) -> str:
    """What an error about a folder without pictures adds: those that we do not read, counted."""
    found = Counter(
        UNREAD[path.suffix.lower()] for path in paths if path.suffix.lower() in UNREAD and path.name[0] != "."
    )
    if not found:
        return ""
    said = ", ".join(f"{count} in {kind}" for kind, count in sorted(found.items()))
    return f"; there are pictures that are not read ({said}): {CONVERT.replace(' it ', ' them ')}"


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'AEIO' else 'a'} {word}"
