"""The command: its subcommands, exit statuses, and what a person reads."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experiment_runs import arguments

import sal_fast
from sal_fast import _native
from sal_fast.bench import suite
from sal_fast.cli import COMMANDS, doctor, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert sal_fast.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"]])
def test_a_reader_that_has_read_enough(command: list[str]) -> None:
    """`sal-fast run --help | head`: no traceback."""
    words = [sys.executable, "-P", "-m", "sal_fast", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rum"]) == 2
    assert capsys.readouterr().err == (
        "sal-fast: error: unknown command 'rum'; did you mean 'run'? "
        "(expected one of run, label, query, sweep, predict, explain, export, score, evaluate, select, "
        "report, data, bench, doctor)\n"
    )


LEAVES = (
    "run",
    "label",
    *(f"query {name}" for name in ("export", "import", "status", "settle", "withdraw", "collect")),
    "sweep",
    "predict",
    "explain",
    "export",
    "score",
    "evaluate",
    "select",
    "report",
    "data check",
    "data prepare",
    "data fixations",
    *(f"bench {name}" for name in (*suite.NAMES, "plot", "table")),
    "doctor",
)


def words_of(text: str) -> set[str]:
    """The words of a help text, without the frame around the options; a list may be broken at its commas."""
    return set(re.split(r"(?:[\s,─╭╮│╰╯|+]|-{5,})+", text))


@pytest.mark.parametrize("command", ["", "query", "data", "bench", *LEAVES])
def test_help_fits_the_screen(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of at most 80 columns, whose words are whole, and no text is missing."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main([*command.split(), "--help"]) == 0
    narrow = capsys.readouterr().out
    assert narrow.startswith(f"usage: sal-fast {command}".rstrip())
    assert [line for line in narrow.splitlines() if len(line) > 80] == []
    monkeypatch.setenv("COLUMNS", "400")
    assert main([*command.split(), "--help"]) == 0
    assert words_of(narrow) == words_of(capsys.readouterr().out)


def test_help_needs_no_torch() -> None:
    """Nor does an option that is misspelt: both answer at once."""
    script = (
        "import sys\nfrom sal_fast.cli import main\n"
        "assert main(['--help']) == main(['run', '--help']) == 0\n"
        "assert main(['run', '--regmie', 'sal']) == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "native core", "cuda kernels", "threads"):
        assert word in out


def test_doctor_names_what_is_missing_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that does not import, and a native core that is hidden."""
    found = dataclasses.replace(
        sal_fast.build_info(), native=False, native_error="hidden by SAL_FAST_NATIVE=0"
    )
    monkeypatch.setattr(sal_fast, "build_info", lambda: found)
    monkeypatch.setitem(sys.modules, "polars", None)  # its import fails
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "  polars: pip install --force-reinstall polars\n" in out
    assert "  native core: hidden by SAL_FAST_NATIVE=0\n" in out


SMI = """#!/bin/sh
echo '| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4    |'
"""


def test_doctor_tells_what_does_not_fit_a_gpus_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A driver of CUDA 12, with torch, kernels and DALI of CUDA 13."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(name="NVIDIA L4", total_memory=24 * 2**30, major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(doctor, "_installed_dali", lambda: ["nvidia-dali-cuda130"])
    core = SimpleNamespace(cuda_problem=lambda gpu: "the driver is too old")
    monkeypatch.setattr(_native, "cuda_core", lambda: core)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for line in (
        "driver           550.54.15, for CUDA up to 12.4",
        "cuda:0           NVIDIA L4, compute capability 8.9, 24 GiB",
        "  cuda kernels: they do not run on cuda:0 (the driver is too old); update the driver, or",
        "CUDAARCHS=89 SAL_FAST_CUDA=ON pip install",
        "  torch is for CUDA 13.0, the driver knows CUDA up to 12.4: update the driver, or",
        "  dali: pip uninstall nvidia-dali-cuda130; pip install nvidia-dali-cuda120",
    ):
        assert line in out


