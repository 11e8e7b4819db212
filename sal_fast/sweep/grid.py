"""A grid file (TOML): fixed options, and lists of those that vary. Every combination is one run."""

import itertools
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sal_fast import plugins
from sal_fast._util.suggest import suggest
from sal_fast.data import catalog
from sal_fast.errors import InputError
from sal_fast.experiment import budget
from sal_fast.experiment.config import OPTIONS, Config, short_name
from sal_fast.trained.metadata import like_its_weights

AXES = tuple(name for name, one in OPTIONS.items() if one.axis)
ALLOWED = tuple(name for name, one in OPTIONS.items() if one.not_in_a_grid is None)
PRESETS = Path(__file__).parent / "presets"
OWN = "own"  # in the list alpha: the regime's own (TOML has no null)
BELOW_START, WITHOUT_EFFECT = "budget-below-start", "budget-without-effect"
RULES = (BELOW_START, WITHOUT_EFFECT)

# The axes that every run's name tells, in this order and with these prefixes. Any other axis is told only if
# it differs from the default, so that names stay as they are; its prefix is its name if there is no other.
IN_EVERY_NAME = {"data": "", "regime": "", "criterion": "", "probe": "", "arch": "", "human_budget": "h"}
PREFIXES = {"alpha": "a", "control_maps": ""}


@dataclass(frozen=True)
class Place:
    """Where a machine has what a grid needs.

    root: `<root>/cub200`, ... are the paper's data sets; an item's own root goes before it.
    weights: initial weights; they go before the grid's.
    segmenter_masks: `<segmenter_masks>/<data>/<id>.png` are the masks of the regime segmenter.
    """

    root: str | None = None
    weights: str | None = None
    segmenter_masks: str | None = None


