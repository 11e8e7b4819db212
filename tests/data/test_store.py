"""Files become batches: resident or streamed, by either decoder, every id as asked."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE
from PIL import Image, ImageOps
from torch import Tensor

from sal_fast import seeds
from sal_fast.data import (
    StoreOptions,
    Table,
    augment,
    check,
    decode,
    load,
    load_table,
    open_store,
    plan_store,
    reading,
    splits,
    store,
)
from sal_fast.data.augment import Augmentation
from sal_fast.data.decode.base import Decoder
from sal_fast.errors import InputError

CPU = torch.device("cpu")
DECODERS = ["pillow", "torch", "dali"]


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    chosen = decode.choose(request.param, CPU)
    yield chosen
    chosen.close()


@pytest.fixture(scope="module")
def pillow() -> Iterator[Decoder]:
    chosen = decode.choose("torch", CPU)
    yield chosen
    chosen.close()


def build(root: Path, decoder: Decoder, size: int = 32, stored: int | None = None, keep: Any = "resident"):
    table = splits.assign(load_table(str(root)), seeds.stream(0, "split"))
    return store.build(table, StoreOptions(size, stored or size, decoder, keep))


def planned(table: Table, options: StoreOptions) -> store.Store:
    """The store as a run makes it."""
    return open_store(table, plan_store(table, options))


def test_store_holds_the_files(shared_folder: Path, decoder: Decoder) -> None:
    samples = build(shared_folder, decoder, size=40)
    row = torch.tensor([samples.table.ids.index("green/004")])
    image = Image.open(shared_folder / "images/green/004.jpg")
    assert torch.equal(samples.pictures(row)[0], torch.from_numpy(np.array(image)))
    mask = Image.open(shared_folder / "masks/green/004.png")
    assert torch.equal(samples.masks.unpack(row)[0], torch.from_numpy(np.array(mask)))
    assert samples.has_mask.all()
    assert samples.labels[row] == 1
    assert samples.masks.binary.words.nbytes == 30 * 40 * 2 * 4  # a bit a pixel


def test_resized_as_pillow_does(tmp_path: Path, decoder: Decoder) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, size in enumerate([(50, 37), (120, 90), (33, 200)]):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.jpg", quality=90)
    samples = build(tmp_path, decoder)
    for row, path in enumerate(samples.table.images):
        expected = np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BILINEAR), dtype=np.int64)
        assert np.abs(samples.pictures(torch.tensor([row]))[0].numpy() - expected).max() <= 1


def test_decoders_give_the_same_pixels(shared_folder: Path, decoder: Decoder, pillow: Decoder) -> None:
    ours, theirs = build(shared_folder, decoder), build(shared_folder, pillow)
    rows = torch.arange(len(ours.table))
    assert torch.equal(ours.pictures(rows), theirs.pictures(rows))
    assert torch.equal(ours.masks.binary.words, theirs.masks.binary.words)
    assert ours.fingerprint == theirs.fingerprint


def test_fingerprint_sees_one_pixel(folder: Path, pillow: Decoder) -> None:
    before = build(folder, pillow).fingerprint
    assert build(folder, pillow).fingerprint == before
    path = folder / "masks" / "red" / "000.png"
    mask = np.array(Image.open(path))
    mask[0, 0] ^= 255
    Image.fromarray(mask).save(path)
    assert build(folder, pillow).fingerprint != before


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images that show their number: as a grey level."""
    root = tmp_path_factory.mktemp("numbered")
    for number in range(60):
        folder = root / "images" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (4 * number,) * 3).save(folder / f"{number:02d}.jpg", quality=95)
    return root


def shown(view: Tensor, table: Any) -> list[str]:
    """The ids that a batch shows."""
    grey = view[:, 0].mean((1, 2)) * augment.STD[0] + augment.MEAN[0]
    numbers = (grey * 255 / 4).round().int().tolist()
    by_number = {int(name.split("/")[1]): name for name in table.ids}
    return [by_number[number] for number in numbers]


def ten_rounds(samples: store.Store) -> None:
    """Changing subsets, early leaves, empty and repeated sets: every id as asked, or AssertionError."""
    rng = np.random.default_rng(7)
    for number in range(10):
        rows = torch.from_numpy(rng.choice(60, rng.integers(1, 60), replace=number % 3 == 0))
        if number == 4:
            rows = rows[:0]
        groups = list(rows.split(int(rng.integers(1, 9))))
        leave = int(rng.integers(0, len(groups) + 1)) if number % 2 else len(groups)
        seen = 0
        for group, view in zip(groups, samples.views(groups), strict=True):
            if seen == leave:
                break  # what is read ahead is of this subset
            assert shown(view, samples.table) == [samples.table.ids[row] for row in group.tolist()]
            seen += 1
            if number == 3:
                time.sleep(0.01)
        assert seen == leave


def test_every_id_as_asked_in_ten_rounds_of_changing_subsets(numbered: Path, decoder: Decoder) -> None:
    decoder.threads = 2
    samples = build(numbered, decoder, size=24, keep="stream")
    assert isinstance(samples.images, store.Streamed)
    ten_rounds(samples)


