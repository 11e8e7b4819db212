"""Odd image and mask files: what they show, or a refusal that names the file; with both decoders."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sal_fast import seeds
from sal_fast.data import (
    Sample,
    StoreOptions,
    Table,
    check,
    decode,
    files,
    load_table,
    make_table,
    meaning,
    reading,
    splits,
    store,
)
from sal_fast.data.decode import Decoder
from sal_fast.data.files import ORIENTATION, Unreadable
from sal_fast.data.meaning import Rule
from sal_fast.errors import InputError

CPU = torch.device("cpu")
WIDTH, HEIGHT = 30, 20
DECODERS = [
    "pillow",
    "torch",
    pytest.param("dali", marks=pytest.mark.skipif(not decode.has_dali(), reason="DALI is not installed")),
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return decode.choose(request.param, CPU)


def picture() -> np.ndarray:
    """uint8 [20, 30, 3] that differs in every direction."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([8 * x, 12 * y, 4 * (x + y)], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk, behind its header."""
    return png[:33] + chunk(kind, data) + png[33:]


def claiming(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size."""
    return png[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def rows_of(images: list[Path], masks: list[Path | None] | None = None) -> Table:
    masks = masks or [None] * len(images)
    rows = zip(images, masks, strict=True)
    samples = (Sample(f"{i:03d}", image, "a", mask) for i, (image, mask) in enumerate(rows))
    return make_table("odd", samples)


def decoded(decoder: Decoder, image: Path, size: int) -> np.ndarray:
    """One image through the whole of reading; raises why it cannot be."""
    (part,) = reading.parts(rows_of([image]), [0], StoreOptions(size, size, decoder))
    for error in part.broken.values():
        raise error
    return part.images[0].numpy()


def drawn(decoder: Decoder, mask: Path, size: int, image: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """One mask of a black image through the whole of reading; raises why it cannot be."""
    beside = mask.parent / "its image.bmp"
    Image.new("RGB", image).save(beside)
    (part,) = reading.parts(rows_of([beside], [mask]), [0], StoreOptions(size, 8, decoder))
    for error in part.broken.values():
        raise error
    found = part.masks[0]
    assert found is not None
    return found


def shown(data: bytes) -> np.ndarray:
    """What a viewer shows of a file, by arithmetic of its own."""
    image = Image.open(io.BytesIO(data))
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.format == "TIFF" or orientation > 8:
        orientation = 1  # Pillow turns a TIFF
    if image.mode == "I;16":
        pixels = np.round(np.array(image, dtype=np.float64) / 257)[..., None].repeat(3, -1).astype(np.uint8)
    elif image.mode == "F":
        pixels = np.round(np.array(image, dtype=np.float64) * 255)[..., None].repeat(3, -1).astype(np.uint8)
    else:
        pixels = np.array(image.convert("RGB"))
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


RGB = Image.fromarray(picture())
GREY = Image.fromarray(picture()[..., 0])
RGBA = Image.fromarray(np.dstack([picture(), picture()[..., :1]]))
DEEP = Image.fromarray(picture()[..., 0].astype(np.uint16) * 270)
FLOAT = Image.fromarray(picture()[..., 0].astype(np.float32) / 255)
PNG = encoded(RGB, "PNG")
JPEG = encoded(RGB, "JPEG")

READABLE: dict[str, bytes] = {
    "baseline.jpg": JPEG,
    "progressive.jpg": encoded(RGB, "JPEG", progressive=True),
    "444.jpg": encoded(RGB, "JPEG", subsampling=0, quality=95),
    "422.jpg": encoded(RGB, "JPEG", subsampling=1, restart_marker_blocks=1),
    "rgb coded.jpg": encoded(RGB, "JPEG", keep_rgb=True),
    "grey.jpg": encoded(GREY, "JPEG"),
    "cmyk.jpg": encoded(RGB.convert("CMYK"), "JPEG"),
    "with bytes after its end.jpg": JPEG + b"a camera's notes \xff\xd9\xff\x20" * 50,
    "with damaged exif.jpg": encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"),
    "with exif of no kind.jpg": encoded(RGB, "JPEG", exif=b"Exif\0\0nothing of the sort"),
    "orientation 9.jpg": encoded(RGB, "JPEG", exif=turned(9)),
    **{f"orientation {n}.jpg": encoded(RGB, "JPEG", exif=turned(n), quality=95) for n in range(1, 9)},
    **{f"orientation {n}.tif": encoded(RGB, "TIFF", exif=turned(n)) for n in range(1, 9)},
    "orientation 6.png": encoded(RGB, "PNG", exif=turned(6)),
    "orientation 5.webp": encoded(RGB, "WEBP", exif=turned(5), lossless=True),
    "photo with a preview.jpg": encoded(RGB, "MPO", save_all=True, append_images=[RGB.resize((15, 10))]),
    "1.png": encoded(GREY.convert("1"), "PNG"),
    "L.png": encoded(GREY, "PNG"),
    "L with a colour to leave out.png": encoded(GREY, "PNG", transparency=8),
    "LA.png": encoded(RGBA.convert("LA"), "PNG"),
    "P.png": encoded(RGB.quantize(40), "PNG"),
    "P of 2 bits.png": encoded(RGB.quantize(4), "PNG", bits=2),
    "P with alpha.png": encoded(RGB.quantize(40), "PNG", transparency=bytes(range(40))),
    "RGB.png": PNG,
    "RGB with a colour to leave out.png": encoded(RGB, "PNG", transparency=(8, 12, 8)),
    "RGBA.png": encoded(RGBA, "PNG"),
    "16 bits.png": encoded(DEEP, "PNG"),
    "16 bits.tif": encoded(DEEP, "TIFF"),
    "float.tif": encoded(FLOAT, "TIFF"),
    "lzw.tif": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "lossy.webp": encoded(RGB, "WEBP"),
    "a.bmp": encoded(RGB, "BMP"),
    "a gif of one picture.png": encoded(RGB.quantize(40), "GIF"),
    "a png.jpg": PNG,
    "grün & weiß 画像.jpg": JPEG,
    "one pixel.jpg": encoded(RGB.crop((3, 3, 4, 4)), "JPEG"),
    "one pixel.png": encoded(RGB.crop((3, 3, 4, 4)), "PNG"),
}


@pytest.mark.parametrize("name", READABLE)
def test_readable(tmp_path: Path, decoder: Decoder, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(READABLE[name])
    expected = shown(READABLE[name])
    file = files.read(path)
    assert file.size == expected.shape[1::-1]
    np.testing.assert_array_equal(files.rgb(file), expected)
    for size in (8, 40):
        fine = torch.from_numpy(expected).permute(2, 0, 1)[None].float()
        fine = torch.nn.functional.interpolate(fine, (size, size), mode="bilinear", antialias=True)
        found = decoded(decoder, path, size).astype(np.float32)
        assert np.abs(found - fine[0].permute(1, 2, 0).numpy()).max() <= 1.6


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 65000)])
def test_extreme_aspect(tmp_path: Path, decoder: Decoder, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    for name, kind in (("long.jpg", "JPEG"), ("long.png", "PNG")):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(pixels), kind, quality=95))
        whole = Image.open(tmp_path / name).convert("RGB")
        expected = np.asarray(whole.resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(decoded(decoder, tmp_path / name, 16) - expected).max() <= 1


def animated(kind: str) -> bytes:
    return encoded(RGB, kind, save_all=True, append_images=[RGB.transpose(Image.Transpose.ROTATE_180)])


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"<html>404 not found</html>", "a web page"),
    "zeros.png": (bytes(1000), "nothing but zeros"),
    "magic alone.jpg": (b"\xff\xd8", "not an image"),
    "jpeg header alone.jpg": (JPEG[: JPEG.index(b"\xff\xda") + 14], "truncated"),
    "first half.jpg": (JPEG[: len(JPEG) * 3 // 4], "truncated"),
    "without its end.jpg": (JPEG[:-2], "truncated"),
    "progressive.jpg": (encoded(RGB, "JPEG", progressive=True)[:-40], "truncated"),
    "foreign marker.jpg": (JPEG[:-20] + b"\xff\x42" + JPEG[-18:], "broken data stream"),
    "png header alone.png": (PNG[:33], "."),
    "first half.png": (PNG[: len(PNG) // 2], "truncated"),
    "grey, first half.png": (encoded(GREY, "PNG", compress_level=0)[:400], "truncated"),
    "bad checksum.png": (PNG[:30] + b"\0" + PNG[31:], "."),
    "bomb.png": (claiming(PNG, 60000, 60000), r"too large to be decoded \(Image size \(3600000000 pixels"),
    "long bomb.png": (claiming(PNG, 100_000, 1), "claims 100000x1 pixels; .* at most 65,536 a side"),
    "no height.png": (claiming(PNG, 30, 0), "."),
    "no height.jpg": (JPEG.replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 0, WIDTH)), "."),
    "two headers.png": (claiming(encoded(GREY, "PNG"), 60000, 60000)[:33] + encoded(GREY, "PNG")[8:], "."),
    "text bomb.png": (
        with_chunk(PNG, b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000))),
        "[Tt]oo large",
    ),
    "profile bomb.png": (
        with_chunk(PNG, b"iCCP", b"profile\0\0" + zlib.compress(bytes(50_000_000))),
        "[Tt]oo large",
    ),
    "animated.gif.png": (animated("GIF"), "2 pictures in one file, expected one"),
    "animated.webp": (animated("WEBP"), "2 pictures in one file, expected one"),
    "animated.png": (animated("PNG"), "2 pictures in one file, expected one"),
    "pages.tif": (animated("TIFF"), "2 pictures in one file, expected one"),
    "first half.tif": (encoded(RGB, "TIFF", compression="tiff_lzw")[:500], "."),
    "first half.webp": (encoded(RGB, "WEBP")[:90], "."),
    "not a number.tif": (
        encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "not all numbers",
    ),
    "avif.jpg": (b"\0\0\0\x1cftypavif" + bytes(100), "an AVIF picture"),
}


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "two headers.png"])
def test_refused(tmp_path: Path, decoder: Decoder, name: str) -> None:
    data, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=reason) as refusal:
        decoded(decoder, path, 8)
    assert str(refusal.value) == f"{path}: {refusal.value.reason}"
    assert refusal.value.path == path
    assert "\n" not in refusal.value.reason
    with pytest.raises(Unreadable):
        drawn(decoder, path, 8)


def test_of_two_headers_a_fast_decoder_gets_neither(tmp_path: Path, decoder: Decoder) -> None:
    """Pillow heeds the last header, where DALI would make room for what the first one claims."""
    (tmp_path / "mask.png").write_bytes(REFUSED["two headers.png"][0])
    assert not files.read(tmp_path / "mask.png").grey
    try:
        drawn(decoder, tmp_path / "mask.png", 8)
    except Unreadable as error:
        assert error.path == tmp_path / "mask.png"  # noqa: PT017


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "a folder, not a file"),
        (os.mkfifo, "a device, not a file"),
        (lambda path: path.symlink_to("nowhere"), "file not found"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: None, "file not found"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40), "1099.5 GB, at most 1.1"),
    ],
    ids=["folder", "pipe", "dangling link", "link to itself", "absent", "huge"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_file(tmp_path: Path, decoder: Decoder, make: Callable, reason: str) -> None:
    make(tmp_path / "x.jpg")
    with pytest.raises(Unreadable, match=f"x.jpg: {reason}"):
        decoded(decoder, tmp_path / "x.jpg", 8)


def test_names_that_no_file_can_have(tmp_path: Path, decoder: Decoder) -> None:
    for name in ("x" * 300 + ".png", "a\0b.png"):
        with pytest.raises(Unreadable, match=r"(too long|null byte)"):
            decoded(decoder, tmp_path / name, 8)
        with pytest.raises(Unreadable, match=r"(too long|null byte)"):
            drawn(decoder, tmp_path / name, 8)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        struct.error("unpack requires a buffer"),
        zlib.error("Error -3"),
        OverflowError("too big"),
        KeyError(282),
        IndexError("list index"),
        AttributeError("x"),
        TypeError("y"),
        RecursionError("maximum"),
        ZeroDivisionError("z"),
        RuntimeError(),
        ValueError(" \n"),
        UserWarning("w"),
        OSError(),
    ],
    ids=repr,
)
def test_whatever_pillow_raises_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    file = files.read(path)

    def broken(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", broken)
    for work in (lambda: files.read(path), lambda: files.rgb(file), lambda: files.grades(file)):
        with pytest.raises(Unreadable, match=r"x\.png: \S") as refusal:
            work()
        assert len(refusal.value.reason) > 2


def test_orientation_is_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header is looked at in every thread at once, before what `decode.base` bounds."""
    for name in ("RGB.png", "baseline.jpg", "orientation 6.tif", "orientation 6.png"):
        (tmp_path / name).write_bytes(READABLE[name])
    (tmp_path / "bomb.png").write_bytes(claiming(PNG, 13000, 13000))
    loads = []
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loads.append(image))
    for path in sorted(tmp_path.iterdir()):
        files.read(path)
    assert not loads


