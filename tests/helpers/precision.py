"""What every op is held to: as good as torch at the same precision, the same in every build."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs a GPU whatever its parameters."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    return pytest.mark.gpu(skip(test))


def name_of(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def error(got: Tensor, exact: Tensor) -> float:
    """The largest, relative to the largest of the exact values; NaN must stand where it should."""
    got, exact = got.detach().double().cpu(), exact.detach().double().cpu()
    assert got.shape == exact.shape
    assert torch.equal(got.isnan(), exact.isnan())
    if not exact.numel():
        return 0.0
    return float((got - exact).abs().nan_to_num().max() / exact.abs().nan_to_num().max().clamp(min=1e-30))


def assert_as_good_as_torch(got: Tensor, torchs: Tensor, exact: Tensor, eps: float) -> None:
    """The error against float64 is at most twice that of torch at the same precision, and a rounding."""
    ours, allowed = error(got, exact), 2 * error(torchs, exact) + eps
    assert ours <= allowed, f"error {ours:.3g}, allowed {allowed:.3g}"


def assert_replays(step: Callable[[], list[Tensor]], change: Callable[[], None]) -> None:
    """A CUDA graph of `step`, captured and replayed on a side stream, sees the inputs of the replay."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        before = [result.clone() for result in step()]
        with torch.cuda.graph(graph, stream=stream):
            results = step()
        with torch.no_grad():
            change()
        graph.replay()
    torch.cuda.synchronize()
    for got, old, expected in zip(results, before, step(), strict=True):
        assert torch.equal(got, expected)
        assert not torch.equal(got, old)


def full(*arguments: object) -> Any:
    """A case of the full tier: `pytest -m full` runs it, the quick tier leaves it out."""
    return pytest.param(*arguments, marks=pytest.mark.full)


@functools.cache
def run_python(code: str, **environment: str) -> str:
    """The standard output of a fresh interpreter. The same code in the same environment runs once."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