def test_the_test_above_sees_batches_read_ahead_of_another_subset(
    numbered: Path, pillow: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stale-prefetch trap, put back: what was read ahead when a round is left comes first in the next."""
    held: list[Any] = []

    def trap(items: Iterable[Any], depth: int = 2) -> Iterator[Any]:
        for item in items:
            held.append(item)
            if len(held) > depth:
                yield held.pop(0)
        while held:
            yield held.pop(0)

    samples = build(numbered, pillow, size=24, keep="stream")
    monkeypatch.setattr(reading, "ahead", trap)
    with pytest.raises((AssertionError, ValueError)):
        ten_rounds(samples)


def test_a_pipeline_that_prefetches_is_noticed(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trap inside DALI: a pipeline one batch behind is told by the number that comes out."""
    dali = pytest.importorskip("sal_fast.data.decode.dali")
    chosen = decode.choose("dali", CPU)
    samples = build(numbered, chosen, size=24, keep="stream")
    definition = dali.pipeline_def

    def deeper(**options: Any) -> Any:
        options |= {"prefetch_queue_depth": 2, "exec_async": True, "exec_pipelined": True}
        return definition(**options)

    class Primed(dali.Pipeline):
        def build(self, size: int) -> Any:
            pipe = super().build(size)
            for name, value in (("data", held), ("number", [np.array([-1])] * len(held))):
                pipe.feed_input(name, value)
            return pipe

    held = [np.fromfile(samples.table.images[row], dtype=np.uint8) for row in range(8)]
    monkeypatch.setattr(dali, "pipeline_def", deeper)
    chosen._rgb = Primed(2, dali.types.RGB)
    with pytest.raises(AssertionError, match="another came"):
        ten_rounds(samples)
    chosen.close()


def test_leaving_early_leaves_no_thread(numbered: Path, pillow: Decoder) -> None:
    samples = build(numbered, pillow, size=24, keep="stream")
    before = threading.active_count()
    for _ in range(3):
        for _view in samples.views(torch.arange(60).split(4)):
            break
    del _view
    assert threading.active_count() <= before


def test_streamed_is_resident(shared_folder: Path, decoder: Decoder) -> None:
    """The same bits, cropped and coloured, in another order and batches of another size."""
    resident = build(shared_folder, decoder, size=28, stored=32)
    streamed = build(shared_folder, decoder, size=28, stored=32, keep="stream")
    crops = Augmentation("color", seed=3, round=1, epoch=2)
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    whole = [rows]
    views = torch.cat(list(resident.views(whole, resident.draws(whole, crops))))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    parts = rows[order].split(7)
    again = torch.cat(list(streamed.views(parts, streamed.draws(parts, crops))))
    assert torch.equal(again, views[order])


def test_a_file_that_goes_bad_after_the_first_look_is_named(folder: Path, pillow: Decoder) -> None:
    samples = build(folder, pillow, keep="stream")
    path = folder / "images/red/003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"red/003\.jpg: the file is truncated \(it was readable before"):
        list(samples.views(torch.arange(30).split(8)))


def test_which_decoder_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "has_dali", lambda: False)
    assert decode.choose("auto", CPU).name == "torchvision"
    assert decode.choose("pillow", CPU).name == "Pillow"
    monkeypatch.setattr(decode.torch, "HAS_DECODER", False)
    assert decode.choose("auto", CPU).name == "Pillow"
    with pytest.raises(InputError, match=r"DALI is not installed; pip install nvidia-dali-cuda130"):
        decode.choose("dali", CPU)


def test_a_dali_for_another_cuda_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dali = pytest.importorskip("sal_fast.data.decode.dali")
    gpu = torch.device("cuda", 0)

    def too_old(device: torch.device) -> Decoder:
        raise RuntimeError("CUDA driver version is too old\nmore of it")

    monkeypatch.setattr(dali, "DaliDecoder", too_old)
    assert decode.choose("auto", gpu).name == "torchvision, plain JPEGs on the GPU"
    assert "DALI does not work here (CUDA driver version is too old)" in caplog.text
    assert "Images are decoded by torchvision" in caplog.text
    with pytest.raises(InputError, match=r"--decoder dali: NVIDIA DALI does not work here \(CUDA driver"):
        decode.choose("dali", gpu)


def test_dali_uses_the_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    dali = pytest.importorskip("sal_fast.data.decode.dali")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert dali._number(torch.device("cuda")) == 3
    assert dali._number(torch.device("cuda", 0)) == 0


class FakeGpu:
    """Stands for torch.cuda, and notes on which stream work is asked for, in each thread."""

    def __init__(self) -> None:
        self.here = threading.local()
        self.made = 0
        self.done: list[str] = []

    def Stream(self, device: torch.device) -> SimpleNamespace:
        self.made += 1
        return SimpleNamespace(name="side", record_event=lambda: f"event of {self.current()}")

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        self.here.stream = stream.name
        yield
        del self.here.stream

    def current(self) -> str:
        return getattr(self.here, "stream", "default")

    def current_stream(self, device: object) -> SimpleNamespace:
        name = self.current()
        return SimpleNamespace(
            name=name, wait_event=lambda event: self.done.append(f"{name} waits for {event}")
        )


def test_read_ahead_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """On the training stream its copies would wait for the step before them."""
    gpu = FakeGpu()
    for name in ("Stream", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(gpu, name))

    def pictures(paths: list[Path], size: int, decoder: object, white: object) -> SimpleNamespace:
        gpu.done.append(f"decoded on {gpu.current()}")
        held = lambda stream: gpu.done.append(f"held for {stream.name}")  # noqa: E731
        return SimpleNamespace(device="cuda", record_stream=held)

    monkeypatch.setattr(reading, "pictures", pictures)
    decoder: Any = SimpleNamespace(device=torch.device("cuda", 0))
    images = store.Streamed([folder], 8, decoder)
    for _ in range(2):  # epochs
        assert len(list(images.batches([torch.tensor([0])]))) == 1
    assert gpu.done == ["decoded on side", "default waits for event of side", "held for default"] * 2
    assert gpu.made == 1


def test_memory_is_stated_and_decides(
    shared_folder: Path, pillow: Decoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sal_fast")
    table = splits.assign(load_table(str(shared_folder)), seeds.stream(0, "split"))
    images, maps = 30 * 3 * 32**2, 30 * 32 * 4
    for free, kind in ((2 * (images + maps), store.Resident), (2 * (images + maps) - 1, store.Streamed)):
        monkeypatch.setattr(load, "free_memory", lambda device, free=free: free)
        assert isinstance(planned(table, StoreOptions(32, 32, pillow, "auto")).images, kind)
    assert "30 images at 32 px, streamed each epoch" in caplog.text
    monkeypatch.setattr(load, "free_memory", lambda device: images)
    with pytest.raises(InputError, match=r"30 images at 32 px, resident, need 0\.0 GB .* use --store stream"):
        planned(table, StoreOptions(32, 32, pillow))
    monkeypatch.setattr(load, "free_memory", lambda device: maps - 1)
    with pytest.raises(InputError, match="a lower --image-size"):
        planned(table, StoreOptions(32, 32, pillow, "auto"))


def test_mask_of_another_size_but_the_same_aspect(folder: Path, pillow: Decoder) -> None:
    path = folder / "masks" / "red" / "004.png"
    Image.open(path).resize((81, 80)).save(path)  # 1.25 % off
    build(folder, pillow)


def test_check_of_a_pool_without_labels_and_masks(folder: Path) -> None:
    """People give both: nothing that a run would refuse."""
    shutil.rmtree(folder / "masks")
    assert len(check.look(str(folder)).problems) == 1
    (folder / "pool").mkdir()
    for path in (folder / "images" / "red").iterdir():
        ImageOps.invert(Image.open(path)).save(folder / "pool" / path.name)
    assert check.look(str(folder)).problems == []


def test_check_counts(folder: Path) -> None:
    (folder / "masks/red/000.png").unlink()
    Image.new("L", (40, 40)).save(folder / "masks/red/001.png")
    Image.linear_gradient("L").save(folder / "masks/blue/000.png")
    found = check.look(str(folder))
    names = found.table.ids
    assert [names[row] for row in found.rows["no mask"]] == ["red/000"]
    assert [names[row] for row in found.rows["empty mask"]] == ["red/001"]
    assert [names[row] for row in found.rows["graded mask"]] == ["blue/000"]
    assert found.problems == []
    assert found.notes == [
        "masks: 27 binary, 1 graded, 1 empty; every value but 0 is foreground (255); foreground covers 25% "
        "of the picture and 0% of its border (medians)",
        f"1 mask, for example {folder}/masks/red/001.png: empty, because nothing is foreground; nothing is "
        f"learned from it of where to look",
        "read as folder, because it has the folders images/blue and masks",
    ]
    (folder / "images/blue/000.jpg").unlink()
    (folder / "images/.cache").mkdir()
    (folder / "images/violet").mkdir()
    found = check.look(str(folder))
    (violet,) = [note for note in found.notes if "violet" in note]
    assert violet.startswith("class folders without images: 1, such as ")
    assert any(
        note.startswith("not used: no image for this mask: 1") and note.endswith("masks/blue/000.png")
        for note in found.notes
    )


def test_a_decoder_that_is_closed_leaves_nobody_waiting() -> None:
    """A thread that reads ahead may wait for the decoder's threads when a run ends with an error."""
    decoder = decode.choose("pillow", torch.device("cpu"))
    begun, go_on = threading.Event(), threading.Event()

    def work(item: int) -> int:
        begun.set()
        go_on.wait()
        return item

    found: list[list[int]] = []
    waiting = [
        threading.Thread(target=lambda: found.append(decoder.map(work, range(decoder.threads))), daemon=True)
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    begun.wait()
    closing = threading.Thread(target=decoder.close, daemon=True)
    while decoder.pool._work_queue.qsize() < decoder.threads:  # some of the work is not begun
        time.sleep(0.01)
    closing.start()
    go_on.set()
    for thread in (closing, *waiting):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert found == [list(range(decoder.threads))] * 3