def test_what_pillow_decodes_at_once_is_bounded(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sal_fast.data.decode.base.MOST_PIXELS", WIDTH * HEIGHT)
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(PNG)
    lock, now, most = threading.Lock(), [0], [0]
    original = files.rgb

    def counted(file: files.Encoded) -> np.ndarray:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return original(file)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(files, "rgb", counted)
    reading.pictures(paths, 8, decoder)
    assert most[0] == 1


# Masks


def mask_of(path: Path, size: int | None) -> np.ndarray:
    file = files.read(path)
    return meaning.read(file, files.grades(file), size).pixels


@pytest.mark.parametrize("value", [1, 3, 255])
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_binary_masks_in_any_spelling(tmp_path: Path, decoder: Decoder, mode: str, value: int) -> None:
    box = np.zeros((20, 30), dtype=bool)
    box[4:12, 6:20] = True
    if mode == "P":
        image = Image.fromarray(box.astype(np.uint8))
        image.putpalette([0, 0, 0, 9, value, 200] + [0] * 762)
    elif mode == "I;16":
        image = Image.fromarray(box.astype(np.uint16) * value)
    elif mode == "1":
        image = Image.fromarray(box)
    else:
        image = Image.fromarray(box.astype(np.uint8) * value).convert(mode)
    image.save(tmp_path / "mask.png")
    pixels = drawn(decoder, tmp_path / "mask.png", 10)
    assert set(np.unique(pixels)) == {0, 255}
    assert (pixels > 0).sum() == pytest.approx(box.mean() * 100, abs=6)
    np.testing.assert_array_equal(mask_of(tmp_path / "mask.png", None), box * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "TIFF"])
