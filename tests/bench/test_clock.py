"""The clock: variants take turns, inputs rotate, short calls are repeated, and CUDA graphs are replayed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sal_fast import bench
from sal_fast.bench import clock, measure
from sal_fast.bench.suite import Benchmark, Case, Setup


def measured(case: Case, **options: Any) -> dict[str, Any]:
    """The document of a benchmark of one case."""

    def step(setup: Setup) -> Iterator[Case]:
        yield case

    return measure.measure(Benchmark(step), Setup(device="cpu", **options))


def test_variants_take_turns_and_inputs_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, list[int]] = {"a": [], "b": []}
    order = []

    def variant(name: str, x: torch.Tensor) -> None:
        given[name].append(int(x[0]))
        order.append(name)

    monkeypatch.setattr(clock, "SHORTEST", 0.0)
    monkeypatch.setattr(clock, "CACHE_BYTES", 1 << 16)
    variants = {name: lambda x, name=name: variant(name, x) for name in given}
    size = clock.CACHE_BYTES // 8 // 4  # a fourth of the cache
    measured(Case("", variants, lambda seed: (torch.full((size,), seed),)), rounds=5)
    assert order[-10:] == ["a", "b"] * 5
    assert given["a"] == given["b"]
    assert set(given["a"]) == set(range(1 + math.ceil(clock.CACHE_BYTES / (8 * size))))


def test_a_short_call_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SHORTEST", 0.01)
    calls: list[int] = []
    timer = clock.Timer([lambda: calls.append(0)], torch.device("cpu"))
    before = len(calls)
    timer()
    assert len(calls) - before == timer.repeats > 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu() -> None:
    """A call of a few microseconds is replayed; what it launches and allocates is counted."""
    document = bench.run("minmax_normalize", maps=8, side=32, rounds=2, only="forward", device="cuda")
    eager = [one for one in document["results"] if one["variant"] == "eager"]
    assert all(one["graph_replay"] for one in eager if one["case"].endswith("-forward"))
    assert all(one["launches"] >= 3 and one["peak_bytes"] >= 0 for one in eager)
    assert all(one["ms"] > 0 and one["host_ms"] > 0 for one in document["results"])
    assert document["driver"]
