"""One run of a sweep, in a process of its own: what Ray calls. Nothing here knows Ray."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import sal_fast
from sal_fast._util.locks import InUse
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.run import run
from sal_fast.sweep.sharing import copy_rounds


@dataclass(frozen=True)
class Task:
    """`share`: copy that many rounds of that run first; `until`: stop after so many rounds."""

    config: Config
    threads: int
    gpu: bool
    log: str
    version: str
    share: tuple[Config, int] | None = None
    until: int | None = None
    patience: float = 20.0


@dataclass(frozen=True)
class News:
    """`text`: where it runs, or what went wrong."""

    state: Literal["running", "finished", "stopped", "in use", "failed"]
    text: str = ""


def version() -> str:
    """What all have to have the same: another one may change last digits."""
    return (
        f"{sal_fast.__version__}, {'native' if sal_fast.build_info().native else 'without the native core'}"
    )


def work(task: Task) -> Iterator[News]:
    """Say where it runs; run; say how it ended."""
    yield News("running", socket.gethostname())
    yield _outcome(task)


def _outcome(task: Task) -> News:
    if task.version != version():
        return News(
            "failed",
            f"{socket.gethostname()} has sal-fast {version()}, the driver {task.version}; install the same "
            f"on every node",
        )
    if not task.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing has looked yet
    try:
        _write_to(Path(task.log))
        share = task.share
        if share is not None:
            _when_free(lambda: copy_rounds(share[0], task.config, share[1]), task.patience)
        folder = RunFolder(task.config.run_folder)
        torch.set_num_threads(_threads(folder, task.threads))
        _when_free(lambda: run(task.config, until=task.until), task.patience)
        return News("finished" if folder.summary_json.exists() else "stopped")
    except InUse as error:
        return News("in use", str(error))
    except InputError as error:
        print(f"sal-fast: error: {error}", flush=True)
        return News("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        said = str(error).splitlines()[:1] or [""]
        return News("failed", f"{type(error).__name__}: {said[0]} (see {task.log})")


def _threads(folder: RunFolder, asked: int) -> int:
    """A run keeps the number it began with: another one may change last digits."""
    if not folder.run_json.exists():
        return asked
    return int(folder.run()["environment"].get("threads", asked))


def _when_free(step: Callable[[], object], patience: float) -> None:
    """Wait for a process that holds the folder: one of a sweep that was killed ends in a moment."""
    begin = time.monotonic()
    while True:
        try:
            step()
            return
        except InUse:
            if time.monotonic() - begin > patience:
                raise
            time.sleep(0.2)


def _write_to(log: Path) -> None:
    """Everything that this process says goes to the run's log, a crash's stack too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(handle, number)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"--- {now}, {socket.gethostname()}, process {os.getpid()}")
