"""Maps by a function of the user's, by Segment Anything, and by a model on trial."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_runs import kept, rounds
from narrow_sam import narrow_sam
from PIL import Image

from sal_fast import annotate, plugins
from sal_fast.annotate import generator
from sal_fast.errors import InputError
from sal_fast.experiment import budget
from sal_fast.experiment.budget import plan
from sal_fast.experiment.record import RunFolder

Tiny = Callable[..., Path]

LEFT_HALF = '''
import numpy as np

def left(pictures, labels):
    """Class 0: a mask of the left half; else a heat map that is high at the top."""
    maps = []
    for picture, label in zip(pictures, labels):
        assert picture.dtype == np.uint8 and picture.shape == (40, 40, 3)
        mask = np.zeros(picture.shape[:2], dtype=bool)
        mask[:, :20] = True
        maps.append(mask if label == 0 else np.linspace(1, 0, 4)[:, None].repeat(2, 1))
    return maps

def one_less(pictures, labels):
    return [np.zeros((4, 4), dtype=bool)] * (len(pictures) - 1)

def whole_numbers(pictures, labels):
    return [np.zeros((4, 4), dtype=np.int64)] * len(pictures)

def not_a_number(pictures, labels):
    return [np.full((4, 4), np.nan)] * len(pictures)

constant = 3
'''


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(LEFT_HALF)
    return path


def test_a_function_draws_the_maps_after_the_budget(tiny: Tiny, written: Path, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", generator=f"{written}:left")
    files = sorted(run.glob("rounds/*/maps/**/*.png"))
    assert len(files) == 9
    assert rounds(run)[-1]["generated_maps"] == 9
    for file in files:
        pixels = np.asarray(Image.open(file))
        expected = np.zeros((32, 32), dtype=np.uint8)
        if file.parent.name == "blue":
            expected[:, :16] = 255
        else:
            expected[:16] = 255
        np.testing.assert_array_equal(pixels, expected, str(file))
    assert not list(run.glob("rounds/*/interpretability.safetensors"))  # nothing asks for it


def test_a_function_that_changed_is_refused(tiny: Tiny, written: Path, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", generator=f"{written}:left")
    (run / "summary.json").unlink()
    assert tiny(run, generator=f"{written}:left") == run
    (run / "summary.json").unlink()
    written.write_text(LEFT_HALF + "\n# other\n")
    with pytest.raises(InputError, match="--generator has changed since"):
        tiny(run, generator=f"{written}:left")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("left", None),
        ("one_less", "maps of .* pictures"),
        ("whole_numbers", r"int64 \[4, 4\]; expected bool or floating"),
        ("not_a_number", "NaN"),
        ("constant", "expected a function of pictures and labels, got 3"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_a_function_may_give(
    name: str, said: str | None, tiny: Tiny, written: Path, tmp_path: Path
) -> None:
    options = {"generator": f"{written}:{name}", "epochs": 1, "stop_fraction": 0.5}
    if said is None:
        tiny(tmp_path / "run", **options)
        return
    with pytest.raises(InputError, match=said):
        tiny(tmp_path / "run", **options)


def test_a_picture_that_is_gone(tmp_path: Path) -> None:
    """Of a set that was prepared, the decoded copies suffice until then."""
    with pytest.raises(InputError, match=r"gone\.jpg.*own files: restore it"):
        generator.maps_of_files(lambda pictures, labels: [], [tmp_path / "gone.jpg"], [0])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nowhere.py:left", "file not found"),
        ("no_such_package.mine:left", "cannot be imported"),
        ("left", "unknown generator 'left'"),
        ("numpy:linspace", None),
    ],
)
def test_where_a_function_is(spec: str, said: str | None) -> None:
    if said is None:
        assert plugins.load("generator", spec) is np.linspace
        return
    with pytest.raises(InputError, match=said):
        plugins.load("generator", spec)


def test_a_function_goes_with_regimes_that_ask_one(tiny: Tiny, written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="regime 'b2' takes no generator"):
        tiny(tmp_path / "run", regime="b2", generator=f"{written}:left")


@pytest.mark.full
def test_missing_masks_of_the_segmenter_are_made_once(
    tiny: Tiny, written: Path, shared_folder: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(shared_folder / "masks" / "red", masks / "red")  # these are there
    options = {"regime": "segmenter", "segmenter_masks": str(masks)}
    with pytest.raises(InputError, match=r"have no mask; the first is .*--generator makes them"):
        tiny(tmp_path / "run", **options)
    tiny(tmp_path / "run", **options, generator=f"{written}:left")
    made = {str(path.relative_to(masks)): path.read_bytes() for path in masks.rglob("*.png")}
    assert len(made) == 10 + 12  # 6 in 10 are train; of red all were there
    blue = np.asarray(Image.open(next(masks.glob("blue/*.png"))))
    assert blue.shape == (40, 40)  # the picture's size, not the run's
    assert (blue[:, :20] == 255).all()
    assert not blue[:, 20:].any()
    # all are there: nobody has to be able to draw any
    tiny(tmp_path / "again", **options, segmenter_weights=str(tmp_path / "gone.pth"))
    assert made == {str(path.relative_to(masks)): path.read_bytes() for path in masks.rglob("*.png")}
    assert rounds(tmp_path / "again") == rounds(tmp_path / "run")


def test_segmenter_masks_of_any_size_come_to_their_pictures(
    tiny: Tiny, shared_folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import numpy as np\ndef left(pictures, labels): return [np.eye(2, 8, dtype=bool)]\n")
    options = {"regime": "segmenter", "segmenter_masks": str(tmp_path / "masks"), "epochs": 1}
    tiny(tmp_path / "run", **options, generator=f"{mine}:left")
    made = np.asarray(Image.open(next((tmp_path / "masks").glob("*/*.png"))))
    np.testing.assert_array_equal(made, np.kron(np.eye(2, 8), np.full((20, 5), 255)))


@pytest.fixture
def small_sam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkpoint of Segment Anything with a narrow image encoder, weights as they come."""
    library = pytest.importorskip("segment_anything")
    settings = {"points_per_side": 2, "pred_iou_thresh": -1e9, "stability_score_thresh": 0.0}
    settings["box_nms_thresh"] = 1.0  # so that several are found
    few = functools.partial(library.SamAutomaticMaskGenerator, **settings)
    monkeypatch.setattr(library, "SamAutomaticMaskGenerator", few)
    return narrow_sam(monkeypatch, tmp_path)


