"""The build chooses the right GPUs, and the sdist and the wheels are as docs/install.md says."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {"CHANGELOG.md", "CMakeLists.txt", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
PROCESSORS = ("x86_64", "aarch64")
PYTHONS = ("cp311", "cp312", "cp313", "cp314")

SCRIPT = f"""
cmake_minimum_required(VERSION 3.24)
set(CMAKE_HOST_SYSTEM_PROCESSOR "$ENV{{PROCESSOR}}")
include("{ROOT}/csrc/architectures.cmake")
sal_fast_choose_architectures(reason nvcc)
message("chosen: ${{CMAKE_CUDA_ARCHITECTURES}}")
"""
NVCC_12_4 = "50 52 60 70 75 80 86 87 89 90"
NVCC_13_0 = "75 80 86 87 88 89 90 100 103 110 120 121"
DEFAULT = "75-real;80-real;90-real;100-real;120"


def write_tool(folder: Path, name: str, script: str) -> None:
    """A program for the PATH that stands for one of NVIDIA's."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs for a machine with nvcc 13.0 and no GPU; no variable names architectures."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_tool(folder, "nvcc", f"printf 'compute_%s\\n' {NVCC_13_0}")
    write_tool(folder, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PROCESSOR", "x86_64")
    for name in ("CUDAARCHS", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    return folder


def choose(folder: Path, *options: str) -> tuple[str, str]:
    """The choice of csrc/architectures.cmake on a machine, and all that it says."""
    (folder / "choose.cmake").write_text(SCRIPT)
    command = ["cmake", *options, "-P", str(folder / "choose.cmake")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    found = re.search(r"^chosen: (.*)$", said, re.MULTILINE)
    assert found is not None, said
    return found[1], said


needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")


@needs_cmake
def test_each_way_to_name_architectures_goes_before_the_next(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(machine)[0] == DEFAULT
    write_tool(machine, "nvidia-smi", "echo 8.9")
    assert choose(machine)[0] == "89"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6")
    assert choose(machine)[0] == "86-real"
    monkeypatch.setenv("CUDAARCHS", "80;90")
    assert choose(machine)[0] == "80;90"
    assert choose(machine, "-DCMAKE_CUDA_ARCHITECTURES=90a-real")[0] == "90a-real"


@needs_cmake
@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("9.0\n9.0\n9.0", "90"),
        ("12.0\n8.9\n12.0\n9.0", "89;90-real;120-real"),
        ("8.0\n13.0", "80"),
        ("13.0", DEFAULT),
        ("[N/A]", DEFAULT),
        ("", DEFAULT),
    ],
)
def test_the_gpus_of_a_machine(machine: Path, answer: str, chosen: str) -> None:
    """The lowest has PTX, which GPUs that this nvcc does not know take, too."""
    write_tool(machine, "nvidia-smi", f"printf '{answer}\\n'")
    assert choose(machine)[0] == chosen


@needs_cmake
@pytest.mark.parametrize(
    ("given", "chosen", "warns"),
    [
        ("8.0;9.0+PTX", "80-real;90", ""),
        ("8.0 8.6, 12.0+PTX", "80-real;86-real;120", ""),
        ("9.0a 10.0f", "90a-real;100f-real", ""),
        ("6.0;8.0", "80-real", "nvcc does not know the GPU architecture 60"),
        ("Hopper", DEFAULT, "expected numbers such as 8.0;9.0+PTX, got Hopper"),
        ("", DEFAULT, ""),
    ],
)
def test_the_list_of_torch(
    machine: Path, monkeypatch: pytest.MonkeyPatch, given: str, chosen: str, warns: str
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", given)
    found, said = choose(machine)
    assert found == chosen
    assert warns in " ".join(said.split())
    assert ("left out" in said) == bool(warns)


@needs_cmake
def test_the_default_list_is_what_the_compiler_knows_of_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older nvcc gives newer GPUs the PTX of the last that it knows. Jetson Thor has an ARM processor."""
    write_tool(machine, "nvcc", f"printf 'compute_%s\\n' {NVCC_12_4}")
    assert choose(machine)[0] == "75-real;80-real;90"
    write_tool(machine, "nvcc", "exit 1")
    assert choose(machine)[0] == DEFAULT
    monkeypatch.setenv("PROCESSOR", "aarch64")
    assert choose(machine)[0] == "75-real;80-real;90-real;100-real;110-real;120"


@needs_cmake
def test_the_environment_goes_before_what_an_earlier_build_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install .` keeps CMake's cache in build/, so a setting must not stay there for good."""
    monkeypatch.delenv("SAL_FAST_CUDA", raising=False)
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DSKBUILD_PROJECT_VERSION=0"]

    def refused(*options: str) -> str:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stderr

    assert "expected AUTO, ON or OFF, got cached" in refused("-DSAL_FAST_CUDA=cached")
    assert "expected AUTO, ON or OFF, got cached" in refused()
    monkeypatch.setenv("SAL_FAST_CUDA", "given")
    assert "expected AUTO, ON or OFF, got given" in refused()


def test_every_source_of_the_core_is_compiled() -> None:
    named = set(re.findall(r"csrc/\w+/\w+\.(?:cpp|cu)\b", (ROOT / "CMakeLists.txt").read_text()))
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "csrc").rglob("*.c*")
        if path.suffix in (".cpp", ".cu")
    }
    assert named == there


def test_the_sdist_holds_what_a_build_needs(tmp_path: Path) -> None:
    """The sources and five files; no compiled core, no build folder and nothing else that lies around."""
    script = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-P", "-c", script, tmp_path], cwd=ROOT, check=True)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as opened:
        names = {Path(*Path(name).parts[1:]) for name in opened.getnames()}
    sources = {
        path.relative_to(ROOT)
        for folder in ("csrc", "sal_fast")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    assert names == sources | set(map(Path, TOP_LEVEL))
    assert archive.stat().st_size < 10**6


def wheels() -> dict[str, Any]:
    """The table of cibuildwheel."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    return table


def test_wheels_are_compiled_by_the_nvcc_that_is_installed_for_them() -> None:
    """The packages are of one release of CUDA, each with an exact version, in the folder of $CUDACXX."""
    linux = wheels()["linux"]
    install, link = linux["before-all"]
    packages = dict(re.findall(r"(nvidia-[\w-]+)==(\S+)", install))
    assert {"nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime"} <= set(packages)
    assert {version.rpartition(".")[0] for version in packages.values()} == {"13.0"}
    folder = re.search(r"--target (\S+)", install)
    assert folder is not None
    toolkit = f"{folder[1]}/nvidia/cu13"
    assert link == f"ln -s lib {toolkit}/lib64"
    assert linux["environment"] == {"CUDACXX": f"{toolkit}/bin/nvcc", "SAL_FAST_CUDA": "ON"}


def test_wheels_are_checked_by_a_script_that_exists() -> None:
    script = re.search(r"\{project\}/(\S+)", wheels()["test-command"])
    assert script is not None
    assert (ROOT / script[1]).is_file()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_cibuildwheel_reads_its_configuration(processor: str) -> None:
    pytest.importorskip("cibuildwheel", reason="there is no cibuildwheel")
    command = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--archs", processor]
    command += ["--print-build-identifiers", str(ROOT)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == [f"{python}-manylinux_{processor}" for python in PYTHONS]
