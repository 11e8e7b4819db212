from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

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
    """Compiles CUDA sources, as they are, into a program that runs them on the host under the sanitizers.

    Each source is compiled once a session, whatever number of programs it is a part of.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the emulation needs g++")
    folder = tmp_path_factory.mktemp("emulation")

    objects: dict[Path, Path] = {}

    def compile_source(source: Path) -> Path:
        target = folder / f"{source.stem}-{source.suffix[1:]}.o"
        command = [compiler, *_FLAGS, "-x", "c++", "-c", str(source), "-o", str(target)]
        job = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        assert job.returncode == 0, job.stderr
        return target

    def compile_program(name: str, *sources: Path) -> Path:
        program, wanted = folder / name, (*sources, HERE / "emulator.cpp")
        fresh = [source for source in wanted if source not in objects]
        # The largest first, as many at a time as there are cores.
        fresh.sort(key=lambda source: source.stat().st_size, reverse=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects.update(zip(fresh, pool.map(compile_source, fresh), strict=True))
        link = [compiler, *_FLAGS, *(str(objects[source]) for source in wanted), "-o", str(program)]
        subprocess.run(link, check=True)
        return program

    return compile_program


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested structs as `struct.field`."""
    flat: dict[str, Any] = {}
    for name, field in fields.items():
        flat |= _flat(field, f"{prefix}{name}.") if isinstance(field, dict) else {prefix + name: field}
    return flat


class Emulation:
    """csrc/cuda/*.cu on the host: one process, fed with launches."""

    def __init__(self, program: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def launch(
        self, name: str, *, seed: int = 0, most_blocks: int = 1 << 20, offset: int = 0, **fields: Any
    ) -> None:
        """Run launcher `name` with these fields, in a workspace of its own that is NaN at first.

        Tensors are contiguous and written back in place, None is a null pointer, a dict is a nested struct.

        Args:
            seed: decides the order of threads and blocks.
            most_blocks: the grid is cut to so many; kernels stride over their grid.
            offset: bytes from a 64-byte boundary at which the first tensor starts.
            fields: as in csrc/include/sal_fast/launch.
        """
        flat = _flat(fields)
        request = struct.pack("64sqqq", name.encode(), seed, most_blocks, len(flat))
        tensors = []
        for path, field in flat.items():
            request += struct.pack("64s", path.encode())
            if isinstance(field, Tensor):
                assert field.is_contiguous()
                content = _bytes(field)
                request += b"t" + struct.pack("qq", 0 if tensors else offset, len(content)) + content
                tensors.append(field)
            elif isinstance(field, float):
                request += b"f" + struct.pack("d", field)
            else:
                request += b"i" + struct.pack("q", int(field or 0))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        for tensor in tensors:
            size = tensor.numel() * tensor.itemsize
            content = self._process.stdout.read(size)
            if len(content) < size:
                self._fail()
            if size:
                ctypes.memmove(tensor.data_ptr(), content, size)

    def _fail(self) -> None:
        status = self._process.wait()
        self._errors.seek(0)
        raise AssertionError(f"exit status {status}: {self._errors.read().decode()[-8000:]}")

    def __enter__(self) -> Emulation:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)  # closes the pipes and waits
        self._errors.close()


@pytest.fixture(scope="session")
def emulation_program(emulated: Compile) -> Path:
    sources = [path for path in (CSRC / "cuda").glob("*.cu") if path.name != "runtime.cu"]
    return emulated("kernels", *sources, HERE / "run.cpp")


@pytest.fixture
def emulation(emulation_program: Path) -> Iterator[Emulation]:
    """A fresh process for each test, so that what one breaks does not break the next."""
    with Emulation(emulation_program) as emulation:
        yield emulation
