"""A prepared folder gives what the originals give, is continued after any end, and decodes nothing twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_runs import TINY, arguments, command, kept, rounds
from PIL import Image
from torch import Tensor

from sal_fast.cli import main
from sal_fast.data import (
    Keep,
    StoreOptions,
    check,
    decode,
    load,
    load_table,
    open_store,
    plan_store,
    prepare,
    reading,
    store,
)
from sal_fast.data.decode import Decoder
from sal_fast.data.decode.torch import TorchDecoder
from sal_fast.data.files import Encoded, Unreadable
from sal_fast.data.prepare import BLOCK
from sal_fast.data.prepared import PreparedTable, Recipe
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run

CPU = torch.device("cpu")
SIZE = 32
BINS = ("images.bin", "masks.bin", "graded.bin")


@pytest.fixture
def pool(folder: Path) -> Path:
    """Thirty images: two maps graded, one drawn by two annotators, two missing; one image that is a PNG."""
    for index in (0, 7):
        Image.linear_gradient("L").resize((40, 40)).save(folder / f"masks/green/{index:03d}.png")
    several = folder / "masks/blue/003"
    several.mkdir()
    (folder / "masks/blue/003.png").rename(several / "a.png")
    Image.new("L", (40, 40), 255).save(several / "b.png")
    (folder / "masks/red/001.png").unlink()
    (folder / "masks/red/009.png").unlink()
    Image.open(folder / "images/red/004.jpg").save(folder / "images/red/004.png")
    (folder / "images/red/004.jpg").unlink()
    return folder


class Counting(TorchDecoder):
    """Counts the images that it decodes, by name."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.decoded: Counter[str] = Counter()
        self.before = lambda: None

    def images(self, batch: Sequence[Encoded], out: Tensor, places: Sequence[int]) -> dict[int, Unreadable]:
        self.before()
        self.decoded.update(f"{file.path.parent.name}/{file.path.stem}" for file in batch)
        return super().images(batch, out, places)


