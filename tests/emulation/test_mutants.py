"""The tests of each kernel find a barrier that is removed from it, and an overrun that is put into it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import CSRC, HERE

ROOT = HERE.parents[1]
BARRIER = re.compile(r"(__syncthreads|__syncwarp)\(\);")

# The tests that run the kernels of a file.
TESTS = {
    "block.cuh": ["test_minmax.py", "test_uncertainty.py", "test_cam.py", "test_saliency_loss.py"],
    "cam.cu": ["test_cam.py"],
    "crop.cu": ["test_crop.py"],
    "dice.cu": ["test_topn.py"],
    "head_step.cu": ["test_head_step.py"],
    "minmax_normalize.cu": ["test_minmax.py"],
    "saliency_loss_extremes.cuh": ["test_saliency_loss.py"],
    "saliency_loss_few.cuh": ["test_saliency_loss.py"],
    "saliency_loss_finish.cuh": ["test_saliency_loss.py"],
    "saliency_loss_tiles.cuh": ["test_saliency_loss.py"],
    "ssim.cu": ["test_ssim.py"],
    "topn.cu": ["test_topn.py"],
    "uncertainty.cu": ["test_uncertainty.py"],
}


def barriers() -> list[tuple[str, int]]:
    """The file and the line, from 0, of every barrier in the kernels."""
    return [
        (path.name, line)
        for path in sorted((CSRC / "cuda").iterdir())
        for line, text in enumerate(path.read_text().splitlines())
        if BARRIER.search(text)
    ]


def reports(
    folder: Path, objects: Path, name: str, pattern: re.Pattern[str], put: str, line: int | None = None
) -> str:
    """The reports of the emulation on the kernels, after a change in the file `name`.

    The first match of `pattern`, or the one in `line`, becomes `put`.
    """
    cuda = folder / "cuda"
    shutil.copytree(CSRC / "cuda", cuda)
    lines = (cuda / name).read_text().splitlines(keepends=True)
    at = next(i for i, text in enumerate(lines) if pattern.search(text)) if line is None else line
    lines[at], count = pattern.subn(put, lines[at])
    assert count == 1
    (cuda / name).write_text("".join(lines))
    environment = {
        **os.environ, "SAL_FAST_EMULATED_CUDA": str(cuda), "SAL_FAST_EMULATED_OBJECTS": str(objects)
    }  # fmt: skip
    environment.pop("PYTEST_XDIST_WORKER", None)
    tests = [str(HERE / test) for test in TESTS[name]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return "\n".join(re.findall(r"emulation: .*", done.stdout))


@pytest.mark.full
def test_a_missing_barrier_of_a_warp_is_found(tmp_path: Path, objects: Path) -> None:
    found = reports(tmp_path, objects, "uncertainty.cu", BARRIER, "")
    assert re.search(r"writes global memory at \S+ that another lane of its warp wrote at ", found), found


@pytest.mark.full
def test_a_missing_barrier_of_a_block_is_found(tmp_path: Path, objects: Path) -> None:
    found = reports(tmp_path, objects, "dice.cu", BARRIER, "")
    assert "no barrier stands between them" in found


def test_an_overrun_row_is_found(tmp_path: Path, objects: Path) -> None:
    found = reports(tmp_path, objects, "minmax_normalize.cu", re.compile(r"< size;"), "<= size;")
    assert re.search(r"memory at \S+ outside every buffer", found), found


@pytest.mark.full
@pytest.mark.parametrize(("name", "line"), barriers(), ids=lambda value: str(value))
def test_every_barrier_is_needed_and_missed(tmp_path: Path, objects: Path, name: str, line: int) -> None:
    assert reports(tmp_path, objects, name, BARRIER, "", line)
