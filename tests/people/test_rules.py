"""Maps from boxes and points: against brute force, a known object, and Segment Anything itself."""

from __future__ import annotations

import builtins
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_sam import narrow_sam
from scipy import ndimage

from sal_fast.errors import InputError
from sal_fast.people import rules
from sal_fast.people.rules import from_box, from_points
from sal_fast.people.segmenter import Segmenter

HEIGHT, WIDTH = 60, 90


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    """An ellipse in the picture, bool."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return ((rows - 28) / 14) ** 2 + ((columns - 50) / 20) ** 2 <= 1


@pytest.fixture(scope="module")
def picture(disc: np.ndarray) -> np.ndarray:
    """The ellipse in red on green, with noise."""
    colours = np.where(disc[..., None], (170, 70, 60), (80, 140, 70))
    noise = np.random.default_rng(0).normal(0, 15, colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8)


def tight(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum())


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 7, 5),
        (1, 2, 4, 3),
        (1.5, 0.5, 3.5, 2.5),  # the edges run through centres
        (1.51, 0.49, 3.49, 2.51),
        (4, 3, 1, 2),  # drawn from right to left and from bottom to top
        (-3, -2.2, 2.7, 40),
        (2, 2, 2, 2),
        (2.5, 2.5, 2.5, 2.5),  # a point on a centre
        (2.1, 0, 2.4, 5),  # between centres
        (8, 1, 12, 3),  # outside
        (-9, -9, -1, -1),
    ],
)
def test_a_box_holds_the_pixels_whose_centres_it_holds(box: tuple[float, float, float, float]) -> None:
    low, high = sorted((box[0], box[2])), sorted((box[1], box[3]))
    wanted = np.zeros((5, 7), dtype=np.uint8)
    for y, x in itertools.product(range(5), range(7)):
        if low[0] <= x + 0.5 <= low[1] and high[0] <= y + 0.5 <= high[1]:
            wanted[y, x] = 255
    blank = np.zeros((5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(from_box("box", blank, box, None), wanted)
    for rule in ("grabcut", "model"):  # a blank picture, and a map of zeros, tell nothing: the whole box
        made = from_box(rule, blank, box, np.zeros((2, 2), dtype=np.uint8))
        np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize("wider", [0, 3.3])
def test_grabcut_finds_an_object_in_its_box(picture: np.ndarray, disc: np.ndarray, wider: float) -> None:
    x0, y0, x1, y1 = tight(disc)
    box = (x0 - wider, y0 - wider, x1 + wider, y1 + wider)
    made = from_box("grabcut", picture, box, None)
    assert made.dtype == np.uint8
    assert set(np.unique(made)) == {0, 255}
    assert dice(made, disc) > 0.95
    assert not (made & ~from_box("box", picture, box, None)).any()
    assert dice(from_box("box", picture, box, None), disc) < 0.9


def test_grabcut_by_points(picture: np.ndarray, disc: np.ndarray) -> None:
    made = from_points("grabcut", picture, [(50, 28, True), (5, 5, False)], None)
    assert dice(made, disc) > 0.95
    twice = np.concatenate([picture, picture], axis=1)  # only the object that was pointed at
    made = from_points("grabcut", twice, [(50, 28, True), (95, 5, False)], None)
    assert dice(made[:, :WIDTH], disc) > 0.95
    assert not made[:, WIDTH:].any()
    # the one point that excludes the object leaves nothing but its own surroundings
    assert not from_points("grabcut", picture, [(50, 28, False)], None).any()
    assert not from_points("grabcut", picture, [], None).any()


def test_grabcut_is_the_same_every_time_and_in_every_thread(picture: np.ndarray, disc: np.ndarray) -> None:
    import cv2

    def make() -> tuple[bytes, bytes]:
        box = from_box("grabcut", picture, tight(disc), None)
        return box.tobytes(), from_points("grabcut", picture, [(50, 28, True)], None).tobytes()

    first = make()
    cv2.setRNGSeed(7)
    assert make() == first
    others: list[Any] = []
    threads = [threading.Thread(target=lambda: others.append(make())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert others == [first] * 3


def test_a_photograph_of_24_megapixels(picture: np.ndarray, disc: np.ndarray) -> None:
    scale = 66
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    truth = disc.repeat(scale, axis=0).repeat(scale, axis=1)
    assert large.shape == (3960, 5940, 3)
    box = from_box("grabcut", large, tight(truth), None)
    assert box.shape == large.shape[:2]
    assert dice(box, truth) > 0.93
    points = [(50 * scale, 28 * scale, True), (5 * scale, 5 * scale, False)]
    assert dice(from_points("grabcut", large, points, None), truth) > 0.93
    # a small thing in a large picture is seen larger than the whole picture would show it
    small = np.zeros_like(large)
    small[...] = (80, 140, 70)
    small[1000:1060, 2000:2090] = picture
    truth = np.zeros(large.shape[:2], dtype=bool)
    truth[1000:1060, 2000:2090] = disc
    assert dice(from_box("grabcut", small, tight(truth), None), truth) > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 700)])
def test_odd_pictures(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    height, width = shape
    assert from_box("grabcut", pixels, (0, 0, width, height), None).all()  # nothing lies outside the box
    assert from_box("grabcut", pixels, (0, 0, 0.6, 0.6), None)[0, 0] == 255
    assert from_points("grabcut", pixels, [(0.4, 0.4, True), (0.4, 0.4, False)], None).shape == shape
    assert from_points("grabcut", pixels, [(-9, 999, True)], None).shape == shape


def test_the_models_map_in_a_box() -> None:
    small = np.array([[0, 100], [0, 40]], dtype=np.uint8)
    blank = np.zeros((2, 2, 3), dtype=np.uint8)
    made = from_box("model", blank, (0, 0, 2, 2), small)
    np.testing.assert_array_equal(made, [[0, 255], [0, 0]])
    made = from_box("model", blank, (0, 1, 2, 2), small)  # the highest value in the box counts
    np.testing.assert_array_equal(made, [[0, 0], [0, 255]])
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 256, (7, 7)).astype(np.uint8), np.zeros((31, 44, 3), dtype=np.uint8)
    made = from_box("model", large, (3.2, 4.1, 30, 29.9), small) > 0
    inside = from_box("box", large, (3.2, 4.1, 30, 29.9), None) > 0
    values = rules.suggested.enlarged(small, (44, 31))
    np.testing.assert_array_equal(made, inside & (values > values[inside].max() / 2))


def test_the_models_map_by_points() -> None:
    parts = np.zeros((6, 9), dtype=np.uint8)
    parts[0:2, 0:2] = parts[2, 2] = 255  # connected by a corner
    parts[4:6, 4:6] = 200
    parts[0:2, 7:9] = 128
    parts[5, 8] = 127  # at 0.5: not above it
    blank = np.zeros((6, 9, 3), dtype=np.uint8)

    def made(*points: tuple[float, float, bool]) -> set[int]:
        marked = from_points("model", blank, points, parts) > 0
        assert not (marked & (parts <= 127)).any()
        labels, _ = ndimage.label(parts > 127, structure=np.ones((3, 3)))
        chosen = set(labels[marked])
        np.testing.assert_array_equal(marked, np.isin(labels, list(chosen)))
        return {int(parts[labels == one].max()) for one in chosen}

    assert made((0.5, 0.5, True)) == {255}
    assert made((2.9, 2.1, True), (99, -3, True)) == {255, 128}
    assert made((0.5, 0.5, True), (4.5, 4.5, True), (1.5, 1.5, False)) == {200}
    assert made((8.5, 5.5, True), (3.5, 0.5, True)) == set()
    assert made((0.5, 0.5, False)) == set()


def test_the_rules_that_are_there() -> None:
    assert rules.available(model=False, segmenter=False) == ("grabcut", "box")
    assert rules.available(model=True, segmenter=True) == rules.RULES
    code = "import sys, sal_fast.people.rules, sal_fast.people.segmenter; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_what_is_missing_is_said_in_plain_words(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    box, point = (1, 1, 30, 30), [(5, 5, True)]
    with pytest.raises(InputError, match="no map of a model for this picture yet"):
        from_box("model", picture, box, None)
    with pytest.raises(InputError, match="no map of a model for this picture yet"):
        from_points("model", picture, point, None)
    for make in (lambda: from_box("segmenter", picture, box, None),
                 lambda: from_points("segmenter", picture, point, None)):  # fmt: skip
        with pytest.raises(InputError, match="needs a checkpoint of Segment Anything"):
            make()
    with pytest.raises(InputError, match="'box' cannot be used here; expected one of grabcut, model"):
        from_points("box", picture, point, None)
    with pytest.raises(InputError, match="must be finite"):
        from_box("box", picture, (0, 0, float("nan"), 3), None)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "cv2":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r'grabcut needs OpenCV: pip install "sal-fast\[label\]"'):
        from_box("grabcut", picture, box, None)
    assert from_box("box", picture, box, None).any()


# --- the segmenter -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A vit_b of Segment Anything with random weights: nobody ships the real ones."""
    library = pytest.importorskip("segment_anything")
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam") / "sam_vit_b.pth"
    torch.save(library.sam_model_registry["vit_b"]().state_dict(), path)
    yield path
    path.unlink()