def test_graded_mask_is_averaged_over_areas(tmp_path: Path, decoder: Decoder, suffix: str) -> None:
    graded = np.add.outer(np.arange(20), np.arange(20)).astype(np.uint8) * 6
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(graded).save(tmp_path / f"mask.{suffix}", **options)
    expected = graded.reshape(10, 2, 10, 2).mean((1, 3))
    found = drawn(decoder, tmp_path / f"mask.{suffix}", 10, (20, 20))
    assert np.abs(found - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10), 255),
        (np.linspace(0, 2570, 100).astype(np.uint16).reshape(10, 10), 10),
        (np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10), 255),
    ],
    ids=["float", "dark-16-bit", "16-bit"],
)
def test_graded_masks_of_other_depths(
    tmp_path: Path, decoder: Decoder, array: np.ndarray, expected: int
) -> None:
    Image.fromarray(array).save(tmp_path / "mask.tif")
    pixels = drawn(decoder, tmp_path / "mask.tif", 10, (10, 10))
    assert pixels.max() == expected
    assert (np.diff(pixels.reshape(-1).astype(int)) >= 0).all()


@pytest.mark.parametrize("grades", [(-1, 1), (0, 70000), (0, np.nan), (0.5, np.inf)])
def test_grades_out_of_range_are_refused(tmp_path: Path, grades: tuple[float, float]) -> None:
    array = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    array[0, :2] = grades
    Image.fromarray(array).save(tmp_path / "mask.tif")
    with pytest.raises(Unreadable, match=r"mask\.tif: its fractions .*expected 0 to 1"):
        mask_of(tmp_path / "mask.tif", 10)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_masks(tmp_path: Path, decoder: Decoder, mode: str) -> None:
    """A binary one rings along its edges and is binary all the same; a Gaussian stays graded."""
    y, x = np.mgrid[:40, :60]
    disc = ((y - 20) ** 2 + (x - 30) ** 2 < 150) * np.uint8(255)
    gaze = np.exp(-((y - 20) ** 2 + (x - 30) ** 2) / 160) * 255
    Image.fromarray(disc).convert(mode).save(tmp_path / "disc.jpg", quality=80)
    Image.fromarray(gaze.astype(np.uint8)).convert(mode).save(tmp_path / "gaze.jpg", quality=95)
    if mode != "CMYK":  # what is not plain is taken at its word
        found = drawn(decoder, tmp_path / "disc.jpg", 40)
        assert set(np.unique(found)) == {0, 255}
        exact = Image.fromarray(disc).resize((40, 40), Image.Resampling.NEAREST)
        assert (found != np.asarray(exact)).mean() < 0.01
    found = drawn(decoder, tmp_path / "gaze.jpg", 20)
    exact = np.asarray(Image.fromarray(gaze.astype(np.float32)).resize((20, 20), Image.Resampling.BOX))
    assert np.abs(found - exact).max() < 6


