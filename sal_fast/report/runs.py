"""Run folders, read and checked: what the tables and figures are made of."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sal_fast._util.curves import aulc
from sal_fast.errors import InputError
from sal_fast.experiment.config import OPTIONS
from sal_fast.experiment.record import FORMAT
from sal_fast.experiment.regimes import REGIMES

# Named in a group's label as soon as any two runs differ in them; a panel holds runs that agree in them.
_COMPARED = tuple(
    sorted((name for name, one in OPTIONS.items() if one.compared), key=("criterion", "arch", "probe").index)
)
# Any other setting is named where runs of one data set and regime differ in it, but for these: they say
# where and on what a run was made.
_IGNORED = {name for name, one in OPTIONS.items() if not one.tells_runs_apart}
_NEEDED = ("regime", "criterion", "probe", "arch", "seed")
_DEFAULTS = {name: option.default for name, option in OPTIONS.items()}


@dataclass(frozen=True)
class People:
    """Who answered, cumulative over a round's labelled set; seconds where a clock ran."""

    labelled: int
    maps: int
    skipped: int
    annotators: int
    seconds: float | None
    label_seconds: float | None  # on images without a map
    map_seconds: float | None  # on images with one

    @property
    def without_map(self) -> int:
        return self.labelled - self.maps

    @property
    def per_item(self) -> float | None:
        return _share(self.seconds, self.labelled)

    @property
    def per_label(self) -> float | None:
        return _share(self.label_seconds, self.without_map)

    @property
    def per_map(self) -> float | None:
        return _share(self.map_seconds, self.maps)

    @property
    def saved(self) -> float | None:
        """Seconds that maps of the images without one would have cost more."""
        if self.per_map is None or self.per_label is None:
            return None
        return (self.per_map - self.per_label) * self.without_map


@dataclass(frozen=True)
class Round:
    """A line of rounds.jsonl. Counts are cumulative over the labelled set."""

    round: int
    labelled: int
    human_maps: int
    generated_maps: int
    empty_maps: int
    accuracy: float
    dice: float | None
    dice_floor: float | None
    dice_images: int | None
    val_accuracy: float | None
    best_epoch: int | None
    seconds: float
    timings: dict[str, float]
    trial_dice: float | None = None  # of generated maps of this round's images, against what people drew
    people: People | None = None


