"""Whole runs of every regime and criterion on real files: queries, maps, counts, resume, refusals."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_runs import arguments, kept, rounds
from PIL import Image, ImageFilter
from safetensors.torch import load_file

from sal_fast import plugins
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.regimes import REGIMES

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(tiny: Tiny, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run of each regime, one seed."""
    root = tmp_path_factory.mktemp("runs")
    return {
        regime: tiny(
            root / regime,
            regime=regime,
            segmenter_masks=str(shared_folder / "masks") if regime == "segmenter" else None,
        )
        for regime in REGIMES
    }


def test_counts_of_every_regime(runs: dict[str, Path]) -> None:
    """18 training images: 5 at the start (human), then 4, then 5 by whoever the regime names."""
    expected = {
        "b1": [(5, 0, 0), (9, 0, 0), (14, 0, 0)],
        "b2": [(5, 5, 0), (9, 9, 0), (14, 14, 0)],
        "sal": [(5, 5, 0), (9, 5, 4), (14, 5, 9)],
        "sal-single": [(5, 5, 0), (9, 5, 4), (14, 5, 9)],
        "no-ai-saliency": [(5, 5, 0), (9, 5, 0), (14, 5, 0)],
        "tait": [(5, 5, 0), (9, 5, 4), (14, 5, 9)],
        "segmenter": [(5, 0, 5), (9, 0, 9), (14, 0, 14)],
    }
    for regime, folder in runs.items():
        rows = rounds(folder)
        assert [row["round"] for row in rows] == [0, 1, 2]
        empty = rows[-1]["empty_maps"]
        got = [
            (row["labelled"], row["human_maps"], row["generated_maps"] + row["empty_maps"]) for row in rows
        ]
        assert got == expected[regime], regime
        assert empty == 0 or regime in ("sal", "sal-single", "tait")
        assert all(0 <= row["accuracy"] <= 1 and 0 <= row["dice"] <= 1 for row in rows)
        assert rows[0]["dice_floor"] == pytest.approx(0.25, abs=0.02)


def test_summary(runs: dict[str, Path]) -> None:
    summary = json.loads((runs["sal"] / "summary.json").read_text())
    rows = rounds(runs["sal"])
    x, y = [row["labelled"] for row in rows], [row["dice"] for row in rows]
    assert summary["aulc_dice"] == pytest.approx(np.trapezoid(y, x) / (x[-1] - x[0]))
    assert (summary["regime"], summary["criterion"], summary["seed"]) == ("sal", "margin", 0)
    assert summary["accuracy"] == rows[-1]["accuracy"]


def test_regimes_with_one_seed_share_the_start_and_the_human_rounds(runs: dict[str, Path]) -> None:
    """b2, sal, sal-single, no-ai-saliency and tait are one run up to the human budget, bit by bit."""
    same = [runs[name] for name in ("b2", "sal", "sal-single", "no-ai-saliency", "tait")]
    assert len({json.dumps(rounds(folder)[0]) for folder in same}) == 1
    assert len({(folder / "rounds/000/query.csv").read_bytes() for folder in same}) == 1
    assert len({(folder / "rounds/001/query.csv").read_bytes() for folder in same}) > 1


