"""RUN/model: it is whole after any kill, says what it is, and contradicts whoever says otherwise."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.optimize import brentq

import sal_fast
from sal_fast._util.files import write_bytes
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.models import weights
from sal_fast.trained import folder, metadata


@pytest.fixture
def copy(finished: sal_fast.Run, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


def cut(run: Path, rounds: int) -> None:
    """Make a run as if it had been killed after so many rounds."""
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(lines[:rounds]))
    (run / "summary.json").unlink(missing_ok=True)


def test_what_the_file_says(finished: sal_fast.Run) -> None:
    file = finished.path / "model" / "model.safetensors"
    assert os.path.samefile(file, finished.path / "rounds/002/accuracy.safetensors")
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["sal_fast"])
    last = finished.rounds[-1]
    assert about["classes"] == ["blue", "green", "red"]
    assert about["network"] == finished.config.arch
    assert (about["image_size"], about["stored_size"], about["output_stride"]) == (32, 37, 32)
    assert about["normalisation"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert (about["run"], about["round"], about["version"]) == ("run", 2, sal_fast.__version__)
    assert about["counts"] == {
        name: getattr(last, name) for name in ("labelled", "human_maps", "generated_maps", "empty_maps")
    }
    assert [about["data"][split] for split in ("train", "val", "test")] == [18, 6, 6]


def test_the_card(finished: sal_fast.Run) -> None:
    text = (finished.path / "model" / "README.md").read_text()
    last = finished.rounds[-1]
    low, high = wilson(round(last.accuracy * 6), 6)
    assert f"| Accuracy | {last.accuracy:.3f} | {low:.3f} to {high:.3f} | 6 test images |" in text
    assert last.dice is not None
    assert last.dice_std is not None
    assert last.dice_images == 6
    half = 1.96 * last.dice_std / 6**0.5
    interval = f"{max(0, last.dice - half):.3f} to {min(1, last.dice + half):.3f}"
    assert f"| Dice | {last.dice:.3f} | {interval} |" in text
    assert "There are only 6 test images" in text
    assert "must not be used for" in text
    assert "the last one" in text
    hub = pytest.importorskip("huggingface_hub")
    read = hub.ModelCard.load(finished.path / "model" / "README.md")
    found = {one.metric_type: one.metric_value for one in read.data.eval_results}
    assert found["accuracy"] == last.accuracy
    assert found["dice"] == last.dice
    assert read.data.pipeline_tag == "image-classification"


def wilson(right: int, count: int) -> tuple[float, float]:
    """The shares p whose distance to the observed one is 1.96 standard errors at p, found by bisection."""
    share, z = right / count, 1.959963984540054

    def beyond(p: float) -> float:
        return (share - p) ** 2 - z**2 * p * (1 - p) / count

    low = 0.0 if right == 0 else brentq(beyond, 0, share - 1e-9)
    high = 1.0 if right == count else brentq(beyond, share + 1e-9, 1)
    return low, high


def test_a_killed_run_gets_its_folder(copy: Path, finished: sal_fast.Run) -> None:
    """Killed between the line of a round and its model, or in the middle of it: the same files come out."""
    there = {path.name: path.read_bytes() for path in (finished.path / "model").iterdir()}
    again = Config.of({**finished.record["config"], "out": str(copy)})
    for spoil in (
        lambda: shutil.rmtree(copy / "model"),
        lambda: (copy / "model/README.md").unlink(),
        lambda: write_bytes(copy / "model/model.safetensors", b"half"),
        lambda: (copy / "model/model.safetensors.part").write_bytes(b"half"),
    ):
        spoil()
        assert sal_fast.run(again).finished
        (copy / "model/model.safetensors.part").unlink(missing_ok=True)
        assert {path.name: path.read_bytes() for path in (copy / "model").iterdir()} == there
    cut(copy, 2)
    shutil.rmtree(copy / "model")
    assert sal_fast.run(again, on_round=lambda run, last: None).finished
    assert {path.name: path.read_bytes() for path in (copy / "model").iterdir()} == there


def test_an_unfinished_run_has_a_model(copy: Path, finished: sal_fast.Run) -> None:
    """Its card says so. The folder is one round behind only until the next call."""
    cut(copy, 2)
    (copy / "rounds/001/accuracy.safetensors").write_bytes(
        (copy / "rounds/002/accuracy.safetensors").read_bytes()
    )
    folder.write(RunFolder(copy))
    assert sal_fast.load_model(copy).metadata["round"] == 1
    assert "the run is not finished" in (copy / "model/README.md").read_text()


def test_a_run_of_an_older_version(copy: Path, finished: sal_fast.Run, model: sal_fast.SalModel) -> None:
    """Its weights say nothing of themselves; run.json does."""
    shutil.rmtree(copy / "model")
    plain = copy / "rounds/002/accuracy.safetensors"
    save_file(load_file(plain), plain)
    old = sal_fast.load_model(copy)
    assert old.metadata == model.metadata
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(old(x), model(x))
    with pytest.raises(InputError, match="does not say which network, classes and image size"):
        sal_fast.load_model(plain)
    with pytest.raises(InputError, match="in this run yet"):
        metadata.find(copy)
    assert main(["run", "--resume", str(copy)]) == 0
    assert sal_fast.load_model(copy / "model").metadata == model.metadata
    plain.unlink()
    shutil.rmtree(copy / "model")
    assert main(["run", "--resume", str(copy)]) == 0  # there is nothing to make a model of


def test_rounds_that_were_copied_from_another_run(copy: Path, model: sal_fast.SalModel) -> None:
    """Their weights name the other run. The folder names this one."""
    file = copy / "rounds/002/accuracy.safetensors"
    said = {**model.metadata, "run": "another", "setting": {}}
    file.write_bytes(weights.to_bytes(load_file(file), said))
    shutil.rmtree(copy / "model")
    folder.write(RunFolder(copy))
    assert sal_fast.load_model(copy / "model" / "model.safetensors").metadata == model.metadata


def test_a_file_system_without_links(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise OSError("links are not supported")

    before = (copy / "model/model.safetensors").read_bytes()
    shutil.rmtree(copy / "model")
    monkeypatch.setattr(os, "link", refused)
    folder.write(RunFolder(copy))
    assert (copy / "model/model.safetensors").read_bytes() == before
    assert os.stat(copy / "model/model.safetensors").st_nlink == 1


def test_a_head_with_its_network(small: dict[str, Any], tmp_path: Path) -> None:
    """With --train head the folder is complete, and the round's file alone is refused."""
    options = {**small, "train": "head", "augment": "none", "epochs": 2, "out": str(tmp_path / "run")}
    run = sal_fast.run(Config(**options), on_round=lambda run, last: None)
    kept = load_file(run.path / "rounds/002/accuracy.safetensors")
    whole = load_file(run.path / "model/model.safetensors")
    assert set(kept) == {"head.weight", "head.bias"}
    assert torch.equal(whole["head.weight"], kept["head.weight"])
    assert "layer1.0.weight" in whole
    model = sal_fast.load_model(run.path / "model")
    seen = np.load(run.path / "rounds/002/examples.npz")
    x = model.preprocess([Path(run.config.data) / "images" / f"{name}.jpg" for name in seen["ids"].tolist()])
    assert model(x).argmax(1).tolist() == seen["predicted"].tolist()
    # the run keeps features in half precision
    np.testing.assert_allclose(model.explain(x).numpy(), seen["cams"], rtol=0.01, atol=0.01)
    features = model.classifier.features(x).mean((2, 3))
    expected = features @ kept["head.weight"].T + kept["head.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"expected the weights of a whole network|is missing"):
        sal_fast.load_model(run.path / "rounds/002/accuracy.safetensors")


OTHERS = {"--arch": "resnet18", "--image-size": "48", "--output-stride": "16"}


@pytest.mark.parametrize("option", OTHERS)
def test_an_option_that_contradicts_the_weights(
    option: str, finished: sal_fast.Run, shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each command that takes --weights refuses it by name, and needs none of these options."""
    file = str(finished.path / "model")
    commands = {
        "run": ["run", "--data", str(shared_folder), "--weights", file, "--epochs", "1"],
        "score": ["score", "--data", str(shared_folder), "--weights", file],
        "prepare": ["data", "prepare", "--data", str(shared_folder), "--weights", file],
    }
    for name, words in commands.items():
        assert main([*words, "--out", str(tmp_path / name), option, OTHERS[option]]) == 2
        said = capsys.readouterr().err
        assert f"{option} {OTHERS[option]} contradicts {file}/model.safetensors" in said, name
        assert not list(tmp_path.glob(f"{name}/*"))


def test_a_run_from_a_trained_model(
    finished: sal_fast.Run, small: dict[str, Any], shared_folder: Path, tmp_path: Path
) -> None:
    """It takes network, size and stride from the weights, and remembers them; so does a sweep's grid."""
    left = {name: value for name, value in small.items() if name not in ("arch", "image_size", "weights")}
    del left["output_stride"]
    given = {**left, "weights": str(finished.path), "out": str(tmp_path / "run")}
    run = sal_fast.run(Config(**given), on_round=lambda run, last: None, until=1)
    assert (run.config.arch, run.config.image_size) == (finished.config.arch, 32)
    assert run.config.weights == str(finished.path / "model/model.safetensors")
    assert sal_fast.run(Config(**given), on_round=lambda run, last: None, until=1).rounds == run.rounds
    with pytest.raises(InputError, match="--teacher-arch resnet18 contradicts"):
        metadata.like_its_weights(
            Config(regime="tait", teacher_arch="resnet18", teacher_weights=str(finished.path))
        )
    (tmp_path / "grid.toml").write_text(
        f'data = "{shared_folder}"\nregime = ["b1", "b2"]\nseed = [0]\nweights = "{finished.path}"\n'
    )
    from sal_fast.sweep import grid

    made = grid.read_grid(str(tmp_path / "grid.toml")).configs(tmp_path / "sweep", grid.Place())
    assert {config.image_size for config in made} == {32}


def test_features_for_runs_from_a_trained_model(
    finished: sal_fast.Run, shared_folder: Path, tmp_path: Path
) -> None:
    """`data prepare --weights RUN` knows the network and the size."""
    words = ["data", "prepare", "--data", str(shared_folder), "--out", str(tmp_path / "prepared")]
    assert main([*words, "--weights", str(finished.path)]) == 0
    about = json.loads(next((tmp_path / "prepared/features").glob("*/features.json")).read_text())
    assert re.search(r"small_network\.py:Small", about["network"])
    assert about["image_size"] == 32


def test_bad_files(finished: sal_fast.Run, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    state = load_file(finished.path / "model/model.safetensors")
    about = sal_fast.load_model(finished.path).metadata
    for said, message in (
        ({**about, "format": 99}, "format 99, expected 1"),
        ({name: value for name, value in about.items() if name != "probe"}, "expected 1 with classes"),
        ({**about, "classes": ["a", "b"]}, "with 2 classes, but head.weight is of 3"),
        ({**about, "network": "resnet18"}, "but fc.weight is missing"),
    ):
        file.write_bytes(weights.to_bytes(state, said))
        with pytest.raises(InputError, match=re.escape(message)):
            sal_fast.load_model(file)
    file.write_bytes(b"garbage!")
    with pytest.raises(InputError, match="cannot be read"):
        sal_fast.load_model(file)
    with pytest.raises(InputError, match="no model found"):
        sal_fast.load_model(tmp_path / "nothing")


def test_a_plug_in_that_has_moved(finished: sal_fast.Run, model: sal_fast.SalModel, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    state = load_file(finished.path / "model/model.safetensors")
    file.write_bytes(weights.to_bytes(state, {**model.metadata, "network": "/gone/net.py:Small"}))
    with pytest.raises(InputError, match=r"/gone/net\.py"):
        sal_fast.load_model(file)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(sal_fast.load_model(file, network=finished.config.arch)(x), model(x))
