"""The check of a GPU, without one: every step of it, and what becomes of steps that fail."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from .conftest import HERE, Emulation, Record

ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))

import check  # noqa: E402
import replay  # noqa: E402

# A tool that takes its options, and runs the command behind them.
STUB = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do
  case $1 in -f) shift ;; *) shift 2 ;; esac
done
exec "$@"
"""


def places(folder: Path, device: str = "cpu") -> check.Places:
    return check.Places(folder / "out", folder / "prepared", folder / "prepared" / "site", device)


@pytest.fixture
def prepared(emulation_program: Path, tmp_path: Path) -> Path:
    """What prepare.py makes, of two launches; the emulation stands for the GPU."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    shutil.copy(emulation_program, folder / "replay")
    maps, mask = torch.rand(3, 50), torch.ones(1, 4, 4, dtype=torch.bool)
    size = {"type": 0, "height": 4, "width": 4, "image_stride": 16, "row_stride": 4, "column_stride": 1}
    with Emulation(emulation_program, "a test", Record(folder)) as emulation:
        emulation.launch(
            "minmax_normalize", maps=maps, dtype=0, count=3, size=50, out=torch.full((3, 50), torch.nan)
        )
        emulation.launch(
            "dice", images=1, first={"data": mask, **size}, second={"data": mask.clone(), **size}, empty=1.0,
            dice=torch.full((1,), torch.nan),
        )  # fmt: skip
    requests = folder / "requests.bin"
    (folder / "requests.bin.gz").write_bytes(gzip.compress(requests.read_bytes()))
    requests.unlink()
    return folder


@pytest.mark.full
def test_a_dry_run_goes_through_every_step(prepared: Path, tmp_path: Path) -> None:
    tree, stubs = tmp_path / "tree", tmp_path / "stubs"
    for part in ("benchmarks/gpu", "benchmarks/gpu_check.sh", "tests", "pyproject.toml"):
        (tree / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tree / part)
    stubs.mkdir()
    for name in ("compute-sanitizer", "ncu"):
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "OUT": str(tmp_path / "out"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = ["bash", "benchmarks/gpu_check.sh", "--device", "cpu", "--prepared", str(prepared)]
    command += ["--seconds", "3600"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    with tarfile.open(tmp_path / "out" / "gpu_check.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "steps").glob("*.json")}
    outputs = [record.get("output", "") for record in found.values() if record.get("status") == "failed"]
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *outputs])
    steps = list(check.steps(places(tmp_path)))
    assert {step.name: "passed" for step in steps} == {
        step.name: found[step.name]["status"] for step in steps
    }
    for measured in ("training-step", "selection-large", "ssim-float32", "cam_head-bfloat16"):
        assert measured in found


def test_what_fails_leaves_its_file_and_lets_the_others_run(tmp_path: Path) -> None:
    run = check.Check(places(tmp_path, "cuda"), seconds=600)
    (tmp_path / "prepared" / "site").mkdir(parents=True)
    for step in (
        check.Step("broken", [sys.executable, "-c", "print('said before'); raise SystemExit(3)"], 30),
        check.Step("endless", ["sh", "-c", "echo started; sleep 100 & sleep 100"], 1),
        check.Step("absent", [str(tmp_path / "no-such-tool")], 30),
        check.Step("behind", ["true"], 30, after=("broken",)),
        check.Step("fine", ["true"], 30),
    ):
        run.run(step)
    run.end = 0
    run.run(check.Step("late", ["true"], 30))
    with tarfile.open(tmp_path / "out" / "gpu_check.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "steps").glob("*.json")}
    assert {name: record["status"] for name, record in found.items()} == {
        "broken": "failed", "endless": "outran its limit", "absent": "failed", "behind": "skipped",
        "fine": "passed", "late": "skipped",
    }  # fmt: skip
    assert found["broken"]["exit_status"] == 3
    assert found["broken"]["output"] == "said before\n"
    assert found["endless"]["output"] == "started\n"
    summary = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert summary["steps"]["late"] == "skipped"


def test_what_was_prepared_from_other_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is missing: run `bash benchmarks/gpu_check\.sh prepare`"):
        check.origin(tmp_path)
    found = {"COMMIT": "abc", "CSRC_TREE": "def", "sources": check.digest_of_sources()}
    (tmp_path / "origin.json").write_text(json.dumps(found))
    assert check.origin(tmp_path) == {"COMMIT": "abc", "CSRC_TREE": "def"}
    (tmp_path / "origin.json").write_text(json.dumps(found | {"sources": "other"}))
    with pytest.raises(SystemExit, match="prepared from other sources"):
        check.origin(tmp_path)


def test_a_wrong_answer_of_the_gpu_is_seen(prepared: Path) -> None:
    launches = [json.loads(line) for line in (prepared / "launches.jsonl").read_text().splitlines()]
    expected = (prepared / "results.bin").read_bytes()
    requests = replay.requests(prepared)
    got = subprocess.run([prepared / "replay"], input=requests, stdout=subprocess.PIPE, check=True).stdout
    assert [launch["results"] for launch in launches] == [["out"], ["dice"]]
    right = {"launches": 1, "worst": 0.0, "differ": []}
    assert replay.compare(launches, got, expected) == {"minmax_normalize": right, "dice": right}
    wrong = np.frombuffer(expected, np.float32).copy()
    wrong[:10] += 0.1
    found = replay.compare(launches, got, wrong.tobytes())
    assert found["minmax_normalize"]["differ"] == ["a test: out"]
    assert found["minmax_normalize"]["worst"] == pytest.approx(0.1, rel=0.15)
    assert found["dice"] == right
    found = replay.compare(launches, got[:700], expected)  # as if it had ended in between
    assert found["minmax_normalize"]["differ"] == ["a test: out, no answer"]
    assert found["dice"]["differ"] == ["a test: dice, no answer"]
