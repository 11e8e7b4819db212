"""Locks between processes: one holds, others are refused or wait, and a killed process lets go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sal_fast._util.locks import InUse, hold, locked
from sal_fast.errors import InputError

HOLDER = """
import sys
from pathlib import Path
from sal_fast._util.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `.lock` in tmp_path until its input ends or it is killed."""
    command = [sys.executable, "-P", "-c", HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_of_another_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(InUse, match="taken"), locked(tmp_path / ".lock", "taken"):
        pass
    with pytest.raises(InUse, match="in use by another process"), hold(tmp_path, "run.json"):
        pass
    holder.kill()
    holder.wait()
    with hold(tmp_path, "run.json"):  # the file is still there, the lock is not
        assert (tmp_path / ".lock").exists()


def test_waiting_for_a_turn(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.stdin.close()  # type: ignore[union-attr]
    with locked(tmp_path / ".lock"):  # which comes when the other one's input has ended
        pass
    with locked(tmp_path / ".lock", "not released"):
        assert holder.wait() == 0


def test_a_folder_of_others_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(notes.txt, ...\) and no run.json"):
        hold(tmp_path, "run.json").__enter__()
    (tmp_path / "run.json").write_text("{}")
    with hold(tmp_path, "run.json"):
        pass
    with pytest.raises(InputError, match="is no folder"):
        hold(tmp_path / "notes.txt", "run.json").__enter__()
