"""The one suite: what a benchmark, its options and its cases are, and where each benchmark is."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor

from sal_fast._util.devices import torch_device
from sal_fast.bench import clock
from sal_fast.bench.usual import with_gradient
from sal_fast.errors import InputError

MODULES = {
    "data": "data",
    "training": "step score",
    "run": "run",
    "trained": "predict figures",
    "selection": "select growth uncertainty kcenter badge",
    "saliency": "cam_head minmax_normalize saliency_loss ssim cyborg_loss topn_dice probes",
    "frozen": "head_step",
    "batches": "crop",
}  # sal_fast/bench/cases/<module>.py has a benchmark of each name
NAMES = tuple(" ".join(MODULES.values()).split())
Variant = Callable[..., Any]


@dataclass(frozen=True)
class Ratio:
    """`times` times the time of `over`, divided by the time of `under`, and the limit that is asked for."""

    over: str
    under: str
    times: int = 1
    at_most: float | None = None
    at_least: float | None = None

    def record(self, case: str, timed: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Return the ratio in the form of `result.RATIO`."""
        pairs = zip(timed[self.over], timed[self.under], strict=True)
        low, value, high = clock.spread([self.times * a / b for a, b in pairs])
        name = f"{f'{self.times} x ' if self.times > 1 else ''}{self.over} / {self.under}"
        limits = {"at_most": self.at_most, "at_least": self.at_least}
        return {"case": case, "name": name, "value": value, "p10": low, "p90": high, **limits}


@dataclass(frozen=True)
class Case:
    """One computation, and the ways to do it that are timed against each other.

    Attributes:
        name: the name, unique in its benchmark; empty if there is one case only.
        variants: the ways by name; the first is ours.
        inputs: gives the arguments of every variant for a seed. Those of several seeds take turns, so that
            they are not found in a cache.
        verify: raises AssertionError if ours is wrong on these arguments. Numbers stand for `agree` with
            these tolerances.
        ratios: the ratios that are reported; None stands for every other variant over ours.
        items: how many of the benchmark's units one call processes.
        floor: the least number of bytes that must cross the memory bus; None if it is not known.
        parts: replaces the variants; does the computation once and returns the seconds of its parts.
        figures: gives other numbers by name, after the variants were timed.
    """

    name: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    inputs: Callable[[int], tuple[Any, ...]] = lambda seed: ()
    verify: Callable[..., None] | tuple[Any, ...] = lambda *inputs: None
    ratios: Sequence[Ratio] | None = None
    items: float = 1
    floor: float | None = None
    parts: Callable[[], dict[str, float]] | None = None
    figures: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True)
class Setup:
    """The options of every benchmark."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    rounds: int | None = None
    """Every variant has its turn in each round. None stands for the benchmark's own number."""
    threads: int | None = None
    """Threads of torch on the CPU; None keeps torch's own number."""
    only: str = ""
    """Measure only the cases whose name contains this."""
    skip: str = ""
    """Leave out the variants whose name contains this; ours stays."""
    out: Path | None = None
    """A JSON file for the result."""
    plot: Path | None = None
    """A PNG file for a figure of the result."""
    trace: Path | None = None
    """A JSON file for a Chrome trace (torch.profiler): one call of each variant of the first case."""

    @property
    def place(self) -> torch.device:
        """The device as torch has it. Raises InputError if it is not there."""
        return torch_device(self.device)

    def without_skipped(self, case: Case) -> Case:
        """Return the case without the variants that `skip` leaves out."""
        names = [
            name for i, name in enumerate(case.variants) if i == 0 or not self.skip or self.skip not in name
        ]
        return replace(case, variants={name: case.variants[name] for name in names})

    def draws(self, seed: int) -> tuple[Callable[..., Tensor], ...]:
        """Return torch.randn, torch.rand and torch.randint for the device, with a generator of that seed."""
        generator = torch.Generator(self.place).manual_seed(seed)
        kinds = (torch.randn, torch.rand, torch.randint)
        return tuple(partial(kind, generator=generator, device=self.place) for kind in kinds)

    def check(self, least: Mapping[str, int], options: Mapping[str, Any]) -> None:
        """Raise InputError for the first impossible value of these options or of others.

        Args:
            least: the least value of an option, if it is not 1.
            options: the other options.
        """
        torch_device(self.device)
        for name, value in {**vars(self), **options}.items():
            if type(value) is int and value < least.get(name, 1):
                option = name.replace("_", "-")
                raise InputError(f"--{option} {value}: expected at least {least.get(name, 1)}")
        for name, kind in (("out", "json"), ("plot", "png"), ("trace", "json")):
            if getattr(self, name) is not None:
                _check_file(Path(getattr(self, name)).expanduser(), f"--{name}", kind)


