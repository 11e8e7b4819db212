"""Trackers are told of every epoch and round, also of a run that was interrupted, and change nothing."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_runs import TINY, rounds
from PIL import Image

from sal_fast.errors import InputError
from sal_fast.experiment import sheet
from sal_fast.experiment.config import Config
from sal_fast.experiment.loading import Run
from sal_fast.experiment.record import Round
from sal_fast.experiment.run import run
from sal_fast.experiment.trackers.base import flat
from sal_fast.experiment.trackers.csv_files import EPOCHS, ROUNDS, Csv
from sal_fast.train import Epoch


class Heard:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.epochs: list[Epoch] = []
        self.before: list[int] = []
        self.closed = 0

    def __call__(self, run: Run, last: Round) -> None:
        self.rounds.append(last.round)

    def epoch(self, run: Run, one: Epoch) -> None:
        self.before.append(len(run.rounds))
        self.epochs.append(one)

    def close(self) -> None:
        self.closed += 1


def options(data: Path, out: Path, **more: Any) -> Config:
    return Config(**{**TINY, "data": str(data), "out": str(out), "regime": "sal", "val_every": 2, **more})


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("train", "more"),
    [("all", {}), ("all", {"class_weights": "balanced", "label_smoothing": 0.1}), ("head", {})],
)
def test_every_epoch_is_told(train: str, more: dict[str, Any], shared_folder: Path, tmp_path: Path) -> None:
    heard = Heard()
    config = options(shared_folder, tmp_path / "run", train=train, epochs=3, **more)
    found = run(config, on_round=heard)
    assert heard.rounds == [0, 1, 2]
    assert heard.closed == 1
    models = {(one.round, one.model) for one in heard.epochs}
    drawn = {(number, "interpretability model") for number in (0, 1)}
    assert models == {(number, "accuracy model") for number in range(3)} | drawn
    for number, before in zip((one.round for one in heard.epochs), heard.before, strict=True):
        assert before == number
    for one in heard.epochs:
        alpha = 0.9 if one.model == "accuracy model" else 0.1
        assert one.classification is not None
        assert one.saliency is not None
        assert one.classification > 0
        assert one.loss == pytest.approx(alpha * one.classification + (1 - alpha) * one.saliency, rel=1e-4)
        assert (one.val_accuracy is None) == (one.epoch == 0)  # after every second epoch, and the last
        assert one.lr == config.lr
        assert one.images_per_second > 0
    for line in found.rounds:
        own = [one for one in heard.epochs if (one.round, one.model) == (line.round, "accuracy model")]
        assert line.best_epoch is not None
        assert own[line.best_epoch - 1].val_accuracy == line.val_accuracy


def test_the_parts_are_those_of_a_baseline(shared_folder: Path, tmp_path: Path) -> None:
    heard = Heard()
    run(options(shared_folder, tmp_path / "run", regime="b1", stop_fraction=0.25), on_round=heard)
    for one in heard.epochs:
        assert one.classification == pytest.approx(one.loss, rel=1e-6)
        assert one.saliency is None


@pytest.mark.full
def test_a_tracker_changes_nothing(shared_folder: Path, tmp_path: Path) -> None:
    run(options(shared_folder, tmp_path / "told"), on_round=Heard())
    run(options(shared_folder, tmp_path / "quiet"), on_round=lambda run, last: None)
    assert rounds(tmp_path / "told") == rounds(tmp_path / "quiet")


@pytest.mark.full
def test_csv_is_whole_after_an_interruption(shared_folder: Path, tmp_path: Path) -> None:
    class Stops(Csv):
        def epoch(self, run: Run, one: Epoch) -> None:
            super().epoch(run, one)
            if (one.round, one.epoch) == (1, 0):
                raise KeyboardInterrupt

    config = options(shared_folder, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(config, on_round=Stops())
    assert [row["round"] for row in table(tmp_path / "run" / EPOCHS)][-1] == "1"
    run(config.replace(tracker="csv+log"))
    epochs = table(tmp_path / "run" / EPOCHS)
    places = [(row["model"], int(row["round"]), int(row["epoch"])) for row in epochs]
    assert len(places) == len(set(places)) == 2 * (3 + 2)
    assert all(float(row["loss"]) > 0 for row in epochs)
    lines = table(tmp_path / "run" / ROUNDS)
    kept = [json.loads(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    assert [float(row["accuracy"]) for row in lines] == [row["accuracy"] for row in kept]
    assert [float(row["timings/train"]) for row in lines] == [row["timings"]["train"] for row in kept]


def test_the_numbers_of_a_round() -> None:
    line = {"round": 1, "labelled": 2, "human_maps": 0, "generated_maps": 0, "empty_maps": 0, "accuracy": 0.5}
    made = Round.of({**line, "dice": None, "dice_floor": None, "seconds": 1, "timings": {"train": 0.25}})
    found = dict(flat(made))
    assert found["accuracy"] == 0.5
    assert found["timings/train"] == 0.25
    assert found["stopped"] == 0
    assert "dice" not in found
    assert dict(flat({"a": [1, {"b": True}], "c": "text"})) == {"a/0": 1, "a/1/b": 1}


# The programs.


@pytest.fixture(scope="module")
def finished(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with generated maps in its last query, which told nobody."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return run(options(shared_folder, out, human_budget=0.5), on_round=lambda run, last: None)


EPOCH = Epoch("accuracy model", 1, 0, 1.5, 1.25, 3.75, None, 0.01, 100.0)


def told(tracker: Any, finished: Run) -> None:
    for last in finished.rounds:
        tracker.epoch(finished, EPOCH)
        tracker(finished, last)
    tracker.close()
    tracker.close()


def test_tensorboard(finished: Run) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sal_fast.experiment.trackers.tensorboard import FOLDER, TensorBoard

    told(TensorBoard(), finished)
    events = EventAccumulator(str(finished.path / FOLDER))
    events.Reload()
    accuracies = [one.value for one in events.Scalars("round/accuracy")]
    assert accuracies == pytest.approx([one.accuracy for one in finished.rounds], abs=1e-6)
    assert [one.step for one in events.Scalars("round/accuracy")] == [0, 1, 2]
    assert {one.step for one in events.Scalars("epoch/accuracy model/saliency")} == {2}
    assert "epoch/accuracy model/val_accuracy" not in events.Tags()["scalars"]
    (picture,) = events.Images("round/query with generated maps")
    assert picture.step == 1
    assert (picture.width, picture.height) == sheet.of_query(finished, 1).pixels.shape[1::-1]  # type: ignore[union-attr]


def test_weights_and_biases(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from sal_fast.experiment.trackers.weights_and_biases import WeightsAndBiases

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told(WeightsAndBiases(), finished)
    wandb.teardown()  # as at the end of a process: its files are then complete
    (folder,) = (finished.path / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    assert b"round/accuracy" in record.read_bytes()
    assert list(folder.glob("files/media/images/round/*.png"))


def test_mlflow(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the default, a database, needs more than a folder
    mlflow = pytest.importorskip("mlflow")
    from sal_fast.experiment.trackers.mlflow import FILE, MlFlow

    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    told(MlFlow(), finished)
    name = (finished.path / FILE).read_text()
    told(MlFlow(), finished)  # the same run goes on
    assert (finished.path / FILE).read_text() == name
    client = mlflow.MlflowClient()
    metrics = client.get_run(name).data.metrics
    assert metrics["round/accuracy"] == pytest.approx(finished.rounds[-1].accuracy)
    assert metrics["epoch/accuracy model/loss"] == 1.5
    assert [one.path for one in client.list_artifacts(name)] == ["query", "query with generated maps"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_program_is_named_before_anything_is_written(
    name: str, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    config = Config(**{**TINY, "data": str(shared_folder), "out": str(tmp_path / "run"), "tracker": name})
    with pytest.raises(InputError, match=rf'--tracker {name} needs .*: pip install "sal-fast\[{name}\]"'):
        run(config)
    assert not (tmp_path / "run" / "run.json").exists()


# Sheets.


def test_a_sheet_shows_the_query_and_its_maps(finished: Run, shared_folder: Path) -> None:
    human, generated = sheet.of_query(finished, 0, most=3), sheet.of_query(finished, 1)
    assert human is not None
    assert generated is not None
    assert (human.maps, generated.maps) == (False, True)
    assert len(human.ids) == 3
    side, gap = sheet.SIDE, sheet.GAP
    assert human.pixels.shape == (side + gap, 3 * (side + gap), 3)
    for i, name in enumerate(human.ids):
        shown = human.pixels[:side, i * (side + gap) :][:, :side].astype(float)
        with Image.open(shared_folder / "images" / f"{name}.jpg") as image:
            own = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)).astype(
                float
            )
        assert np.abs(shown - own).mean() < 3
    name = generated.ids[0]
    with Image.open(finished.path / "rounds/001/maps" / f"{name}.png") as image:
        small = np.asarray(image.resize((side, side)))
    plain, beside = (generated.pixels[:side, i * side :][:, :side].astype(float) for i in (0, 1))
    for grey, colour in ((0, (0, 0, 4)), (255, (252, 255, 164))):  # the ends of inferno
        assert (small == grey).any()
        off = beside[small == grey] - (0.4 * plain[small == grey] + 0.6 * np.array(colour))
        assert np.abs(off).max() <= 7
    assert sheet.of_query(finished, 2) is None  # the last round asks for nothing


def test_a_sheet_without_its_images(finished: Run, tmp_path: Path) -> None:
    gone = Run(**{**vars(finished), "config": finished.config.replace(data=str(tmp_path / "gone"))})
    with pytest.raises(InputError, match="data folder not found"):
        sheet.of_query(gone, 0)
