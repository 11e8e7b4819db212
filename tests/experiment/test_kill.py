"""SIGKILL at any moment, the same command again: the run ends as if nothing had happened."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from experiment_runs import arguments, command, kept, rounds


def finish(out: Path, **options: object) -> float:
    begin = time.perf_counter()
    process = command("run", *arguments(out=out, **options))
    _, error = process.communicate()
    assert process.returncode == 0, error
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    ("regime", "kills"),
    [
        ("sal", 3),
        pytest.param("sal", 10, marks=pytest.mark.full),
        pytest.param("tait", 10, marks=pytest.mark.full),
    ],
)
def test_killed_at_random_moments(regime: str, kills: int, shared_folder: Path, tmp_path: Path) -> None:
    options = {"data": shared_folder, "regime": regime, "epochs": 3}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    seconds = finish(whole, **options)
    moments = random.Random(regime)
    killed = 0
    for _ in range(kills):
        process = command("run", *arguments(out=cut, **options))
        time.sleep(moments.uniform(0.3, 0.8) * seconds)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed >= 1
    if killed == kills:  # else it was finished already
        finish(cut, **options)
    assert rounds(cut) == rounds(whole)
    assert kept(cut) == kept(whole)
    assert not list(cut.rglob("*.part"))


@pytest.mark.parametrize("moment", ["rounds/001.part/query.csv", "rounds/001.part/maps", "rounds/001"])
def test_killed_while_a_round_is_written(moment: str, shared_folder: Path, tmp_path: Path) -> None:
    """As soon as a file of round 1 is there, and before its line is."""
    options = {"data": shared_folder, "epochs": 1}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole, **options)
    process = command("run", *arguments(out=cut, **options))
    while process.poll() is None and not (cut / moment).exists():
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    finish(cut, **options)
    assert rounds(cut) == rounds(whole)
    assert kept(cut) == kept(whole)