def test_mask_lies_as_its_image_does(tmp_path: Path, decoder: Decoder) -> None:
    """A mask that EXIF turns is turned, in every format, and its aspect is the one that is shown."""
    left = np.zeros((20, 30), dtype=np.uint8)
    left[:, :15] = 255
    for name in ("mask.png", "mask.tif", "mask.jpg"):
        Image.fromarray(left).save(tmp_path / name, exif=turned(6), quality=95)
        found = drawn(decoder, tmp_path / name, 10, (20, 30))
        np.testing.assert_array_equal(found[:5], 255)
        np.testing.assert_array_equal(found[5:], 0)
        with pytest.raises(meaning.MisSized, match="the mask is 20x30, its image 30x20"):
            drawn(decoder, tmp_path / name, 10, (30, 20))


def test_several_annotators_are_averaged(tmp_path: Path, decoder: Decoder) -> None:
    """Each with a resolution and a format of its own; files that are no pictures do not count."""
    folder = tmp_path / "003"
    folder.mkdir()
    (folder / "notes.txt").write_text("by hand")
    (folder / "._anna.png").write_bytes(b"what another system leaves beside a file")
    half = np.zeros((20, 30), dtype=np.uint8)
    half[:, :15] = 255
    Image.fromarray(half).save(folder / "anna.png")
    Image.fromarray(np.repeat(np.repeat(half, 2, 0), 2, 1)).save(folder / "böb.tif")
    Image.fromarray(np.full((40, 60), 90, np.uint8)).convert("RGB").save(folder / "carl.bmp")  # all of it
    Image.fromarray((np.tile(np.arange(30), (20, 1)) * 2 + 20).astype(np.uint8)).save(folder / "dora.png")
    found = drawn(decoder, folder, 10).astype(float)
    grade = np.tile(np.arange(30), (20, 1)).reshape(20, 10, 3).mean(2)[:10] * 2 + 20
    expected = (2 * 255 * (np.arange(10) < 5) + 255 + grade) / 4
    assert np.abs(found - expected).max() <= 1


