from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
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
from filelock import FileLock
from torch import Tensor

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
CUDA = Path(os.environ.get("SAL_FAST_EMULATED_CUDA", CSRC / "cuda"))  # test_mutants.py names a changed copy

_FLAGS = [
    "-std=c++17", "-O1", "-g1", "-fno-strict-aliasing",
    "-fsanitize=undefined", "-fno-sanitize-recover=all",
    "-Wall", "-Wextra", "-Wno-unknown-pragmas",
    f"-I{HERE / 'include'}", f"-I{CSRC / 'include'}", f"-I{CUDA}",
]  # fmt: skip

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is compiled. The processes of a session share it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("SAL_FAST_EMULATED_OBJECTS", shared / "emulated"))
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulated(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles CUDA sources, as they are, into a program that runs them on the host.

    An object is named by its preprocessed source, and compiled once.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the emulation needs g++")

    def compile_source(source: Path) -> Path:
        watched = ["-fsanitize=thread"] if source.suffix == ".cu" else []
        command = [compiler, *_FLAGS, *watched, "-x", "c++", str(source)]
        text = subprocess.run([*command, "-E", "-P"], capture_output=True, check=True).stdout
        target = objects / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:32]}.o"
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():
                aside = target.with_suffix(".part")
                job = subprocess.run(
                    [*command, "-c", "-o", str(aside)], stderr=subprocess.PIPE, text=True, check=False
                )
                assert job.returncode == 0, job.stderr
                aside.rename(target)
        return target

    def compile_program(name: str, *sources: Path) -> Path:
        wanted = [*sources, HERE / "emulator.cpp", HERE / "memory.cpp"]
        wanted.sort(key=lambda source: source.stat().st_size, reverse=True)  # the largest first
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(compile_source, wanted))
        program = tmp_path_factory.mktemp("program") / name
        subprocess.run([compiler, *_FLAGS, *map(str, compiled), "-o", str(program)], check=True)
        return program

    return compile_program


def with_lines(program: Path, report: str) -> str:
    """The report of a program with the file and the line of each place in it, which it gives as [0x...]."""

    def line(place: re.Match[str]) -> str:
        command = ["addr2line", "-e", str(program), place[1]]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return found.rpartition("/")[2].split()[0]

    return re.sub(r"\[(0x[0-9a-f]+)\]", line, report)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested structs as `struct.field`."""
    flat: dict[str, Any] = {}
    for name, field in fields.items():
        flat |= _flat(field, f"{prefix}{name}.") if isinstance(field, dict) else {prefix + name: field}
    return flat


class Record:
    """What was launched, and what came out, so that a GPU can be asked the same (benchmarks/gpu/replay.py).

    requests.bin has the requests, results.bin the results, and launches.jsonl a line for each request. The
    order of threads is left out, and so are launches that differ in nothing else, and the largest.
    """

    MOST_BYTES = 1 << 16

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[bytes] = set()

    def add(self, test: str, name: str, request: bytes, tensors: dict[str, Tensor]) -> None:
        digest = hashlib.sha256(request).digest()
        if digest in self._known or len(request) > self.MOST_BYTES:
            return
        self._known.add(digest)
        shapes = [[path, str(t.dtype).removeprefix("torch."), t.numel()] for path, t in tensors.items()]
        # What did not change stands in the request already.
        changed = {path: content for path, t in tensors.items() if (content := _bytes(t)) not in request}
        line = json.dumps(
            {
                "test": test,
                "launcher": name,
                "bytes": len(request),
                "tensors": shapes,
                "results": list(changed),
            }
        )
        results = b"".join(changed.values())
        for file, content in (
            ("requests.bin", request), ("results.bin", results), ("launches.jsonl", (line + "\n").encode())
        ):  # fmt: skip
            with open(self._folder / file, "ab") as out:
                out.write(content)


class Emulation:
    """csrc/cuda/*.cu on the host: one process, fed with launches."""

    def __init__(self, program: Path, test: str = "", record: Record | None = None) -> None:
        self._test, self._record = test, record
        self._program = program
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def launch(
        self, name: str, *, seed: int = 0, most_blocks: int = 1 << 20, offset: int = 0, **fields: Any
    ) -> None:
        """Run launcher `name` with these fields, in a workspace of its own that holds nothing at first.

        Tensors are contiguous and written back in place, None is a null pointer, a dict is a nested struct.

        Args:
            seed: decides the order of threads and blocks.
            most_blocks: the grid is cut to so many; kernels stride over their grid.
            offset: bytes from a 64-byte boundary at which the first tensor starts.
            fields: as in csrc/include/sal_fast/launch.
        """
        flat = _flat(fields)
        head, request = struct.Struct("64sqqq"), b""
        tensors: dict[str, Tensor] = {}
        for path, field in flat.items():
            request += struct.pack("64s", path.encode())
            if isinstance(field, Tensor):
                assert field.is_contiguous()
                content = _bytes(field)
                request += b"t" + struct.pack("qq", 0 if tensors else offset, len(content)) + content
                tensors[path] = field
            elif isinstance(field, float):
                request += b"f" + struct.pack("d", field)
            else:
                request += b"i" + struct.pack("q", int(field or 0))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(head.pack(name.encode(), seed, most_blocks, len(flat)) + request)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        for tensor in tensors.values():
            size = tensor.numel() * tensor.itemsize
            content = self._process.stdout.read(size)
            if len(content) < size:
                self._fail()
            if size:
                ctypes.memmove(tensor.data_ptr(), content, size)
        if self._record:
            self._record.add(
                self._test, name, head.pack(name.encode(), 0, 1 << 20, len(flat)) + request, tensors
            )

    def _fail(self) -> None:
        status = self._process.wait()
        self._errors.seek(0)
        report = with_lines(self._program, self._errors.read().decode()[-8000:])
        raise AssertionError(f"exit status {status}: {report}")

    def __enter__(self) -> Emulation:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)  # closes the pipes and waits
        self._errors.close()


@pytest.fixture(scope="session")
def emulation_program(emulated: Compile) -> Path:
    sources = [path for path in CUDA.glob("*.cu") if path.name != "runtime.cu"]
    return emulated("kernels", *sources, HERE / "run.cpp")


@pytest.fixture(scope="session")
def record() -> Record | None:
    """Where launches are recorded, if the environment names a folder."""
    folder = os.environ.get("SAL_FAST_RECORD_LAUNCHES")
    return Record(Path(folder)) if folder else None


@pytest.fixture
def emulation(
    emulation_program: Path, record: Record | None, request: pytest.FixtureRequest
) -> Iterator[Emulation]:
    """A fresh process for each test, so that what one breaks does not break the next."""
    with Emulation(emulation_program, request.node.name, record) as emulation:
        yield emulation
