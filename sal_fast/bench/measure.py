"""Measures a benchmark: checks our results, times the variants and makes the document."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sal_fast._util.files import write_json
from sal_fast.bench import clock, result
from sal_fast.bench.suite import Benchmark, Case, Ratio
from sal_fast.errors import InputError

LONG = 10.0  # seconds of measuring that the user is told of
MOST_INPUTS = 16
Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
_log = logging.getLogger(__name__)


def no_bar(name: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show no progress."""
    return nullcontext(lambda: None)


def measure(benchmark: Benchmark, bar: Bar = no_bar) -> dict[str, Any]:
    """Measure a benchmark, write the files that its options ask for, and return its document.

    Args:
        benchmark: the benchmark with its options.
        bar: opens a progress bar of a title and a total, and gives a function that advances it by one.

    Raises:
        AssertionError: one of our results is wrong. No speed is reported then.
        InputError: an option has a value that it cannot have.
    """
    benchmark.check()
    name = benchmark.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"copy_gb_s": None, "read_gb_s": None, "results": [], "ratios": [], "figures": {}}
    with clock.threads(benchmark.threads):
        for case in benchmark.cases(device):
            if benchmark.only in case.name:
                _add(found, case, benchmark, device, bar)
        surroundings = result.surroundings(device)
    if not found["results"]:
        raise InputError(f"--only {benchmark.only}: bench {benchmark.name} has no case of such a name")
    document = {
        "schema": result.VERSION,
        "bench": benchmark.name,
        **surroundings,
        "load": [load, os.getloadavg()[0]],
        "rounds": benchmark.rounds,
        "options": benchmark.own,
        "unit": benchmark.UNIT,
        **found,
    }
    result.check(document)
    if benchmark.out is not None:
        write_json(Path(benchmark.out).expanduser(), document)
    if benchmark.plot is not None:
        from sal_fast.bench import figure  # matplotlib is not on every machine with a GPU

        figure.write(document, Path(benchmark.plot).expanduser())
    return document


def _add(found: dict[str, Any], case: Case, benchmark: Benchmark, device: torch.device, bar: Bar) -> None:
    """Measure a case and add it to what was found."""
    if case.bytes_moved and found["copy_gb_s"] is None:
        found["copy_gb_s"], found["read_gb_s"] = (1e-9 * rate for rate in clock.bandwidth(device))
    title = f"bench {benchmark.name} {case.name}".rstrip()
    if case.parts is not None:
        details: dict[str, dict[str, Any]] = {}
        with bar(title, benchmark.rounds) as advance:
            taken = []
            for _ in range(benchmark.rounds):
                taken.append(case.parts())
                advance()
        timed = {part: [parts[part] for parts in taken] for part in taken[0]}
    else:
        timers, timed = _variants(case, title, benchmark.rounds, device, bar)
        if benchmark.trace is not None and not found["results"]:
            clock.write_trace(Path(benchmark.trace).expanduser(), timers, device)
        details = {
            name: {"graph_replay": timer.graph, **clock.on_a_gpu(timer)} for name, timer in timers.items()
        }
    for name, seconds in timed.items():
        record = _record(case, name, seconds, found) | details.get(name, {})
        found["results"].append(record)
        _log.debug("%s, %s: %.4g ms", title, name, record["ms"])
    ours, *others = timed
    ratios = [Ratio(other, ours) for other in others] if case.ratios is None else case.ratios
    found["ratios"] += [ratio.record(case.name, timed) for ratio in ratios]
    found["figures"] |= case.figures()


def _variants(
    case: Case, title: str, rounds: int, device: torch.device, bar: Bar
) -> tuple[dict[str, clock.Timer], dict[str, list[float]]]:
    """Check our result, then time the variants in turn; return their timers and their seconds a round."""
    inputs = [case.inputs(0)]
    case.verify(*inputs[0])
    size = sum(tensor.nbytes for tensor in inputs[0])
    if size:
        count = min(MOST_INPUTS, 1 + math.ceil(clock.CACHE_BYTES / size))
        inputs += [case.inputs(seed) for seed in range(1, count)]
    with bar(title, (1 + rounds) * len(case.variants)) as advance:
        timers = {}
        for name, variant in case.variants.items():
            timers[name] = clock.Timer([partial(variant, *given) for given in inputs], device)
            advance()
        about = rounds * sum(timer.about for timer in timers.values())
        if about > LONG:
            _log.info("%s: about %.0f s to measure", title, about)
        return timers, clock.in_turn(timers, rounds, advance)


def _record(case: Case, name: str, seconds: Sequence[float], found: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one variant in the form of `result.RESULT`."""
    low, median, high = clock.spread(seconds)
    rate = case.bytes_moved and 1e-9 * case.bytes_moved / median
    return {
        **dict.fromkeys(result.RESULT),
        "case": case.name,
        "variant": name,
        "items": case.items,
        "ms": 1e3 * median,
        "ms_p10": 1e3 * low,
        "ms_p90": 1e3 * high,
        "per_second": case.items / median if median else 0.0,
        "graph_replay": False,
        "bytes": case.bytes_moved,
        "share_of_copy": rate and rate / found["copy_gb_s"],
        "share_of_read": rate and rate / found["read_gb_s"],
    }