def test_a_folder_of_annotators_that_cannot_be_used(tmp_path: Path, decoder: Decoder) -> None:
    folder = tmp_path / "003"
    folder.mkdir()
    with pytest.raises(Unreadable, match="003: a folder of several annotators' masks, and no picture in it"):
        drawn(decoder, folder, 10)
    GREY.save(folder / "anna.png")
    GREY.crop((0, 0, 20, 20)).save(folder / "bob.png")
    with pytest.raises(meaning.MisSized, match=r"003/bob\.png: the mask is 20x20"):
        drawn(decoder, folder, 10)
    (folder / "bob.png").write_bytes(encoded(GREY, "PNG")[:50])
    with pytest.raises(Unreadable, match=r"003/bob\.png"):
        drawn(decoder, folder, 10)


def test_which_file_is_the_mask(folder: Path) -> None:
    masks = folder / "masks" / "red"
    GREY.resize((40, 40)).save(masks / "000.jpg")
    (masks / "001.png").rename(masks / "001.TIFF")
    (masks / "002").mkdir()
    (masks / "003.png").unlink()
    (masks / "003.png").symlink_to("nowhere")
    (masks / "004.png").rename(masks / "004.webp")
    found = load_table(str(folder))
    names = {name: mask and mask.name for name, mask in zip(found.ids, found.masks, strict=True)}
    assert [names[f"red/00{n}"] for n in range(5)] == [
        "000.png",
        "001.TIFF",
        "002.png",
        "003.png",
        "004.webp",
    ]
    assert any("003.png: file not found" in problem for problem in check.look(str(folder)).problems)


