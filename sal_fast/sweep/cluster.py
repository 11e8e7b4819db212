"""Ray: a cluster of this machine alone, or one that is there already; runs handed to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from sal_fast.data.decode.base import cores
from sal_fast.errors import InputError
from sal_fast.sweep import plan, worker

EXPECTED = "expected the host:port that `ray start --head` printed, or auto on a node of the cluster"
STORE_BYTES = 100 * 2**20  # of Ray's object store: runs pass a few words through it


class Lost(Exception):
    """A worker's process or node ended before its run did."""


class Crashed(Exception):
    """A worker could not even begin."""


def require_ray() -> ModuleType:
    """Import Ray, quiet: no statistics sent, nothing uploaded, no messages of its own between ours."""
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0"),
        ("RAY_DEDUP_LOGS_SKIP_REGEX", ".*"),
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),  # the worker hides GPUs by itself
    ):
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError("sweep needs Ray, which is not installed: pip install 'sal-fast[ray]'") from None
    return ray


class Cluster:
    """Runs on Ray. `news` gives what has happened since; each run is a process that ends with it."""

    def __init__(
        self, ray: Any, cpus_per_run: int | None, gpus_per_run: float | None, cpu_only: bool
    ) -> None:
        self._ray = ray
        gpus = 0 if cpu_only else max((node.get("GPU", 0.0) for node in self._nodes()), default=0)
        self.gpus_per_run = (1.0 if gpus else 0.0) if gpus_per_run is None else gpus_per_run
        self.cpus_per_run = self._share_of_cores() if cpus_per_run is None else cpus_per_run
        # a process for each run (`max_calls`); lost ones are handed out again here, where they are counted
        self._remote = ray.remote(max_calls=1, max_retries=0)(worker.work)
        self._tasks: dict[Any, str] = {}

    def check(self) -> None:
        """Refuse what no node can ever run."""
        if not any(self._fits(node) for node in self._nodes()):
            nodes = "; ".join(
                f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in self._nodes()
            )
            raise InputError(
                f"no node has {self.cpus_per_run} CPUs and {self.gpus_per_run:g} GPUs for a run (there are: "
                f"{nodes or 'none'}); lower --cpus-per-run or --gpus-per-run"
            )

    @property
    def slots(self) -> int:
        """How many runs fit at a time, on the nodes that are alive."""
        return max(1, sum(self._fits(node) for node in self._nodes()))

    def start(self, name: str, task: worker.Task) -> None:
        place = self._remote.options(num_cpus=self.cpus_per_run, num_gpus=self.gpus_per_run, name=name)
        self._tasks[place.remote(task)] = name

    def news(self, timeout: float) -> list[tuple[str, worker.News | Lost | Crashed]]:
        """What has happened to the runs, waiting for it at most that long."""
        if not self._tasks:
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(self._tasks), timeout=timeout)
        told: list[tuple[str, worker.News | Lost | Crashed]] = []
        for task in ready:
            name = self._tasks[task]
            said = self._next(task)
            if not isinstance(said, worker.News) or said.state != "running":
                del self._tasks[task]
            told.append((name, said))
        return told

    def _next(self, task: Any) -> worker.News | Lost | Crashed:
        errors = self._ray.exceptions
        try:
            said = self._ray.get(next(task))
            assert isinstance(said, worker.News)
            return said
        except StopIteration:
            return Lost("it ended without a word")
        except errors.RayTaskError as error:
            return Crashed(str(error.cause or error).splitlines()[-1])
        except errors.OutOfMemoryError:
            return Lost("killed, for its node had no memory left; raise --cpus-per-run or --gpus-per-run")
        except errors.NodeDiedError:
            return Lost("its node is gone")
        except errors.RayError as error:
            return Lost(f"its process was killed or crashed ({type(error).__name__})")

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _fits(self, node: dict[str, float]) -> int:
        fits = int(node.get("CPU", 0) / self.cpus_per_run + 1e-9)
        if self.gpus_per_run:
            fits = min(fits, int(node.get("GPU", 0)) * int(1 / self.gpus_per_run + 1e-9))
        return fits

    def _share_of_cores(self) -> int:
        """Where cores are fewest."""
        nodes = [node for node in self._nodes() if node.get("GPU") or not self.gpus_per_run]
        return min(
            (
                plan.cpus_beside_gpus(int(node.get("CPU", 1)), int(node.get("GPU", 0)), self.gpus_per_run)
                for node in nodes
            ),
            default=1,
        )


@contextmanager
def connected(
    address: str | None, cpus_per_run: int | None, gpus_per_run: float | None, cpu_only: bool
) -> Iterator[Cluster]:
    """Start Ray here, or join the cluster at `address`; nothing of it is left running afterwards."""
    ray = require_ray()
    if address not in (None, "auto"):
        _answers(str(address))
    with _terminated_as_interrupted():
        try:
            _join(ray, address)
            with _terminated_as_interrupted():  # again: Ray has set handlers of its own
                yield Cluster(ray, cpus_per_run, gpus_per_run, cpu_only)
        except SystemExit:  # by Ray's handler, while it starts
            raise KeyboardInterrupt from None
        finally:
            with _undisturbed():
                own = _descendants() if address is None else set()
                ray.shutdown()
                _see_off(own)


def _join(ray: Any, address: str | None) -> None:
    # Ray has workers import from the current folder first: of a checkout, sal_fast without its native core
    with contextlib.chdir(tempfile.gettempdir()):
        _init(ray, address)


def _init(ray: Any, address: str | None) -> None:
    try:
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        ray.init(
            address="local",
            num_cpus=cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=STORE_BYTES,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "Ray does not start here" if address is None else f"--address {address}"
        more = "" if address is None else f"; {EXPECTED}"
        raise InputError(f"{where}: {str(error).splitlines()[0]}{more}") from None


def _answers(address: str) -> None:
    """InputError where nothing listens there: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: {error}; {EXPECTED}") from None


def _descendants() -> set[tuple[int, str]]:
    """The processes below this one: (id, when it began)."""
    parents: dict[int, int] = {}
    began: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)], began[int(folder.name)] = int(fields[1]), fields[19]
    found = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return {(process, began[process]) for process in found - {os.getpid()}}


def _see_off(processes: set[tuple[int, str]], patience: float = 10.0) -> None:
    """Wait until Ray's processes have ended, as they do by themselves; at last end them."""
    until = time.monotonic() + patience
    while left := {one for one in processes if _began(one[0]) == one[1]}:
        if time.monotonic() > until:
            for process, _ in left:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.05)


def _began(process: int) -> str | None:
    """None: it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as SIGINT does: with what comes after it."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handlers((signal.SIGTERM, signal.SIGINT), interrupt):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    with _handlers((signal.SIGTERM, signal.SIGINT), signal.SIG_IGN):
        yield


@contextmanager
def _handlers(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old if old is not None else signal.SIG_DFL)
