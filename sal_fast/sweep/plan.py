"""What a sweep will take: trainings, time, memory and disk, as far as it can be told before it starts."""

import shutil
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from sal_fast import plugins, seeds
from sal_fast._util.memory import free_memory
from sal_fast._util.progress import duration
from sal_fast.data import Table, augment, catalog, load_table, splits
from sal_fast.data.readers import Options
from sal_fast.errors import InputError
from sal_fast.experiment import budget, checks
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import OPTIONS, Config, short_name
from sal_fast.experiment.examples import EXAMPLES
from sal_fast.experiment.loading import Run, load
from sal_fast.experiment.networks import teacher_arch, teacher_weights
from sal_fast.experiment.record import Round
from sal_fast.models import build, weights
from sal_fast.sweep.sharing import common_key, shared_rounds

# the options that decide the networks and the size of their maps, but for the regime, whose properties do
NETWORK = tuple(name for name, one in OPTIONS.items() if "network" in one.affects and name != "regime")
# the options that decide how long a training takes for each of its images
PACE = tuple(
    name
    for name, one in OPTIONS.items()
    if one.affects & {"data", "network"} and "maps" not in one.affects and one.path != "by suffix"
)


@dataclass(frozen=True)
class Pool:
    """The sizes of a data set."""

    images: int
    train: int
    classes: int


@dataclass
class PlannedRun:
    """A run and its rounds. `shares`: how many rounds it has in common with each other run, by name."""

    config: Config
    pool: Pool
    plan: Plan
    shares: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.config.run_folder.name


@dataclass(frozen=True)
class Outlook:
    """The runs whose sizes are known, in order; the names of the others; and what a start would refuse."""

    planned: list[PlannedRun]
    unknown: list[str]
    problems: list[str]


def examine(configs: Sequence[Config]) -> Outlook:
    """Read the tables of the data (not the images), and look for the weights and the segmenter's masks.

    Raises InputError for a run that could not be made, whatever is found.
    """
    search = _Search()
    planned, unknown = [], []
    for config in configs:
        name = config.run_folder.name
        pool = search.pool(config.data, config.root, config.its_format, config.seed)
        if pool is None:
            unknown.append(name)
            continue
        try:
            planned.append(PlannedRun(config, pool, config.plan(pool.train)))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    for one in {_network_key(one): one for one in planned}.values():
        _check_network(one)
    for config in configs:
        search.weights(config.arch, config.weights)
        if config.its_regime.has_teacher:
            search.weights(teacher_arch(config), teacher_weights(config))
        if config.its_regime.uses_a_segmenter:
            search.masks(config)
        for name, option in OPTIONS.items():  # networks and data are looked into by themselves
            kind, value = option.plugin, getattr(config, name)
            if kind not in ("criterion", "generator", "augmentation") or value is None:
                continue
            if plugins.is_reference(value) or value in plugins.names(kind):
                search.plugin(kind, value)
    _find_shares(planned)
    return Outlook(planned, unknown, list(search.problems))


class _Search:
    """Looks for what runs need, each thing once, and collects the problems, each once."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}
        self.pool = cache(self._find_pool)
        self.weights = cache(self._find_weights)
        self.plugin = cache(self._find_plugin)
        self._table = cache(self._read)

    def _find_pool(self, data: str, root: str | None, options: Options, seed: int) -> Pool | None:
        """The sizes of a data set. If one of the paper's is missing, they are those of its Table 1."""
        table = self._table(data, root, options)
        if table is not None:
            table = splits.assign(table, seeds.stream(seed, "split"))
            return Pool(len(table), len(table.rows("train")), len(table.classes))
        if data not in catalog.ENTRIES:
            return None
        counts = catalog.ENTRIES[data].counts
        return Pool(sum(counts[split] for split in splits.SPLITS), counts["train"], counts["classes"])

    def _read(self, data: str, root: str | None, options: Options) -> Table | None:
        try:
            if data in catalog.ENTRIES and root is None:
                entry = catalog.ENTRIES[data]
                raise InputError(
                    f"give --root DIR, with the official archives {', '.join(entry.archives)} in "
                    f"DIR/{entry.key}, or {entry.layout}"
                )
            return load_table(data, root, options=options)
        except InputError as error:
            self._add(f"data {data}: {error}")
            return None

    def _find_weights(self, arch: str, named: str) -> None:
        """Look for a file of initial weights, or for those of torchvision in its cache."""
        if named == budget.AUTO:  # each run takes what it finds
            return
        if weights.is_file(named) and not Path(named).is_file():
            self._add(f"weights: file not found: {named}")
        try:
            weights.check_kept(arch, named)
        except InputError as error:
            self._add(str(error))

    def _find_plugin(self, kind: plugins.Kind, spec: str) -> None:
        """Import the plug-in, as every run would."""
        try:
            plugins.load(kind, spec)
        except InputError as error:
            self._add(str(error))

    def masks(self, config: Config) -> None:
        """Look for the masks of the regime segmenter, or for what makes them."""
        folder, checkpoint = config.segmenter_masks, config.segmenter_weights
        if checkpoint is not None and not Path(checkpoint).is_file():
            self._add(f"segmenter_weights: file not found: {checkpoint}")
        if folder is None:
            name = short_name(config.data)
            needs = f"regime {config.regime!r} needs --segmenter-masks DIR"
            self._add(f"data {name}: {needs}, with DIR/{name}/<id>.png for every training image")
        elif checkpoint is None and config.generator is None and not Path(folder).is_dir():
            self._add(f"segmenter_masks: no such folder: {folder}")

    def _add(self, problem: str) -> None:
        self.problems[problem] = None


