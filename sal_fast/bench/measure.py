"""Measures a benchmark: checks our results, times the variants and makes the document."""

import inspect
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sal_fast._util.files import write_json
from sal_fast.bench import clock, result
from sal_fast.bench.suite import Benchmark, Case, Ratio, Setup, agree
from sal_fast.errors import InputError

LONG = 10.0  # seconds of measuring that the user is told of
MOST_INPUTS = 16
Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
_log = logging.getLogger(__name__)


def no_bar(name: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show no progress."""
    return nullcontext(lambda: None)


def measure(benchmark: Benchmark, setup: Setup, bar: Bar = no_bar, **sizes: Any) -> dict[str, Any]:
    """Measure a benchmark, write the files that its options ask for, and return its document.

    Args:
        benchmark: the benchmark.
        setup: the options of the kind that it takes.
        bar: opens a progress bar of a title and a total, and gives a function that advances it by one.
        sizes: the benchmark's other options; what is left out has its default.

    Raises:
        AssertionError: one of our results is wrong. No speed is reported then.
        InputError: an option has a value that it cannot have.
    """
    bound = inspect.signature(benchmark.function).bind(setup, **sizes)
    bound.apply_defaults()
    _, *options = bound.arguments.items()
    setup.check(benchmark.least, dict(options))
    rounds = setup.rounds or benchmark.rounds
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"copy_gb_s": None, "read_gb_s": None, "results": [], "ratios": [], "figures": {}}
    with ExitStack() as afterwards:
        afterwards.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(setup.threads or torch.get_num_threads())
        for case in benchmark.function(*bound.args, **bound.kwargs):
            if setup.only in case.name:
                _add(
                    found,
                    setup.without_skipped(case),
                    f"bench {benchmark.name} {case.name}".rstrip(),
                    setup,
                    rounds,
                    bar,
                )
        surroundings = result.surroundings(setup.place)
    if not found["results"]:
        raise InputError(f"--only {setup.only}: bench {benchmark.name} has no case of such a name")
    own = {name: value for name, value in vars(setup).items() if name not in Setup.__dataclass_fields__}
    document = {
        "schema": result.VERSION,
        "bench": benchmark.name,
        **surroundings,
        "load": [load, os.getloadavg()[0]],
        "rounds": rounds,
        "options": own | dict(options),
        "unit": benchmark.unit,
        **found,
    }
    result.check(document)
    if setup.out is not None:
        write_json(Path(setup.out).expanduser(), document)
    if setup.plot is not None:
        from sal_fast.bench import figure  # matplotlib is not on every machine with a GPU

        figure.write(document, Path(setup.plot).expanduser())
    return document


def _add(found: dict[str, Any], case: Case, title: str, setup: Setup, rounds: int, bar: Bar) -> None:
    """Measure a case and add it to what was found."""
    if case.floor and found["copy_gb_s"] is None:
        found["copy_gb_s"], found["read_gb_s"] = (1e-9 * rate for rate in clock.bandwidth(setup.place))
    timers: dict[str, clock.Timer] = {}
    with bar(title, rounds) as advance:
        if case.parts is None:
            timers = _timers(case, title, setup.place, rounds)
            timed = clock.in_turn(timers, rounds, advance)
        else:
            timed = clock.parts(case.parts, rounds, advance)
    if setup.trace is not None and not found["results"]:
        clock.write_trace(Path(setup.trace).expanduser(), timers)
    for name, seconds in timed.items():
        record = _record(case, name, seconds, found)
        if name in timers:
            record |= {"graph_replay": timers[name].graph, **clock.on_a_gpu(timers[name])}
        found["results"].append(record)
        _log.debug("%s, %s: %.4g ms", title, name, record["ms"])
    ours, *others = timed
    ratios = [Ratio(other, ours) for other in others] if case.ratios is None else case.ratios
    found["ratios"] += [
        ratio.record(case.name, timed) for ratio in ratios if {ratio.over, ratio.under} <= timed.keys()
    ]
    found["figures"] |= case.figures()


def _timers(case: Case, title: str, device: torch.device, rounds: int) -> dict[str, clock.Timer]:
    """Check our result, then return a timer for each variant."""
    inputs = [case.inputs(0)]
    if isinstance(case.verify, tuple):
        agree(next(iter(case.variants.values())), inputs[0], *case.verify)
    else:
        case.verify(*inputs[0])
    size = sum(tensor.nbytes for tensor in inputs[0])
    count = min(MOST_INPUTS, 1 + math.ceil(clock.CACHE_BYTES / size)) if size else 1
    inputs += [case.inputs(seed) for seed in range(1, count)]
    timers = {
        name: clock.Timer([partial(variant, *given) for given in inputs], device)
        for name, variant in case.variants.items()
    }
    about = rounds * sum(timer.about for timer in timers.values())
    if about > LONG:
        _log.info("%s: about %.0f s to measure", title, about)
    return timers


def _record(case: Case, name: str, seconds: Sequence[float], found: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one variant in the form of `result.RESULT`."""
    low, median, high = clock.spread(seconds)
    rate = case.floor and 1e-9 * case.floor / median
    return {
        **dict.fromkeys(result.RESULT),
        **{"case": case.name, "variant": name, "items": case.items, "graph_replay": False},
        **{"ms": 1e3 * median, "ms_p10": 1e3 * low, "ms_p90": 1e3 * high},
        "per_second": case.items / median if median else 0.0,
        "bytes": case.floor,
        "share_of_copy": rate and rate / found["copy_gb_s"],
        "share_of_read": rate and rate / found["read_gb_s"],
    }
