"""The runs of a report, and the names that they have in it.

A *group* is the runs that differ in nothing but their seed. A *panel* is the groups of one data set that
agree in the options that reports part their figures by (`Option.compared`). A label names only what differs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sal_fast import plugins
from sal_fast._util.curves import aulc
from sal_fast.errors import InputError
from sal_fast.experiment import loading
from sal_fast.experiment.config import OPTIONS, short_name
from sal_fast.experiment.record import Round
from sal_fast.experiment.regimes import REGIMES


@dataclass(frozen=True)
class Run(loading.Run):
    """The record of a run, with its names in this report.

    dataset: the data set's name, numbered where two data sets share it. compared, variant: for each option
    that tells this run's group from another one, its value as labels spell it. `compared` has the options
    that part panels, `variant` the others.
    """

    dataset: str = ""
    compared: dict[str, str] = field(default_factory=dict)
    variant: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def regime(self) -> str:
        return self.config.regime

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def alpha(self) -> float:
        return self.config.its_alpha

    @property
    def has_own_alpha(self) -> bool:
        """True if alpha is the regime's own."""
        return self.alpha == self.config.its_regime.alpha

    @property
    def budget(self) -> float | None:
        """The share of the pool that gets human maps; None if the run itself has to find it."""
        share = self.config.human_budget
        return None if isinstance(share, str) else share

    @property
    def last(self) -> Round:
        return self.rounds[-1]

    @property
    def seconds(self) -> float:
        """The run's time: that of its summary, or the sum over its rounds as long as there is none."""
        return float((self.summary or {}).get("seconds", sum(one.seconds for one in self.rounds)))

    def setting(self, name: str) -> Any:
        """The value of an option that the run used: where alpha was not given, it is the regime's own."""
        return self.alpha if name == "alpha" else getattr(self.config, name)

    @property
    def group(self) -> str:
        """The label that the runs of a group share; it does not name the data set."""
        return self.label()

    @property
    def line(self) -> str:
        """The group's label inside its panel."""
        return self.label(*self.compared)

    @property
    def panel(self) -> str:
        """The panel's title: the data set, and the compared options that any two runs differ in."""
        return self.place()

    def place(self, *without: str) -> str:
        """The panel's title without the options `without`: figures that set their values side by side."""
        return ", ".join([self.dataset, *_but(self.compared, without)])

    def label(self, *without: str) -> str:
        """The regime and what tells its groups apart, without the options `without`."""
        return ", ".join([self.regime, *_but(self.compared | self.variant, without)])

    def takes_over(self) -> int | None:
        """The index of the first round without new human maps; None if people draw to the end, or never."""
        if not self.last.human_maps:
            return None
        maps = [one.human_maps for one in self.rounds]
        return next((i for i in range(1, len(maps)) if maps[i] <= maps[i - 1]), None)

    def curve(self, metric: str) -> dict[int, float]:
        """Labelled count -> value, for the rounds that have a value."""
        pairs = ((one.labelled, getattr(one, metric)) for one in self.rounds)
        return {labelled: value for labelled, value in pairs if value is not None}

    def aulc(self, metric: str) -> float | None:
        """The area under the learning curve; None if some round has no value."""
        curve = self.curve(metric)
        return aulc(list(curve), list(curve.values())) if len(curve) == len(self.rounds) else None


