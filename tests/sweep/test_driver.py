"""Shared rounds are trained once and come out as if alone; what the driver does when things go wrong."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_runs import SMALL, results, runs, toml

from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.budget import plan as rounds_plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.run import run
from sal_fast.models import build, weights
from sal_fast.sweep import driver, grid, plan, worker
from sal_fast.sweep.cluster import Lost
from sal_fast.sweep.sharing import copy_rounds, shared_rounds

Alone = Callable[[Config], Path]


class Here:
    """A cluster that runs one thing after the other in this process."""

    slots, cpus_per_run, gpus_per_run = 1, 1, 0.0

    def __init__(self) -> None:
        self.tasks: list[tuple[str, worker.Task]] = []
        self.began: list[str] = []
        self.lose: dict[str, int] = {}

    def start(self, name: str, task: worker.Task) -> None:
        self.tasks.append((name, task))

    def news(self, timeout: float) -> list[tuple[str, Any]]:
        name, task = self.tasks.pop(0)
        self.began.append(name)
        if self.lose.get(name, 0):
            self.lose[name] -= 1
            return [(name, Lost("gone"))]
        return [(name, worker._outcome(task))]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_write_to", lambda log: None)
    monkeypatch.setattr(driver, "AGAIN", 0.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def sweep(out: Path, here: Here | None = None, retries: int = 3, **options: Any) -> driver.Driver:
    made = driver.Driver(plan.look(runs(out, **options)).planned, out, retries)
    made.look()
    made.go(here or Here(), lambda driver: None)  # type: ignore[arg-type]
    return made


def copied(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text()).get("copied", {}).get("rounds", 0)


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
    ):
        assert shared_rounds(made("b2"), made("sal", **options)) == 0
    assert shared_rounds(made("b2"), made("sal", alpha=0.9)) == 2  # b2's own
    assert shared_rounds(made("b2"), made("tait", teacher_arch="resnet34", teacher_weights="DEFAULT")) == 2


REGIMES = [
    "sal",
    "tait",
    pytest.param("sal-single", marks=pytest.mark.full),
    pytest.param("no-ai-saliency", marks=pytest.mark.full),
]


@pytest.mark.parametrize("regime", REGIMES)
def test_a_shared_beginning_ends_as_a_run_alone(
    regime: str, shared_folder: Path, tmp_path: Path, alone: Alone
) -> None:
    made = sweep(tmp_path, data=str(shared_folder), regime=["b2", regime])
    assert [one.state for one in made.runs.values()] == ["done", "done"]
    first, second = (RunFolder(one.config.run_folder) for one in made.runs.values())
    assert (copied(first.path), copied(second.path)) == (0, 1)
    whole = RunFolder(alone(list(made.runs.values())[1].config))
    assert results(second.path) == results(whole.path)
    names = [
        sorted(str(p.relative_to(f.path)) for f in [f] for p in f.path.rglob("*")) for f in (second, whole)
    ]
    assert names[0] == names[1]
    here, there = second.run(), whole.run()
    for part in ("splits", "start", "data", "inputs", "environment"):
        assert here[part] == there[part]
    assert {**here["config"], "out": None} == {**there["config"], "out": None}
    for name in ("accuracy.safetensors", "examples.npz"):
        assert (second.round(2) / name).read_bytes() == (whole.round(2) / name).read_bytes()
    assert main(["report", str(first.path), str(second.path), "--out", str(tmp_path / "report")]) == 0


def test_a_copied_run_knows_its_own_teachers_weights(
    shared_folder: Path, tmp_path: Path, alone: Alone
) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(weights.to_bytes(build("resnet18", 3, seed=7).net))
    out = tmp_path / "out"
    made = sweep(out, data=str(shared_folder), regime=["b2", "tait"], teacher_weights=str(file))
    assert [one.state for one in made.runs.values()] == ["done", "done"]
    first, second = (RunFolder(one.config.run_folder) for one in made.runs.values())
    assert copied(second.path) == 1
    assert first.run()["inputs"] == {}
    assert list(second.run()["inputs"]) == ["teacher_weights"]
    assert results(second.path) == results(alone(list(made.runs.values())[1].config))


@pytest.mark.parametrize("first", ["function", "b2"])
def test_a_copied_run_knows_its_own_function(
    first: str, shared_folder: Path, tmp_path: Path, alone: Alone
) -> None:
    """Whichever of the two trains the rounds that both have."""
    file = tmp_path / "mine.py"
    file.write_text("def draw(pictures, labels):\n    return [one[..., 0] > 128 for one in pictures]\n")
    drawn = f'{{ regime = "sal", generator = "{file}:draw" }}'
    regimes = [drawn, '"b2"'] if first == "function" else ['"b2"', drawn]
    text = toml(data=str(shared_folder)) + f"regime = [{', '.join(regimes)}]\n"
    made = driver.Driver(
        plan.look(grid.parse("small", "small.toml", text).runs(tmp_path)).planned, tmp_path, 3
    )
    made.look()
    made.go(Here(), lambda driver: None)  # type: ignore[arg-type]
    assert [(one.state, one.note) for one in made.runs.values()] == [("done", "")] * 2
    assert [copied(one.config.run_folder) for one in made.runs.values()] == [0, 1]
    for one in made.runs.values():
        folder, whole = one.config.run_folder, alone(one.config)
        assert results(folder) == results(whole)
        assert RunFolder(folder).run()["inputs"] == RunFolder(whole).run()["inputs"]


def test_warm_start_takes_the_weights_along(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    here = Here()
    made = sweep(tmp_path, here, data=str(shared_folder), regime=["b2", "sal"], warm_start=True)
    first, second = made.runs
    assert here.began == [first, second, first]  # it waits where the other copies its weights
    assert copied(tmp_path / second) == 1
    for name in made.runs:
        assert results(tmp_path / name) == results(alone(made.runs[name].config))


def test_runs_that_are_the_same_are_copied_whole(shared_folder: Path, tmp_path: Path) -> None:
    made = sweep(tmp_path, data=str(shared_folder), regime="b1", human_budget=[0.25, 0.5])
    first, second = (tmp_path / name for name in made.runs)
    assert (copied(first), copied(second)) == (0, 3)
    assert results(first) == results(second)
    assert (second / "rounds/002/accuracy.safetensors").exists()


def test_a_copy_that_is_killed_is_whole_or_not_there(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone
) -> None:
    """An exception at each change of names stands for the kill; what was left is what a kill leaves."""
    source, target = (one.config for one in runs(tmp_path, data=str(shared_folder), regime=["b2", "sal"]))
    run(source, until=2)
    changes, statuses = 0, []

    def before(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes -= 1
            if changes == 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr("os.replace", before(__import__("os").replace))
    monkeypatch.setattr(Path, "rename", before(Path.rename))
    for number in range(1, 20):
        changes = number
        try:
            statuses.append(copy_rounds(source, target, 1))
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


def test_nothing_to_copy(shared_folder: Path, tmp_path: Path) -> None:
    source, target = (one.config for one in runs(tmp_path, data=str(shared_folder), regime=["b2", "sal"]))
    assert not copy_rounds(source, target, 1)
    run(source, until=1)
    assert not copy_rounds(source, target, 2)
    assert not target.run_folder.exists()
    assert copy_rounds(source, target, 1)
    assert copy_rounds(source, target, 1)  # again: it has them
    with pytest.raises(InputError, match="another configuration"):
        copy_rounds(Config.of({**vars(source), "lr": 0.5}), target, 1)


def test_lost_workers(shared_folder: Path, tmp_path: Path) -> None:
    """Tried again as often as is allowed; then the run fails, and what waited for its rounds goes alone."""
    here = Here()
    options = {"data": str(shared_folder), "regime": ["b2", "sal", "b1"], "stop_fraction": 0.5}
    b2, sal, b1 = (one.name for one in runs(tmp_path, **options))
    here.lose = {b2: 99, b1: 2}
    made = sweep(tmp_path, here, retries=2, **options)
    assert {name: one.state for name, one in made.runs.items()} == {b2: "failed", sal: "done", b1: "done"}
    assert "3 workers lost without a finished round: gone" in made.runs[b2].note
    assert (here.began.count(b2), here.began.count(b1), here.began.count(sal)) == (3, 3, 1)
    assert copied(tmp_path / sal) == 0
    again = Here()
    made = sweep(tmp_path, again, **options)
    assert again.began == [b2]
    assert made.over
    assert copied(tmp_path / b2) == 2  # the other way round: sal has them now


def test_a_folder_in_use_is_waited_for(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = runs(tmp_path, data=str(shared_folder), regime="b1", stop_fraction=0.25)
    one.config.run_folder.mkdir(parents=True)
    here = Here()
    seen = []
    with open(one.config.run_folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(worker.Task, "patience", 0.0)
        monkeypatch.setattr(worker, "_when_free", lambda step, patience: step())

        def show(made: driver.Driver) -> None:
            seen.append(made.runs[one.name].note)
            if "in use by another process" in seen:
                fcntl.flock(file, fcntl.LOCK_UN)

        made = driver.Driver(plan.look([one]).planned, tmp_path, 3)
        made.look()
        made.go(here, show)  # type: ignore[arg-type]
    assert made.runs[one.name].state == "done"
    assert len(here.began) == 2


def test_bad_input_is_said_and_not_tried_again(folder: Path, tmp_path: Path) -> None:
    (folder / "images/red/003.jpg").write_bytes(b"")
    here = Here()
    made = sweep(tmp_path, here, data=str(folder), regime="sal")
    (one,) = made.runs.values()
    assert one.state == "failed"
    assert "003.jpg" in one.note
    assert len(here.began) == 1


def test_a_changed_grid_is_refused_before_anything_starts(shared_folder: Path, tmp_path: Path) -> None:
    (one,) = runs(tmp_path, data=str(shared_folder), regime="b1", stop_fraction=0.25)
    run(one.config)
    with pytest.raises(InputError, match=r"another configuration \(lr 0.01 there, 0.5 asked\)"):
        sweep(tmp_path, data=str(shared_folder), regime="b1", stop_fraction=0.25, lr=0.5)


def test_what_is_left(shared_folder: Path, tmp_path: Path) -> None:
    options = {"data": str(shared_folder), "regime": "b1", "seed": [0, 1]}
    first, _ = runs(tmp_path, **options)
    made = driver.Driver(plan.look(runs(tmp_path, **options)).planned, tmp_path, 0)
    made.look()
    assert made.seconds_left() is None
    run(first.config)
    made.look()
    lines = (tmp_path / first.name / "rounds.jsonl").read_text().splitlines()
    spent = sum(json.loads(line)["seconds"] for line in lines)
    assert made.seconds_left() == pytest.approx(spent)


def test_two_sweeps_in_one_folder(shared_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = pytest.raises(InputError, match="in use by another sweep")
    with driver.held(out, "g", ""), refused, driver.held(out, "g", ""):
        pass
    (one,) = runs(tmp_path, **{**SMALL, "data": str(shared_folder), "stop_fraction": 0.25})
    run(one.config)
    with pytest.raises(InputError, match="one run's folder"), driver.held(one.config.run_folder, "g", ""):
        pass
