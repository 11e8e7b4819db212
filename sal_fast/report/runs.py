"""Run folders, read and checked: what the tables and figures are made of."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sal_fast.errors import InputError
from sal_fast.experiment.regimes import REGIMES
from sal_fast.experiment.run_folder import FORMAT
from sal_fast.learning_curve import aulc

# Named in a group's label as soon as any two runs differ in them.
_COMPARED = ("criterion", "arch", "probe")
# Any other setting is named where runs of one data set and regime differ in it, but for these: they say
# where and on what a run was made, or are spelt out in other settings.
_IGNORED = {"seed", "data", "root", "out", "config", "preset", "device", "deterministic", "data_parallel"}
_WITHOUT_BUDGET = {"b1", "b2", "segmenter"}  # what the human budget says changes nothing for them
_NEEDED = ("regime", "criterion", "probe", "arch", "seed", "human_budget")


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
        return ", ".join([self.regime, *(spell(name, value) for name, value in self.variant.items())])

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
    return _split(runs, lambda run: run.group)


def by_dataset(runs: Iterable[Run]) -> dict[str, list[Run]]:
    return _split(runs, lambda run: run.dataset)


def spell(setting: str, value: Any) -> str:
    """A setting as it stands in a label."""
    if setting in _COMPARED:
        return str(value)
    if setting == "human_budget" and isinstance(value, int | float):
        return f"{100 * value:g} % human"
    return f"{setting.replace('_', ' ')} {value}"


def _split(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(key(run), []).append(run)
    return parts


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
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}: not the line of a round ({error!r}); repeat the run") from error
        if rounds and this.labelled <= rounds[-1].labelled:
            raise InputError(f"{where}: 'labelled' does not rise; the file is damaged, repeat the run")
        rounds.append(this)
    return rounds


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
        return len({json.dumps(run.config.get(setting)) for run in among}) > 1

    compared = [setting for setting in _COMPARED if differ(setting, runs)]
    others = dict.fromkeys(s for run in runs for s in run.config if s not in _IGNORED.union(_COMPARED))
    extra: dict[str, list[str]] = {}  # regime -> the other settings that its runs differ in
    for regime, same in _split(runs, lambda run: run.regime).items():
        parts = by_dataset(same).values()
        skipped = {"human_budget"} if regime in _WITHOUT_BUDGET else set()
        extra[regime] = [s for s in others if s not in skipped and any(differ(s, part) for part in parts)]
    return [
        replace(run, variant={s: run.config.get(s) for s in compared + extra[run.regime]}) for run in runs
    ]


def _order(runs: list[Run]) -> list[Run]:
    def rank(value: Any) -> tuple[int, Any]:
        return (0, value) if isinstance(value, int | float) else (1, str(value))

    def key(run: Run) -> tuple[Any, ...]:
        place = list(REGIMES).index(run.regime) if run.regime in REGIMES else len(REGIMES)
        variant = [(name, rank(value)) for name, value in run.variant.items()]
        return (run.dataset, place, run.regime, variant, run.seed, run.name)

    return sorted(runs, key=key)
