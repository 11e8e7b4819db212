"""One run of a sweep, in a process of its own. Ray calls this module, which itself knows nothing of Ray."""

import faulthandler
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sal_fast.sweep.waiting import WAITING  # it comes before torch

# isort: split
import torch

import sal_fast
from sal_fast._util.locks import InUse
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.run import run
from sal_fast.sweep.sharing import copy_rounds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a worker does.

    threads: the number of threads of a run that is new. gpu: False hides all GPUs. log: the file that gets
    all output. version: the driver's `version()`. share: copy so many rounds of that run first. until: stop
    after so many rounds.
    """

    config: Config
    threads: int
    gpu: bool
    log: str
    version: str
    share: tuple[Config, int] | None = None
    until: int | None = None


@dataclass(frozen=True)
class News:
    """What has become of a run. `text` is where it runs, or what went wrong.

    `lost` is told by the cluster: the worker's process or node ended before its run did.
    """

    state: Literal["running", "finished", "stopped", "in use", "failed", "lost"]
    text: str = ""


def version() -> str:
    """What must be the same on all machines, because another version may change last digits."""
    core = "native" if sal_fast.build_info().native else "without the native core"
    return f"{sal_fast.__version__}, {core}"


def execute(task: Task) -> Iterator[News]:
    """Do the task; tell at its start where it runs, and at its end how it ended."""
    yield News("running", socket.gethostname())
    yield outcome(task)


def outcome(task: Task) -> News:
    """Copy the shared rounds, then run. Errors are logged and told, never raised."""
    if task.version != version():
        return News(
            "failed",
            f"{socket.gethostname()} has sal-fast {version()}, the driver {task.version}; install the same "
            f"on every node",
        )
    if not task.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing has looked for GPUs yet
    try:
        _write_to(Path(task.log))
        if task.share is not None:
            source, count = task.share
            copy_rounds(source, task.config, count)
        folder = RunFolder(task.config.run_folder)
        torch.set_num_threads(_threads(folder, task.threads))
        run(task.config, until=task.until)
        return News("finished" if folder.summary_json.exists() else "stopped")
    except InUse as error:
        return News("in use", str(error))
    except InputError as error:
        log.error("sal-fast: error: %s", error)
        return News("failed", str(error))
    except Exception as error:
        log.exception("the run ended by an error")
        first = next(iter(str(error).splitlines()), "")
        return News("failed", f"{type(error).__name__}: {first} (see {task.log})")


def _threads(folder: RunFolder, asked: int) -> int:
    """A run keeps the number of threads that it began with: another one may change last digits."""
    if not folder.run_json.exists():
        return asked
    return int(folder.run()["environment"].get("threads", asked))


def _write_to(path: Path) -> None:
    """Send everything that this process prints or logs to the file, and the stack of a crash too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (it is open as long as the process)
    for descriptor in (1, 2):  # what C libraries write to
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
    faulthandler.enable(file)
    logger = logging.getLogger("sal_fast")
    logger.addHandler(logging.StreamHandler(file))
    logger.setLevel(logging.INFO)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    log.info("--- %s, %s, process %d", now, socket.gethostname(), os.getpid())
    if WAITING:
        log.info("%s", WAITING)