def _network_key(one: PlannedRun) -> Hashable:
    """Equal for runs that `_check_network` cannot tell apart."""
    config = one.config
    read = [getattr(config, name) for name in NETWORK if OPTIONS[name].matters_to(config.regime)]
    return (one.plan.labelled[0] == 1, config.its_regime.uses_maps, *read)


def _check_network(one: PlannedRun) -> None:
    """Raise InputError for networks that the run itself would refuse; they are built without memory."""
    classes = Table("", [""] * one.pool.classes, [], [], [], [])
    try:
        with torch.device("meta"):
            bare = one.config.replace(weights="none", teacher_weights="none")
            checks.check_features(bare, classes, one.plan)
    except InputError as error:
        raise InputError(f"{one.name}: {error}") from None


def _find_shares(planned: Sequence[PlannedRun]) -> None:
    alike: dict[Hashable, list[PlannedRun]] = {}
    for one in planned:
        group = alike.setdefault(common_key(one.config, one.plan), [])
        for other in group:
            count = shared_rounds((one.config, one.plan), (other.config, other.plan))
            if count:
                one.shares[other.name] = other.shares[one.name] = count
        group.append(one)


def copied_rounds(planned: Sequence[PlannedRun]) -> dict[str, int]:
    """How many rounds each run copies from a run before it."""
    counts: dict[str, int] = {}
    for one in planned:
        counts[one.name] = max((n for name, n in one.shares.items() if name in counts), default=0)
    return counts


# --- time ------------------------------------------------------------------------------------------------


def trainings(config: Config, plan: Plan) -> list[int]:
    """How many models each round trains: the accuracy model, and perhaps one that draws the next maps."""
    sources = Turns.of(config, plan).certain_sources()
    counts = [1] * plan.rounds
    for query_index, source in enumerate(sources[1:], 1):
        new_teacher = source == "teacher" and "teacher" not in sources[:query_index]
        counts[query_index - 1] += source == "interpretability" or new_teacher
    return counts


def images_trained(config: Config, plan: Plan, rounds: Iterable[int]) -> int:
    """How many images models are trained on in these rounds: the measure of the time that they take."""
    models = trainings(config, plan)
    return config.epochs * sum(plan.labelled[index] * models[index] for index in rounds)


