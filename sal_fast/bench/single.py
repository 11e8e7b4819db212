"""What the benchmarks of single ops share: options, random inputs, and the comparison with float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sal_fast.bench import suite
from sal_fast.bench.suite import Variant
from sal_fast.bench.usual import with_gradient


@dataclass(frozen=True)
class OpBenchmark(suite.Benchmark):
    """The options of a benchmark of a single op."""

    rounds: int = 15
    """Every variant has its turn in each round."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """The type of the op's main input."""

    @property
    def kind(self) -> torch.dtype:
        """`dtype` as torch has it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found


class Draws(NamedTuple):
    """Random tensors on a device, the same for the same seed; each function takes the shape."""

    normal: Callable[..., Tensor]
    uniform: Callable[..., Tensor]
    below: Callable[..., Tensor]  # of an integer n, then the shape as a tuple


def draws(device: torch.device, seed: int) -> Draws:
    generator = torch.Generator(device).manual_seed(seed)
    made = (
        functools.partial(f, generator=generator, device=device)
        for f in (torch.randn, torch.rand, torch.randint)
    )
    return Draws(*made)


def distances(count: int, size: int, uniform: Callable[..., Tensor]) -> Tensor:
    """Return each pixel's distance to a random centre over a random radius, [count, size, size].

    Values below 1 are a disc of 7 to 28 % of the image, like the masks that people draw.
    """
    down, across, far = uniform(3, count, 1, 1)
    at = (torch.arange(size, device=far.device) + 0.5) / size
    return ((at[:, None] - 0.3 - 0.4 * down) ** 2 + (at - 0.3 - 0.4 * across) ** 2).sqrt() / (
        0.15 + 0.15 * far
    )


@functools.cache
def resnet(depth: int, device: torch.device) -> nn.Module:
    """Return a ResNet of torchvision with random weights, the same each time."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model: nn.Module = get_model(f"resnet{depth}", weights=None)
    return model.to(device)


def compiled(function: Variant) -> Variant:
    """Return the function behind torch.compile, for inputs of one shape."""
    return torch.compile(function, dynamic=False)


def both_ways(
    variants: Mapping[str, Variant], leaves: int = 1
) -> Iterator[tuple[str, bool, Mapping[str, Variant]]]:
    """Yield (name, whether backward runs, variants): forward alone, and with gradients to `leaves` inputs."""
    yield "forward", False, variants
    yield "forward-backward", True, {name: with_gradient(f, leaves) for name, f in variants.items()}


def agree(ours: Variant, *inputs: Tensor, rtol: float, atol: float, against: Variant | None = None) -> None:
    """Raise AssertionError if our result differs from that of float64 inputs, which the references compute.

    Args:
        ours: the function; it returns one tensor or several.
        inputs: its arguments.
        rtol: the relative tolerance.
        atol: the absolute tolerance, as a share of the largest expected value.
        against: another function that computes the expected values.
    """
    exact = [x.double() if x.is_floating_point() else x for x in inputs]
    results: tuple[Any, Any] = ours(*inputs), (against or ours)(*exact)
    pairs = [results] if isinstance(results[0], Tensor) else zip(*results, strict=True)
    for got, expected in pairs:
        scale = float(expected.abs().max())
        torch.testing.assert_close(got.double(), expected.double(), rtol=rtol, atol=atol * scale)