@dataclass(frozen=True)
class Run:
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    rounds: list[Round]
    summary: dict[str, Any] | None
    dataset: str = ""  # the data set's name, numbered where two share it
    variant: dict[str, Any] = field(default_factory=dict)  # the settings that tell this run's group apart

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def regime(self) -> str:
        return str(self.config["regime"])

    @property
    def criterion(self) -> str:
        return str(self.config["criterion"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def alpha(self) -> float | None:
        return _number(self.setting("alpha"))

    @property
    def own_alpha(self) -> float | None:
        """The regime's, which a run has that was given none."""
        return REGIMES[self.regime].alpha if self.regime in REGIMES else None

    @property
    def budget(self) -> float | None:
        """The share of the pool that gets human maps; None where the run itself finds it."""
        return _number(self.setting("human_budget"))

    def setting(self, name: str) -> Any:
        """As configured, else (in older runs) the default; of an alpha that was not given, the regime's."""
        value = self.config.get(name, _DEFAULTS.get(name))
        return self.own_alpha if name == "alpha" and value is None else value

    @property
    def finished(self) -> bool:
        return self.summary is not None

    @property
    def last(self) -> Round:
        return self.rounds[-1]

    @property
    def seconds(self) -> float:
        recorded = (self.summary or {}).get("seconds")
        return float(recorded) if recorded is not None else sum(r.seconds for r in self.rounds)

    @property
    def group(self) -> str:
        """The label shared by the runs that differ in nothing but their seed (and data set)."""
        return self.label()

    @property
    def line(self) -> str:
        """The group's label inside its panel."""
        return self.label(*_COMPARED)

    @property
    def panel(self) -> str:
        """The data set, and those of criterion, network and probe that runs differ in."""
        return self.place()

    def place(self, *without: str) -> str:
        """The panel, whatever is not to part it."""
        parts = [str(self.variant[s]) for s in _COMPARED if s in self.variant and s not in without]
        return ", ".join([self.dataset, *parts])

    def label(self, *without: str) -> str:
        """The regime, and what tells its runs apart; a regime's own alpha goes without saying."""
        skipped = {*without, "alpha"} if self.alpha == self.own_alpha else {*without}
        named = {name: value for name, value in self.variant.items() if name not in skipped}
        return ", ".join([self.regime, *(spell(name, value) for name, value in named.items())])

    def takes_over(self) -> int | None:
        """Index of the first round without new human maps; None where people draw to the end, or never."""
        pairs = enumerate(zip(self.rounds, self.rounds[1:], strict=False), start=1)
        first = next((i for i, (a, b) in pairs if b.human_maps <= a.human_maps), None)
        return first if self.last.human_maps else None

    def curve(self, metric: str) -> dict[int, float]:
        """Labelled count -> value, for the rounds that have a value."""
        pairs = ((r.labelled, getattr(r, metric)) for r in self.rounds)
        return {labelled: value for labelled, value in pairs if value is not None}

    def aulc(self, metric: str) -> float | None:
        """Area under the learning curve; None where a round has no value."""
        curve = self.curve(metric)
        return aulc(list(curve), list(curve.values())) if len(curve) == len(self.rounds) else None


def load(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs in the order of the report, and notes on what a reader must know about them."""
    runs, notes = [], []
    for path, named in _expand(paths).items():
        run = _read(path)
        if run.rounds:
            runs.append(run)
        elif named:
            raise InputError(f"{path}: no finished round yet; let the run finish a round first")
        else:
            notes.append(f"{run.name} is left out: it has no finished round yet.")
    if not runs:
        raise InputError("no run with a finished round; let a run finish a round first")
    runs, doubts = _once(_order(_name_variants(_name_datasets(runs))))
    notes += doubts
    notes += [
        f"{run.name} is unfinished ({len(run.rounds)} rounds so far): it is drawn with what it has, "
        "and is not part of any mean."
        for run in runs
        if not run.finished
    ]
    return runs, notes


def _once(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs without repetitions, which would pass for independent runs in the means; and notes."""
    notes = []
    first: dict[tuple[str, str, int, str], Run] = {}
    pools: dict[tuple[str, int], Run] = {}
    for run in sorted(runs, key=lambda run: not run.finished):
        fingerprint = str(run.data.get("fingerprint"))
        kept = first.setdefault((run.dataset, run.group, run.seed, fingerprint), run)
        if kept is not run:
            notes.append(f"{run.name} is left out: it repeats {kept.name} (same data, settings and seed).")
        other = pools.setdefault((run.dataset, run.seed), run)
        if str(other.data.get("fingerprint")) != fingerprint:
            notes.append(
                f"{run.name} and {other.name} have the same seed, but images, masks or splits differ."
            )
    return [run for run in runs if any(run is kept for kept in first.values())], notes


def by_group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.group)


def by_dataset(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.dataset)


def by_panel(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return split(runs, lambda run: run.panel)


def fullest(runs: Sequence[Run]) -> list[str]:
    """The panels that no other of their data set has more lines than."""
    lines = {panel: len(by_group(part)) for panel, part in by_panel(runs).items()}
    most = {
        dataset: max(lines[panel] for panel in by_panel(part)) for dataset, part in by_dataset(runs).items()
    }
    return list(dict.fromkeys(run.panel for run in runs if lines[run.panel] == most[run.dataset]))


def main_panel(runs: Sequence[Run]) -> list[Run]:
    """Of the fullest panels of a data set the one nearest to the paper's: margin and CAM."""
    panels = by_panel(runs)

    def near(panel: str) -> int:
        run = panels[panel][0]
        return (run.criterion == "margin") + (run.config["probe"] == "cam")

    return panels[max(fullest(runs), key=near)]


def without_alpha_sweep(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in alpha, only those with the regime's own, where there are any."""
    own = {(run.panel, run.regime) for run in runs if run.alpha == run.own_alpha}
    return [run for run in runs if run.alpha == run.own_alpha or (run.panel, run.regime) not in own]


def alike(a: Run, b: Run) -> bool:
    """Whether two runs of one panel differ in nothing that counts for both but regime, alpha and seed."""
    names = {**a.config, **b.config}.keys() - _IGNORED - {"regime", "alpha"}
    return all(a.setting(s) == b.setting(s) for s in names if _counts(s, a) and _counts(s, b))


def spell(setting: str, value: Any) -> str:
    """A setting as it stands in a label."""
    if setting in _COMPARED:
        return str(value)
    if setting == "human_budget" and value == "auto":
        return "auto budget"
    if setting == "human_budget" and isinstance(value, int | float):
        return f"{100 * value:g} % human"
    return f"{setting.replace('_', ' ')} {value}"


def split(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(key(run), []).append(run)
    return parts


def _counts(setting: str, run: Run) -> bool:
    return setting not in OPTIONS or OPTIONS[setting].matters_to(run.regime)


def _share(total: float | None, n: int) -> float | None:
    return total / n if total is not None and n else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _expand(paths: Sequence[Path]) -> dict[Path, bool]:
    """Each run folder once -> whether it was named itself (True) or found in a folder (False)."""
    if not paths:
        raise InputError("no run folder given; name at least one")
    folders: dict[Path, bool] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; give a run folder or a folder of runs")
        if (path / "run.json").exists():
            folders[path.resolve()] = True
            continue
        children = sorted(child for child in path.iterdir() if (child / "run.json").exists())
        if not children:
            raise InputError(
                f"{path}: no run.json in it or its folders; give a run folder or a folder of runs"
            )
        for child in children:
            folders.setdefault(child.resolve(), False)
    return folders


def _read(path: Path) -> Run:
    file = path / "run.json"
    record = _parse(file, _text(file))
    if record.get("format") != FORMAT:
        raise InputError(f"{file}: format {record.get('format')!r} is unknown; update sal-fast to read it")
    config, data = _part(file, record, "config"), _part(file, record, "data")
    for part, names in ((config, _NEEDED), (data, ("name", "classes", "counts"))):
        for name in names:
            if name not in part:
                raise InputError(f"{file}: {name!r} is missing; the file is damaged, repeat the run")
    summary = path / "summary.json"
    return Run(
        path=path,
        config=config,
        environment=_part(file, record, "environment"),
        data=data,
        rounds=_read_rounds(path / "rounds.jsonl"),
        summary=_parse(summary, _text(summary)) if summary.exists() else None,
    )


def _read_rounds(file: Path) -> list[Round]:
    if not file.exists():
        return []
    rounds: list[Round] = []
    for number, line in enumerate(_text(file).splitlines(keepends=True), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            record = _parse(where, line)
        except InputError:
            if line.endswith("\n"):
                raise
            break  # a killed run's half-written line: its round is not finished
        try:
            this = Round(
                round=int(record["round"]),
                labelled=int(record["labelled"]),
                human_maps=int(record["human_maps"]),
                generated_maps=int(record["generated_maps"]),
                empty_maps=int(record["empty_maps"]),
                accuracy=float(record["accuracy"]),
                dice=_optional(record["dice"]),
                dice_floor=_optional(record["dice_floor"]),
                dice_images=record.get("dice_images"),
                val_accuracy=_optional(record.get("val_accuracy")),
                best_epoch=record.get("best_epoch"),
                seconds=float(record["seconds"]),
                timings={str(name): float(value) for name, value in record.get("timings", {}).items()},
                trial_dice=_optional(record.get("trial_dice")),
                people=_read_people(record.get("people")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}: not the line of a round ({error!r}); repeat the run") from error
        still = this.people is not None  # people may skip a whole query
        if rounds and this.labelled < rounds[-1].labelled + (not still):
            raise InputError(f"{where}: 'labelled' does not rise; the file is damaged, repeat the run")
        rounds.append(this)
    return rounds


def _read_people(record: dict[str, Any] | None) -> People | None:
    if record is None:
        return None
    return People(
        labelled=int(record["labelled"]),
        maps=int(record["maps"]),
        skipped=int(record["skipped"]),
        annotators=int(record["annotators"]),
        seconds=_optional(record.get("seconds")),
        label_seconds=_optional(record.get("label_seconds")),
        map_seconds=_optional(record.get("map_seconds")),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); repeat the run") from error


def _parse(where: object, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); the file is damaged, repeat the run") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object; the file is damaged, repeat the run")
    return record


def _part(file: Path, record: dict[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    if not isinstance(part, dict):
        raise InputError(f"{file}: {name!r} is missing; the file is damaged, repeat the run")
    return part


def _optional(value: Any) -> float | None:
    return None if value is None or math.isnan(float(value)) else float(value)


def _name_datasets(runs: list[Run]) -> list[Run]:
    """Other classes or counts under one name are another data set: name, name (2), ...

    The fingerprint cannot tell: it covers the splits, which follow from the seed.
    """
    kinds: dict[str, list[str]] = {}
    for run in runs:
        kinds.setdefault(str(run.data["name"]), []).append(_kind(run))
    named = []
    for run in runs:
        name = str(run.data["name"])
        place = sorted(set(kinds[name])).index(_kind(run))
        named.append(replace(run, dataset=f"{name} ({place + 1})" if place else name))
    return named


def _kind(run: Run) -> str:
    return json.dumps([run.data["classes"], run.data["counts"]], sort_keys=True)


def _name_variants(runs: list[Run]) -> list[Run]:
    def differ(setting: str, among: Iterable[Run]) -> bool:
        return len({json.dumps(run.setting(setting)) for run in among}) > 1

    compared = [setting for setting in _COMPARED if differ(setting, runs)]
    runs = [replace(run, variant={s: run.setting(s) for s in compared}) for run in runs]
    others = dict.fromkeys(s for run in runs for s in run.config if s not in _IGNORED.union(_COMPARED))
    extra: dict[str, list[str]] = {}  # regime -> the other settings that its runs differ in
    for regime, same in split(runs, lambda run: run.regime).items():
        # What differs from panel to panel only, as the image size of two networks, goes without saying.
        parts = {"human_budget": by_dataset(same), "alpha": by_dataset(same)}
        extra[regime] = [
            s
            for s in others
            if _counts(s, same[0]) and any(differ(s, part) for part in parts.get(s, by_panel(same)).values())
        ]
    return [
        replace(run, variant=run.variant | {s: run.setting(s) for s in extra[run.regime]}) for run in runs
    ]


def _order(runs: list[Run]) -> list[Run]:
    def rank(value: Any) -> tuple[int, Any]:
        return (0, value) if isinstance(value, int | float) else (1, str(value))

    def key(run: Run) -> tuple[Any, ...]:
        place = list(REGIMES).index(run.regime) if run.regime in REGIMES else len(REGIMES)
        variant = [(name, rank(value)) for name, value in run.variant.items()]
        return (run.dataset, place, run.regime, variant, run.seed, run.name)

    return sorted(runs, key=key)
