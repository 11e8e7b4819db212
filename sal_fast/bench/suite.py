"""The one suite: what a benchmark and its cases are, and the names of all benchmarks."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from sal_fast.bench import clock
from sal_fast.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("data", "step", "score", "select", "run", "growth", "ops")
OPS = (
    "uncertainty",
    "cam_head",
    "minmax_normalize",
    "saliency_loss",
    "ssim",
    "cyborg_loss",
    "topn_dice",
    "crop",
    "probes",
    "kcenter",
    "badge",
)
NAMES = (*PARTS, *OPS)  # sal_fast/bench/cases/<name>.py has a class Benchmark
Variant = Callable[..., Any]
Precision = Literal["float32", "bfloat16"]


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
        verify: raises AssertionError if ours is wrong on these arguments.
        ratios: the ratios that are reported; None stands for every other variant over ours.
        items: how many of the benchmark's units one call processes.
        bytes_moved: the floor, the least that must cross the memory bus; None if it is not known.
        parts: replaces the variants; does the computation once and returns the seconds of its parts.
        figures: gives other numbers by name, after the variants were timed.
    """

    name: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    inputs: Callable[[int], tuple[Any, ...]] = lambda seed: ()
    verify: Callable[..., None] = lambda *inputs: None
    ratios: Sequence[Ratio] | None = None
    items: float = 1
    bytes_moved: int | None = None
    parts: Callable[[], dict[str, float]] | None = None
    figures: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True)
class Benchmark:
    """The options of every benchmark. A subclass adds its own options, and the cases."""

    LEAST: ClassVar[dict[str, int]] = {}  # the least value of an option, if it is not 1
    SMALL: ClassVar[dict[str, Any]] = {}  # options with which all cases run in a moment, for the tests
    UNIT: ClassVar[str] = "calls"

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    rounds: int = 5
    """Every variant has its turn in each round."""
    threads: int | None = None
    """Threads of torch on the CPU; None keeps torch's own number."""
    only: str = ""
    """Measure only the cases whose name contains this."""
    out: Path | None = None
    """A JSON file for the result."""
    plot: Path | None = None
    """A PNG file for a figure of the result."""
    trace: Path | None = None
    """A JSON file for a Chrome trace (torch.profiler): one call of each variant of the first case."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        """Yield the cases. Each is measured before the next one is made."""
        raise NotImplementedError

    @staticmethod
    def draw(document: dict[str, Any]) -> Figure:
        """Return the figure of a result; it needs matplotlib."""
        from sal_fast.bench import figure

        return figure.bars(document)

    @property
    def name(self) -> str:
        """The benchmark's name, which is that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def own(self) -> dict[str, Any]:
        """The options that this benchmark adds, as JSON has them."""
        common = {option.name for option in dataclasses.fields(Benchmark)}
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in common}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def check(self) -> None:
        """Raise InputError for the first impossible value, before anything is measured."""
        for option in dataclasses.fields(self):
            value, name = getattr(self, option.name), "--" + option.name.replace("_", "-")
            least = self.LEAST.get(option.name, 1)
            if type(value) is int and value < least:
                raise InputError(f"{name} {value}: expected at least {least}")
        for name, kind in (("out", "json"), ("plot", "png"), ("trace", "json")):
            if getattr(self, name) is not None:
                _check_file(Path(getattr(self, name)).expanduser(), f"--{name}", kind)


def _check_file(path: Path, option: str, kind: str) -> None:
    """Raise InputError if a file of that kind cannot be written under that name."""
    if path.is_dir():
        raise InputError(f"{option} {path}: a folder; expected the name of a {kind.upper()} file")
    if path.suffix.lower() != f".{kind}":
        raise InputError(f"{option} {path}: expected the name of a {kind.upper()} file, .{kind}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{option} {path}: {above} is not a folder that can be written to")


def load(name: str) -> type[Benchmark]:
    """Return the class of the benchmark of that name."""
    found: type[Benchmark] = importlib.import_module(f"sal_fast.bench.cases.{name}").Benchmark
    return found
