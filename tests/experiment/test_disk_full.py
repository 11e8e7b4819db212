"""A disk that fills up: one line, status 2, finished rounds kept; with space again, the same end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment_runs import arguments, command, kept, rounds


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 60 MB; one round's weights are 45 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.full
def test_disk_full(small_disk: Path, shared_folder: Path, tmp_path: Path) -> None:
    out = small_disk / "run"
    words = arguments(data=shared_folder, regime="b2", epochs=1, out=out)
    process = command("run", *words)
    _, error = process.communicate()
    assert process.returncode == 2
    assert "sal-fast: error: the disk is full" in error.splitlines()[-1]
    before = rounds(out)
    assert 1 <= len(before) < 3
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    process = command("run", *words)
    process.communicate()
    assert process.returncode == 0
    whole = tmp_path / "whole"
    process = command("run", *arguments(data=shared_folder, regime="b2", epochs=1, out=whole))
    process.communicate()
    assert rounds(out) == rounds(whole)
    assert rounds(out)[: len(before)] == before
    assert kept(out) == kept(whole)
