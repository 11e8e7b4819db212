"""A run by one, two and three processes gives the same queries, maps and metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from experiment_runs import TINY, kept, rounds
from patience import PATIENCE
from rank_process import together

from sal_fast import distributed, plugins
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment import stopping
from sal_fast.experiment.config import Config
from sal_fast.experiment.loading import load
from sal_fast.experiment.run import run

SMALL = f"{Path(__file__).parents[1] / 'helpers/small_network.py'}:Small"
# an accuracy and an interpretability model in the first round
SIDE_BY_SIDE: dict[str, Any] = {
    **TINY, "regime": "sal", "human_budget": 0.25, "stop_fraction": 0.5, "arch": SMALL, "output_stride": 32,
}  # fmt: skip


def by(count: int, root: Path, data: Path | str, runs: dict[str, dict[str, Any]]) -> dict[str, Path]:
    folders = {name: root / f"{name}-{count}" for name in runs}
    options = [{**SIDE_BY_SIDE, "data": str(data), **runs[name], "out": str(folders[name])} for name in runs]
    together(root / f"ranks-{count}", count, options)
    return folders


def same(one: Path, other: Path) -> bool:
    return rounds(one) == rounds(other) and kept(one) == kept(other)


def test_three_processes_change_nothing(shared_folder: Path, tmp_path: Path) -> None:
    """One of the three trains nothing, and each has a part of the pool."""
    runs: dict[str, dict[str, Any]] = {
        "badge": {"criterion": "badge"},
        "sharded": {"criterion": "core-set", "data_parallel": True, "deterministic": True, "epochs": 1},
    }
    alone = by(1, tmp_path, shared_folder, runs)
    for name, folder in by(3, tmp_path, shared_folder, runs).items():
        assert same(folder, alone[name]), name


@pytest.mark.full
def test_what_the_first_process_takes_goes_for_all(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REACHED", "1")
    network = Path(__file__).parents[1] / "helpers" / "pretrained_network.py"
    auto = dict.fromkeys(("weights", "start_fraction", "query_fraction"), "auto")
    options = {**TINY, **auto, "data": str(shared_folder), "arch": f"{network}:network", "epochs": 1}
    options["output_stride"] = 32
    alone = run(Config.of({**options, "out": str(tmp_path / "alone")}))
    together(tmp_path / "two", 2, [{**options, "out": str(tmp_path / "shared")}])
    shared = load(tmp_path / "shared")
    assert shared.record["took"] == alone.record["took"]
    assert shared.config.weights == "DEFAULT"
    assert rounds(shared.path) == rounds(alone.path)


@pytest.mark.full
def test_labelling_ends_in_the_same_round(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes write the same stop set and end after the same round as one."""
    options = {**SIDE_BY_SIDE, "data": str(shared_folder), "epochs": 1, "stop_fraction": "auto"}
    monkeypatch.setattr(stopping, "ends", lambda kappas, gain: len(kappas) == 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks
    alone = run(Config.of({**options, "out": str(tmp_path / "alone")}))
    torch.set_num_threads(threads)
    together(tmp_path / "ranks", 2, [{**options, "out": str(tmp_path / "two"), "ends_after": 2}])
    assert [line["stopped"] for line in rounds(tmp_path / "two")] == [False, True]
    assert rounds(tmp_path / "two") == rounds(alone.path)
    for number in (0, 1):
        files = (path / f"rounds/00{number}" / stopping.FILE for path in (alone.path, tmp_path / "two"))
        assert len({file.read_bytes() for file in files}) == 1
    assert load(tmp_path / "two").finished


@pytest.mark.full
def test_people_a_model_on_trial_and_a_function(shared_folder: Path, tmp_path: Path) -> None:
    """Two processes that ask people, and predict their maps, do as one that knows the answers."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import os\n"
        "def draw(pictures, labels):\n"
        "    assert os.environ.get('RANK', '0') == '0'\n"
        "    return [picture[..., label].astype(float) for picture, label in zip(pictures, labels)]\n"
    )
    options = {**SIDE_BY_SIDE, "data": str(shared_folder), "epochs": 1}
    tried = {**options, "human_budget": "auto"}
    drawn = {**options, "generator": f"{mine}:draw"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks
    one, other = (
        run(Config.of({**o, "out": str(tmp_path / f"alone-{i}")})).path for i, o in enumerate((tried, drawn))
    )
    torch.set_num_threads(threads)
    asking = {
        **tried,
        "annotator": "people",
        "own_masks": "ask",
        "out": str(tmp_path / "asking"),
    }  # the start, a query, the end
    together(tmp_path / "ranks", 2, [asking] * 3 + [{**drawn, "out": str(tmp_path / "drawn")}])
    lines = rounds(tmp_path / "asking")
    assert [line.pop("people")["maps"] for line in lines] == [5, 9]
    assert lines[1]["trial_dice"] is not None
    assert lines == rounds(one)
    assert kept(tmp_path / "asking") == kept(one)
    assert same(tmp_path / "drawn", other)
    assert rounds(other)[1]["generated_maps"] == 4


@pytest.mark.full
def test_people_to_the_end(shared_folder: Path, tmp_path: Path) -> None:
    """Three processes end at every query; a model takes over, or a teacher draws, with warm starts."""
    warm: dict[str, Any] = {"warm_start": True, "epochs": 1, "stop_fraction": 1.0, "seed": 1}
    runs: dict[str, dict[str, Any]] = {
        "auto": {**warm, "human_budget": "auto", "query_fraction": 0.12, "takes_over_after": 2},
        "tait": {**warm, "regime": "tait", "criterion": "core-set"},
    }
    alone = by(1, tmp_path, shared_folder, runs)
    for name, folder in alone.items():
        asking = {
            **SIDE_BY_SIDE,
            **runs[name],
            "annotator": "people",
            "own_masks": "ask",
            "data": str(shared_folder),
        }
        asking["out"] = str(tmp_path / f"{name}-people")
        together(tmp_path / f"ranks-{name}", 3, [asking] * (len(rounds(folder)) + 1))
        lines = rounds(Path(asking["out"]))
        assert [line.pop("people")["labelled"] for line in lines] == [line["labelled"] for line in lines]
        assert lines == rounds(folder)
        assert kept(Path(asking["out"])) == kept(folder)
        assert lines[-1]["generated_maps"] > 0


@pytest.mark.full
def test_all_criteria_on_the_built_in_set(tmp_path: Path) -> None:
    """All criteria, and the other models that draw maps, at the set's own sizes with fewer epochs."""
    short: dict[str, Any] = {"preset": "builtin", "epochs": 2, "stop_fraction": 0.4, "device": "cpu"}
    criteria = plugins.names("criterion")
    runs: dict[str, dict[str, Any]] = {name: {**short, "criterion": name} for name in criteria}
    runs |= {name: {**short, "regime": name} for name in ("sal-single", "tait")}
    runs["sharded"] = {**short, "data_parallel": True, "deterministic": True}
    found: dict[int, dict[str, Path]] = {}
    for count in (1, 2, 3):
        found[count] = {name: tmp_path / f"{name}-{count}" for name in runs}
        options = [{**runs[name], "out": str(folder)} for name, folder in found[count].items()]
        together(tmp_path / f"ranks-{count}", count, options)
    for name in runs:
        assert [line["generated_maps"] > 0 for line in rounds(found[1][name])] == [False, False, True, True]
        for count in (2, 3):
            assert same(found[1][name], found[count][name]), (name, count)


@pytest.mark.full
def test_data_parallel_finishes_and_is_close(shared_folder: Path, tmp_path: Path) -> None:
    """DistributedDataParallel finishes its rounds, with metrics in range; equality is not promised."""
    runs: dict[str, dict[str, Any]] = {"ddp": {"data_parallel": True, "epochs": 1}}
    runs["layer"] = {**runs["ddp"], "cam_layer": "layer3", "probe": "gradcam++"}  # gradients of gradients
    for folder in by(2, tmp_path, shared_folder, runs).values():
        lines = rounds(folder)
        assert [line["labelled"] for line in lines] == [5, 9]
        assert all(0 <= line["accuracy"] <= 1 for line in lines)
        assert json.loads((folder / "summary.json").read_text())["rounds"] == 2


@pytest.mark.full
def test_a_lost_rank_ends_the_run_and_another_number_of_ranks_goes_on(
    shared_folder: Path, tmp_path: Path
) -> None:
    """After SIGKILL of one rank under torchrun, the same command with three ranks ends as if never killed."""
    options = {**SIDE_BY_SIDE, "arch": "resnet18", "output_stride": 8}  # slow enough to be killed in time
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += [f"--data={shared_folder}", "--epochs=8", "--stop-fraction=1"]

    def torchrun(count: int, out: Path) -> subprocess.Popen[str]:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
        ]
        return subprocess.Popen(
            [*launcher, "-m", "sal_fast", "run", *words, f"--out={out}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    whole = tmp_path / "whole"
    _, errors = torchrun(1, whole).communicate(timeout=PATIENCE)
    assert (whole / "summary.json").exists(), errors
    broken = tmp_path / "broken"
    process = torchrun(2, broken)
    lines = broken / "rounds.jsonl"
    while not lines.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not (broken / "summary.json").exists(), "it was over before a rank was lost"
    process = torchrun(3, broken)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert same(broken, whole)


def test_shares_are_contiguous_and_complete() -> None:
    for count in (1, 2, 3, 7):
        for blocks in (0, 1, 2, 5, 7, 100):
            shares = [Ranks(rank, count).share(blocks) for rank in range(count)]
            assert [block for share in shares for block in share] == list(range(blocks))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    with distributed.ranks() as ranks:
        assert ranks == distributed.ALONE
        values = torch.arange(5)
        assert ranks.complete(values, 2) is values
        assert ranks.broadcast(values) is values
        assert ranks.number(3) == 3
        assert ranks.group is None


def test_fewer_gpus_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="local rank 1 has no GPU: this machine has 1"), distributed.ranks():
        pass
