"""SIGKILL at any moment, the same command again: the run ends as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from experiment_runs import arguments, command, kept, kill_before, rounds


def finish(out: Path, **options: Any) -> float:
    begin = time.perf_counter()
    process = command("run", *arguments(out=out, **options))
    _, error = process.communicate()
    assert process.returncode == 0, error
    return time.perf_counter() - begin


def same(cut: Path, whole: Path) -> None:
    assert rounds(cut) == rounds(whole)
    assert kept(cut) == kept(whole)
    for path in whole.glob("baseline/*.npz"):
        assert (cut / "baseline" / path.name).read_bytes() == path.read_bytes()
    assert not list(cut.rglob("*.part"))


def test_killed_before_ever_later_changes_of_names(shared_folder: Path, tmp_path: Path) -> None:
    """Attempt n goes 30 n - 29 changes further than the one before. The full tier tries every change."""
    options = {"data": shared_folder, "epochs": 1, "stop_fraction": 0.5}
    finish(tmp_path / "whole", **options)
    statuses = []
    while not statuses or statuses[-1] == -signal.SIGKILL:
        statuses.append(kill_before(30 * len(statuses) + 1, tmp_path / "cut", **options))
        assert len(statuses) < 50
    assert statuses[-1] == 0
    assert len(statuses) >= 3
    same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.full
@pytest.mark.parametrize(("regime", "baseline"), [("sal", "b1"), ("tait", "none")])
def test_killed_before_every_change_of_names(
    regime: str, baseline: str, shared_folder: Path, tmp_path: Path
) -> None:
    options = {
        "data": shared_folder,
        "regime": regime,
        "epochs": 1,
        "stop_fraction": 0.5,
        "baseline": baseline,
    }
    finish(tmp_path / "whole", **options)
    number, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        number += 1
        cut = tmp_path / f"cut-{number}"
        status = kill_before(number, cut, **options)
        finish(cut, **options)
        same(cut, tmp_path / "whole")
        shutil.rmtree(cut)
    assert status == 0
    assert number > 10


@pytest.mark.full
@pytest.mark.parametrize("regime", ["sal", "tait"])
def test_killed_at_ten_random_moments(regime: str, shared_folder: Path, tmp_path: Path) -> None:
    options = {"data": shared_folder, "regime": regime, "epochs": 6}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    seconds = finish(whole, **options)
    moments, kills = random.Random(regime), 0
    while kills < 10:
        process = command("run", *arguments(out=cut, **options))
        time.sleep(moments.uniform(0.2, 0.7) * seconds)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if (cut / "summary.json").exists():  # at its end before ten kills: compare, and begin again
            finish(cut, **options)  # the kill may have cut the report
            same(cut, whole)
            shutil.rmtree(cut)
    finish(cut, **options)
    same(cut, whole)
