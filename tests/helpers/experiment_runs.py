"""A run small enough to repeat many times: 18 training images, three rounds, a few seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sal_fast.experiment.answers import people
from sal_fast.experiment.record import RunFolder
from sal_fast.people.question import Answer, Question

TINY: dict[str, Any] = {
    "arch": "resnet18",
    "image_size": 32,
    "output_stride": 8,
    "weights": "none",  # the default for data of one's own is to look for pretrained ones
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.01,
    "start_fraction": 0.25,
    "query_fraction": 0.25,
    "stop_fraction": 0.75,
    "human_budget": 0.25,
    "device": "cpu",
}
MACHINE = ("seconds", "timings", "memory")  # whatever depends on the machine

# Kills itself just before the n-th change of names on disk: every moment at which a run folder differs.
SUICIDE = """
import os, pathlib, shutil, signal, sys
left = int(sys.argv.pop(1))
def before(function):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapped
os.replace = before(os.replace)
shutil.rmtree = before(shutil.rmtree)
pathlib.Path.rename = before(pathlib.Path.rename)
pathlib.Path.unlink = before(pathlib.Path.unlink)
from sal_fast.cli import main
sys.exit(main(sys.argv[1:]))
"""


def arguments(**options: Any) -> list[str]:
    out = []
    for name, value in {**TINY, **options}.items():
        out += ["--" + name.replace("_", "-"), str(value)]
    return out


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sal_fast", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_before(number: int, out: Path, **options: Any) -> int:
    """The exit status of a run that kills itself before its n-th change of names."""
    return subprocess.run(
        [sys.executable, "-P", "-c", SUICIDE, str(number), "run", *arguments(out=out, **options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    ).returncode


def rounds(folder: Path) -> list[dict[str, Any]]:
    """rounds.jsonl without what depends on the machine."""
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MACHINE} for row in rows]


def kept(folder: Path) -> dict[str, bytes]:
    """Every query and map of a run."""
    files = [*folder.glob("rounds/*/query.csv"), *folder.glob("rounds/*/maps/**/*.png")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def answer(run: Path, data: Path, **fields: Any) -> Question:
    """One person gives the classes that the data set knows, and draws the maps that the run asks for."""
    held = RunFolder(run)
    asked = people.asked(held)
    answers = []
    for name in asked.ids:
        mask = np.asarray(Image.open(data / "masks" / f"{name}.png")) if asked.wants_map(name) else None
        own = {"label": name.split("/")[0], "annotator": "ann", "seconds": 0.5 if mask is None else 2.0}
        answers.append(Answer(id=name, mask=mask, **{**own, "skipped": False, **fields}))
    people.reopen(held, asked).add(answers)
    return asked