@pytest.mark.full
def test_segment_anything_answers_as_its_own_predictor(checkpoint: Path, picture: np.ndarray) -> None:
    """The mask of a process that stays up; a picture that it knows is not sent again; it is started anew."""
    import segment_anything
    import torch

    model = segment_anything.sam_model_registry["vit_b"]()
    model.load_state_dict(torch.load(checkpoint))
    predictor = segment_anything.SamPredictor(model.eval())
    box, points = (10.5, 8, 70, 50.25), [(50, 28, True), (5.5, 5, False)]
    with Segmenter(checkpoint) as segmenter:
        predictor.set_image(picture)
        (wanted,), _, _ = predictor.predict(box=np.array(box), multimask_output=False)
        made = from_box("segmenter", picture, box, None, segmenter)
        np.testing.assert_array_equal(made, np.where(wanted, 255, 0))
        assert 0 < made.mean() < 255
        process = segmenter._process
        assert process is not None
        (wanted,), _, _ = predictor.predict(
            point_coords=np.array([[50, 28], [5.5, 5]]), point_labels=np.array([1, 0]), multimask_output=False
        )
        made = from_points("segmenter", picture, points, None, segmenter)
        np.testing.assert_array_equal(made, np.where(wanted, 255, 0))
        several, quality, _ = predictor.predict(
            point_coords=np.array([[50, 28]]), point_labels=np.array([1]), multimask_output=True
        )
        made = from_points("segmenter", picture, points[:1], None, segmenter)
        np.testing.assert_array_equal(made, np.where(several[quality.argmax()], 255, 0))
        assert segmenter._process is process
        process.kill()  # it is started again
        process.wait()
        np.testing.assert_array_equal(from_points("segmenter", picture, points[:1], None, segmenter), made)