def load(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read the runs, in the order of the report, and write notes on what its reader must know about them.

    Args:
        paths: run folders, or folders of run folders. Whatever holds no finished round is left out, with a
            note: a shell's `runs/*` also names files and other folders.

    Raises InputError for a path that does not exist, for a damaged run, and if no run remains.
    """
    runs, notes = [], []
    for path, kept in _records(paths):
        if kept is None:
            notes.append(f"{path} is left out: there is no run.json in it or in its folders.")
        elif not kept.rounds:
            notes.append(f"{path.name} is left out: it has no finished round yet.")
        else:
            runs.append(Run(**vars(kept)))
    if not runs:
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        raise InputError(
            f"nothing to report on: {notes[0].rstrip('.')}{more}; name runs that have finished a round"
        )
    runs, doubts = _once(_order(_with_variants(_with_datasets(runs))))
    unfinished = [
        f"{run.name} is unfinished ({len(run.rounds)} rounds so far): it is drawn with what it has, and is "
        "not part of any mean."
        for run in runs
        if not run.finished
    ]
    little = [f"{run.name}: {sentence}." for run in runs for sentence in run.doubts(run.last)]
    return runs, notes + doubts + unfinished + _ended_apart(runs) + little


def _ended_apart(runs: Sequence[Run]) -> list[str]:
    """A note on runs whose areas under the curve are means over different numbers of labelled images."""
    stopped = [run.name for run in runs if run.last.stopped]
    if not stopped or len({run.last.labelled for run in runs}) == 1:
        return []
    return [
        f"{', '.join(stopped)} ended by --stop-fraction auto. AULC is a mean over the images that a run "
        f"labelled, so it cannot be compared with that of a run that labelled more or fewer."
    ]


def by_group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.group)


def by_panel(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.panel)


def by_dataset(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.dataset)


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The groups of runs that stand side by side: their lines in one panel, else their whole labels."""
    return split(runs, (lambda run: run.line) if len(by_panel(runs)) == 1 else (lambda run: run.group))


def split(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    """The runs by key; keys and runs keep their order."""
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(key(run), []).append(run)
    return parts


def fullest(parts: Mapping[str, Sequence[Run]]) -> list[str]:
    """The titles of the parts that have at least as many groups as any other part of their data set."""
    sizes = {title: len(by_group(part)) for title, part in parts.items()}
    most: dict[str, int] = {}
    for title, part in parts.items():
        most[part[0].dataset] = max(sizes[title], most.get(part[0].dataset, 0))
    return [title for title, part in parts.items() if sizes[title] == most[part[0].dataset]]


def main_panel(runs: Sequence[Run]) -> list[Run]:
    """The fullest panel of a data set; of several the one nearest to the paper's, which are the defaults."""
    panels = by_panel(runs)

    def near(panel: str) -> int:
        run = panels[panel][0]
        return sum(run.setting(name) == OPTIONS[name].default for name in compared_options())

    return panels[max(fullest(panels), key=near)]


def compared_options() -> list[str]:
    """The options that part panels, and have a column in the tables."""
    return [name for name, one in OPTIONS.items() if one.compared]


def without_alpha_sweep(runs: Sequence[Run]) -> list[Run]:
    """Leave out a regime's runs with another alpha than its own, if its panel has any with its own."""
    own = {(run.panel, run.regime) for run in runs if run.has_own_alpha}
    return [run for run in runs if run.has_own_alpha or (run.panel, run.regime) not in own]


def alike(a: Run, b: Run, but: Sequence[str] = ("regime", "alpha")) -> bool:
    """True if two runs differ in no option that matters to both, except for the seed and those in `but`."""
    return all(
        a.setting(name) == b.setting(name)
        for name, one in OPTIONS.items()
        if one.tells_runs_apart and name not in but
        if one.matters_to(a.regime) and one.matters_to(b.regime)
    )


def _records(paths: Sequence[Path]) -> Iterator[tuple[Path, loading.Run | None]]:
    """Each run folder once, with its record; and each path that holds no run, with None."""
    if not paths:
        raise InputError("no run folder given; name at least one")
    seen = set()
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such folder; give a run folder or a folder of runs")
        inside = sorted(file.parent for file in path.glob("*/run.json"))
        folders = [path] if (path / "run.json").exists() else inside
        if not folders:
            yield path, None
        for folder in map(Path.resolve, folders):
            if folder not in seen:
                seen.add(folder)
                yield folder, loading.load(folder)


def _with_datasets(runs: list[Run]) -> list[Run]:
    """Name the data sets; other classes or counts under one name are another: name, name (2), ...

    The fingerprint cannot tell, because it covers the splits, and these follow from the seed.
    """
    named = []
    for name, same in split(runs, lambda run: str(run.record["data"]["name"])).items():
        kinds = split(same, lambda run: repr((run.classes, sorted(run.record["data"]["counts"].items()))))
        for place, kind in enumerate(sorted(kinds)):
            dataset = f"{name} ({place + 1})" if place else name
            named += [replace(run, dataset=dataset) for run in kinds[kind]]
    return named


def _with_variants(runs: list[Run]) -> list[Run]:
    """Name what tells the runs apart: compared options for all, the others for each regime by itself.

    A regime's own alpha goes without saying. So does an option that differs from panel to panel only, such as
    the image size of two networks, unless it is one that a grid lists.
    """
    parting = {name: texts for name in compared_options() if len(texts := _spelt(name, runs)) > 1}
    runs = [replace(run, compared=_named(run, parting)) for run in runs]
    named = []
    for regime, same in split(runs, lambda run: run.regime).items():
        telling = {
            name: _spelt(name, same)
            for name, one in OPTIONS.items()
            if one.tells_runs_apart and not one.compared and one.matters_to(regime)
            for parts in [by_dataset(same) if one.axis else by_panel(same)]
            if any(len({run.setting(name) for run in part}) > 1 for part in parts.values())
        }
        named += [replace(run, variant=_named(run, telling)) for run in same]
    return named


def _named(run: Run, texts: dict[str, dict[Any, str]]) -> dict[str, str]:
    return {
        name: values[run.setting(name)]
        for name, values in texts.items()
        if not (name == "alpha" and run.has_own_alpha)
    }


def _spelt(name: str, runs: Iterable[Run]) -> dict[Any, str]:
    """The values that runs have of an option, each with a text of its own for labels."""
    values = dict.fromkeys(run.setting(name) for run in runs)
    texts = {value: _spell(name, value) for value in values}
    if len(set(texts.values())) < len(texts):
        texts = {value: f"{name.replace('_', ' ')} {value!r}" for value in values}
    return texts


def _spell(name: str, value: Any) -> str:
    if OPTIONS[name].compared:
        return short_name(value) if isinstance(value, str) and plugins.is_reference(value) else str(value)
    if name == "human_budget":
        return "auto budget" if isinstance(value, str) else f"{100 * value:g} % human"
    if name == "control_maps":
        return "people's maps" if value == "none" else f"{value} maps"
    return f"{name.replace('_', ' ')} {value}"


def _but(texts: dict[str, str], without: Sequence[str]) -> list[str]:
    return [text for name, text in texts.items() if name not in without]


def _order(runs: list[Run]) -> list[Run]:
    """By data set, regime, the values that tell groups apart (numbers first), seed and folder."""

    def rank(value: Any) -> tuple[int, Any]:
        return (0, value) if isinstance(value, int | float) else (1, str(value))

    def key(run: Run) -> tuple[Any, ...]:
        values = [(name, rank(run.setting(name))) for name in run.compared | run.variant]
        return (run.dataset, list(REGIMES).index(run.regime), values, run.seed, run.name)

    return sorted(runs, key=key)


def _once(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Leave out repeated runs, which would pass for independent ones in the means; and write notes."""
    notes = []
    first: dict[tuple[str, str, int, str], Run] = {}
    pools: dict[tuple[str, int], Run] = {}
    for run in sorted(runs, key=lambda run: not run.finished):
        fingerprint = run.record["data"]["fingerprint"]
        kept = first.setdefault((run.dataset, run.group, run.seed, fingerprint), run)
        if kept is not run:
            notes.append(f"{run.name} is left out: it repeats {kept.name} (same data, settings and seed).")
        other = pools.setdefault((run.dataset, run.seed), run)
        if other.record["data"]["fingerprint"] != fingerprint:
            notes.append(
                f"{run.name} and {other.name} have the same seed, but images, masks or splits differ."
            )
    return [run for run in runs if any(run is kept for kept in first.values())], notes
