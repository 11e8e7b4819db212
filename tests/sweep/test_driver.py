"""Shared rounds are trained once and come out as if alone; what the driver does when things go wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_runs import Here, configs, driven, results

from sal_fast._util.locks import hold
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.budget import plan as rounds_plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.run import run
from sal_fast.models import build, weights
from sal_fast.sweep import driver, plan, worker
from sal_fast.sweep.sharing import copy_rounds, shared_rounds

Alone = Callable[[Config], Path]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_write_to", lambda log: None)
    monkeypatch.setattr(driver, "AGAIN", 0.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def copied(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text()).get("copied", {}).get("rounds", 0)


def put(run: Path, config: Config, rounds: int | None = None) -> None:
    """Make a run that exists the run of this configuration, cut after so many rounds."""
    shutil.copytree(run, config.run_folder)
    if rounds is not None:
        (config.run_folder / "summary.json").unlink()
        lines = (config.run_folder / "rounds.jsonl").read_text().splitlines(keepends=True)
        (config.run_folder / "rounds.jsonl").write_text("".join(lines[:rounds]))
        for folder in sorted((config.run_folder / "rounds").iterdir())[rounds:]:
            shutil.rmtree(folder)


def test_what_is_shared() -> None:
    """People draw the maps of queries 0, 1 and 2: rounds 0 and 1 end with a query that people answer."""

    def made(regime: str, budget: float = 0.3, **options: Any) -> tuple[Config, Any]:
        config = Config.of({"regime": regime, "human_budget": budget, "segmenter_masks": "m", **options})
        return config, rounds_plan(100, 0.1, 0.1, 0.6, budget)

    human = ("b2", "sal", "sal-single", "no-ai-saliency", "tait")
    for one in human:
        for other in human:
            if one != other:
                assert shared_rounds(made(one), made(other)) == 2
        assert shared_rounds(made(one), made("b1")) == 0
        assert shared_rounds(made(one), made("segmenter")) == 0
    assert shared_rounds(made("b2"), made("sal", 0.1)) == 0  # the start alone: round 0 already asks a model
    assert shared_rounds(made("sal", 0.2), made("sal", 0.5)) == 1
    assert shared_rounds(made("b2"), made("b2", 0.5)) == 6  # the budget says nothing there
    assert shared_rounds(made("b1"), made("b1", 0.5)) == 6
    assert shared_rounds(made("b2"), made("sal", 1.0)) == 6  # people draw everything
    for options in (
        {"seed": 1},
        {"criterion": "random"},
        {"alpha": 0.5},
        {"epochs": 1},
        {"probe": "gradcam"},
        {"cam_layer": "layer4.1.conv2"},
        {"cam_class": "predicted"},
        {"decoder": "pillow"},
    ):
        assert shared_rounds(made("b2"), made("sal", **options)) == 0
    assert shared_rounds(made("b2"), made("sal", alpha=0.9)) == 2  # b2's own
    assert shared_rounds(made("b2"), made("tait", teacher_arch="resnet34", teacher_weights="DEFAULT")) == 2


@dataclass(frozen=True)
class Shared:
    """A sweep of b2, sal with a function that draws, and tait with a file of the teacher's weights."""

    driver: driver.Driver
    b2: Config
    function: Config
    tait: Config