def test_what_the_process_keeps_of_pictures(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Prompts on several pictures by turns, each answered as by a predictor that has just seen it."""
    path = narrow_sam(monkeypatch, tmp_path)
    import segment_anything
    import torch

    from sal_fast.annotate import prompted

    asked = prompted.Prompted(str(path), torch.device("cpu"))
    model = segment_anything.sam_model_registry["vit_narrow"]()
    model.load_state_dict(torch.load(path))
    predictor = segment_anything.SamPredictor(model.eval())
    pictures = {"a": picture, "b": picture[::-1, :50].copy(), "c": 255 - picture}
    monkeypatch.setattr(prompted, "PICTURES", 2)
    for name in ("a", "b", "a", "b", "c", "b"):
        if not asked.knows(name):
            asked.see(name, pictures[name])
        predictor.set_image(pictures[name])
        (wanted,), _, _ = predictor.predict(box=np.array((10.5, 8, 40, 50.25)), multimask_output=False)
        np.testing.assert_array_equal(asked.mask(name, (10.5, 8, 40, 50.25), []), wanted)
    assert [name for name in pictures if asked.knows(name)] == ["b", "c"]


def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> Segmenter:
    """A segmenter whose process runs some code instead of Segment Anything."""
    (tmp_path / "pretended.py").write_text("import json, sys, time\n" + code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("sal_fast.people.segmenter.CHILD", "pretended")
    return Segmenter(tmp_path / "sam.pth", start=20, answer=1)


READY = "print('{\"ready\": true}', flush=True)\n"


def test_a_picture_is_sent_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pretended process answers with the red channel, and keeps pictures as the real one does."""
    segmenter = child(
        monkeypatch,
        tmp_path,
        READY
        + """
import numpy as np
known, out = {}, sys.stdout.buffer
for line in sys.stdin.buffer:
    asked = json.loads(line)
    data = sys.stdin.buffer.read(asked["bytes"])
    if data:
        assert asked["picture"] not in known
        known[asked["picture"]] = np.frombuffer(data, np.uint8).reshape(asked["height"], asked["width"], 3)
    if asked["picture"] not in known:
        out.write(b'{"unknown": true}\\n')
    else:
        bits = np.packbits(known[asked["picture"]][..., 0] > 99).tobytes()
        out.write(json.dumps({"bytes": len(bits)}).encode() + b"\\n" + bits)
    out.flush()
""",
    )
    rng = np.random.default_rng(0)
    with segmenter:
        pictures = [rng.integers(0, 256, (5, 7, 3)).astype(np.uint8) for _ in range(3)]
        for one in pictures * 2:
            made = from_box("segmenter", one, (1, 1, 4, 4), None, segmenter)
            np.testing.assert_array_equal(made, np.where(one[..., 0] > 99, 255, 0))
        large = rng.integers(0, 256, (1500, 1500, 3)).astype(np.uint8)  # more than a pipe holds
        made = segmenter.mask(large, points=[(1, 1, True)])
        np.testing.assert_array_equal(made, np.where(large[..., 0] > 99, 255, 0))
    assert segmenter._process is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (READY + "sys.stdin.buffer.readline(); time.sleep(60)", "answer took more than 1 seconds; try again"),
        (READY + "sys.stdin.buffer.readline(); raise MemoryError('no room')", "ended .*no room.*; try again"),
        (READY + 'for _ in sys.stdin: print(\'{"error": "It broke."}\', flush=True)', r"^It broke\.$"),
        ('print(\'{"error": "No such file."}\', flush=True)', r"^No such file\.$"),
        ("raise ImportError('no torch')", "ended .*no torch"),
        (READY + "sys.stdin.buffer.readline(); print('nonsense')", "ended"),
    ],
)
def test_a_process_that_fails(code: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with child(monkeypatch, tmp_path, code) as segmenter:
        for _ in range(2):  # it is started again for the next question
            with pytest.raises(InputError, match=said):
                segmenter.mask(np.zeros((4, 4, 3), dtype=np.uint8), box=(0, 0, 2, 2))


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("segment_anything")
    (tmp_path / "sam.pth").write_bytes(b"nothing")
    with Segmenter(tmp_path / "sam.pth") as segmenter, pytest.raises(InputError, match=r"sam\.pth"):
        segmenter.mask(np.zeros((4, 4, 3), dtype=np.uint8), box=(0, 0, 2, 2))
