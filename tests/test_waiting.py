"""Threads wait passively where they share cores; the choice is made before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sal_fast._util import waiting


@pytest.mark.parametrize(
    ("given", "load", "passive"),
    [
        ({}, 0.0, False),  # a quiet machine: all of its cores are this run's
        ({}, 0.4, False),
        ({}, 1.0, True),  # another process computes
        ({"OMP_NUM_THREADS": "2"}, 1.9, False),  # there is room for both
        ({"OMP_NUM_THREADS": "2"}, 3.0, True),
        ({"OMP_NUM_THREADS": "1"}, 9.0, False),  # one thread waits for no other
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "2"}, 0.0, False),
        ({"LOCAL_WORLD_SIZE": "2"}, 0.0, True),
        ({"OMP_NUM_THREADS": "4,2"}, 0.0, False),
        ({"OMP_NUM_THREADS": "many"}, 2.0, True),
        ({"OMP_WAIT_POLICY": "active"}, 9.0, False),
        ({"GOMP_SPINCOUNT": "0"}, 9.0, False),
    ],
)
def test_the_choice(given: dict[str, str], load: float, passive: bool) -> None:
    environment = dict(given)
    said = waiting.choose(environment, load=load, cores=4)
    assert bool(said) == passive
    assert environment == given | ({"OMP_WAIT_POLICY": "passive"} if passive else {})
    assert not passive or f"load of {load:.1f}" in said


def test_it_is_made_before_torch_is_loaded() -> None:
    """The module imports no torch, and the command line asks it first."""
    code = """
import sys
from sal_fast._util import waiting
from sal_fast import cli
assert "torch" not in sys.modules
waiting.os.getloadavg = lambda: (50.0, 50.0, 50.0)
before = []
waiting_choose = waiting.choose
waiting.choose = lambda: before.append("torch" in sys.modules) or waiting_choose()
try:
    cli.main(["run", "--data", "absent"])
except SystemExit:
    pass
assert before == [False]
print(waiting.os.environ.get("OMP_WAIT_POLICY"))
"""
    environment = {name: value for name, value in os.environ.items() if name not in waiting.OWN}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment | {"OMP_NUM_THREADS": "2"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "passive"
    assert "threads wait passively" in done.stderr