@dataclass(frozen=True)
class OpSetup(Setup):
    """The options of a benchmark of a single op."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """The type of the op's main input."""

    @property
    def kind(self) -> torch.dtype:
        """`dtype` as torch has it."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Benchmark:
    """A function that yields cases.

    Attributes:
        function: takes a Setup, or one of its subclasses, and sizes with defaults, which are options too.
            Each case is measured before the next one is made.
        rounds: the number of rounds if the user gives none.
        unit: the unit that cases count.
        least: the least value of a size, if it is not 1.
    """

    function: Callable[..., Iterator[Case]]
    rounds: int = 5
    unit: str = "calls"
    least: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name on the command line."""
        return self.function.__name__

    @property
    def setup(self) -> type[Setup]:
        """The kind of setup that the function takes."""
        return get_type_hints(self.function)["setup"]


def benchmark(**properties: Any) -> Callable[[Callable[..., Iterator[Case]]], Benchmark]:
    """Return a decorator that makes a benchmark of a function; for the properties see `Benchmark`."""
    return lambda function: Benchmark(function, **properties)


def load(name: str) -> Benchmark:
    """Return the benchmark of that name."""
    module = next(module for module, names in MODULES.items() if name in names.split())
    return getattr(importlib.import_module(f"sal_fast.bench.cases.{module}"), name)


def both_ways(
    case: Case, *, leaves: int = 1, moved: tuple[float, float], verify: tuple[tuple[Any, ...], ...]
) -> Iterator[Case]:
    """Yield a case forward alone, and with the gradients to its first `leaves` inputs.

    Args:
        case: the name, the variants and the inputs.
        leaves: how many inputs get a gradient.
        moved: the floors in bytes of both.
        verify: the numbers of both for `agree`.
    """
    backward = {name: with_gradient(function, leaves) for name, function in case.variants.items()}
    for i, (way, variants) in enumerate((("forward", case.variants), ("forward-backward", backward))):
        yield Case(f"{case.name}-{way}", variants, case.inputs, verify[i], floor=moved[i])


def against(ours: Variant, eager: Variant, **others: Variant) -> dict[str, Variant]:
    """Return our way, eager torch, the others, and eager torch compiled for inputs of one shape."""
    return {"sal_fast": ours, "eager": eager, **others, "compile": torch.compile(eager, dynamic=False)}


def agree(ours: Variant, inputs: Sequence[Tensor], rtol: float, atol: float, rows: int | None = None) -> None:
    """Raise AssertionError if our result differs from that of float64 inputs, which the references compute.

    Args:
        ours: the function; it returns one tensor or several.
        inputs: its arguments.
        rtol: the relative tolerance.
        atol: the absolute tolerance, as a share of the largest expected value.
        rows: how many rows of each input to compare; None compares all.
    """
    inputs = [x[:rows] for x in inputs]
    results = ours(*inputs), ours(*(x.double() if x.is_floating_point() else x for x in inputs))
    pairs = [results] if isinstance(results[0], Tensor) else zip(*results, strict=True)
    for got, expected in pairs:
        close(got, expected, rtol, atol)


def close(got: Tensor, expected: Tensor, rtol: float, atol: float) -> None:
    """Raise AssertionError if two tensors differ; `atol` is a share of the largest expected value."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(got.double(), expected.double(), rtol=rtol, atol=atol * scale)


def _check_file(path: Path, option: str, kind: str) -> None:
    """Raise InputError if a file of that kind cannot be written under that name."""
    if path.is_dir():
        raise InputError(f"{option} {path}: a folder; expected the name of a {kind.upper()} file")
    if path.suffix.lower() != f".{kind}":
        raise InputError(f"{option} {path}: expected the name of a {kind.upper()} file, .{kind}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{option} {path}: {above} is not a folder that can be written to")
