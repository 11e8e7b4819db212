"""A grid file (TOML): fixed options, and lists of those that vary; every combination is an experiment."""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sal_fast._util.suggest import suggest
from sal_fast.data import catalog
from sal_fast.errors import InputError
from sal_fast.experiment import budget
from sal_fast.experiment.config import OPTIONS, Config, short_name
from sal_fast.experiment.regimes import REGIMES

AXES = tuple(name for name, one in OPTIONS.items() if one.axis)
OWN = "own"  # in the list alpha: the regime's (TOML has no null)
BELOW_START, WITHOUT_EFFECT = "budget-below-start", "budget-without-effect"
RULES = (BELOW_START, WITHOUT_EFFECT)
NOT_HERE = {name: one.not_in_a_grid for name, one in OPTIONS.items() if one.not_in_a_grid}


@dataclass(frozen=True)
class Run:
    """One experiment of a sweep; `config.out` is its folder, every path in it is absolute."""

    name: str
    config: Config


@dataclass(frozen=True)
class Place:
    """Where a machine has what a grid needs: `<root>/cub200` one of the paper's data sets, for items without
    a root of their own; `weights` before the grid's; `<segmenter_masks>/<data>/<id>.png`.
    """

    root: str | None = None
    weights: str | None = None
    segmenter_masks: str | None = None