def test_segment_anything_gives_the_mask_of_highest_predicted_iou(small_sam: Path) -> None:
    import segment_anything

    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    (drawn,) = annotate.segment_anything(str(small_sam), torch.device("cpu"))([picture], [0])
    model = segment_anything.sam_model_registry["vit_narrow"]()
    model.load_state_dict(torch.load(small_sam))
    found = segment_anything.SamAutomaticMaskGenerator(model.eval()).generate(picture)
    assert len(found) > 1
    best = sorted(found, key=lambda mask: -mask["predicted_iou"])[0]
    assert drawn.shape == (30, 40)
    np.testing.assert_array_equal(drawn, best["segmentation"])


def test_segment_anything_that_finds_nothing_gives_an_empty_mask(
    small_sam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segment_anything

    strict = functools.partial(segment_anything.SamAutomaticMaskGenerator.func, points_per_side=1)
    monkeypatch.setattr(segment_anything, "SamAutomaticMaskGenerator", strict)  # the library's own thresholds
    picture = np.zeros((20, 20, 3), dtype=np.uint8)
    (drawn,) = annotate.segment_anything(str(small_sam), torch.device("cpu"))([picture], [0])
    assert drawn.shape == (20, 20)
    assert not drawn.any()


@pytest.mark.full
def test_a_run_makes_its_masks_with_segment_anything(
    small_sam: Path, tiny: Tiny, tmp_path: Path, shared_folder: Path
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(shared_folder / "masks", masks)
    start = json.loads((tiny(tmp_path / "b1", regime="b1", epochs=1) / "run.json").read_text())["start"][0]
    (masks / f"{start}.png").unlink()
    tiny(
        tmp_path / "run",
        regime="segmenter",
        segmenter_masks=str(masks),
        segmenter_weights=str(small_sam),
        epochs=1,
    )
    assert np.asarray(Image.open(masks / f"{start}.png")).shape == (40, 40)


def test_other_checkpoints_are_refused(small_sam: Path, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="expected a checkpoint of Segment Anything, vit_h, vit_l, vit_b"):
        annotate.segment_anything(str(tmp_path / "other.pth"), torch.device("cpu"))
    state = torch.load(small_sam)
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"Missing key.*iou_token"):
        annotate.segment_anything(str(tmp_path / "less.pth"), torch.device("cpu"))


def test_the_change_point() -> None:
    assert not budget.takes_over([])
    assert not budget.takes_over([None, 0.5, 0.4])  # two values: nothing to compare them with
    assert budget.takes_over([None, 0.5, 0.4, 0.5])  # no better than the best, twice
    assert not budget.takes_over([None, 0.5, 0.4, 0.51])
    assert not budget.takes_over([None, 0.1, 0.2, 0.3, 0.25])
    assert budget.takes_over([None, 0.1, 0.2, 0.3, 0.25, 0.3])
    assert budget.takes_over([None, 0.1, 0.2, 0.3, None, 0.25, 0.3, None, None])  # it stays so


def test_the_plan_of_an_open_budget() -> None:
    found = plan(100, 0.1, 0.1, 1.0, "auto")
    assert found.auto
    assert all(found.human)
    trials = [None, 0.5, 0.4, 0.3]
    assert [found.asks_people(number, trials) for number in range(6)] == [True] * 4 + [False] * 2
    with pytest.raises(InputError, match="or auto"):
        plan(100, 0.1, 0.1, 1.0, "atuo")


@pytest.mark.full
def test_a_model_on_trial_takes_over(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions are files beside the query, their Dice with the human maps is the next round's line.

    When the model takes over depends on how the trainings fall; here it is after three trials.
    """

    def takes_over(trials: Sequence[float | None]) -> bool:
        return len(trials) >= 4

    monkeypatch.setattr(budget, "takes_over", takes_over)
    options = {"human_budget": "auto", "query_fraction": 0.12, "stop_fraction": 1.0, "epochs": 1, "seed": 1}
    run = tiny(tmp_path / "run", **options)
    lines = rounds(run)
    trials = [line["trial_dice"] for line in lines]
    assert trials[0] is None
    for number in range(1, len(lines)):
        asked = not takes_over(trials[:number])
        assert (trials[number] is not None) == asked
        before, now = lines[number - 1], lines[number]
        assert (now["human_maps"] > before["human_maps"]) == asked
        folder = run / f"rounds/{number - 1:03d}"
        assert (folder / "predicted").exists() == asked
        assert (folder / "maps").exists() == (not asked)
        if asked:
            assert trials[number] == pytest.approx(_dice(folder, lines, run), abs=1e-12)
    assert takes_over(trials)
    # a run that is cut goes on with the same trials
    (run / "summary.json").unlink()
    (run / "rounds.jsonl").write_text(
        "".join((run / "rounds.jsonl").read_text().splitlines(keepends=True)[:3])
    )
    there = kept(run)
    for number in range(3, len(lines)):
        shutil.rmtree(run / f"rounds/{number:03d}")
    tiny(run, **options)
    assert rounds(run) == lines
    assert kept(run) == there


def _dice(folder: Path, lines: list[dict], run: Path) -> float:
    data = Path(json.loads((run / "run.json").read_text())["config"]["data"])
    found = []
    for path in sorted((folder / "predicted").rglob("*.png")):
        name = path.relative_to(folder / "predicted")
        human = np.asarray(Image.open(data / "masks" / name).resize((32, 32), Image.Resampling.NEAREST)) > 127
        drawn = np.asarray(Image.open(path)) > 127
        found.append(2 * (human & drawn).sum() / (human.sum() + drawn.sum()))
    return float(np.mean(found))


def test_only_regimes_with_a_model_can_find_the_budget(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of sal, sal-single"):
        tiny(tmp_path / "run", regime="tait", human_budget="auto")


@pytest.mark.parametrize("empty", [True, False])
def test_a_class_whose_maps_people_left_empty_gets_none_drawn(
    tiny: Tiny, written: Path, make_folder: Callable[..., Path], tmp_path: Path, empty: bool
) -> None:
    """A class may have nothing to show, such as "free of defects". Five empty maps tell, if none is full."""
    data = make_folder(tmp_path / "data", per_class=30)
    for path in sorted(data.glob("masks/green/*.png")):
        Image.new("L", (40, 40)).save(path)
    if not empty:  # one of them shows something
        shares = {"start_fraction": 0.3, "stop_fraction": 0.3, "allow_leaks": True}
        first = tiny(tmp_path / "first", data=str(data), epochs=1, regime="b1", **shares)
        green = next(name for name in RunFolder(first).run()["start"] if name.startswith("green/"))
        Image.linear_gradient("L").resize((40, 40)).save(data / "masks" / f"{green}.png")
    options = {"start_fraction": 0.3, "query_fraction": 0.3, "stop_fraction": 0.6, "human_budget": 0.3}
    options["allow_leaks"] = True  # some of so many simple drawings look the same
    run = tiny(tmp_path / "run", data=str(data), generator=f"{written}:left", epochs=1, **options)
    asked = RunFolder(run).query(0)
    greens = sum(name.startswith("green/") for name in asked)
    assert greens > 0
    assert rounds(run)[-1]["generated_maps"] == len(asked) - (greens if empty else 0)