def test_a_rule_that_a_mask_does_not_suit(tmp_path: Path) -> None:
    GREY.save(tmp_path / "mask.png")
    file = files.read(tmp_path / "mask.png")
    with pytest.raises(Unreadable, match=r"mask\.png: damaged \(IndexError"):
        meaning.read(file, files.grades(file), 8, None, Rule(own=lambda pixels: pixels[..., 2, 50] > 0))


# Together


def good(root: Path, count: int) -> list[Path]:
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    paths = []
    for number in range(count):
        image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8))
        paths.append(root / f"{number:03d}.{'png' if number % 5 == 0 else 'jpg'}")
        image.save(paths[-1])
    return paths


@pytest.mark.parametrize(
    "name", ["first half.jpg", "foreign marker.jpg", "empty.jpg", "grey, first half.png"]
)
def test_a_bad_file_harms_no_other(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reading, "BATCH", 8)
    paths = good(tmp_path, 40)
    masks: list[Path | None] = []
    for number in range(40):
        GREY.rotate(number).save(tmp_path / f"mask {number}.png")
        masks.append(tmp_path / f"mask {number}.png")
    whole = list(reading.parts(rows_of(paths, masks), range(40), StoreOptions(16, 16, decoder)))
    assert not any(part.broken for part in whole)
    for number in (11, 12, 25, 39):
        paths[number].write_bytes(REFUSED[name][0])
    masks[3] = tmp_path / "bad mask.png"
    masks[3].write_bytes(REFUSED["grey, first half.png"][0])
    spoilt = list(reading.parts(rows_of(paths, masks), range(40), StoreOptions(16, 16, decoder)))
    broken = {part.rows[place]: error.path for part in spoilt for place, error in part.broken.items()}
    assert broken == {3: masks[3], **{number: paths[number] for number in (11, 12, 25, 39)}}
    for before, after in zip(whole, spoilt, strict=True):
        for place, row in enumerate(before.rows):
            if row not in broken:
                assert torch.equal(before.images[place], after.images[place])
                np.testing.assert_array_equal(before.masks[place], after.masks[place])
                assert before.digests[place] == after.digests[place]


def test_a_batch_of_bad_files_alone(tmp_path: Path, decoder: Decoder) -> None:
    paths = [tmp_path / name for name in REFUSED]
    for path in paths:
        path.write_bytes(REFUSED[path.name][0])
    (part,) = reading.parts(rows_of(paths[:4]), range(4), StoreOptions(16, 16, decoder))
    assert sorted(part.broken) == list(range(4))
    assert part.images.shape == (4, 16, 16, 3)
    with pytest.raises(
        InputError,
        match=r"empty\.jpg: the file is empty .* \(and 3 more; `sal-fast data check`",
    ):
        store.build(rows_of(paths[:4]), StoreOptions(16, 16, decoder))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: truncate(root / "images/red/004.jpg"), r"red/004\.jpg: .*truncated"),
        (lambda root: truncate(root / "masks/red/004.png"), r"masks/red/004\.png"),
        (lambda root: (root / "images/red/004.jpg").write_bytes(b""), r"red/004\.jpg: the file is empty"),
        (lambda root: (root / "images/red/004.jpg").write_bytes(b"<html>"), r"red/004\.jpg: a web page"),
        (
            lambda root: (root / "masks/red/004.png").write_bytes(animated("GIF")),
            r"masks/red/004\.png: 2 pictures in one file",
        ),
        (
            lambda root: Image.new("L", (40, 30)).save(root / "masks/red/004.png"),
            r"mask is 40x30, its image 40x40: the aspect ratios differ by 33%",
        ),
    ],
)
def test_bad_files_are_named(folder: Path, decoder: Decoder, spoil: Callable, message: str) -> None:
    spoil(folder)
    samples = splits.assign(load_table(str(folder)), seeds.stream(0, "split"))
    with pytest.raises(InputError, match=message):
        store.build(samples, StoreOptions(32, 32, decoder))
    found = check.look(str(folder))
    assert len(found.problems) == len(found.reasons) == 1
    assert len(found.rows["mis-sized mask"]) == ("aspect" in message)