class Rates:
    """Seconds for each image trained on, measured in finished rounds, by data set and network."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = defaultdict(float)
        self._images: dict[Hashable, float] = defaultdict(float)

    def add(self, config: Config, plan: Plan, rounds: Iterable[Round]) -> None:
        """Learn from finished rounds."""
        for line in rounds:
            if line.round < plan.rounds:
                self._seconds[_pace(config)] += line.seconds
                self._images[_pace(config)] += images_trained(config, plan, [line.round])

    def seconds(self, config: Config, images: float, rough: bool = False) -> float | None:
        """The time that training on so many images takes.

        None if no round of this data set and network is finished; with `rough` those of others will do.
        """
        known = [_pace(config)] if _pace(config) in self._images else [*self._images] if rough else []
        done = sum(self._images[pace] for pace in known)
        return images * sum(self._seconds[pace] for pace in known) / done if done else None


def _pace(config: Config) -> Hashable:
    return tuple(getattr(config, name) for name in PACE)


def finished_runs(out: Path) -> list[Run]:
    """The finished runs in a folder, whoever made them."""
    found = []
    for file in sorted(out.glob("*/summary.json")):
        # the start says what is wrong with a damaged one, if it is one of the sweep's
        with suppress(InputError, KeyError, TypeError):
            found.append(load(file.parent))
    return found


# --- memory and disk -------------------------------------------------------------------------------------


def image_bytes(one: PlannedRun) -> int:
    """Bytes of a run's images and maps, which are kept in memory."""
    stored = augment.stored_size(one.config.augment, one.config.image_size)
    return one.pool.images * (3 * stored**2 + one.config.image_size**2 // 8)


def disk_bytes(one: PlannedRun) -> tuple[int, int]:
    """Bytes that a run leaves, and those it takes besides while new weights replace a round's old ones."""
    sources = Turns.of(one.config, one.plan).certain_sources()
    accuracy = _weights_bytes(one.config.arch, one.pool.classes)
    teacher = _weights_bytes(teacher_arch(one.config), one.pool.classes) if "teacher" in sources else 0
    examples = EXAMPLES * one.config.image_size**2 * 8
    return accuracy + teacher + examples, accuracy * (1 + ("interpretability" in sources)) + examples


@cache
def _weights_bytes(arch: str, classes: int) -> int:
    with torch.device("meta"):
        state = build(arch, classes).net.state_dict()
    return sum(value.numel() * value.element_size() for value in state.values())


# --- in words --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """The answer to --plan.

    name: the grid's. out: the folder of the runs. slots: how many runs this machine makes at a time. command:
    the one that starts the sweep.
    """

    name: str
    outlook: Outlook
    out: Path
    slots: int
    command: str

    def __str__(self) -> str:
        runs = len(self.outlook.planned) + len(self.outlook.unknown)
        lines = [f"{self.name}: {runs} run{'s' * (runs != 1)}, into {self.out}"]
        copied, done = copied_rounds(self.outlook.planned), finished_runs(self.out)
        if self.outlook.planned:
            lines.append(self._trainings(copied))
        if self.outlook.unknown:
            lines.append(f"             and those of {len(self.outlook.unknown)} runs whose data are missing")
        lines += self._time(copied, done)
        if self.outlook.planned:
            lines += [*self._memory(done), *self._disk()]
        return "\n".join([*lines, *(f"warning: {problem}" for problem in self.outlook.problems)])

    def _trainings(self, copied: Mapping[str, int]) -> str:
        shared = sum(copied.values())
        models = {one.name: trainings(one.config, one.plan) for one in self.outlook.planned}
        spared = sum(sum(counts[: copied[name]]) for name, counts in models.items())
        trained, rounds = sum(map(sum, models.values())) - spared, sum(map(len, models.values())) - shared
        more = f" ({spared} more without the {shared} rounds that are shared)" if shared else ""
        return f"  trainings  {trained}, in {rounds} rounds{more}"

    def _time(self, copied: Mapping[str, int], done: Sequence[Run]) -> Iterator[str]:
        rates = Rates()
        for run in done:
            rates.add(run.config, run.plan, run.rounds)
        there = {run.path.name: len(run.rounds) for run in done}
        seconds, missing = [], set()
        for one in self.outlook.planned:
            rounds = range(max(copied[one.name], there.get(one.name, 0)), one.plan.rounds)
            takes = rates.seconds(one.config, images_trained(one.config, one.plan, rounds))
            if takes is None:
                missing.add(f"{one.config.data} with {one.config.arch}, {one.config.probe}")
            else:
                seconds.append(takes)
        if seconds:
            total = sum(seconds)
            yield (
                f"  time       about {duration(max(total / self.slots, *seconds))} on this machine, "
                f"{self.slots} at a time ({duration(total)} of runs); from the finished runs there"
            )
        if missing:
            yield (
                f"  time       not known yet for {'; '.join(sorted(missing))}: no finished run of it in that "
                f"folder; start ({self.command}) and ask again when its first run is finished: nothing is "
                f"lost by an interruption"
            )

    def _memory(self, done: Sequence[Run]) -> Iterator[str]:
        planned, free = self.outlook.planned, free_memory(torch.device("cpu"))
        paces = {_pace(one.config) for one in planned}
        seen = [line.memory for run in done if _pace(run.config) in paces for line in run.rounds]
        peaks = {
            place: max((entry.get(key, 0.0) * 2**20 for entry in seen), default=0.0)
            for key, place in (("peak_rss_mb", "here"), ("peak_gpu_mb", "on the GPU"))
        }
        images = max(image_bytes(one) for one in planned)
        told = [f"{_in_bytes(peak)} {place} in the finished runs" for place, peak in peaks.items() if peak]
        known = ", ".join(told) or "of networks not known yet"
        yield (
            f"  memory     a run: {_in_bytes(images)} of images, {known}; {self.slots} at a time, "
            f"{_in_bytes(free)} are free here"
        )
        if self.slots * max(images, peaks["here"]) > free:
            yield f"warning: memory for {self.slots} runs at a time is not free; raise --cpus-per-run"

    def _disk(self) -> Iterator[str]:
        planned = self.outlook.planned
        folder = next(place for place in (self.out, *self.out.parents) if place.exists())
        room = shutil.disk_usage(folder).free
        kept, besides = zip(*map(disk_bytes, planned), strict=True)
        left, most = sum(kept), sum(kept) + self.slots * max(besides)
        files = (path for one in planned for path in (self.out / one.name).rglob("*") if path.is_file())
        there = sum(path.stat().st_size for path in files)
        yield (
            f"  disk       {_in_bytes(most)} at most ({_in_bytes(left)} when all is finished, "
            f"{_in_bytes(there)} there already), and generated maps; {_in_bytes(room)} are free"
        )
        if most - there > room:
            yield f"warning: the disk of {folder} has too little room; choose another --out"


def _in_bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
