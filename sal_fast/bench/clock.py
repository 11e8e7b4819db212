"""The one clock: variants take turns, short calls are repeated, and a GPU is waited for."""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

SHORTEST = 0.01  # seconds: shorter calls are repeated until a sample takes that long
REPLAYED = 1e-4  # seconds: on a GPU, shorter calls are replayed in a CUDA graph
IN_A_GRAPH = 20  # calls
CACHE_BYTES = 256 << 20  # more than the last-level cache of any machine we know; inputs rotate through it
Call = Callable[[], object]


class Timer:
    """Times one variant. Successive calls get its inputs in turn, so that none is found in the cache."""

    def __init__(self, calls: Sequence[Call], device: torch.device) -> None:
        self.device, self.first = device, calls[0]
        self.per_call = 1
        self._turns: Iterator[Call] = itertools.cycle(calls)
        about = self._seconds(1)  # the first call makes threads, caches and compiled code
        if about <= 10 * SHORTEST:
            about = self._seconds(1)
        self.graph = device.type == "cuda" and about < REPLAYED and self._capture(calls)
        if self.graph:
            about = self._seconds(1)
        self.repeats = max(1, math.ceil(SHORTEST / max(about, 1e-9)))
        self.about = about * self.repeats

    def __call__(self) -> float:
        """Return the seconds of one call, averaged over `repeats` calls."""
        return self._seconds(self.repeats) / self.per_call

    def _seconds(self, repeats: int) -> float:
        self.wait()
        begin = time.perf_counter()
        for _ in range(repeats):
            next(self._turns)()
        self.wait()
        return (time.perf_counter() - begin) / repeats

    def wait(self) -> None:
        """Wait until a GPU has done all that it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _capture(self, calls: Sequence[Call]) -> bool:
        """Put IN_A_GRAPH calls into a CUDA graph; return False if the variant cannot be captured."""
        stream, graph = torch.cuda.Stream(self.device), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(stream):
                for call in calls:
                    call()
                with torch.cuda.graph(graph, stream=stream):
                    for call in itertools.islice(itertools.cycle(calls), IN_A_GRAPH):
                        call()
        except RuntimeError:
            return False
        finally:
            self.wait()
        self._turns, self.per_call = itertools.repeat(graph.replay), IN_A_GRAPH
        return True


def in_turn(
    timers: Mapping[str, Timer], rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Return the seconds of a call of each variant, one value for each round. Variants alternate."""
    return parts(lambda: {name: timer() for name, timer in timers.items()}, rounds, advance)


def parts(
    call: Callable[[], dict[str, float]], rounds: int, advance: Callable[[], None]
) -> dict[str, list[float]]:
    """Return the seconds of the parts of a call that measures them itself, one value for each round."""
    timed: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, spent in call().items():
            timed.setdefault(name, []).append(spent)
        advance()
    return timed


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 10th percentile, the median and the 90th percentile."""
    low, median, high = np.percentile(values, (10, 50, 90)).tolist()
    return low, median, high


def bandwidth(device: torch.device) -> tuple[float, float]:
    """Return the bytes a second of a copy (both directions counted) and of a read, past the caches."""
    source = torch.ones(CACHE_BYTES // 4, device=device)
    target = torch.empty_like(source)
    timers = {"copy": Timer([partial(target.copy_, source)], device), "read": Timer([source.sum], device)}
    copy, read = (statistics.median(seconds) for seconds in in_turn(timers, 9).values())
    return 2 * source.nbytes / copy, source.nbytes / read


def on_a_gpu(timer: Timer) -> dict[str, float | None]:
    """Return what a call costs besides time: the fields host_ms, launches and peak_bytes of a result.

    All are None on the CPU, and for calls of more than a second.
    """
    call, device = timer.first, timer.device
    if device.type != "cuda" or timer.about > 1:
        return {"host_ms": None, "launches": None, "peak_bytes": None}
    returned = []
    for _ in range(9):
        timer.wait()
        begin = time.perf_counter()
        call()
        returned.append(time.perf_counter() - begin)
    timer.wait()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
    ) as profile:
        call()
        timer.wait()
    events = profile.events() or []
    return {
        "host_ms": 1e3 * statistics.median(returned),
        "launches": sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events),
        "peak_bytes": torch.cuda.max_memory_allocated(device) - before,
    }


def write_trace(path: Path, timers: Mapping[str, Timer]) -> None:
    """Write one call of each variant as a Chrome trace, each under its name."""
    with torch.profiler.profile(acc_events=True) as profile:
        for name, timer in timers.items():
            with torch.profiler.record_function(name):
                timer.first()
                timer.wait()
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))
