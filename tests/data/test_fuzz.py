"""Damaged JPEG and PNG files, as images and as masks: pixels, or a name and a reason; never a dead process.

The long tier decodes 2,000 of them in processes of their own, whose exit status tells of a crash.
"""

from __future__ import annotations

import collections
import hashlib
import io
import itertools
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sal_fast.data import StoreOptions, check, decode, load_table, reading
from sal_fast.data.files import ORIENTATION

CPU = torch.device("cpu")
WIDTH, HEIGHT = 48, 36
SIDES = (0, 1, 7, WIDTH - 1, WIDTH + 1, 2 * WIDTH, 3000, 65535)  # that a header is made to claim
CHILD = """
import json, sys
from pathlib import Path
from test_fuzz import outcomes
Path(sys.argv[3]).write_text(json.dumps(outcomes(sys.argv[1], sys.argv[2])))
"""


def pictures() -> list[tuple[str, bytes]]:
    """Whole files of every kind that a fast decoder may take, and some that only Pillow takes."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2)[..., None] * np.array([1, 2, 3])
    colours = (smooth + rng.integers(0, 30, (HEIGHT, WIDTH, 3))).astype(np.uint8)
    grey = Image.fromarray(colours[..., 0])
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    image = Image.fromarray(colours)
    kinds: list[tuple[Image.Image, str, dict]] = [
        (image, "jpg", {"quality": 90}),
        (image, "jpg", {"progressive": True}),
        (image, "jpg", {"subsampling": 0, "restart_marker_rows": 1}),
        (image, "jpg", {"exif": turned}),
        (image.convert("CMYK"), "jpg", {}),
        (grey, "jpg", {}),
        (grey.point(lambda value: 255 * (value > 128)), "jpg", {}),
        (image, "png", {}),
        (image.convert("RGBA"), "png", {}),
        (image.quantize(), "png", {}),
        (grey, "png", {}),
        (grey, "png", {"exif": turned, "compress_level": 0}),
        (grey.point(lambda value: 255 * (value > 128)), "png", {}),
        (grey.convert("1"), "png", {}),
        (Image.fromarray(colours[..., 0].astype(np.uint16) * 200), "png", {}),
    ]
    out = []
    for picture, suffix, options in kinds:
        data = io.BytesIO()
        picture.save(data, {"jpg": "JPEG", "png": "PNG"}[suffix], **options)
        out.append((suffix, data.getvalue()))
    return out


def chunks(data: bytes) -> list[bytes]:
    """A PNG's, each whole; the signature first."""
    out, at = [data[:8]], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        out.append(data[at : at + length + 12])
        at += length + 12
    return out


def segments(data: bytes) -> list[bytes]:
    """A JPEG's up to its first scan, and what follows."""
    out, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        out.append(data[at : at + length + 2])
        at += length + 2
    return [*out, data[at:]]


def mended(chunk: bytes) -> bytes:
    """A chunk with the checksum of what it holds, so that the damage is met further in."""
    return struct.pack(">I", len(chunk) - 12) + chunk[4:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4]))


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(1, len(data))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        out[at] ^= 1 << rng.integers(0, 8)
    return bytes(out)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(0, len(data))
    return data[:at] + rng.bytes(16) + data[at + 16 :]


def delete(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(0, len(data))
    return data[:at] + data[at + rng.integers(1, 40) :]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(0, len(data))
    return data[:at] + rng.bytes(rng.integers(1, 40)) + data[at:]


def swap(data: bytes, rng: np.random.Generator) -> bytes:
    """Two parts change places, or one stands twice."""
    parts = chunks(data) if data[:4] == b"\x89PNG" else segments(data)
    first, second = rng.integers(1, len(parts), 2)
    if first == second:
        parts.insert(first, parts[first])
    parts[first], parts[second] = parts[second], parts[first]
    return b"".join(parts)


def header(data: bytes, rng: np.random.Generator) -> bytes:
    """Another size, depth or number of channels, as if it had always been so."""
    png = data[:4] == b"\x89PNG"
    parts = chunks(data) if png else segments(data)
    for place, part in enumerate(parts):
        if png and part[4:8] == b"IHDR":
            out = bytearray(part)
            at = rng.choice([8, 12, 16, 17, 20])
            if at < 16:
                out[at : at + 4] = struct.pack(">I", int(rng.choice(SIDES)))
            else:
                out[at] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16])
            parts[place] = mended(bytes(out))
        elif not png and part[0] == 0xFF and part[1] in (0xC0, 0xC2):
            out = bytearray(part)
            at = rng.choice([4, 5, 7, 9, 11])
            if at in (5, 7):
                out[at : at + 2] = struct.pack(">H", int(rng.choice(SIDES)))
            else:
                out[at] = rng.choice([0, 1, 2, 3, 4, 8, 12, 0x11, 0x21, 0x22, 0x41])
            parts[place] = bytes(out)
    return b"".join(parts)


