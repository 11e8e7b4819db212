"""Ray: a cluster of this machine alone or one that exists already, and the runs that are handed to it."""

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import psutil

from sal_fast.data.decode.base import cores
from sal_fast.errors import InputError
from sal_fast.sweep.slots import Node, Slot
from sal_fast.sweep.worker import News, Task, execute

EXPECTED = "expected the host:port that `ray start --head` printed, or auto on a node of the cluster"
STORE_BYTES = 100 * 2**20  # of Ray's object store: runs pass a few words through it
PATIENCE = 10.0  # seconds that Ray's processes have to end by themselves


def require_ray() -> ModuleType:
    """Import Ray and keep it quiet: it sends no statistics, uploads nothing and prints nothing of its own."""
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
    """Runs on Ray. Each run is a process that ends with it; `news` tells what has happened since.

    choose: given the nodes, what each run takes of one (`Slot.on`).
    """

    def __init__(self, ray: Any, choose: Callable[[list[Node]], Slot]) -> None:
        self._ray = ray
        self.slot = choose(self._nodes())
        # max_calls: a process for each run. max_retries: the driver counts lost runs, and starts them again
        self._remote = ray.remote(max_calls=1, max_retries=0)(execute)
        self._tasks: dict[Any, str] = {}

    def check(self) -> None:
        """Raise InputError for runs that no node can ever take."""
        nodes = self._nodes()
        if not any(map(self.slot.fits, nodes)):
            there = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "none"
            raise InputError(
                f"no node has {self.slot.cpus} CPUs and {self.slot.gpus:g} GPUs for a run (there are: "
                f"{there}); lower --cpus-per-run or --gpus-per-run"
            )

    def count(self) -> int:
        """How many runs fit at a time on the nodes that are alive."""
        return max(1, sum(map(self.slot.fits, self._nodes())))

    def start(self, name: str, task: Task) -> None:
        """Hand a run to Ray, which starts it as soon as a node has room."""
        place = self._remote.options(num_cpus=self.slot.cpus, num_gpus=self.slot.gpus, name=name)
        self._tasks[place.remote(task)] = name

    def news(self, timeout: float) -> list[tuple[str, News]]:
        """What has happened to the runs, by name. Waits at most `timeout` seconds for something to happen."""
        if not self._tasks:
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(self._tasks), timeout=timeout)
        told = []
        for task in ready:
            name, event = self._tasks[task], self._next(task)
            if event.state != "running":
                del self._tasks[task]
            told.append((name, event))
        return told

    def _next(self, task: Any) -> News:
        errors = self._ray.exceptions
        try:
            event: News = self._ray.get(next(task))
            return event
        except StopIteration:
            return News("lost", "it ended without a word")
        except errors.RayTaskError as error:  # the worker could not even begin
            reason = str(error.cause or error).splitlines()[-1]
            return News("failed", f"a worker cannot run it: {reason}; every node needs this sal-fast")
        except errors.OutOfMemoryError:
            advice = "raise --cpus-per-run or --gpus-per-run"
            return News("lost", f"killed, for its node had no memory left; {advice}")
        except errors.NodeDiedError:
            return News("lost", "its node is gone")
        except errors.RayError as error:
            return News("lost", f"its process was killed or crashed ({type(error).__name__})")

    def _nodes(self) -> list[Node]:
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


@contextmanager
def connected(address: str | None, choose: Callable[[list[Node]], Slot]) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at `address`; nothing of it is left running afterwards.

    Raises InputError if Ray does not start, or if there is no cluster at the address.
    """
    ray = require_ray()
    if address not in (None, "auto"):
        _check_address(str(address))
    with _on_signals(signal.default_int_handler):  # SIGTERM ends the block as SIGINT does
        try:
            _join(ray, address)
            with _on_signals(signal.default_int_handler):  # again: Ray has set handlers of its own
                yield Cluster(ray, choose)
        except SystemExit:  # from Ray's own handler, while Ray starts
            raise KeyboardInterrupt from None
        finally:
            with _on_signals(signal.SIG_IGN):
                own = psutil.Process().children(recursive=True) if address is None else []
                ray.shutdown()
                _wait_for_the_end(own)


def _join(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    try:
        # Ray's workers import from the current folder first. A checkout has sal_fast without its native core.
        with contextlib.chdir(tempfile.gettempdir()):
            ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if address is None:
            raise InputError(f"Ray does not start here: {reason}") from None
        raise InputError(f"--address {address}: {reason}; {EXPECTED}") from None


def _check_address(address: str) -> None:
    """Raise InputError if nothing listens at the address; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: {error}; {EXPECTED}") from None


def _wait_for_the_end(processes: list[psutil.Process]) -> None:
    """Wait until the processes have ended, as they do by themselves; kill those that take too long."""
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=PATIENCE)


@contextmanager
def _on_signals(handler: Any) -> Iterator[None]:
    """Handle SIGINT and SIGTERM by `handler` in the block."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
