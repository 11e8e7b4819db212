import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

_FLAGS = [
    "-std=c++17", "-O1", "-g1", "-fno-strict-aliasing",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-Wall", "-Wextra", "-Wno-unknown-pragmas",
    f"-I{HERE / 'include'}", f"-I{CSRC / 'include'}", f"-I{CSRC / 'cuda'}",
]  # fmt: skip

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles CUDA sources, as they are, into a program that runs them on the host under the sanitizers."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the emulation needs g++")
    folder = tmp_path_factory.mktemp("emulation")

    def compile_program(name: str, *sources: Path) -> Path:
        program = folder / name
        jobs = []
        for source in (*sources, HERE / "emulator.cpp"):
            target = folder / f"{name}-{source.stem}-{len(jobs)}.o"
            command = [compiler, *_FLAGS, "-x", "c++", "-c", str(source), "-o", str(target)]
            jobs.append((target, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
        for _, job in jobs:
            errors = job.communicate()[1]
            assert job.returncode == 0, errors
        link = [compiler, *_FLAGS, *(str(target) for target, _ in jobs), "-o", str(program)]
        subprocess.run(link, check=True)
        return program

    return compile_program