@pytest.fixture
def decoder() -> Iterator[Counting]:
    counting = Counting()
    yield counting
    counting.close()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 samples, 8 between two flushes."""
    monkeypatch.setattr(reading, "BATCH", 4)
    monkeypatch.setattr(prepare, "BLOCK", 8)


def prepared(
    pool: Path, out: Path, decoder: Decoder, copy: bool = True, size: int = SIZE
) -> list[Unreadable]:
    return prepare.prepare(load_table(str(pool)), out, Recipe(size, size, copy), decoder)


def opened(data: Path, decoder: Decoder, keep: Keep = "resident") -> store.Store:
    table = load_table(str(data))
    return open_store(table, plan_store(table, StoreOptions(SIZE, SIZE, decoder, keep)))


def same(ours: store.Store, theirs: store.Store) -> None:
    assert ours.fingerprint == theirs.fingerprint
    assert ours.table.ids == theirs.table.ids
    assert ours.table.classes == theirs.table.classes
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.has_mask, theirs.has_mask)
    rows = torch.arange(len(ours.table))
    assert torch.equal(ours.masks.unpack(rows), theirs.masks.unpack(rows))
    assert torch.equal(ours.masks.place, theirs.masks.place)
    groups = rows.flip(0).split(7)
    for one, other in zip(ours.views(groups), theirs.views(groups), strict=True):
        assert torch.equal(one, other)


def touch(path: Path) -> None:
    there = path.stat()
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns + 10**9))


def invert(path: Path) -> None:
    pixels = 255 - np.array(Image.open(path))
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    touch(path)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()[1:]]


@pytest.mark.parametrize("keep", ["resident", "stream"])
@pytest.mark.parametrize("copy", [True, False])
def test_the_store_of_the_originals(
    copy: bool, keep: Keep, pool: Path, decoder: Counting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert prepared(pool, out, decoder, copy) == []
    assert (out / "images.bin").exists() == copy
    before = decoder.decoded.total()
    assert before == 30
    ours = opened(out, decoder, keep)
    list(ours.views([torch.arange(30)]))
    assert (decoder.decoded.total() == before) == copy  # a copy is all that a run needs
    theirs = opened(pool, decoder, keep)
    assert len(theirs.masks.graded) == 3
    same(ours, theirs)


@pytest.mark.full
@pytest.mark.parametrize(("copy", "keep"), [("True", "auto"), ("False", "resident"), ("False", "stream")])
def test_the_run_of_the_originals(copy: str, keep: Keep, pool: Path, tmp_path: Path) -> None:
    options = {**TINY, "epochs": 1, "stop_fraction": 0.5, "augment": "standard", "store": keep}
    ready = tmp_path / "ready"
    assert main(prepare_words(pool, ready, augment="standard", copy=copy)) == 0
    whole = run(Config.of({**options, "data": str(pool), "out": str(tmp_path / "whole")})).path
    quick = run(Config.of({**options, "data": str(ready), "out": str(tmp_path / "quick")})).path
    assert rounds(quick) == rounds(whole)
    assert kept(quick) == kept(whole)
    of = [json.loads((out / "run.json").read_text()) for out in (quick, whole)]
    assert of[0]["data"] == of[1]["data"]


def test_a_run_that_wants_other_sizes_is_refused(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = tmp_path / "ready"
    assert main(prepare_words(pool, ready, augment="standard")) == 0
    assert "30 samples, for --image-size 32 --augment standard" in " ".join(capsys.readouterr().out.split())
    words = arguments(data=ready, out=tmp_path / "other", augment="none")
    assert main(["run", *words]) == 2
    assert "prepared for --image-size 32, images kept at 37 px; this run needs 32 and 32" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "other" / "run.json").exists()


def test_repeated_nothing_is_decoded_or_written(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(pool, out, decoder)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in out.iterdir()}
    prepared(pool, out, decoder)
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in out.iterdir()} == before
    assert set(decoder.decoded.values()) == {1}


def test_what_has_changed_is_decoded_again(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    """An image; a graded map made binary, a binary one graded; a new annotator; a new and a lost sample."""
    out = tmp_path / "out"
    prepared(pool, out, decoder)
    decoder.decoded.clear()
    invert(pool / "images/red/002.jpg")
    shutil.copy(pool / "masks/green/001.png", pool / "masks/green/007.png")
    Image.linear_gradient("L").resize((40, 40)).save(pool / "masks/blue/008.png")
    Image.new("L", (40, 40)).save(pool / "masks/blue/003/c.png")
    shutil.copy(pool / "images/blue/000.jpg", pool / "images/blue/new.jpg")
    (pool / "images/green/005.jpg").unlink()
    assert prepared(pool, out, decoder) == []
    changed = {"red/002", "green/007", "blue/008", "blue/003", "blue/new"}
    assert decoder.decoded == Counter(changed)
    same(opened(out, decoder), opened(pool, decoder))


def test_touched_and_moved_files_are_compared(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(pool, out, decoder, copy=False)
    for path in pool.rglob("*.*"):
        touch(path)
    with pytest.raises(InputError, match=r"blue/000\.jpg: it or its mask has changed since"):
        opened(out, decoder)
    (tmp_path / "elsewhere").mkdir()
    pool = pool.rename(tmp_path / "elsewhere" / pool.name)
    decoder.decoded.clear()
    prepared(pool, out, decoder, copy=False)
    assert not decoder.decoded
    same(opened(out, decoder), opened(pool, decoder))


def test_files_that_change_places(tmp_path: Path, decoder: Counting) -> None:
    """Of one size and time: the manifest alone says which is whose."""
    for name, value in (("a", 50), ("b", 200)):
        Image.new("RGB", (20, 20), (value, 0, 0)).save(tmp_path / f"{name}.bmp")
        os.utime(tmp_path / f"{name}.bmp", (0, 0))
    manifest, out = tmp_path / "list.csv", tmp_path / "out"
    manifest.write_text("id,image,label\na,a.bmp,x\nb,b.bmp,y\n")
    prepared(manifest, out, decoder)
    manifest.write_text("id,image,label\na,b.bmp,x\nb,a.bmp,y\n")
    prepared(manifest, out, decoder)
    same(opened(out, decoder), opened(manifest, decoder))


def test_a_changed_label_decodes_nothing(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    manifest, out = tmp_path / "list.csv", tmp_path / "out"
    head = "id,image,label\n"
    rows = [f"{index},{pool}/images/red/{index:03d}.jpg,{index % 2}\n" for index in range(4)]
    manifest.write_text(head + "".join(rows))
    prepared(manifest, out, decoder)
    decoder.decoded.clear()
    manifest.write_text(head + "".join(rows[:3]) + rows[3].replace(",1\n", ",other\n"))
    prepared(manifest, out, decoder)
    assert not decoder.decoded
    assert load_table(str(out)).classes == ["0", "1", "other"]


def test_no_copy_notices_changed_originals(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(pool, out, decoder, copy=False)
    opened(out, decoder)
    invert(pool / "masks/red/000.png")
    with pytest.raises(InputError, match=r"red/000\.jpg: it or its mask has changed since .* repeat"):
        opened(out, decoder)
    (pool / "masks/red/000.png").unlink()
    with pytest.raises(InputError, match=r"red/000\.jpg: it or its mask has changed"):
        opened(out, decoder)


def test_bad_files_are_listed_and_the_good_ones_kept(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (pool / "images/red/000.jpg").write_bytes(b"")
    mask = pool / "masks/blue/002.png"
    mask.write_bytes(mask.read_bytes()[:40])
    Image.new("L", (40, 20)).save(pool / "masks/green/004.png")
    counting = Counting()
    monkeypatch.setattr(counting, "close", lambda: None)
    monkeypatch.setattr(decode, "choose", lambda name, device: counting)
    words = prepare_words(pool, out, allow_leaks=True)  # one of the images is mended by a copy of another
    assert main(words) == 2
    said = capsys.readouterr()
    for part in ("red/000.jpg: the file is empty", "blue/002.png: ", "green/004.png: the mask is 40x20"):
        assert part in said.out
    assert said.err.splitlines()[-1] == (
        "sal-fast: error: 3 of 30 samples cannot be used (see above); mend or remove their files, "
        "then repeat the command: the others are kept"
    )
    assert len(lines(out)) == 27
    with pytest.raises(InputError, match="is not prepared to its end"):
        load_table(str(out))
    counting.decoded.clear()
    shutil.copy(pool / "images/red/002.jpg", pool / "images/red/000.jpg")
    mask.unlink()
    (pool / "images/green/004.jpg").unlink()
    assert main(words) == 0
    assert counting.decoded == Counter(["red/000", "blue/002"])
    same(opened(out, counting), opened(pool, counting))


def test_a_batch_of_bad_files_alone(
    pool: Path, decoder: Counting, tmp_path: Path, small_blocks: None
) -> None:
    for path in (pool / "images/blue").iterdir():
        path.write_bytes(b"<html>")
    broken = prepared(pool, tmp_path / "out", decoder)
    assert [error.path.parent.name for error in broken] == ["blue"] * 10
    assert len(lines(tmp_path / "out")) == 20


def test_not_finished_while_something_new_is_bad(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    """A finished folder, and a table that has changed since: what it told of before is not a run's data."""
    out = tmp_path / "out"
    prepared(pool, out, decoder)
    (pool / "images/red/new.jpg").write_bytes(b"")
    assert len(prepared(pool, out, decoder)) == 1
    with pytest.raises(InputError, match="is not prepared to its end"):
        load_table(str(out))
    (pool / "images/red/new.jpg").unlink()
    prepared(pool, out, decoder)
    assert set(decoder.decoded.values()) == {1}
    same(opened(out, decoder), opened(pool, decoder))


