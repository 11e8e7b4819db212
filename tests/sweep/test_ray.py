"""Sweeps on Ray itself: on this machine, on two nodes, with workers, nodes and drivers killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from sweep_runs import configs, holders, marked, results, start, toml, wait_for

from sal_fast.cli import main
from sal_fast.experiment.config import Config

pytest.importorskip("ray", reason="pip install 'sal-fast[ray]'")

PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"
Alone = Callable[[Config], Path]


@pytest.fixture
def mark() -> str:
    return f"sweep-{uuid.uuid4().hex}"


def check(out: Path, alone: Alone, options: dict[str, Any]) -> None:
    """All there, as undisturbed runs have it, and no finished round was run again."""
    for config in configs(out, **options):
        name = config.run_folder.name
        assert results(out / name) == results(alone(config)), name
        log = (out / "logs" / f"{name}.txt").read_text()
        rounds = Counter(re.findall(r"^ *(\d+)/\d+ ", log, re.MULTILINE))
        assert not [number for number, count in rounds.items() if count > 1], log
        copied = json.loads((out / name / "run.json").read_text()).get("copied", {"rounds": 0})
        assert not rounds.keys() & {str(number + 1) for number in range(copied["rounds"])}, log
    assert not [path for path in out.rglob("*.part*") if path.exists()]


DATA = "from sal_fast.data import load_table\n\n\ndef boxes(root):\n    return load_table(str(root))\n"


def test_on_this_machine(
    shared_folder: Path,
    tmp_path: Path,
    mark: str,
    alone: Alone,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs of plug-ins, the second from the first one's beginning; nothing of Ray stays."""
    monkeypatch.setenv("COLUMNS", "120")  # room for the names
    (tmp_path / "sets.py").write_text(DATA)
    options = {
        "data": [{"data": f"{tmp_path}/sets.py:boxes", "root": shared_folder}],
        "arch": [f"{PLUGINS}/network.py:four_convolutions"],
        "criterion": [f"{PLUGINS}/criterion.py:rare_first"],
        "regime": ["b2", "sal"],
        "output_stride": 32,  # the network has one of its own
    }
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(toml(**options))
    sweep = start(file, "--out", out, mark=mark)
    said, error = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, said + error
    assert marked(mark) == []
    assert "2/2 done" in error
    assert f"report:\n  sal-fast report {out} --out {out}/report\n" in said
    row = r"│ boxes-{}-rare_first-cam-four_convolutions-h0\.5-s0 +│ +3 │ +[01]\.\d{{3}} │ +[01]\.\d{{3}} │"
    assert all(re.search(row.format(regime), said) for regime in ("b2", "sal"))
    check(out, alone, options)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.name != ".lock"}
    capsys.readouterr()
    assert main(["sweep", str(file), "--out", str(out)]) == 0  # nothing is left to do
    assert capsys.readouterr().out == said
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.name != ".lock"}


@pytest.mark.full
def test_a_worker_is_killed(shared_folder: Path, tmp_path: Path, mark: str, alone: Alone) -> None:
    options = {"data": shared_folder, "regime": ["b2", "sal"]}
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(toml(**options))
    sweep = start(file, "--out", out, mark=mark)
    os.kill(wait_for(lambda: next(iter(holders(out)), None)), signal.SIGKILL)
    said, error = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, said + error
    assert "again: its process was killed or crashed" in error
    assert marked(mark) == []
    check(out, alone, options)


@pytest.mark.full
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: int, early: bool, shared_folder: Path, tmp_path: Path, mark: str) -> None:
    """While it runs, and while Ray is still starting."""
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(toml(data=shared_folder, regime=["b2", "sal"], epochs=20))
    sweep = start(file, "--out", out, mark=mark)
    wait_for(lambda: any("gcs_server" in name for name in marked(mark)) if early else holders(out))
    sweep.send_signal(number)
    _, error = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 130
    assert "the same command continues" in error
    assert marked(mark) == []


@pytest.mark.full
def test_workers_and_drivers_killed_at_random(
    shared_folder: Path, tmp_path: Path, mark: str, alone: Alone
) -> None:
    """Two regimes, two criteria, two seeds; three drivers and five workers killed."""
    options = {
        "data": shared_folder,
        "regime": ["b2", "sal"],
        "criterion": ["random", "margin"],
        "seed": [0, 1],
        "epochs": 4,
    }
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(toml(**options))
    moments = random.Random(0)
    for drivers in range(4):
        sweep = start(file, "--out", out, mark=mark)
        for _ in range(2 if drivers < 2 else 1):
            workers = wait_for(lambda sweep=sweep: list(holders(out)) or sweep.poll() is not None)
            time.sleep(moments.uniform(0, 3))
            workers = list(holders(out))
            if workers:
                os.kill(moments.choice(workers), signal.SIGKILL)
            time.sleep(moments.uniform(0, 4))
        if drivers == 3:
            break
        sweep.kill()
        sweep.communicate()
        if drivers == 0:  # once: its workers end, though nobody waits for them
            wait_for(lambda: not holders(out))
    said, error = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, said + error
    wait_for(lambda: not marked(mark))  # Ray's agents notice a killed driver's end after a minute or two
    check(out, alone, options)


@pytest.mark.full
def test_a_node_is_lost(shared_folder: Path, tmp_path: Path, alone: Alone) -> None:
    """A head that runs nothing, and two nodes of one run each; one of them killed in the middle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own modules
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            nodes = [cluster.add_node(num_cpus=2, num_gpus=1) for _ in range(2)]  # GPUs by name alone
            options = {"data": shared_folder, "regime": ["b2", "sal", "tait"], "seed": [0, 1], "epochs": 4}
            file, out = tmp_path / "small.toml", tmp_path / "out"
            file.write_text(toml(**options))
            sweep = start(
                file, "--out", out, "--address", cluster.address, "--cpus-per-run", 1, "--gpus-per-run", 0.6
            )
            wait_for(lambda: len(holders(out)) == 2)
            wait_for(lambda: len(list(out.glob("*/rounds/001"))) >= 1)
            cluster.remove_node(nodes[0], allow_graceful=False)
            said, error = sweep.communicate(timeout=PATIENCE)
            assert sweep.returncode == 0, said + error
            assert re.search(r"again: .*(node|killed)", error), error
        finally:
            cluster.shutdown()
    check(out, alone, options)
