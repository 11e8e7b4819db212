"""Everything that needs a GPU, in ten minutes: a list of steps, each with its own time limit.

`benchmarks/gpu_check.sh` calls this file. A step is one process. Whatever happens to it, the next step runs:
a step that fails, or outruns its limit and is killed, leaves a JSON file and its output like any other. All
of that is in one archive, which is written anew after every step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = "benchmarks/gpu"
TAIL = 4000  # characters of a step's output that its JSON file repeats
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
TESTS = (
    "tests/bench/test_clock.py",
    "tests/ops",
    "tests/probes",
    "tests/data",
    "tests/train",
    "tests/test_devices.py",
)
DTYPES = ("bfloat16", "float32")
OPS = [
    "cyborg_loss",
    "head_step",
    "cam_head",
    "saliency_loss",
    "ssim",
    "topn_dice",
    "uncertainty",
    "crop",
    "minmax_normalize",
]


@dataclass(frozen=True)
class Step:
    """One process of the check.

    Attributes:
        name: also the name of its files.
        command: what is run, in the folder of the sources.
        limit: the seconds after which it is killed.
        after: the steps without which it makes no sense; it is skipped if one of them failed.
    """

    name: str
    command: list[str]
    limit: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """The folders of the check, and the device.

    Attributes:
        out: where the archive and gpu_check.json go.
        prepared: what `prepare.py` made: the compiled kernels, the replayer, the recorded launches, wheels.
        site: the folder of the installed package, and of the wheels.
        device: cuda; cpu for a dry run, which has small sizes.
    """

    out: Path
    prepared: Path
    site: Path
    device: str

    @property
    def dry(self) -> bool:
        """True for a dry run."""
        return self.device == "cpu"


def steps(at: Places) -> Iterator[Step]:
    """Yield the steps, the most wanted first."""
    python, replay = sys.executable, [sys.executable, f"{HERE}/replay.py", str(at.prepared)]
    measure = [python, f"{HERE}/measure.py", "--device", at.device, "--out", str(at.out / "steps")]
    yield Step("machine", [python, f"{HERE}/machine.py", at.device], 60)
    yield Step("install", _install(at), 150)
    yield Step("replay", replay, 60)
    for dtype in DTYPES:
        yield Step(f"ops-{dtype}", [*measure, "ops", dtype, *OPS], 90, ("install",))
    yield Step("training", [*measure, "training"], 80, ("install",))
    yield Step("selection", [*measure, "selection"], 80, ("install",))
    flags = ["-m", "gpu", "-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider"]
    tests = TESTS[:1] if at.dry else TESTS
    yield Step("tests", [python, "-m", "pytest", *flags, "-k", "not compile", *tests], 120, ("install",))
    for tool in SANITIZERS:
        sanitizer = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        yield Step(tool, [*replay, "--", *sanitizer], 60)
    profiler = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--set", "full"]
    report = str(at.out / "steps" / "kernels")
    yield Step("kernels", [*profiler, "-f", "-o", report, *measure, "profile"], 90, ("install",))


def _install(at: Places) -> list[str]:
    """Return the command that installs the package: of the compiled kernels only the binding is compiled."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--upgrade"]
    options += ["--target", str(at.site)]
    wheels = sorted(map(str, (at.prepared / "wheels").glob("*.whl")))
    prepared = [f"--config-settings=cmake.define.SAL_FAST_PREPARED={at.prepared}"]
    if at.dry:  # the native core that is tested here is the installed one
        return [sys.executable, "-m", "pip", "install", *options, *wheels] if wheels else ["true"]
    return [sys.executable, "-m", "pip", "install", *options, *prepared, *wheels, "."]


