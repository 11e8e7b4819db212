"""Clocks: the wall on the CPU, events on a GPU, replays of a CUDA graph for calls of less than 100 us."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

_SHORT = 1e-4  # seconds
_REPLAYS = 20


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    call()
    end_event.record()
    end_event.synchronize()
    return start_event.elapsed_time(end_event) / 1e3


def replayed(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    """One graph of _REPLAYS calls in turn; divide its time by that."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(_REPLAYS):
                calls[i % len(calls)]()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


class Timer:
    """Times one variant on one of its rotating inputs per call."""

    def __init__(self, calls: list[Callable[[], Any]], device: torch.device) -> None:
        self.calls, self.device = calls, device
        calls[0]()
        self.graph: Callable[[], None] | None = None
        if device.type == "cuda" and seconds(calls[0], device) < _SHORT:
            try:
                self.graph = replayed(calls)
            except RuntimeError:  # a variant that cannot be captured is timed call by call
                torch.cuda.synchronize()

    def __call__(self, turn: int) -> float:
        if self.graph is not None:
            return seconds(self.graph, self.device) / _REPLAYS
        return seconds(self.calls[turn % len(self.calls)], self.device)


def launches(call: Callable[[], Any], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    """Allocated by the call beyond what was there."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
