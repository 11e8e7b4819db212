"""The emulation itself: it passes correct kernels, and catches each kind of defect."""

import re
import subprocess
from pathlib import Path

import pytest

from .conftest import HERE, Compile, with_lines

SEEDS = range(4)
SANITIZER, REPORTED = 1, 3


@pytest.fixture(scope="session")
def broken(emulated: Compile) -> Path:
    return emulated("broken", HERE / "broken.cu")


def run(program: Path, kernel: str, seed: int) -> tuple[int, str]:
    result = subprocess.run([str(program), kernel, str(seed)], capture_output=True, text=True, check=False)
    return result.returncode, with_lines(program, result.stderr)


@pytest.mark.parametrize(
    "kernel", ["barrier", "second_barrier", "warp_barrier", "second_warp_barrier", "warp_sum", "later_launch"]
)
def test_a_correct_kernel_passes(broken: Path, kernel: str) -> None:
    for seed in SEEDS:
        assert run(broken, kernel, seed) == (0, "")


@pytest.mark.parametrize(
    ("kernel", "report"),
    [
        ("missing_barrier", r"reads shared memory at broken.cu:\d+ that nobody wrote"),
        (
            "missing_second_barrier",
            r"(reads shared memory at broken.cu:\d+ that another warp wrote at broken.cu:\d+"
            r"|writes shared memory at broken.cu:\d+ that another warp reads at broken.cu:\d+), "
            r"and no barrier stands between them",
        ),
        ("missing_warp_barrier", r"reads shared memory at broken.cu:\d+ that nobody wrote"),
        (
            "missing_second_warp_barrier",
            r"(reads shared memory at \S+ that another lane of its warp wrote"
            r"|writes shared memory at \S+ that another lane of its warp reads) at ",
        ),
        ("unwritten_shared", r"reads shared memory at broken.cu:\d+ that nobody wrote"),
        ("unwritten_workspace", r"reads global memory at broken.cu:\d+ that nobody wrote"),
        ("blocks_write_the_same", r"writes global memory at \S+ that another block wrote at "),
        ("early_exit", r"divergent __syncthreads at line \d+: thread \(7,0,0\) has exited"),
        (
            "two_barriers",
            r"thread \(0,0,0\): divergent __syncthreads at line \d+: thread \(32,0,0\) waits at",
        ),
        ("partial_shuffle", r"divergent __shfl_xor_sync at line \d+: thread \(0,0,0\) has exited"),
        ("foreign_lane", r"__shfl_xor_sync at line \d+ reads lane \d+, which the mask leaves out"),
        ("one_past_the_end", r"reads memory at broken.cu:\d+ outside every buffer"),
    ],
)
def test_a_defect_is_reported_under_every_order_of_threads(broken: Path, kernel: str, report: str) -> None:
    for seed in SEEDS:
        status, text = run(broken, kernel, seed)
        assert status == REPORTED
        assert text.startswith(f"emulation: {kernel} block (")
        assert re.search(report, text), text


def test_an_access_that_is_not_aligned_is_reported(broken: Path) -> None:
    status, text = run(broken, "misaligned", 0)
    assert status == SANITIZER
    assert "misaligned address" in text