def test_killed_between_any_two_files(
    pool: Path, decoder: Counting, tmp_path: Path, small_blocks: None
) -> None:
    """What a kill or a loss of power can leave: longer files, a torn line, and no index of them."""
    whole = tmp_path / "whole"
    prepared(pool, whole, decoder)
    expected = opened(whole, decoder)
    index = (whole / "index.jsonl").read_bytes().splitlines(keepends=True)
    for known in (0, 1, 9, 30):
        for torn in (b"", b"{", index[-1][:-1], b"\0" * 50):
            out = tmp_path / f"{known}-{len(torn)}"
            shutil.copytree(whole, out)
            (out / "index.jsonl").write_bytes(b"".join(index[: 1 + known]) + torn)
            for name in ("table.parquet", "prepared.json"):
                (out / name).unlink()
            with open(out / "images.bin", "ab") as file:
                file.write(b"half an image")
            decoder.decoded.clear()
            assert prepared(pool, out, decoder) == []
            assert decoder.decoded.total() == 30 - known
            assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in BINS)
            same(opened(out, decoder), expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted(
    error: type[BaseException], pool: Path, decoder: Counting, tmp_path: Path, small_blocks: None
) -> None:
    """All that was decoded is kept, whatever the block."""

    def stop() -> None:
        if decoder.decoded.total() == 12:
            raise error

    decoder.before = stop
    with pytest.raises(error):
        prepared(pool, tmp_path / "out", decoder)
    decoder.before = lambda: None
    prepared(pool, tmp_path / "out", decoder)
    assert set(decoder.decoded.values()) == {1}
    same(opened(tmp_path / "out", decoder), opened(pool, decoder))


class Killed(BaseException):
    """From here on nothing is written: neither what was to come nor what tidies up."""


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.full)])
def test_killed_before_every_write(
    step: int,
    pool: Path,
    decoder: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_blocks: None,
) -> None:
    """Each writing of bytes, flush and change of names is once the first thing that is not done.

    In steps of 4 it is every fourth of them.
    """
    left = 0

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return function(*arguments, **options)

        return wrapped

    expected = opened(pool, decoder)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it takes its time
    for owner, name in ((prepare, "_write"), (os, "fsync"), (os, "replace"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, before(getattr(owner, name)))
    number, killed = 1 - step, True
    while killed:
        number += step
        out = tmp_path / f"out-{number}"
        decoder.decoded.clear()
        left, killed = number, False
        try:
            prepared(pool, out, decoder)
        except Killed:
            killed = True
        left = sys.maxsize
        assert prepared(pool, out, decoder) == []
        assert decoder.decoded.total() <= 30 + prepare.BLOCK
        same(opened(out, decoder), expected)
    assert number > 40


# Kills itself in the n-th batch, or at the n-th flush.
SUICIDE = """
import os, signal, sys
batches, flushes = int(sys.argv.pop(1)), int(sys.argv.pop(1))
def before(function, left):
    def wrapped(*arguments):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
from sal_fast.data import prepare, reading
from sal_fast.data.decode.base import Decoder
reading.BATCH, prepare.BLOCK = 4, 8
Decoder.images = before(Decoder.images, batches)
os.fsync = before(os.fsync, flushes)
from sal_fast.cli import main
sys.exit(main(sys.argv[1:]))
"""


def prepare_words(pool: Path, out: Path, **options: object) -> list[str]:
    words = {"data": pool, "out": out, "image_size": SIZE, **options}
    return [
        "data",
        "prepare",
        *(x for name, value in words.items() for x in (f"--{name.replace('_', '-')}", str(value))),
    ]


@pytest.mark.full
def test_killed_as_a_process(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    """And two at once, which begin and end as they like."""
    out = tmp_path / "out"
    for batches, flushes, known in ((3, 0, 8), (0, 8, 16), (3, 0, 24)):
        status = subprocess.run(
            [sys.executable, "-P", "-c", SUICIDE, str(batches), str(flushes), *prepare_words(pool, out)],
            check=False,
        ).returncode
        assert status == -signal.SIGKILL
        assert len(lines(out)) == known
    processes = [command(*prepare_words(pool, out)) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    statuses = [process.returncode for process in processes]
    assert sorted(statuses) in ([0, 0], [0, 2])
    assert all(("in use by another" in error) == bool(s) for error, s in zip(said, statuses, strict=True))
    same(opened(out, decoder), opened(pool, decoder))


def test_a_disk_that_fills_up(
    pool: Path, decoder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    """A write is refused half-way: what was decoded before it is kept."""
    write, left = prepare._write, 13  # each part of 4 samples has four writes

    def refused(file, values: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        write(file, values)

    monkeypatch.setattr(prepare, "_write", refused)
    with pytest.raises(OSError, match="No space left"):
        prepared(pool, tmp_path / "out", decoder)
    assert len(lines(tmp_path / "out")) == 12
    prepared(pool, tmp_path / "out", decoder)
    assert decoder.decoded.total() == 30 + 4
    same(opened(tmp_path / "out", decoder), opened(pool, decoder))


def test_what_could_not_be_flushed_does_not_count(
    pool: Path, decoder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    """The system reports a lost write once: a second fsync succeeds."""
    fsync, left = os.fsync, 14

    def refused(handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="No space left"):
        prepared(pool, tmp_path / "out", decoder)
    assert len(lines(tmp_path / "out")) % 8 == 0
    assert len(lines(tmp_path / "out")) < decoder.decoded.total()


def test_a_full_disk_is_one_line(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real file system: too small at first sight, then filled by graded maps, then large enough."""
    pool = make_folder(tmp_path / "pool", per_class=30)
    for path in (pool / "masks").rglob("*.png"):
        Image.linear_gradient("L").resize((40, 40)).save(path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        assert main(prepare_words(pool, disk / "large", image_size=128)) == 2
        assert "GB are free; choose an --out elsewhere" in capsys.readouterr().err.splitlines()[-1]
        words = prepare_words(pool, disk / "out", image_size=128, copy=False, allow_leaks=True)
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            "sal-fast: error: the disk is full; what is finished is kept: free some space and repeat the "
            "command"
        )
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        assert main(words) == 0
        ours = open_store(load_table(str(disk / "out")), StoreOptions(128, 128, Counting(), "stream"))
        theirs = open_store(load_table(str(pool)), StoreOptions(128, 128, Counting(), "stream"))
        assert torch.equal(ours.masks.graded, theirs.masks.graded)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_in_use(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out, second = tmp_path / "out", Counting()

    def meanwhile() -> None:
        with pytest.raises(InputError, match="in use by another process"):
            prepared(pool, out, second)

    decoder.before = meanwhile
    prepared(pool, out, decoder)
    assert not second.decoded
    prepared(pool, out, second)
    second.close()


def test_refused(pool: Path, decoder: Counting, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"holds other files \(images, \.\.\.\)"):
        prepared(pool, pool, decoder)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"is no folder"):
        prepared(pool, tmp_path / "file", decoder)
    prepared(pool, out, decoder)
    with pytest.raises(InputError, match=r"begun for something else \(image_size 32 there, 40 asked, stored"):
        prepared(pool, out, decoder, size=40)
    with pytest.raises(InputError, match=r"begun for something else \(copy True there, False asked\)"):
        prepared(pool, out, decoder, copy=False)
    with pytest.raises(InputError, match=r"begun for something else \(data 'pool' there, 'birds' asked\)"):
        prepared(make_folder(tmp_path / "birds"), out, decoder)
    with pytest.raises(InputError, match=r"is prepared for --image-size 32, images kept at 32 px; this run"):
        open_store(load_table(str(out)), StoreOptions(SIZE, 40, decoder))
    with pytest.raises(InputError, match="is prepared already"):
        check.look(str(out))
    assert main(["data", "prepare", "--data", str(out), "--out", str(tmp_path / "again")]) == 2


@pytest.mark.parametrize("name", BINS)
def test_lost_or_cut_files_are_noticed(name: str, pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(pool, out, decoder)
    os.truncate(out / name, 100)
    with pytest.raises(InputError, match=rf"{name} has 100 bytes, the index tells of"):
        opened(out, decoder)
    with pytest.raises(InputError, match=rf"{name} has 100 bytes, the index tells of"):
        prepared(pool, out, decoder)
    assert (out / name).stat().st_size == 100
    (out / name).unlink()
    with pytest.raises(InputError, match="prepare another folder"):
        prepared(pool, out, decoder)


def test_a_damaged_index(pool: Path, decoder: Counting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(pool, out, decoder)
    index = (out / "index.jsonl").read_bytes().splitlines(keepends=True)
    (out / "index.jsonl").write_bytes(b"".join([*index[:3], b"{}\n", *index[4:]]))
    with pytest.raises(InputError, match=r"line 4: damaged"):
        prepared(pool, out, decoder)
    (out / "index.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"line 1: damaged"):
        prepared(pool, out, decoder)


def test_odd_names_relative_and_home_paths(
    shared_folder: Path,
    decoder: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A manifest whose images lie elsewhere; ids with line breaks, quotes, commas and what is not ASCII."""
    source = shared_folder / "images/red/000.jpg"
    names = ['a "quoted", id', "línea\nnext", "naïve/鳥 #1", "tab\tid", "{}"]
    far = tmp_path / "far ü"
    far.mkdir()
    rows = []
    for index, name in enumerate(names):
        shutil.copy(source, far / f"{index}.jpg")
        quoted = name.replace('"', '""')
        rows.append(f'"{quoted}",{far}/{index}.jpg,"{quoted}"')
    home = tmp_path / "home"
    home.mkdir()
    (home / "list.csv").write_text("id,image,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    size = ["--image-size", str(SIZE), "--allow-leaks", "True"]
    assert main(["data", "prepare", "--data", "~/list.csv", "--out", "~/ready", *size]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["data", "prepare", "--data", "home/list.csv", "--out", "home/ready", *size]) == 0
    assert "5 samples, 5 prepared before" in capsys.readouterr().err
    assert load_table("~/ready").ids == sorted(names)
    same(opened(Path("home/ready"), decoder), opened(Path("home/list.csv"), decoder))


def test_a_folder_by_a_relative_path(
    pool: Path, decoder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pool.parent)
    prepared(Path(pool.name), Path("out"), decoder, copy=False)
    monkeypatch.chdir("/")
    same(opened(pool.parent / "out", decoder), opened(pool, decoder))


def test_a_name_that_is_not_utf8(tmp_path: Path, decoder: Counting, make_folder: Callable[..., Path]) -> None:
    odd = make_folder(tmp_path / os.fsdecode(b"caf\xe9"), per_class=1)
    with pytest.raises(InputError, match="the name is not UTF-8"):
        prepared(odd, tmp_path / "out", decoder)
    assert not (tmp_path / "out").exists()


def test_a_mask_folder_that_cannot_be_looked_into(
    pool: Path, decoder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Path.iterdir

    def guarded(path: Path) -> Iterator[Path]:
        if path.name == "003":
            raise PermissionError(13, "Permission denied")
        return inside(path)

    table = load_table(str(pool))
    monkeypatch.setattr(Path, "iterdir", guarded)
    broken = prepare.prepare(table, tmp_path / "out", Recipe(SIZE, SIZE, True), decoder)
    assert [str(error) for error in broken] == [f"{pool}/masks/blue/003: Permission denied"]


def test_memory_of_maps_is_checked(
    pool: Path, decoder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped images take none; maps do."""
    prepared(pool, tmp_path / "out", decoder)
    monkeypatch.setattr(load, "free_memory", lambda device: 30 * SIZE * 4)
    opened(tmp_path / "out", decoder)
    monkeypatch.setattr(load, "free_memory", lambda device: 30 * SIZE * 4 - 1)
    with pytest.raises(InputError, match="30 images at 32 px, resident, need"):
        opened(tmp_path / "out", decoder)


def test_batches_are_bounded_in_bytes(pool: Path, decoder: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are not read 64 at a time; one that is larger than the bound is read alone."""
    table = load_table(str(pool))
    sizes = [sum(path.stat().st_size for path in reading.sources(table, row)) for row in range(30)]
    for bound in (1, max(sizes) + min(sizes)):
        monkeypatch.setattr(reading, "READ", bound)
        rows = [part.rows for part in reading.parts(table, range(30), StoreOptions(SIZE, SIZE, decoder))]
        assert [row for part in rows for row in part] == list(range(30))
        assert all(len(part) == 1 or sum(sizes[row] for row in part) <= bound for part in rows)
    assert max(len(part) for part in rows) > 1


class Counted:
    """The command as a process that counts decoded images and says its peak memory at its end."""

    CODE = """
import atexit, re, sys
log = open(sys.argv.pop(1), "a")
from sal_fast.data.decode.base import Decoder
images = Decoder.images
def counted(self, batch, out, places):
    print(len(batch), file=log, flush=True)
    return images(self, batch, out, places)
Decoder.images = counted
from sal_fast.cli import main
status = main(sys.argv[1:])
with open("/proc/self/status") as file:  # of this program alone: getrusage knows what forked it, too
    print("peak", int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1]) * 1024)
sys.exit(status)
"""

    def __init__(self, log: Path) -> None:
        self.log = log

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", self.CODE, str(self.log), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def decoded(self) -> int:
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


@pytest.mark.full
def test_a_hundred_thousand_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed in the middle: memory as stated, nothing decoded twice but a block; the figures are printed."""
    pool, out, count = tmp_path / "pool", tmp_path / "out", 100_000
    write_links(pool, count, (64, 48), distinct=50)
    counted = Counted(tmp_path / "log")
    words = prepare_words(pool, out, image_size=64, allow_leaks=True)
    begin = time.perf_counter()
    process = counted.start(*words)
    while counted.decoded < count // 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.kill()
    process.communicate()
    half, before = counted.decoded, time.perf_counter() - begin
    process = counted.start(*words)
    said, error = process.communicate()
    assert process.returncode == 0, error
    seconds = time.perf_counter() - begin
    stated, peak = memory_of(said + error)
    process = counted.start(*words)
    again = time.perf_counter()
    repeated = "".join(process.communicate())
    again = time.perf_counter() - again
    used = sum(path.stat().st_size for path in out.iterdir())
    with capsys.disabled():
        print(
            f"\n{count} files: {seconds:.0f} s, {count / seconds:.0f} a second; killed at {half} after "
            f"{before:.0f} s; decoded {counted.decoded}; peak {peak / 1e6:.0f} MB of {stated / 1e6:.0f} MB "
            f"stated; repeated in {again:.0f} s, peak {memory_of(repeated)[1] / 1e6:.0f} MB; "
            f"disk {used / 1e6:.0f} MB"
        )
    assert peak <= stated
    assert counted.decoded <= count + BLOCK
    assert half < count
    assert process.returncode == 0
    assert f"{count} prepared before" in repeated
    table = load_table(str(out))
    assert len(table) == count
    assert isinstance(table, PreparedTable)
    assert sorted(table.at.tolist()) == list(range(count))


@pytest.mark.full
@pytest.mark.parametrize(
    ("count", "size", "bits"), [(2000, (500, 375), 1), (96, (4000, 3000), 1), (48, (4000, 3000), 16)]
)
def test_memory_of_photographs(
    count: int, size: tuple[int, int], bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_links(tmp_path / "pool", count, size, distinct=4, bits=bits)
    process = Counted(tmp_path / "log").start(
        *prepare_words(tmp_path / "pool", tmp_path / "out", image_size=224, allow_leaks=True)
    )
    begin = time.perf_counter()
    said, error = process.communicate()
    assert process.returncode == 0, error
    stated, peak = memory_of(said + error)
    with capsys.disabled():
        print(
            f"\n{count} of {size[0]}x{size[1]}, masks of {bits} bits: {time.perf_counter() - begin:.0f} s, "
            f"peak {peak / 1e6:.0f} MB of {stated / 1e6:.0f} MB stated"
        )
    assert peak <= stated


def memory_of(said: str) -> tuple[int, int]:
    """What the command stated, and what it took."""
    stated, peak = re.search(r"memory: at most (\d+) MB", said), re.search(r"peak (\d+)", said)
    assert stated is not None
    assert peak is not None
    return int(stated[1]) * 10**6, int(peak[1])


def write_links(root: Path, count: int, size: tuple[int, int], distinct: int, bits: int = 1) -> None:
    """A few pictures under many names."""
    rng = np.random.default_rng(0)
    sources, (width, height) = root / "sources", size
    sources.mkdir(parents=True)
    for index in range(distinct):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8))
        coarse.resize(size, Image.Resampling.BILINEAR).save(sources / f"{index}.jpg", quality=92)
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height // 4 : height // 2 + index, width // 4 : width // 2] = 255
        if bits == 16:
            mask = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint16) * 8
        Image.fromarray(mask).save(sources / f"{index}.png")
    for index in range(count):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            folder = root / kind / f"class {index % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(sources / f"{index % distinct}.{suffix}", folder / f"{index:06d}.{suffix}")
