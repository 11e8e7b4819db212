"""What the benchmarks have in common: options, variants in turn, percentiles, one form of document.

Needs torch alone until it measures: `benchmarks/` imports it where the experiment's libraries are missing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

import sal_fast
from sal_fast.bench import schema
from sal_fast.errors import InputError

SHORTEST = 0.01  # seconds: shorter calls are repeated until a sample takes as long
LONG = 10.0  # seconds after which an estimate is worth a line in a log
Call = Callable[[], object]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Options:
    """What every benchmark takes."""

    LEAST: ClassVar[dict[str, int]] = {}  # where it is not 1

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    rounds: int = 5
    """In each of which every variant has its turn."""
    threads: int | None = None
    """Of torch on the CPU; None: as it is."""
    out: Path | None = None
    """A JSON file for the result."""
    plot: Path | None = None
    """A PNG file for a figure of the ratios."""
    trace: Path | None = None
    """A JSON file for a Chrome trace (torch.profiler) of one more call of each variant."""

    def check(self) -> None:
        """Raise InputError for the first value that cannot be, before anything is measured."""
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), "--" + field.name.replace("_", "-")
            least = self.LEAST.get(field.name, 1)
            if type(value) is int and value < least:
                raise InputError(f"{name} {value}: expected at least {least}")
        for name, kind in (("out", "JSON"), ("plot", "PNG"), ("trace", "JSON")):
            path = getattr(self, name)
            if path is not None:
                check_file(path.expanduser(), f"--{name}", kind)


@dataclass(frozen=True)
class Ratio:
    """The time of `over`, `times` as often, over the time of `under`; what is asked of it."""

    over: str
    under: str
    times: int = 1
    at_most: float | None = None
    at_least: float | None = None

    def record(self, timed: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        pairs = zip(timed[self.over], timed[self.under], strict=True)
        low, value, high = spread([self.times * a / b for a, b in pairs])
        name = f"{f'{self.times} x ' if self.times > 1 else ''}{self.over} / {self.under}"
        limits = {"at_most": self.at_most, "at_least": self.at_least}
        return {"name": name, "value": value, "p10": low, "p90": high, **limits}


def check_file(path: Path, option: str, kind: str) -> None:
    """Raise InputError for what cannot be the name of a file of that kind."""
    if path.is_dir():
        raise InputError(f"{option} {path}: a folder; expected the name of a {kind} file")
    if path.suffix.lower() != f".{kind.lower()}":
        raise InputError(f"{option} {path}: expected the name of a {kind} file, .{kind.lower()}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{option} {path}: {above} is not a folder that can be written to")


def seconds(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Of one call, by the wall; a GPU has finished what was asked before, and what the call asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / repeats


def in_turn(
    name: str, variants: Mapping[str, Call], device: torch.device, options: Options
) -> dict[str, list[float]]:
    """Seconds a call of each variant, a list of one value a round; in a round every variant has its turn.

    Each is called before, so that threads, caches and pipelines exist. Progress goes to stderr.
    """
    from sal_fast._util import progress

    with progress.bar(f"bench {name}", (1 + options.rounds) * len(variants), log=False) as advance:
        repeats, about = {}, 0.0
        for variant, call in variants.items():
            first = seconds(call, device)
            again = first if first > 10 * SHORTEST else seconds(call, device)
            repeats[variant] = max(1, math.ceil(SHORTEST / again))
            about += options.rounds * again * repeats[variant]
            advance()
        if about > LONG:
            print(f"bench {name}: about {progress.duration(about)} to measure", file=sys.stderr)
        timed: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(options.rounds):
            for variant, call in variants.items():
                timed[variant].append(seconds(call, device, repeats[variant]))
                advance()
    if options.trace is not None:
        write_trace(options.trace.expanduser(), variants, device)
    return timed


def write_trace(path: Path, variants: Mapping[str, Call], device: torch.device) -> None:
    """One call of each variant as a Chrome trace, each under its name."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for variant, call in variants.items():
            with torch.profiler.record_function(variant):
                seconds(call, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))


def document(
    bench: str,
    device: torch.device,
    options: Options,
    load: float,
    timed: Mapping[str, Sequence[float]],
    ratios: Sequence[Ratio],
    *,
    unit: str,
    items: Mapping[str, float],
    figures: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The result in the form of `schema`.

    Args:
        load: the 1-minute load average before.
        items: how many of `unit` a call of each variant does.
    """
    asked = {
        name: value
        for name, value in dataclasses.asdict(options).items()
        if name not in {field.name for field in dataclasses.fields(Options)}
    }
    made = {
        "schema": schema.VERSION,
        "bench": bench,
        "version": sal_fast.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": [load, os.getloadavg()[0]],
        "rounds": options.rounds,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()},
        "unit": unit,
        "results": [_result(name, items[name], values) for name, values in timed.items()],
        "ratios": [ratio.record(timed) for ratio in ratios],
        "figures": dict(figures or {}),
    }
    schema.check(made)
    return made


def _result(variant: str, items: float, values: Sequence[float]) -> dict[str, Any]:
    low, median, high = (1e3 * value for value in spread(values))
    rate = 1e3 * items / median if median else 0.0
    fields = {"ms": median, "ms_p10": low, "ms_p90": high, "per_second": rate}
    return {"variant": variant, "items": items, **fields}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """10th percentile, median, 90th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return deciles[0], statistics.median(values), deciles[-1]


def machine() -> str:
    """The processor's name, how many, the architecture."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    name = names[0].split(":", 1)[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} CPUs, {platform.machine()}"


@contextmanager
def threads(options: Options) -> Iterator[None]:
    """So many threads of torch, and after it as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, precision: Precision) -> Any:
    """bfloat16 where it is asked for."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)
