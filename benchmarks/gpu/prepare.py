"""Prepare the check of a GPU on a machine without one: the less is left to do there, the better.

`prepare.py [FOLDER]` writes to build/gpu:
    libsal_fast.a, prepared.cmake   the kernels of the CPU, and those of CUDA for sm_90
    libcudart_static.a              CUDA's runtime
    origin.json                     the commit, and a digest of the sources
    replay                          the replayer (tests/emulation/run.cpp)
    requests.bin.gz, results.bin,
    launches.jsonl                  what the tests of the emulation launched, and what came out
    wheels                          libraries that a machine with a GPU may lack, for Python 3.12
It needs nvcc, g++, cmake, the test dependencies, and a package index for the wheels.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from check import digest_of_sources

ROOT = Path(__file__).parents[2]
ARCHITECTURE = "90"
MOST_BYTES = 60 * 10**6
WHEELS = ("polars<1.21", "tyro", "docstring-parser", "typeguard", "pytorch-msssim")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def compile_kernels(folder: Path) -> None:
    """Compile the kernels of the CPU and of CUDA into a library, and the replayer against it."""
    build = folder / "build"
    options = {
        "SAL_FAST_CUDA": "ON",
        "SAL_FAST_LINEINFO": "ON",
        "CMAKE_CUDA_ARCHITECTURES": ARCHITECTURE,
        "SKBUILD_PROJECT_VERSION": "0",
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *defines], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    # CMakeLists.txt says why the order matters.
    parts = ("_C", "sal_fast_generic", "sal_fast_avx2", "sal_fast_avx512", "sal_fast_cuda")
    objects = [path for part in parts for path in sorted((build / "CMakeFiles" / f"{part}.dir").rglob("*.o"))]
    objects = [path for path in objects if "bindings" not in path.parts]
    library = folder / "libsal_fast.a"
    subprocess.run(["ar", "qcs", library, *objects], check=True)
    compiler = next(build.glob("CMakeFiles/*/CMakeCUDACompiler.cmake")).read_text()
    toolkit = re.search(r'CMAKE_CUDA_COMPILER_VERSION "([\d.]+)"', compiler)
    assert toolkit is not None
    (folder / "prepared.cmake").write_text(
        f"set(CMAKE_CUDA_COMPILER_VERSION {toolkit[1]})\nset(CMAKE_CUDA_ARCHITECTURES {ARCHITECTURE})\n"
    )
    nvcc = Path(shutil.which("nvcc") or "nvcc").resolve()
    shutil.copy(next(nvcc.parents[1].rglob("libcudart_static.a")), folder)
    source, target = ROOT / "tests" / "emulation" / "run.cpp", folder / "replay"
    flags = ["-O2", "-std=c++17", f"-arch=sm_{ARCHITECTURE}", f"-I{ROOT / 'csrc' / 'include'}"]
    replay = ["nvcc", *flags, "-x", "cu", source, "-o", target, "-Xlinker", library]
    subprocess.run(replay, check=True)
    shutil.rmtree(build)


def record_launches(folder: Path) -> None:
    """Let the tests of the emulation write down what they launch."""
    environment = {**os.environ, "SAL_FAST_RECORD_LAUNCHES": str(folder)}
    tests = sorted((ROOT / "tests" / "emulation").glob("test_*.py"))
    tests = [path for path in tests if path.stem not in ("test_mutants", "test_gpu_check")]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    pack(folder / "requests.bin")


def pack(path: Path) -> None:
    """Compress a file to its name with .gz, and remove it."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def download_wheels(folder: Path) -> None:
    options = [f"--platform={platform}" for platform in PLATFORMS]
    options += ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "-q"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder / "wheels"), *WHEELS]
    subprocess.run(command, check=True)


def write_origin(folder: Path) -> None:
    """Write down what the kernels were made from."""

    def revision(name: str) -> str:
        command = ["git", "rev-parse", name]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    found = {"COMMIT": revision("HEAD"), "CSRC_TREE": revision("HEAD:csrc"), "sources": digest_of_sources()}
    (folder / "origin.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "gpu").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_origin(folder)
    compile_kernels(folder)
    record_launches(folder)
    download_wheels(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 1e6:.0f} MB, which is what travels")


if __name__ == "__main__":
    main()