@dataclass(frozen=True)
class Grid:
    """A grid file, read but not yet checked: `axes` are lists of options, `fixed` goes for all.

    `leave_out`: rules for combinations that are no run. `budget-below-start`: a human budget smaller than the
    start set. `budget-without-effect`: of regimes whose maps come from one source, all but the largest budget
    in the list.
    """

    name: str
    path: str
    text: str
    fixed: dict[str, Any]
    axes: dict[str, list[dict[str, Any]]]
    leave_out: tuple[str, ...] = ()

    def runs(self, out: Path, place: Place = Place()) -> list[Run]:
        """Every combination, in the order of the file's lists, once; without what `leave_out` names.

        InputError for the first that cannot be.
        """
        runs: dict[str, Run] = {}
        for items in itertools.product(*self.axes.values()):
            run = self._run(self._combined(items), out, place)
            if self._is_left_out(run.config):
                continue
            if run.name in runs:
                other = runs[run.name].config
                if other == run.config:  # alpha "own" and the regime's number
                    continue
                raise InputError(
                    f"{self.path}: two runs would be called {run.name} (data {other.data} and "
                    f"{run.config.data}); give one of them a folder of another name, or a grid of its own"
                )
            runs[run.name] = run
        if not runs:
            raise InputError(f"{self._at('leave_out')}: leave_out leaves out every run")
        return list(runs.values())

    def _is_left_out(self, config: Config) -> bool:
        regime, given = REGIMES[config.regime], config.human_budget
        if not regime.uses_the_budget:
            return WITHOUT_EFFECT in self.leave_out and given != self._largest_budget(given)
        return (
            BELOW_START in self.leave_out
            and not isinstance(given, str)
            and given < config.start_fraction - budget.TOLERANCE
        )

    def _largest_budget(self, given: object) -> object:
        """Of the list; a number goes before a word; `given` where there is no list."""
        listed = [item["human_budget"] for item in self.axes.get("human_budget", [])]
        numbers = [value for value in listed if not isinstance(value, str)]
        return max(numbers) if numbers else [*listed, given][0]

    def _combined(self, items: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        """The fixed options, under those that the items of the lists bring along."""
        brought: dict[str, Any] = {}
        for axis, item in zip(self.axes, items, strict=True):
            for name, value in item.items():
                if name in brought and brought[name] != value:
                    raise InputError(
                        f"{self._at(axis)}: {name} is {value!r} with {axis} {item[axis]!r}, and "
                        f"{brought[name]!r} by another list; let one of them say it"
                    )
                brought[name] = value
        return {**self.fixed, **brought}

    def _run(self, options: dict[str, Any], out: Path, place: Place) -> Run:
        options = self._placed(options, place)
        try:
            config = Config.of(options)
            _check_all_but_masks(config)
        except InputError as error:
            told = ", ".join(f"{axis} {spelt(options[axis])}" for axis in self.axes)
            raise InputError(f"{self.path} ({told}): {error}") from None
        if config.alpha == REGIMES[config.regime].alpha:
            config = config.replace(alpha=None)
        config = config.with_absolute_paths()
        name = run_name(config)
        return Run(name, config.replace(out=str(out / name)))

    def _placed(self, options: dict[str, Any], place: Place) -> dict[str, Any]:
        """The options of a run on this machine."""
        options, data = dict(options), options.get("data", "builtin")
        if data not in catalog.ENTRIES and "root" in self.fixed:
            options.pop("root", None)
        if data in catalog.ENTRIES and place.root is not None:
            options.setdefault("root", str(Path(place.root) / data))
        if place.weights is not None:
            options["weights"] = place.weights
        if REGIMES[options.get("regime", "sal")].uses_a_segmenter and place.segmenter_masks is not None:
            options.setdefault("segmenter_masks", str(Path(place.segmenter_masks) / short_name(data)))
        return options

    def _at(self, name: str) -> str:
        return at(self.path, self.text, name)


def _check_all_but_masks(config: Config) -> None:
    """`Config.check`; a segmenter's masks may still be missing while one only asks what it takes."""
    try:
        config.check()
    except InputError:
        if not config.its_regime.uses_a_segmenter or config.segmenter_masks is not None:
            raise
        config.replace(segmenter_masks="later").check()


def presets() -> list[str]:
    folder = resources.files("sal_fast.sweep") / "presets"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read(named: str) -> Grid:
    """The grid of a preset's name or a file; raises InputError with the line for what cannot be."""
    path = Path(os.path.expanduser(named))
    if path.suffix.lower() == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"grid file not found: {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"grid file {path} cannot be read: {error}") from None
        return parse(path.stem, str(path), text)
    if named not in presets():
        raise InputError(
            f"unknown sweep {named!r}{suggest(named, presets())}; or name a grid file, which ends in .toml"
        )
    file = resources.files("sal_fast.sweep") / "presets" / f"{named}.toml"
    return parse(named, f"{named}.toml", file.read_text(encoding="utf-8"))


def parse(name: str, path: str, text: str) -> Grid:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    fixed: dict[str, Any] = {}
    axes: dict[str, list[dict[str, Any]]] = {}
    leave_out: tuple[str, ...] = ()
    for key, value in values.items():
        field, where = key.replace("-", "_"), at(path, text, key)
        if field == "leave_out":
            leave_out = _rules(value, where)
            continue
        if field in fixed or field in axes:
            raise InputError(f"{where}: {field} stands twice, once with a dash; leave one out")
        if field in AXES and isinstance(value, list | dict):
            axes[field] = _axis(field, value if isinstance(value, list) else [value], where)
        else:
            _check(key, value, where)
            fixed[field] = value
    return Grid(name, path, text, fixed, axes, leave_out)


def _rules(value: Any, where: str) -> tuple[str, ...]:
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        if rule not in RULES:
            raise InputError(f"{where}: unknown rule {rule!r} in leave_out{suggest(str(rule), RULES)}")
    return tuple(rules)


def _axis(axis: str, values: list[Any], where: str) -> list[dict[str, Any]]:
    """A list's items as options: a value, or a table with that value and what else goes with it."""
    if not values:
        raise InputError(f"{where}: {axis} is an empty list; name at least one value, or leave the line out")
    items = []
    for value in values:
        item = value if isinstance(value, dict) else {axis: value}
        item = {key.replace("-", "_"): inner for key, inner in item.items()}
        if item.get("alpha") == OWN:
            item["alpha"] = None
        if axis not in item:
            raise InputError(
                f"{where}: {value!r} in the list {axis}: a table there needs {axis}, as in "
                f"{{ {axis} = ..., epochs = 10 }}"
            )
        for key, inner in item.items():
            _check(key, inner, where)
        items.append(item)
    shown = [item[axis] for item in items]
    for position, value in enumerate(shown):
        if value in shown[:position]:
            raise InputError(f"{where}: {axis} lists {spelt(value)} twice; leave one out")
    return items


def _check(key: str, value: Any, where: str) -> None:
    """One option: a field of Config, of its type, one of its choices."""
    field = key.replace("-", "_")
    allowed = tuple(name for name in OPTIONS if name not in NOT_HERE)
    if field in NOT_HERE:
        raise InputError(f"{where}: {key} does not go into a grid: {NOT_HERE[field]}")
    if field not in allowed:
        raise InputError(f"{where}: unknown option {key!r}{suggest(field, allowed)}")
    if isinstance(value, list | dict):
        raise InputError(
            f"{where}: {key} is a {'list' if isinstance(value, list) else 'table'}, expected one value; "
            f"lists go with {', '.join(AXES)}"
        )
    if field == "device" and ":" in str(value):
        raise InputError(
            f"{where}: device {value!r}: Ray gives every run its GPU; say auto, cuda or cpu, and "
            f"--gpus-per-run"
        )
    try:
        Config.of({field: value})
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('--')}") from None


def run_name(config: Config) -> str:
    """Says every option that a list may vary (alpha where it is not the regime's own), so that it stays when
    a list gets longer.
    """
    alpha = "" if config.alpha is None else f"-a{spelt(config.alpha)}"
    return (
        f"{short_name(config.data)}-{config.regime}-{short_name(config.criterion)}-{config.probe}-{short_name(config.arch)}"
        f"-h{spelt(config.human_budget)}{alpha}-s{config.seed}"
    )


def spelt(value: object) -> str:
    """A value of a list, in a name or a message."""
    if value is None:
        return OWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def at(path: str, text: str, key: str) -> str:
    """`grid.toml, line 3`: where an option stands, spelt like that or else with the other dash."""
    for spelt in (re.escape(key), re.escape(key).replace("_", "[-_]")):
        pattern = re.compile(rf"""\s*(?:\[+\s*)?["']?{spelt}["']?\s*[=.\]]""")
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.match(line):
                return f"{path}, line {number}"
    return path
