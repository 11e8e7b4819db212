"""What memory can be had, with psutil and without."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch
from precision import run_python

from sal_fast._util import memory

CPU = torch.device("cpu")


def test_what_is_available_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)  # no limit
    available = psutil.virtual_memory()._replace(available=123_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    assert memory.free_memory(CPU) == 123_000
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert memory.free_memory(CPU) == pytest.approx(available.total, rel=0.05)


@pytest.mark.parametrize(
    ("most", "free"),
    [("4000000", 1_300_000), ("2000000", 0), ("max", 10_000_000), ("9" * 18, 10_000_000)],
)
def test_the_limit_of_a_container_counts(
    most: str, free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(most + "\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1200000\ninactive_file 300000\nactive_file 700000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_available", lambda: 10_000_000)
    assert memory.free_memory(CPU) == free


def test_resident_memory_grows_with_what_is_used() -> None:
    """In a process of its own: this one may have freed memory at hand, which makes nothing grow."""
    run_python(
        """
import torch
from sal_fast._util import memory
before = memory.resident_memory()
used = torch.ones(64 << 20, dtype=torch.uint8)
assert memory.resident_memory() - before > used.numel() // 2
"""
    )


def test_the_ops_need_no_psutil() -> None:
    run_python(
        """
import sys
sys.modules["psutil"] = None
import torch
from sal_fast import ops
assert len(ops.kcenter(torch.rand(50, 3), 7)) == 7
"""
    )