@pytest.mark.parametrize(
    ("chip", "takes"),
    [
        ("8.0", "machine code for 8.0"),
        ("8.9", "machine code for 8.6"),
        ("8.5", "machine code for 8.0"),
        ("9.0", "PTX for 8.6, which the driver compiles at the first use"),
        ("12.1", "machine code for 12.0"),
        ("13.0", "PTX for 8.6, which the driver compiles at the first use"),
        ("7.0", "they run on it"),
    ],
)
def test_doctor_tells_which_kernels_a_gpu_takes(
    monkeypatch: pytest.MonkeyPatch, chip: str, takes: str
) -> None:
    build = SimpleNamespace(
        cuda_problem=lambda gpu: "", cuda_architectures=("80-real", "86", "90a-real", "120-real", "all-major")
    )
    monkeypatch.setattr(sal_fast, "build_info", lambda: build)
    assert doctor._kernels_for(0, chip) == takes
    build.cuda_problem = lambda gpu: "the driver is too old"
    assert doctor._kernels_for(0, chip) == "none that it can run"


def test_doctor_names_architectures_as_nvidia_does() -> None:
    given = ("75-real", "80-virtual", "90a-real", "100f-real", "120", "all-major")
    said = [doctor._number(architecture) for architecture in given]
    assert said == ["7.5", "8.0 as PTX", "9.0a", "10.0f", "12.0 with PTX", "all-major"]


def test_doctor_finds_nothing_to_say_about_a_machine_that_fits() -> None:
    driver = doctor.Driver("580.159.03", "13.0")
    assert doctor._for_another_cuda(driver, "13.0", ["nvidia-dali-cuda130"]) == []
    assert doctor._for_another_cuda(driver, "12.8", ["nvidia-dali-cuda120"]) == []


def test_data_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder)]) == 0
    assert "0 problems that a run would refuse" in capsys.readouterr().out
    (folder / "images/red/004.jpg").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 2
    out = capsys.readouterr().out
    assert "004.jpg: the file is empty" in out
    assert "1 problem that a run would refuse" in out
    assert main(["data", "check", str(folder / "absent")]) == 2


def write_cub200(root: Path, folder: Path) -> None:
    """The images of a folder in the layout of CUB-200's official archive."""
    base = root / "CUB_200_2011"
    base.mkdir()
    (folder / "images").rename(base / "images")
    (folder / "masks").rename(base / "segmentations")
    names = sorted(path.relative_to(base / "images") for path in (base / "images").rglob("*.jpg"))
    classes = sorted({name.parent.name for name in names})
    tables = {
        "images.txt": [str(name) for name in names],
        "image_class_labels.txt": [str(1 + classes.index(name.parent.name)) for name in names],
        "train_test_split.txt": [str(int(number % 2)) for number in range(len(names))],
        "classes.txt": classes,
    }
    for file, lines in tables.items():
        (base / file).write_text("".join(f"{number} {line}\n" for number, line in enumerate(lines, 1)))


def test_data_check_of_a_paper_set_names_what_differs(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "cub200"]) == 2
    assert "--data cub200 needs --root DIR" in capsys.readouterr().err
    write_cub200(tmp_path, folder)
    assert main(["data", "check", "cub200", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "note: train: 12 here, 4,794 in Table 1" in out
    assert "note: classes: 3 here, 200 in Table 1" in out


@pytest.mark.full
def test_a_run_on_a_paper_set(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cub200(tmp_path, folder)
    assert main(["run", *arguments(data="cub200", root=tmp_path, out=tmp_path / "run", epochs=1)]) == 0
    assert "12 train, 3 val, 15 test, 3 classes" in capsys.readouterr().err


def test_run_then_run_again_then_report(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", *arguments(data=shared_folder, out=tmp_path / "run", epochs=1, stop_fraction=0.5)]
    assert main(words) == 0
    out = capsys.readouterr().out
    page = tmp_path / "run" / "report" / "index.html"
    assert f"report:\n  {page}\n" in out
    assert re.search(r"AULC: accuracy [01]\.\d{3}, Dice [01]\.\d{3}", out)
    assert page.is_file()
    written = page.stat().st_mtime_ns
    assert main(words) == 0
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert page.stat().st_mtime_ns == written
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "index.html").is_file()
    assert "note: run: only 6 images were tested, fewer than 50" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("sal-fast: error: ")


def test_builtin_set_is_made_once_and_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path))
    assert main(["data", "check", "builtin"]) == 0
    assert "builtin: 600 images, 6 classes" in capsys.readouterr().out
    made = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock")
    files = {path: path.stat().st_mtime_ns for path in made}
    assert len(files) == 1201
    assert main(["data", "check", "builtin"]) == 0
    assert files == {path: path.stat().st_mtime_ns for path in files}