@pytest.fixture(scope="module")
def shared(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    root = tmp_path_factory.mktemp("sweep")
    teacher, code = root / "teacher.safetensors", root / "mine.py"
    teacher.write_bytes(weights.to_bytes(build("resnet18", 3, seed=7).net))
    code.write_text("def draw(pictures, labels):\n    return [one[..., 0] > 128 for one in pictures]\n")
    regimes = [
        "b2",
        {"regime": "sal", "generator": f"{code}:draw"},
        {"regime": "tait", "teacher_weights": str(teacher)},
    ]
    found = configs(root / "out", data=shared_folder, regime=regimes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_write_to", lambda log: None)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return Shared(driven(found, root / "out"), *found)


@pytest.mark.parametrize(("name", "inputs"), [("function", ["generator"]), ("tait", ["teacher_weights"])])
def test_a_shared_beginning_ends_as_a_run_alone(
    name: str, inputs: list[str], shared: Shared, alone: Alone
) -> None:
    assert [(one.state, one.note) for one in shared.driver.runs.values()] == [("done", "")] * 3
    first, second = RunFolder(shared.b2.run_folder), RunFolder(getattr(shared, name).run_folder)
    assert (copied(first.path), copied(second.path)) == (0, 1)
    whole = RunFolder(alone(getattr(shared, name)))
    assert results(second.path) == results(whole.path)
    names = [sorted(str(path.relative_to(f.path)) for path in f.path.rglob("*")) for f in (second, whole)]
    assert names[0] == names[1]
    here, there = second.run(), whole.run()
    for part in ("splits", "start", "data", "inputs", "environment", "ties"):
        assert here[part] == there[part]
    assert {**here["config"], "out": None} == {**there["config"], "out": None}
    assert (list(first.run()["inputs"]), list(here["inputs"])) == ([], inputs)
    kept = [(one.round(2) / "examples.npz").read_bytes() for one in (second, whole)]
    assert kept[0] == kept[1]
    states = [weights.read(one.round(2) / "accuracy.safetensors") for one in (second, whole)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.full
def test_they_are_reported_together(shared: Shared, tmp_path: Path) -> None:
    folders = [str(one.run_folder) for one in (shared.b2, shared.function, shared.tait)]
    assert main(["report", *folders, "--out", str(tmp_path / "report")]) == 0


def test_rounds_go_to_a_run_without_a_function_too(shared: Shared, tmp_path: Path) -> None:
    """The run that trains is the one with the function; b2's inputs say nothing of it."""
    target = shared.b2.replace(out=str(tmp_path / "b2"))
    assert copy_rounds(shared.function, target, 1)
    run(target)
    assert results(target.run_folder) == results(shared.b2.run_folder)
    assert RunFolder(target.run_folder).run()["inputs"] == {}


def test_the_rule_for_ties_is_copied(shared: Shared, tmp_path: Path) -> None:
    """A run that an older version began has no such key, and ties go by position; so its copies do."""
    old, target = shared.b2.replace(out=str(tmp_path / "old")), shared.tait.replace(out=str(tmp_path / "new"))
    put(shared.b2.run_folder, old)
    there = json.loads((old.run_folder / "run.json").read_text())
    assert there.pop("ties") == "key"
    (old.run_folder / "run.json").write_text(json.dumps(there))
    assert copy_rounds(old, target, 1)
    assert json.loads((target.run_folder / "run.json").read_text())["ties"] == "position"


@pytest.mark.full
def test_warm_start_takes_the_weights_along(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    here = Here()
    found = configs(tmp_path, data=shared_folder, regime=["b2", "sal"], warm_start=True)
    first, second = driven(found, tmp_path, here).runs
    assert here.began == [first, second, first]  # it waits while the other copies its weights
    assert copied(tmp_path / second) == 1
    for config in found:
        assert results(config.run_folder) == results(alone(config))


def test_runs_that_are_the_same_are_copied_whole(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    first, second = configs(tmp_path, data=shared_folder, regime="b1", human_budget=[0.25, 0.5])
    put(alone(first), first)
    driven([first, second], tmp_path)
    assert (copied(first.run_folder), copied(second.run_folder)) == (0, 3)
    assert results(first.run_folder) == results(second.run_folder)
    assert (second.run_folder / "rounds/002/accuracy.safetensors").exists()


def test_a_copy_that_is_killed_is_whole_or_not_there(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone
) -> None:
    """An exception at each change of names stands for the kill; what was left is what a kill leaves."""
    target = shared.function.replace(out=str(tmp_path / "target"))
    changes, statuses = 0, []

    def before(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes -= 1
            if changes == 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr("os.replace", before(os.replace))
    monkeypatch.setattr(Path, "rename", before(Path.rename))
    for number in range(1, 20):
        changes = number
        try:
            statuses.append(copy_rounds(shared.b2, target, 1))
        except KeyboardInterrupt:
            folder = RunFolder(target.run_folder)
            assert not folder.run_json.exists() or len(folder.rounds()) in (0, 1)
            continue
        break
    assert statuses == [True]
    assert number > 3
    changes = 0
    run(target)
    assert results(target.run_folder) == results(alone(target))


def test_nothing_to_copy(shared: Shared, tmp_path: Path) -> None:
    source, target = (one.replace(out=str(tmp_path / one.regime)) for one in (shared.b2, shared.tait))
    assert not copy_rounds(source, target, 1)
    put(shared.b2.run_folder, source, 1)
    assert not copy_rounds(source, target, 2)
    assert not target.run_folder.exists()
    assert copy_rounds(source, target, 1)
    assert copy_rounds(source, target, 1)  # again: it has them
    with pytest.raises(InputError, match="another configuration"):
        copy_rounds(source.replace(lr=0.5), target, 1)


def test_lost_workers(shared: Shared, shared_folder: Path, tmp_path: Path) -> None:
    """Tried again as often as is allowed; then the run fails, and what waited for its rounds goes alone."""
    found = configs(tmp_path, data=shared_folder, regime=["b2", "sal", "b1"], stop_fraction=0.5)
    b2, sal, b1 = (config.run_folder.name for config in found)
    here = Here({b2: 99, b1: 2})
    made = driven(found, tmp_path, here, retries=2)
    assert {name: one.state for name, one in made.runs.items()} == {b2: "failed", sal: "done", b1: "done"}
    assert "3 workers lost without a finished round: gone" in made.runs[b2].note
    assert (here.began.count(b2), here.began.count(b1), here.began.count(sal)) == (3, 3, 1)
    assert copied(tmp_path / sal) == 0
    again = Here()
    assert driven(found, tmp_path, again).over
    assert again.began == [b2]
    assert copied(tmp_path / b2) == 2  # the other way round: sal has them now


def test_a_folder_in_use_is_waited_for(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    """The one that holds it lets go once the driver has seen it."""
    (config,) = configs(tmp_path, data=shared_folder, regime="b1")
    put(alone(config), config)
    (config.run_folder / "summary.json").unlink()
    here, notes = Here(), []
    made = driver.Driver(plan.examine([config]).planned, tmp_path, 3)
    made.read_folders()
    holding = hold(config.run_folder, "run.json")
    holding.__enter__()

    def show(made: driver.Driver) -> None:
        notes.append(made.runs[config.run_folder.name].note)
        if notes[-1] and len(here.began) == 1:
            holding.__exit__(None, None, None)

    made.make_all(here, show)  # type: ignore[arg-type]
    assert made.over
    assert len(here.began) == 2
    assert set(notes) == {"", "in use by another process"}


def test_bad_input_is_said_and_not_tried_again(folder: Path, tmp_path: Path) -> None:
    (folder / "images/red/003.jpg").write_bytes(b"")
    here = Here()
    (one,) = driven(configs(tmp_path, data=folder, regime="sal"), tmp_path, here).runs.values()
    assert one.state == "failed"
    assert "003.jpg" in one.note
    assert len(here.began) == 1


def test_a_changed_grid_is_refused_before_anything_starts(
    shared_folder: Path, tmp_path: Path, alone: Alone
) -> None:
    (config,) = configs(tmp_path, data=shared_folder, regime="b1")
    put(alone(config), config)
    with pytest.raises(InputError, match=r"another configuration \(lr 0.01 there, 0.5 asked\)"):
        driven([config.replace(lr=0.5)], tmp_path)


def test_what_is_left(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    found = configs(tmp_path, data=shared_folder, regime="b1", seed=[0, 1])
    made = driver.Driver(plan.examine(found).planned, tmp_path, 0)
    made.read_folders()
    assert made.seconds_left() is None
    put(alone(found[0]), found[0])
    made.read_folders()
    lines = (found[0].run_folder / "rounds.jsonl").read_text().splitlines()
    assert made.seconds_left() == pytest.approx(sum(json.loads(line)["seconds"] for line in lines))


def test_two_sweeps_in_one_folder(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="in use by another sweep")
    with driver.holding(tmp_path, "g", ""), refused, driver.holding(tmp_path, "g", ""):
        pass
    (tmp_path / "run.json").touch()
    with pytest.raises(InputError, match="one run's folder"), driver.holding(tmp_path, "g", ""):
        pass
