"""An option says what it is: its default, its words, its regimes, and what it affects.

Each field of `Config` carries an `Option`. Every list of options in the program is derived from these: the
choices, what a run folder refuses, which rounds runs share, what a sweep may vary, what reports compare.
"""

import dataclasses
import math
from typing import Any, Literal, get_args, get_type_hints

import docstring_parser

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast.errors import InputError
from sal_fast.experiment.regimes import REGIMES

Affects = Literal["data", "seed", "query", "rounds", "maps", "network", "training", "machine"]
"""The things that an option can affect, which another value of it changes.

data: the images. seed: every random draw. query: which images are asked for. rounds: the sizes of the rounds.
maps: who draws maps. network: the networks, or the size of their maps. training: how they are trained.
machine: only how and where a run computes, so that results differ in their last digits at most.
"""


class _Unset:
    """The class of `UNSET`, which stands for an option that nobody gave."""

    def __repr__(self) -> str:
        return "<default>"

    def __reduce__(self) -> str:  # so that pickling gives the same object
        return "UNSET"


UNSET: Any = _Unset()


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a run.

    default: its value if neither the user nor a preset gives one.
    affects: what another value changes (`Affects`). It is empty for an option that may change when a run is
        resumed, such as the run's folder.
    choices: its words. They are empty if it takes any value of its type.
    plugin: the kind of plug-in that it may name; the registered names belong to its words.
    any_text: True if it takes other texts beside its words, such as a path.
    joined: True if several of its words can be given, joined by +.
    path: "always" if it names a file or folder; "by suffix" if it does so only with a suffix of weights;
        "digest" if it names a file, other than its words, whose digest a run records.
    grows: True if a run may go on with a larger value (`sal_fast.experiment.growing`).
    settled: True if `auto` stands for a value that is worked out when a run starts, and kept in run.json.
    only: the property that a regime must have for this option to matter. None: it matters to all regimes.
    compared: True if reports put runs with different values into different panels.
    axis: True if a grid file may list several values of it.
    not_in_a_grid: why a grid file cannot set it. None: it can.
    least, most: bounds of a number, both included.
    above: a lower bound of a number, not included.
    """

    default: Any
    affects: frozenset[Affects]
    choices: tuple[str, ...] = ()
    plugin: plugins.Kind | None = None
    any_text: bool = False
    joined: bool = False
    path: Literal["always", "by suffix", "digest"] | None = None
    grows: bool = False
    settled: bool = False
    only: str | None = None
    compared: bool = False
    axis: bool = False
    not_in_a_grid: str | None = None
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    @property
    def words(self) -> tuple[str, ...]:
        """All words that the option takes, with the names of plug-ins; empty if it takes any value."""
        return (*self.choices, *(plugins.names(self.plugin) if self.plugin else ()))

    @property
    def can_change_on_resume(self) -> bool:
        """True if a run may go on with another value, because the option affects nothing that is computed."""
        return not self.affects

    @property
    def tells_runs_apart(self) -> bool:
        """True if runs with other values are other experiments. Reports then name it where runs differ."""
        return not self.affects <= {"machine", "data", "seed"}

    def matters_to(self, regime: str) -> bool:
        """True if a run of this regime reads the option. An unknown regime is taken to read all."""
        known = REGIMES.get(regime)
        return self.only is None or known is None or bool(getattr(known, self.only))


def option(default: Any, *, affects: str, **more: Any) -> Any:
    """A field of `Config`. `affects` holds words of `Affects` separated by spaces, or "" for none.

    `more` are further arguments of `Option`. Raises TypeError for an unknown word.
    """
    words = affects.split()
    unknown = [word for word in words if word not in get_args(Affects)]
    if unknown:
        raise TypeError(f"an option affects {unknown[0]!r}{suggest(unknown[0], get_args(Affects))}")
    found = Option(default, frozenset(words), **more)  # type: ignore[arg-type]
    return dataclasses.field(default=UNSET, metadata={"option": found})


def options_of(cls: type) -> dict[str, Option]:
    """The options of a configuration's dataclass by name.

    Raises TypeError for a field that was not made by `option`, because it does not say what it affects.
    """
    found = {field.name: field.metadata.get("option") for field in dataclasses.fields(cls)}
    bare = [name for name, one in found.items() if one is None]
    if bare:
        raise TypeError(f"{cls.__name__}.{bare[0]} is no option: make it with `option(..., affects=...)`")
    return {name: one for name, one in found.items() if one is not None}


def check_value(name: str, value: object, one: Option, kind: object) -> None:
    """Raise InputError if a value has another type, is not one of the words, or is out of bounds."""
    flag = spelling(name)
    if one.words and not one.any_text and isinstance(value, str):
        named = one.plugin is not None and plugins.is_reference(value)
        for word in value.split("+") if one.joined else [value]:
            if word not in one.words and not named:
                raise InputError(f"unknown {name.replace('_', ' ')} {word!r}{suggest(word, one.words)}")
    elif not _fits(value, kind):
        raise InputError(f"{flag}: expected {_spell(kind)}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        inside = one.least <= value <= one.most and value > one.above and math.isfinite(value)
        if not inside:
            raise InputError(f"{flag} {value:g}: expected {_bounds(one)}")


def helps_of(target: Any) -> dict[str, str]:
    """The help texts of options, from the docstrings of a class's fields or of a function's arguments."""
    found = docstring_parser.parse_from_object(target).params
    return {one.arg_name: " ".join((one.description or "").split()) for one in found}


def types_of(cls: type) -> dict[str, object]:
    """The types of the options, as they are annotated."""
    return {name: kind for name, kind in get_type_hints(cls).items() if name in options_of(cls)}


def spelling(name: str) -> str:
    """The spelling of an option on the command line: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def _bounds(one: Option) -> str:
    if one.above > -math.inf:
        return (
            "a positive number" if one.most == math.inf else f"above {one.above:g} and at most {one.most:g}"
        )
    if one.most == math.inf:
        return f"at least {one.least:g}"
    return f"{one.least:g} to {one.most:g}"


def _fits(value: object, kind: object) -> bool:
    """True if a value has a field's type. A whole number counts as a number, True does not."""
    kinds = get_args(kind) or (kind,)
    words = [word for one in kinds for word in get_args(one)]
    return type(value) in kinds or value in words or (float in kinds and type(value) is int)


def _spell(kind: object) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    kinds = get_args(kind) or (kind,)
    words = [repr(word) for one in kinds for word in get_args(one)]
    return " or ".join([next(text for k, text in names.items() if k in kinds), *words])
