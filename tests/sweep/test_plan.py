"""--plan: runs, trainings, time, memory, disk; what is missing is a warning there, an error at the start."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_runs import configs, toml

from sal_fast.cli import main
from sal_fast.experiment.config import Config
from sal_fast.sweep import plan


def test_trainings_count_shared_rounds_once(shared_folder: Path, tmp_path: Path) -> None:
    """Three rounds (people draw queries 0 and 1): round 0 is common to b2, sal and tait; b1's are its own.

    b1, b2: 3 each. sal: 3 and, for query 2, one interpretability model. tait: 3 and its teacher.
    """
    regimes = ["b1", "b2", "sal", "tait"]
    outlook = plan.examine(configs(tmp_path, data=shared_folder, regime=regimes, seed=[0, 1]))
    assert list(plan.copied_rounds(outlook.planned).values()) == [0, 0, 0, 0, 1, 1, 1, 1]
    text = str(plan.Description("small", outlook, tmp_path, 2, "sal-fast sweep small.toml"))
    assert "small: 8 runs" in text
    assert "trainings  24, in 20 rounds (4 more without the 4 rounds that are shared)" in text
    assert "not known yet" in text
    assert "sal-fast sweep small.toml" in text


def test_time_from_a_finished_run(
    shared_folder: Path, tmp_path: Path, alone: Callable[[Config], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = configs(tmp_path, data=shared_folder, regime="b1")
    shutil.copytree(alone(one), tmp_path / "out/any")
    (done,) = plan.finished_runs(tmp_path / "out")
    rates = plan.Rates()
    rates.add(done.config, done.plan, done.rounds)
    images = plan.images_trained(done.config, done.plan, range(3))
    assert images == 5 + 9 + 14
    assert rates.seconds(one, images) == pytest.approx(sum(line.seconds for line in done.rounds))
    assert rates.seconds(one.replace(probe="gradcam"), images) is None
    assert rates.seconds(one.replace(probe="gradcam"), images, rough=True) == rates.seconds(one, images)
    file = tmp_path / "small.toml"
    file.write_text(toml(data=shared_folder, regime=["b1", "sal"]))
    capsys.readouterr()
    assert main(["sweep", str(file), "--plan", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "time       about" in told
    assert "not known yet" not in told
    assert not (tmp_path / "out" / "sweep.json").exists()


def test_missing_data_and_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(
        f'data = ["{tmp_path}/nothing", {{ data = "cub200", root = "{tmp_path}/cub" }}]\n'
        f'arch = [{{ arch = "resnet18", weights = "{tmp_path}/gone.pth" }}]\nregime = ["b1", "sal"]\n'
    )
    assert main(["sweep", str(file), "--plan", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "small: 4 runs" in told
    assert "2 runs whose data are missing" in told
    for missing in ("nothing", "cub", "weights: file not found"):
        assert any(line.startswith("warning: ") and missing in line for line in told.splitlines())
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "nothing" in said
    assert "(and 2 more; --plan lists them)" in said
    assert not (tmp_path / "out").exists()


def test_masks_of_the_segmenter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing ones are a problem of that regime alone; any other mistake is refused even by --plan."""
    file, out = tmp_path / "small.toml", tmp_path / "out"
    words = ["sweep", str(file), "--out", str(out)]
    file.write_text('data = "builtin"\nregime = ["b1", "segmenter"]\n')
    needs = "data builtin: regime 'segmenter' needs --segmenter-masks"
    assert main([*words, "--plan"]) == 0
    assert f"warning: {needs}" in capsys.readouterr().out
    assert main(words) == 2
    assert needs in capsys.readouterr().err
    gone = ["--segmenter-masks", str(tmp_path / "masks")]
    assert main([*words, *gone]) == 2
    assert f"no such folder: {tmp_path}/masks/builtin" in capsys.readouterr().err
    (tmp_path / "masks/builtin").mkdir(parents=True)
    assert main([*words, *gone, "--plan"]) == 0
    assert "masks" not in capsys.readouterr().out.replace(str(tmp_path), "").split("nothing is lost")[1]
    file.write_text('regime = "segmenter"\nsegmenter_weights = "sam.pth"\ngenerator = "mine.py:draw"\n')
    assert main([*words, "--plan"]) == 2
    assert "--segmenter-weights goes with --regime segmenter, and without" in capsys.readouterr().err
    assert not out.exists()


def test_a_plug_in_that_cannot_be_imported(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told before anything starts, and once for all runs."""
    file, code = tmp_path / "small.toml", tmp_path / "mine.py"
    code.write_text("def f(pool, k, seed):\n    return range(k)\n")
    file.write_text(toml(data=shared_folder, criterion=[f"{code}:f", f"{code}:g"], seed=[0, 1]))
    assert main(["sweep", str(file), "--plan", "--out", str(tmp_path / "out")]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "criterion" in line]
    assert told == [f"warning: criterion {code}:g: {code} has no 'g'"]
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert f"{code} has no 'g'" in capsys.readouterr().err


def test_a_network_that_cannot_be_is_refused_early(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.toml"
    for options, said in (
        ({"image_size": 16}, "resnet18 has 2x2 features at --image-size 16"),
        ({"arch": "swin_t", "image_size": 96}, "--output-stride 8: swin_t has a fixed stride"),
        ({"start_fraction": 0.001}, "--start-fraction 0.001 of 18 training images is less than one image"),
    ):
        file.write_text(toml(**{"data": shared_folder, "regime": "sal", **options}))
        assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "-sal-margin-cam-" in error
    assert not (tmp_path / "out").exists()


def test_without_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "small", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'sal-fast[ray]'" in capsys.readouterr().err