def digest_of_sources() -> str:
    """Return a digest of the sources of the kernels, and of what is compiled with them."""
    paths = [ROOT / "CMakeLists.txt", ROOT / "tests" / "emulation" / "run.cpp", *(ROOT / "csrc").rglob("*.*")]
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(str(path.relative_to(ROOT)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def origin(prepared: Path) -> dict[str, str]:
    """Return the commit that the kernels were prepared from, as results record it.

    Raises SystemExit if nothing was prepared, or from other sources.
    """
    path = prepared / "origin.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run `bash benchmarks/gpu_check.sh prepare` where nvcc is")
    found = json.loads(path.read_text())
    if found.pop("sources") != digest_of_sources():
        raise SystemExit(f"{prepared} was prepared from other sources: prepare it again")
    return dict(found)


class Check:
    """Runs steps, and keeps what they leave."""

    def __init__(self, at: Places, seconds: float, environment: dict[str, str] | None = None) -> None:
        self.at, self.end = at, time.monotonic() + seconds
        self.environment = environment or {}
        self.folder = at.out / "steps"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records: list[dict[str, Any]] = []

    def run(self, step: Step) -> None:
        """Run one step, unless there is no time left for it or a step before it failed."""
        failed = {record["step"] for record in self.records if record["status"] != "passed"}
        missing = [name for name in step.after if name in failed]
        left = self.end - time.monotonic()
        record: dict[str, Any] = {
            "schema": 1,
            "step": step.name,
            "command": step.command,
            "limit": step.limit,
        }
        if missing or left < 10:
            reason = f"{missing[0]} did not pass" if missing else "no time is left"
            record |= {"status": "skipped", "reason": reason}
        else:
            patience = 10 if self.at.dry else 1  # a dry run is no measurement, and may share its processor
            record |= self._run(step, min(patience * step.limit, left))
        print(f"{step.name}: {record['status']}, {record.get('seconds', 0):.1f} s", flush=True)
        self.records.append(record)
        _write(self.folder / f"{step.name}.json", record)
        self._keep()

    def _run(self, step: Step, limit: float) -> dict[str, Any]:
        log = self.folder / f"{step.name}.log"
        path = os.pathsep.join([str(self.at.site), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ, **self.environment, "PYTHONPATH": path.rstrip(os.pathsep), "PYTHONSAFEPATH": "1"
        }  # fmt: skip
        begin, status, code = time.monotonic(), "passed", None
        with open(log, "wb") as out:
            try:
                process = subprocess.Popen(
                    step.command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
                )
            except OSError as error:
                return {"status": "failed", "reason": str(error), "seconds": 0.0}
            try:
                code = process.wait(limit)
                status = "failed" if code else "passed"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = "outran its limit"
        seconds = round(time.monotonic() - begin, 3)
        tail = log.read_text(errors="replace")[-TAIL:]
        return {"status": status, "exit_status": code, "seconds": seconds, "output": tail}

    def _keep(self) -> None:
        """Write the summary, and the archive of all files so far."""
        statuses = {record["step"]: record["status"] for record in self.records}
        summary = {"schema": 1, "device": self.at.device, "steps": statuses}
        _write(self.at.out / "gpu_check.json", summary)
        aside = self.at.out / "gpu_check.part"
        with tarfile.open(aside, "w:gz") as archive:
            archive.add(self.folder, "steps")
        aside.rename(self.at.out / "gpu_check.tar.gz")


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="the steps to run; all if none is named")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", "build/gpu-results"))
    parser.add_argument("--prepared", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    parser.add_argument("--seconds", type=float, default=570, help="no step starts or runs after so many")
    options = parser.parse_args()
    out = Path(options.out).absolute()
    at = Places(out, options.prepared.absolute(), options.prepared.absolute() / "site", options.device)
    every = list(steps(at))
    unknown = set(options.names) - {step.name for step in every}
    if unknown:
        parser.error(f"no step is called {sorted(unknown)[0]}; there are {', '.join(s.name for s in every)}")
    check = Check(at, options.seconds, None if at.dry else origin(at.prepared))
    for step in every:
        if not options.names or step.name in options.names:
            check.run(step)
    shutil.rmtree(check.folder)  # the archive has it all
    return int(any(record["status"] != "passed" for record in check.records))


if __name__ == "__main__":
    sys.exit(main())