def test_the_decoders_agree_to_the_bit(tmp_path: Path) -> None:
    paths = good(tmp_path / "good", 30)
    for name, data in READABLE.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    batches = []
    for name in ("pillow", "torch", *["dali"] * decode.has_dali()):
        decoder = decode.choose(name, CPU)  # type: ignore[arg-type]
        masks = [path for path in paths if "orientation" not in path.name]
        batches.append(
            (reading.pictures(paths, 24, decoder), [decoder.grades([files.read(path)])[0] for path in masks])
        )
        decoder.close()
    for images, masks in batches[1:]:
        assert torch.equal(images, batches[0][0])
        for ours, theirs in zip(masks, batches[0][1], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_decoder_serves_several_at_once(tmp_path: Path, decoder: Decoder) -> None:
    paths = good(tmp_path, 40)
    expected = reading.pictures(paths, 16, decoder)
    groups = [list(range(at, at + 8)) for at in range(0, 40, 4) if at + 8 <= 40]
    wrong: list[object] = []

    def read_all(start: int) -> None:
        try:
            turn = groups[start:] + groups[:start]
            batches = reading.ahead(
                reading.pictures([paths[row] for row in rows], 16, decoder) for rows in turn * 3
            )
            for rows, batch in zip(turn * 3, batches, strict=True):
                if not torch.equal(batch, expected[rows]):
                    wrong.append(rows)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read_all, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_read_ahead_ends_with_its_reader() -> None:
    def reader(leave: Callable[[], None]) -> None:
        for number in reading.ahead(iter(range(10**9))):
            if number == 5:
                leave()
                return

    def raises() -> None:
        raise KeyError("the consumer's own")

    def failing() -> Any:
        yield 1
        raise MemoryError("the maker's own")

    before = threading.active_count()
    reader(lambda: None)
    with pytest.raises(KeyError, match="the consumer's own"):
        reader(raises)
    made = reading.ahead(failing())
    assert next(made) == 1
    with pytest.raises(MemoryError, match="the maker's own"):
        next(made)
    reading.ahead(range(3)).close()  # never begun
    assert threading.active_count() == before


def test_no_descriptor_is_left_open(tmp_path: Path, decoder: Decoder) -> None:
    paths = good(tmp_path, 10)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(REFUSED["first half.jpg"][0])

    def work() -> None:
        for _ in reading.parts(rows_of([*paths, bad]), range(11), StoreOptions(8, 8, decoder)):
            pass

    work()
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(5):
            work()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_jpeg_header_that_its_bytes_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Fewer pixels than the limit, but far more than the bytes: minutes of grey, if it were decoded."""
    encoded = io.BytesIO()
    Image.new("L", (16, 16)).save(encoded, "JPEG")
    data = bytearray(encoded.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 13_000, 13_000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    with pytest.raises(Unreadable, match=r"claims 13000x13000 pixels, which \d+ bytes cannot hold"):
        files.read(tmp_path / "bomb.jpg")
    Image.new("L", (4000, 4000)).save(tmp_path / "blank.jpg", optimize=True, progressive=True)
    assert files.read(tmp_path / "blank.jpg").size == (4000, 4000)
