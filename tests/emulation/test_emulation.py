"""The emulation itself: it passes correct kernels, and catches each kind of defect."""

import subprocess
from pathlib import Path

import pytest

from .conftest import HERE, Compile

SEEDS = range(4)
SANITIZER, WRONG_ANSWER, DIVERGENT = 1, 2, 3


@pytest.fixture(scope="session")
def broken(emulated: Compile) -> Path:
    return emulated("broken", HERE / "broken.cu")


def run(program: Path, kernel: str, seed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), kernel, str(seed)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kernel", ["barrier", "warp_sum"])
def test_a_correct_kernel_passes(broken: Path, kernel: str) -> None:
    for seed in SEEDS:
        result = run(broken, kernel, seed)
        assert result.returncode == 0, result.stderr


def test_a_missing_barrier_gives_a_wrong_answer(broken: Path) -> None:
    assert WRONG_ANSWER in {run(broken, "missing_barrier", seed).returncode for seed in SEEDS}


@pytest.mark.parametrize(
    ("kernel", "report"),
    [
        ("early_exit", r"divergent __syncthreads at line \d+: thread (7,0,0) has exited"),
        ("two_barriers", r"thread (0,0,0): divergent __syncthreads at line \d+: thread (32,0,0) waits at"),
        ("partial_shuffle", r"divergent __shfl_xor_sync at line \d+: thread (0,0,0) has exited"),
    ],
)
def test_divergence_is_reported(broken: Path, kernel: str, report: str) -> None:
    for seed in SEEDS:
        result = run(broken, kernel, seed)
        assert result.returncode == DIVERGENT
        start, end = report.split(r"\d+")
        assert f"emulation: {kernel} block (" in result.stderr
        assert start in result.stderr
        assert end in result.stderr


@pytest.mark.parametrize(
    ("kernel", "report"),
    [("one_past_the_end", "heap-buffer-overflow"), ("misaligned", "misaligned address")],
)
def test_the_sanitizers_see_the_kernels(broken: Path, kernel: str, report: str) -> None:
    result = run(broken, kernel, 0)
    assert result.returncode == SANITIZER
    assert report in result.stderr