@dataclass(frozen=True)
class Grid:
    """A grid file that was read: `fixed` are the options of all runs, `axes` the lists of those that vary.

    An item of a list is a table of options: the axis itself, and those that go with this value alone.
    leave_out: rules for combinations that are not run. `budget-below-start`: the human budget is smaller than
    the start set. `budget-without-effect`: the regime does not use the budget, and the list has a larger one.
    """

    name: str
    path: str
    text: str
    fixed: dict[str, Any]
    axes: dict[str, list[dict[str, Any]]]
    leave_out: tuple[str, ...] = ()

    def configs(self, out: Path, place: Place = Place()) -> list[Config]:
        """Return the configuration of every run, once, in the order of the file's lists.

        Every path in it is absolute, and its run folder is `out` / `run_name`.
        Raises InputError for the first combination that cannot be run.
        """
        found: dict[str, Config] = {}
        for items in itertools.product(*self.axes.values()):
            config = self._config(self._combined(items), place)
            if self._is_left_out(config):
                continue
            name = run_name(config)
            config = config.replace(out=str(out / name))
            if found.setdefault(name, config) != config:
                raise InputError(f"{self.path}: {_same_name(name, found[name], config)}")
        if not found:
            raise InputError(f"{_line_of(self.path, self.text, 'leave_out')}: leave_out leaves out every run")
        return list(found.values())

    def _is_left_out(self, config: Config) -> bool:
        share = config.human_budget
        if not config.its_regime.uses_the_budget:
            return WITHOUT_EFFECT in self.leave_out and share != self._largest_budget(share)
        start = budget.LEAST_SHARE if isinstance(config.start_fraction, str) else config.start_fraction
        below = not isinstance(share, str) and share < start - budget.TOLERANCE
        return below and BELOW_START in self.leave_out

    def _largest_budget(self, given: object) -> object:
        """The largest number in the list of budgets, else the list's first word; without a list, `given`."""
        listed = [item["human_budget"] for item in self.axes.get("human_budget", [])]
        numbers = [value for value in listed if not isinstance(value, str)]
        return max(numbers) if numbers else [*listed, given][0]

    def _combined(self, items: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        """The options of one combination: the items' own options override the fixed ones."""
        brought: dict[str, Any] = {}
        for axis, item in zip(self.axes, items, strict=True):
            for name, value in item.items():
                if brought.setdefault(name, value) != value:
                    where = _line_of(self.path, self.text, axis)
                    raise InputError(
                        f"{where}: {name} is {value!r} with {axis} {item[axis]!r}, and {brought[name]!r} by "
                        f"another list; let one of them say it"
                    )
        return {**self.fixed, **brought}

    def _config(self, options: dict[str, Any], place: Place) -> Config:
        try:
            config = Config.of(options)
            if config.stop_fraction == budget.AUTO:
                raise InputError(
                    "stop_fraction auto: the runs of a sweep are compared and share rounds, so all must end "
                    "with the same share of the pool; give a number"
                )
            config = like_its_weights(config.replace(**self._found_at(place, config)))
            if config.control_maps != "none" and not config.its_regime.uses_human_maps:
                config = config.replace(control_maps="none")  # there are no maps of people to replace
            # a segmenter's masks may still be missing while one only asks what a sweep takes
            missing = config.its_regime.uses_a_segmenter and config.segmenter_masks is None
            (config.replace(segmenter_masks="later") if missing else config).check()
        except InputError as error:
            told = ", ".join(f"{axis} {_spelt(options[axis])}" for axis in self.axes)
            raise InputError(f"{self.path}{f' ({told})' if told else ''}: {error}") from None
        if config.alpha == config.its_regime.alpha:
            config = config.replace(alpha=None)
        return config.with_absolute_paths()

    def _found_at(self, place: Place, config: Config) -> dict[str, str | None]:
        """The options that this machine's places set, and no root for data that take none."""
        found: dict[str, str | None] = {}
        if config.data in catalog.ENTRIES:
            if place.root is not None and config.root is None:
                found["root"] = str(Path(place.root) / config.data)
        elif "root" in self.fixed and not plugins.is_reference(config.data):
            found["root"] = None
        if place.weights is not None:
            found["weights"] = place.weights
        if place.segmenter_masks is not None and config.its_regime.uses_a_segmenter:
            own = config.segmenter_masks or str(Path(place.segmenter_masks) / short_name(config.data))
            found["segmenter_masks"] = own
        return found


def _same_name(name: str, one: Config, other: Config) -> str:
    differing = next(key for key in OPTIONS if getattr(one, key) != getattr(other, key))
    return (
        f"two runs would be called {name} ({differing} {getattr(one, differing)} and "
        f"{getattr(other, differing)}); give one of them another name, or a grid of its own"
    )


def preset_names() -> list[str]:
    """The names of the grids that come with the program."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_grid(named: str) -> Grid:
    """Read a grid that comes with the program, by its name, or a .toml file.

    Raises InputError, with the line, for what cannot be.
    """
    path = Path(os.path.expanduser(named))
    shown = str(path)
    if not named.lower().endswith(".toml"):
        if named not in preset_names():
            hint = suggest(named, preset_names())
            raise InputError(f"unknown sweep {named!r}{hint}; or name a grid file, which ends in .toml")
        path, shown = PRESETS / f"{named}.toml", f"{named}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"grid file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"grid file {path} cannot be read: {error}") from None
    return parse_grid(path.stem, shown, text)


def parse_grid(name: str, path: str, text: str) -> Grid:
    """The grid of a TOML text; `path` is what messages call it."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    fixed: dict[str, Any] = {}
    axes: dict[str, list[dict[str, Any]]] = {}
    leave_out: tuple[str, ...] = ()
    for key, value in values.items():
        field, where = key.replace("-", "_"), _line_of(path, text, key)
        if field == "leave_out":
            leave_out = _rules(value, where)
        elif field in fixed or field in axes:
            raise InputError(f"{where}: {field} stands twice, once with a dash; leave one out")
        elif field in AXES and isinstance(value, list | dict):
            axes[field] = _axis(field, value if isinstance(value, list) else [value], where)
        else:
            _check_option(key, value, where)
            fixed[field] = value
    return Grid(name, path, text, fixed, axes, leave_out)


def _rules(value: Any, where: str) -> tuple[str, ...]:
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        if rule not in RULES:
            raise InputError(f"{where}: unknown rule {rule!r} in leave_out{suggest(rule, RULES)}")
    return tuple(rules)


def _axis(axis: str, values: list[Any], where: str) -> list[dict[str, Any]]:
    """The items of a list. Each is a value, or a table with that value and the options that go with it."""
    if not values:
        raise InputError(f"{where}: {axis} is an empty list; name at least one value, or leave the line out")
    items: list[dict[str, Any]] = []
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
            _check_option(key, inner, where)
        if item[axis] in [other[axis] for other in items]:
            raise InputError(f"{where}: {axis} lists {_spelt(item[axis])} twice; leave one out")
        items.append(item)
    return items


def _check_option(key: str, value: Any, where: str) -> None:
    """Raise InputError for an option that does not go into a grid, or that does not take the value."""
    field = key.replace("-", "_")
    if field in OPTIONS and field not in ALLOWED:
        raise InputError(f"{where}: {key} does not go into a grid: {OPTIONS[field].not_in_a_grid}")
    if field not in ALLOWED:
        raise InputError(f"{where}: unknown option {key!r}{suggest(field, ALLOWED)}")
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
    """The name of a run's folder, such as `builtin-sal-margin-cam-resnet18-h0.2-s0`.

    It tells every option that a list may vary, so it stays when a list gets longer.
    """
    parts = [prefix + _in_name(config, axis) for axis, prefix in IN_EVERY_NAME.items()]
    for axis in AXES:
        if axis not in (*IN_EVERY_NAME, "seed") and getattr(config, axis) != OPTIONS[axis].default:
            prefix = PREFIXES.get(axis, axis.replace("_", "-"))
            parts.append(prefix + _in_name(config, axis))
    return "-".join([*parts, f"s{config.seed}"])


def _in_name(config: Config, axis: str) -> str:
    value = getattr(config, axis)
    names_a_file = OPTIONS[axis].plugin is not None or OPTIONS[axis].path is not None
    return short_name(value) if names_a_file else _spelt(value)


def _spelt(value: object) -> str:
    """A value of a list, as names and messages spell it."""
    if value is None:
        return OWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line_of(path: str, text: str, key: str) -> str:
    """Where an option stands: `grid.toml, line 3`. It may be spelt with the other dash."""
    for spelt in (re.escape(key), re.escape(key).replace("_", "[-_]")):
        pattern = re.compile(rf"""\s*(?:\[+\s*)?["']?{spelt}["']?\s*[=.\]]""")
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.match(line):
                return f"{path}, line {number}"
    return path