def test_queries_never_repeat_and_come_from_the_pool(runs: dict[str, Path]) -> None:
    for folder in runs.values():
        run = json.loads((folder / "run.json").read_text())
        asked = []
        for number in (0, 1):
            with open(folder / f"rounds/{number:03d}/query.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            assert list(rows[0]) == ["id", "score", "rank"]
            assert [int(row["rank"]) for row in rows] == list(range(len(rows)))
            asked += [row["id"] for row in rows]
        assert len(set(asked)) == len(asked) == 9
        assert set(asked) <= set(run["splits"]["train"])
        assert not (folder / "rounds/002/query.csv").exists()


def test_generated_maps_are_files_a_person_can_open(runs: dict[str, Path]) -> None:
    for regime, folder in runs.items():
        files = sorted(folder.glob("rounds/*/maps/**/*.png"))
        assert len(files) == (9 if regime in ("sal", "sal-single", "tait") else 0)
        for file in files:
            pixels = np.array(Image.open(file))
            assert pixels.shape == (32, 32)
            assert set(np.unique(pixels)) <= {0, 255}


def test_only_the_last_rounds_weights_stay(runs: dict[str, Path]) -> None:
    folder = runs["sal"]
    assert [p.parent.name for p in folder.glob("rounds/*/accuracy.safetensors")] == ["002"]
    assert [p.parent.name for p in folder.glob("rounds/*/examples.npz")] == ["002"]
    assert (runs["tait"] / "teacher.safetensors").exists()


def test_a_run_of_before_an_option_came_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", epochs=1, stop_fraction=0.5)
    kept = json.loads((run / "run.json").read_text())
    for name in ("cam_layer", "annotator", "shards"):
        del kept["config"][name]
    (run / "run.json").write_text(json.dumps(kept))
    (run / "summary.json").unlink()
    assert tiny(run, epochs=1, stop_fraction=0.5) == run
    with pytest.raises(InputError, match="cam_layer 'features' there, 'layer3' asked"):
        tiny(run, epochs=1, stop_fraction=0.5, cam_layer="layer3")


@pytest.mark.parametrize("criterion", plugins.names("criterion"))
def test_every_criterion_repeats_itself(criterion: str, tiny: Tiny, tmp_path: Path) -> None:
    first = tiny(tmp_path / "a", criterion=criterion, regime="sal-single", epochs=1)
    again = tiny(tmp_path / "b", criterion=criterion, regime="sal-single", epochs=1)
    assert rounds(first) == rounds(again)
    assert kept(first) == kept(again)


SWITCHES: list[Any] = [
    {"probe": "gradcam++"},
    {"probe": "gradcam"},
    {"map_size": 32},
    {"saliency_loss": "mse"},
    {"augment": "standard"},
    {"alpha": 0.3},
    {"regime": "tait", "teacher_arch": "resnet34"},
    {"cam_layer": "layer4.1.conv2"},
    {"cam_layer": "layer3", "probe": "gradcam++"},
    {"cam_class": "predicted"},
    pytest.param(
        {"arch": "swin_t", "output_stride": 32, "image_size": 96, "epochs": 1}, marks=pytest.mark.full
    ),
]


@pytest.mark.parametrize("options", SWITCHES, ids=lambda options: "-".join(map(str, options.values())))
def test_every_switch_changes_the_run(
    options: dict, runs: dict[str, Path], tiny: Tiny, tmp_path: Path
) -> None:
    got = rounds(tiny(tmp_path / "run", **options))
    assert len(got) == 3
    assert got != rounds(runs[options.get("regime", "sal")])


@pytest.mark.parametrize(
    ("augment", "decoder"), [("none", "torch"), pytest.param("color", "dali", marks=pytest.mark.full)]
)
def test_streamed_and_resident_runs_are_one(
    augment: str, decoder: str, runs: dict[str, Path], tiny: Tiny, tmp_path: Path
) -> None:
    """Wherever images come from: the same queries, maps and metrics."""
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    resident = runs["sal"] if augment == "none" else tiny(tmp_path / "resident", augment=augment)
    streamed = tiny(tmp_path / "streamed", augment=augment, store="stream", decoder=decoder)
    assert rounds(streamed) == rounds(resident)
    assert kept(streamed) == kept(resident)


def test_a_run_on_graded_maps_measures_their_agreement(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Gaze-like maps of their own resolution, two annotators for each image."""
    for mask in sorted((folder / "masks").rglob("*.png")):
        box = Image.open(mask).convert("L")
        mask.unlink()
        mask.with_suffix("").mkdir()
        for person, shift in enumerate((-3, 3)):
            seen = box.rotate(0, translate=(shift, 0)).filter(ImageFilter.GaussianBlur(4)).resize((30, 30))
            seen.save(mask.with_suffix("") / f"{person}.png")
    rows = rounds(tiny(tmp_path / "graded", data=str(folder)))
    for row in rows:
        assert -1 <= row["cc"] <= 1
        assert row["kl"] > 0
        assert row["dice"] is not None
    assert rows[0]["human_maps"] == 5


@pytest.mark.full
def test_switches_that_change_nothing_here(runs: dict[str, Path], tiny: Tiny, tmp_path: Path) -> None:
    """HiResCAM is CAM up to a scale that min-max removes; determinism is what a CPU has anyway."""
    same = [rounds(tiny(tmp_path / "hires", probe="hirescam"))]
    try:
        same.append(rounds(tiny(tmp_path / "deterministic", deterministic=True)))
    finally:
        torch.use_deterministic_algorithms(False)
    for got in same:
        for row, other in zip(got, rounds(runs["sal"]), strict=True):
            assert row["labelled"] == other["labelled"]
        # later rounds train on, and a last digit grows with every step
        assert got[0]["dice"] == pytest.approx(rounds(runs["sal"])[0]["dice"], abs=0.02)


def test_deterministic_runs_are_prepared_before_cublas_is_used() -> None:
    """cuBLAS reads the variable once, and an earlier run in this process may have used cuBLAS already."""
    code = "import os; import sal_fast.experiment.run; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == ":4096:8\n", done.stderr


def test_resume_after_every_round(runs: dict[str, Path], tiny: Tiny, tmp_path: Path) -> None:
    """Cut a finished run back to k rounds, as a kill would leave it, and continue."""
    for regime in ("sal", "tait"):
        for finished in (0, 1, 2):
            cut = tmp_path / f"{regime}-{finished}"
            shutil.copytree(runs[regime], cut)
            (cut / "summary.json").unlink()
            lines = (cut / "rounds.jsonl").read_text().splitlines(keepends=True)
            (cut / "rounds.jsonl").write_text("".join(lines[:finished]))
            tiny(cut, regime=regime)
            assert rounds(cut) == rounds(runs[regime])
            assert kept(cut) == kept(runs[regime])


@pytest.mark.full
def test_warm_start_differs_and_never_turns_cold(tiny: Tiny, tmp_path: Path) -> None:
    whole = tiny(tmp_path / "whole", warm_start=True)
    cold = tiny(tmp_path / "cold")
    assert rounds(whole)[0] == rounds(cold)[0]
    assert rounds(whole)[1:] != rounds(cold)[1:]
    # back to round 0, whose weights are pruned: refused, never silently cold
    (whole / "summary.json").unlink()
    (whole / "rounds.jsonl").write_text((whole / "rounds.jsonl").read_text().splitlines(keepends=True)[0])
    with pytest.raises(InputError, match="weights file not found"):
        tiny(whole, warm_start=True)


def test_half_written_line_is_repaired_and_said(
    runs: dict[str, Path], tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(runs["sal"], cut)
    (cut / "summary.json").unlink()
    whole = (cut / "rounds.jsonl").read_bytes()
    (cut / "rounds.jsonl").write_bytes(whole[:-40])
    tiny(cut)
    assert "line 3 was half-written and has been removed" in caplog.text
    assert rounds(cut) == rounds(runs["sal"])


def test_finished_run_does_nothing(
    runs: dict[str, Path], tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in runs["sal"].rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    with caplog.at_level("INFO"):
        tiny(runs["sal"])
    assert "is finished; nothing to do" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_configuration_is_refused_with_the_difference(runs: dict[str, Path], tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"epochs 2 there, 3 asked, seed 0 there, 1 asked"):
        tiny(runs["sal"], epochs=3, seed=1)


def test_changed_data_is_refused(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    out = tiny(tmp_path / "run", data=str(folder), epochs=1)
    (out / "summary.json").unlink()
    shutil.copy(folder / "masks/red/001.png", folder / "masks/red/000.png")
    with pytest.raises(InputError, match="was made from other data"):
        tiny(out, data=str(folder), epochs=1)
    (folder / "images/red/000.jpg").unlink()
    with pytest.raises(InputError, match=r"'red/000' is gone"):
        tiny(out, data=str(folder), epochs=1)


def test_foreign_folder_and_a_folder_in_use(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.tex"):
        tiny(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "busy").mkdir()
    with open(tmp_path / "busy" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="in use by another process"):
            tiny(tmp_path / "busy")


def test_empty_and_missing_human_maps_are_counted(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    for index in range(10):
        Image.new("L", (40, 40)).save(folder / f"masks/red/{index:03d}.png")
        (folder / f"masks/blue/{index:03d}.png").unlink()
    rows = rounds(
        tiny(tmp_path / "run", data=str(folder), regime="b2", epochs=1, start_fraction=1.0, stop_fraction=1.0)
    )
    assert (rows[0]["human_maps"], rows[0]["empty_maps"], rows[0]["labelled"]) == (6, 6, 18)
    assert rows[0]["dice_images"] == 2


def test_other_data_in_the_folder_of_a_finished_run(runs: dict[str, Path], folder: Path, tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"another configuration \(data '.*' there, '.*' asked\)"):
        tiny(runs["sal"], data=str(folder))


def test_a_start_killed_before_run_json_was_whole(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json.part").write_text('{"format": 1')
    assert len(rounds(tiny(out, epochs=1))) == 3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", '{"format": 1}', "is damaged: no 'config'"),
        ("run.json", '{"format": 9}', "format 9, expected 1"),
        ("summary.json", '{"rounds": 7}', "tells of 7 rounds, rounds.jsonl of 3"),
        ("rounds.jsonl", "", "tells of 3 rounds, rounds.jsonl of 0"),
        ("rounds.jsonl", '{"round": 5}\n{"round": 1}\n', "line 1 is damaged"),
    ],
)
def test_damaged_run_folders_are_refused(
    file: str, content: str, message: str, runs: dict[str, Path], tiny: Tiny, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(runs["sal"], cut)
    (cut / file).write_text(content)
    with pytest.raises(InputError, match=message):
        tiny(cut)


@pytest.mark.parametrize(
    "change", [lambda ids: ids[:-1], lambda ids: [*ids[:-1], ids[0]], lambda ids: [*ids[:-1], "x"]]
)
def test_a_damaged_query_is_refused(change, runs: dict[str, Path], tiny: Tiny, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(runs["b2"], cut)
    (cut / "summary.json").unlink()
    (cut / "rounds.jsonl").write_text((cut / "rounds.jsonl").read_text().splitlines(keepends=True)[0])
    path = cut / "rounds/000/query.csv"
    head, *lines = path.read_text().splitlines()
    ids = change([line.split(",")[0] for line in lines])
    path.write_text("\n".join([head, *(f"{name},0.5,{rank}" for rank, name in enumerate(ids))]) + "\n")
    with pytest.raises(InputError, match="expected 4 unlabelled training images"):
        tiny(cut, regime="b2")


def test_segmenter_masks_that_change_or_do_not_fit(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(folder / "masks", masks)
    options = {"data": str(folder), "regime": "segmenter", "segmenter_masks": str(masks), "epochs": 1}
    out = tiny(tmp_path / "run", **options)
    (out / "summary.json").unlink()
    splits = json.loads((out / "run.json").read_text())["splits"]
    spoilt = masks / f"{splits['train'][0]}.png"
    Image.new("L", (40, 40), 255).save(spoilt)
    with pytest.raises(InputError, match="--segmenter-masks has changed since"):
        tiny(out, **options)
    Image.new("L", (40, 20), 255).save(spoilt)
    with pytest.raises(InputError, match="aspect ratios differ"):
        tiny(tmp_path / "new", **options)


def spoil_masks(root: Path) -> None:
    shutil.rmtree(root / "masks")


def fill_masks(root: Path) -> None:
    for path in (root / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            Image.new("L", mask.size, 255).save(path)


def spoil_aspect(root: Path) -> None:
    Image.new("L", (40, 30)).save(root / "masks/red/004.png")


def spoil_image(root: Path) -> None:
    path = root / "images/red/004.jpg"
    path.write_bytes(path.read_bytes()[:500])


def spoil_class(root: Path) -> None:
    for index in range(1, 10):
        (root / f"images/red/{index:03d}.jpg").unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (shutil.rmtree, {}, "data folder not found"),
        (spoil_masks, {}, "no masks for its training images, and regime 'sal' needs them"),
        (fill_masks, {}, "masks, all of them empty or one grey everywhere, and regime 'sal' needs"),
        (spoil_aspect, {}, "the aspect ratios differ by 33%"),
        (spoil_image, {}, "truncated"),
        (spoil_class, {}, "class 'red' has 1 image"),
        (None, {"start_fraction": 0.01}, "less than one image"),
        (None, {"human_budget": 0.01}, "less than one image"),
        (None, {"regime": "sall"}, "unknown regime 'sall'; did you mean 'sal'?"),
        (None, {"weights": "w.safetensors"}, "weights file not found"),
        (None, {"output_stride": 32}, "too few to"),
        (None, {"output_stride": 32, "regime": "b1", "batch_size": 1}, "cannot be normalised"),
        (None, {"arch": "swin_t"}, "swin_t has a fixed stride"),
        (
            None,
            {"cam_layer": "conv3"},
            "resnet18 has no such layer; the nearest is 'layer4.1.conv2' (expected features, layer4 or",
        ),
        (None, {"cam_layer": "layer3"}, "layer3 of resnet18 has 256 channels, and --probe cam needs the 512"),
        (None, {"cam_layer": "layer4.1.relu"}, "got one that runs again"),
        (
            None,
            {"regime": "tait", "teacher_weights": "w.pth"},
            "the teacher (see --teacher-weights): weights",
        ),
        (None, {"device": "meta"}, "expected auto, cpu or cuda"),
        (None, {"epochs": "many"}, "invalid literal for int"),
        (None, {"image_size": 1000000}, "GB are free; use a lower --image-size"),
        (None, {"device": "cuda:99"}, "--device cuda:99"),
        (None, {"regime": "segmenter", "segmenter_masks": "absent"}, "folder not found: absent"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    spoil, options: dict, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if spoil is not None:
        spoil(folder)
    out = tmp_path / "run"
    assert main(["run", *arguments(data=folder, out=out, **options)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert [line.startswith("sal-fast: error: ") for line in error.splitlines()][-1]
    assert error.count("sal-fast: error: ") == 1
    assert not list(out.glob("[!.]*"))


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from sal_fast import models
    from sal_fast.models import weights

    (tmp_path / "r34.safetensors").write_bytes(weights.to_bytes(models.build("resnet34", 3).net))
    out = tmp_path / "run"
    status = main(["run", *arguments(data=folder, out=out, weights=tmp_path / "r34.safetensors")])
    assert status == 2
    assert "do not fit resnet18" in capsys.readouterr().err


def test_a_teachers_own_weights(
    runs: dict[str, Path], tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """They are the teacher's alone, and run.json knows which they were."""
    from sal_fast import models
    from sal_fast.models import weights

    file = tmp_path / "teacher.safetensors"
    file.write_bytes(weights.to_bytes(models.build("resnet18", 3, seed=7).net))
    out = tiny(tmp_path / "run", regime="tait", teacher_weights=str(file))
    assert rounds(out)[0] == rounds(runs["tait"])[0]
    assert kept(out) != kept(runs["tait"])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads((out / "run.json").read_text())["inputs"] == {"teacher_weights": digest}
    (out / "summary.json").unlink()
    file.write_bytes(weights.to_bytes(models.build("resnet18", 3, seed=8).net))
    with pytest.raises(InputError, match="--teacher-weights has changed since"):
        tiny(out, regime="tait", teacher_weights=str(file))


@pytest.mark.full
def test_xception_teaches(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    sizes = {"image_size": 96, "output_stride": 32, "epochs": 1}
    out = tiny(tmp_path / "run", regime="tait", teacher_arch="xception", **sizes)
    assert len(rounds(out)) == 3
    assert len(list(out.glob("rounds/*/maps/**/*.png"))) == 9
    teacher = load_file(out / "teacher.safetensors")
    assert teacher["conv4.pointwise.weight"].shape == (2048, 1536, 1, 1)
    assert "timm" in json.loads((out / "run.json").read_text())["environment"]


@pytest.mark.parametrize("spoil", [spoil_masks, fill_masks])
def test_b1_without_masks_runs_and_says_that_dice_is_not_measured(
    spoil, folder: Path, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder)
    out = tiny(tmp_path / "run", data=str(folder), regime="b1", epochs=1)
    assert "Dice is not measured" in caplog.text
    assert rounds(out)[-1]["dice"] is None
    assert json.loads((out / "summary.json").read_text())["aulc_dice"] is None