def inside(data: bytes, rng: np.random.Generator) -> bytes:
    """One chunk's or segment's contents, lengths and checksums being right."""
    if data[:4] != b"\x89PNG":
        parts = segments(data)
        place = rng.integers(1, len(parts))
        parts[place] = parts[place][:4] + flip(parts[place][4:], rng)
        return b"".join(parts)
    parts = chunks(data)
    place = rng.integers(1, len(parts) - 1)
    parts[place] = mended(parts[place][:8] + flip(parts[place][8:-4], rng) + b"\0\0\0\0")
    return b"".join(parts)


MUTATIONS: list[Callable[[bytes, np.random.Generator], bytes]]
MUTATIONS = [cut, flip, overwrite, delete, insert, swap, header, inside]


def write_damaged(root: Path, count: int, seed: int) -> Path:
    """A folder of `count` damaged files, every other one a mask, each named after what was done to it."""
    rng = np.random.default_rng(seed)
    whole = pictures()
    for folder in ("images/image", "images/mask", "masks/mask"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    good = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(good, "PNG")
    for number in range(count):
        suffix, data = whole[number // 2 % len(whole)]
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        stem = f"{number:05d}-{mutation.__name__}"
        kind = "images/image" if number % 2 else "masks/mask"
        (root / kind / f"{stem}.{suffix}").write_bytes(mutation(data, rng))
        if not number % 2:
            (root / "images/mask" / f"{stem}.png").write_bytes(good.getvalue())
    return root


def outcomes(root: str, how: str) -> dict[str, str]:
    """By id: a digest of the pixels, or `refused: ` and the reason. `how`: a decoder, or check.

    Files go one by one, or one that DALI cannot decode would have Pillow decode its neighbours too.
    """
    table = load_table(root)
    if how == "check":
        found = check.look(root)
        bad = found.reasons
        return {table.ids[row]: f"refused: {reason}" for row, reason in bad.items()}
    out = {}
    decoder = decode.choose(how, CPU)  # type: ignore[arg-type]
    rows = [[row] for row in range(len(table))]
    for part in itertools.chain.from_iterable(
        reading.parts(table, row, StoreOptions(24, 24, decoder)) for row in rows
    ):
        for place, row in enumerate(part.rows):
            mask = part.masks[place]
            pixels = part.images[place].numpy().tobytes() + (b"" if mask is None else mask.tobytes())
            error = part.broken.get(place)
            out[table.ids[row]] = hashlib.sha256(pixels).hexdigest() if error is None else f"refused: {error}"
    return out


def compare(root: Path, found: dict[str, dict[str, str]]) -> None:
    """All say what Pillow says of every file, and name it where they refuse it."""
    table = load_table(str(root))
    refused = {name for name, outcome in found["pillow"].items() if outcome.startswith("refused")}
    count = {name: collections.Counter() for name in ("accepted", "refused")}  # type: ignore[var-annotated]
    for name in found["pillow"]:
        count["refused" if name in refused else "accepted"][name.rpartition("-")[2]] += 1
    reasons = collections.Counter(found["pillow"][name].partition(": ")[2][-40:] for name in refused)
    print(f"\n{len(table)} files, {len(refused)} refused; by mutation", json.dumps(count, indent=1))
    print("\n".join(f"{times:5d} {reason}" for reason, times in reasons.most_common(40)))
    differ = {
        f"{name}, {how}": (outcome[-60:], found[how][name][-60:])
        for name, outcome in found["pillow"].items()
        for how in found.keys() - {"pillow", "check"}
        if outcome != found[how][name]
    }
    print(f"{len(differ)} that others and Pillow take differently", json.dumps(differ, indent=1))
    for row, name in enumerate(table.ids):
        outcome = found["pillow"][name]
        if name in refused:
            damaged = table.masks[row] or table.images[row]
            path, _, reason = outcome.removeprefix("refused: ").partition(": ")
            assert path == str(damaged)
            assert reason.strip()
    if "check" in found:
        assert set(found["check"]) == refused
    assert not differ


HAS_DALI = decode.has_dali()


@pytest.mark.filterwarnings("ignore")  # as outside of tests: `files` ignores what Pillow warns of
def test_two_hundred_damaged_files(tmp_path: Path) -> None:
    root = write_damaged(tmp_path / "damaged", 200, seed=1)
    found = {how: outcomes(str(root), how) for how in ("pillow", "torch", *["dali"] * HAS_DALI)}
    compare(root, found)


@pytest.mark.full
def test_two_thousand_damaged_files(tmp_path: Path) -> None:
    root = write_damaged(tmp_path / "damaged", 2000, seed=2)
    found = {}
    for how in ("pillow", "torch", "check", *["dali"] * HAS_DALI):
        out = tmp_path / f"{how}.json"
        done = subprocess.run(
            [sys.executable, "-c", CHILD, root, how, out],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[how] = json.loads(out.read_text())
    compare(root, found)
