"""What a sweep will take: trainings, time, memory, disk; as far as it can be told before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sal_fast import seeds
from sal_fast._util.memory import free_memory
from sal_fast._util.progress import duration
from sal_fast.data import Table, augment, catalog, load_table, splits
from sal_fast.data.decode.base import cores
from sal_fast.errors import InputError
from sal_fast.experiment import checks
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import OPTIONS, Config, short_name
from sal_fast.experiment.examples import EXAMPLES
from sal_fast.experiment.networks import teacher_arch, teacher_weights
from sal_fast.experiment.record import RunFolder
from sal_fast.models import build, weights
from sal_fast.sweep.grid import Run
from sal_fast.sweep.sharing import common_key, same_beginning, sources

NETWORK = tuple(name for name, one in OPTIONS.items() if "network" in one.affects)


@dataclass(frozen=True)
class Pool:
    """Sizes of a data set."""

    images: int
    train: int
    classes: int


@dataclass(frozen=True)
class Planned:
    """A run, and its rounds; `shares`: how many rounds of each other run are its own too (0 left out)."""

    run: Run
    pool: Pool
    plan: Plan
    shares: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.run.config


@dataclass(frozen=True)
class Outlook:
    """The runs whose sizes are known, in order; the names of the others; what a start would refuse."""

    planned: list[Planned]
    unknown: list[str]
    problems: list[str]


def look(runs: Sequence[Run]) -> Outlook:
    """Read the data's tables (not their images) and find the weights."""
    tables: dict[tuple[str, str | None], Table | None] = {}
    pools: dict[tuple[str, str | None, int], Pool | None] = {}
    problems: dict[str, None] = {}
    planned, unknown = [], []
    for run in runs:
        config = run.config
        key = (config.data, config.root, config.seed)
        if key not in pools:
            pools[key] = _pool(config, tables, problems)
        pool = pools[key]
        if pool is None:
            unknown.append(run.name)
            continue
        try:
            planned.append(Planned(run, pool, config.plan(pool.train)))
        except InputError as error:
            raise InputError(f"{run.name}: {error}") from None
    for one in {_network_key(one): one for one in planned}.values():
        _check_network(one)
    for arch, named in dict.fromkeys(pair for run in runs for pair in _initial(run.config)):
        _look_for_weights(arch, named, problems)
    masks = [run.config for run in runs if run.config.its_regime.uses_a_segmenter]
    for config in {(config.data, config.segmenter_masks): config for config in masks}.values():
        _look_for_masks(config, problems)
    return Outlook(_with_shares(planned), unknown, list(problems))


def _network_key(one: Planned) -> Hashable:
    """Equal for runs whose networks `_check_network` cannot tell apart."""
    return (one.plan.labelled[0] == 1, *(getattr(one.config, name) for name in NETWORK))


def _check_network(one: Planned) -> None:
    """What a run would refuse, without making its network."""
    classes = Table("", [""] * one.pool.classes, [], [], [], [])
    try:
        with torch.device("meta"):
            bare = one.config.replace(weights="none", teacher_weights="none")
            checks.check_features(bare, classes, one.plan)
    except InputError as error:
        raise InputError(f"{one.run.name}: {error}") from None


def _pool(
    config: Config, tables: dict[tuple[str, str | None], Table | None], problems: dict[str, None]
) -> Pool | None:
    """Sizes; where a data set of the paper is missing, those of its Table 1."""
    place = (config.data, config.root)
    try:
        if place not in tables:
            tables[place] = None
            if config.data in catalog.ENTRIES and config.root is None:
                raise InputError(_where(catalog.ENTRIES[config.data]))
            tables[place] = load_table(*place)
        table = tables[place]
        if table is not None:
            table = splits.assign(table, seeds.stream(config.seed, "split"))
            return Pool(len(table), len(table.rows("train")), len(table.classes))
    except InputError as error:
        problems[f"data {config.data}: {error}"] = None
    if config.data not in catalog.ENTRIES:
        return None
    counts = catalog.ENTRIES[config.data].counts
    return Pool(sum(counts[split] for split in splits.SPLITS), counts["train"], counts["classes"])


def _where(entry: catalog.Entry) -> str:
    archives = ", ".join(entry.archives)
    return f"give --root DIR, with the official archives {archives} in DIR/{entry.key}, or {entry.layout}"


def _initial(config: Config) -> list[tuple[str, str]]:
    """Networks and the weights that they begin with."""
    pairs = [(config.arch, config.weights)]
    if config.its_regime.has_teacher:
        pairs.append((teacher_arch(config), teacher_weights(config)))
    return pairs


def _look_for_weights(arch: str, named: str, problems: dict[str, None]) -> None:
    if named == "none":
        return
    if weights.is_file(named):
        if not Path(named).is_file():
            problems[f"weights: file not found: {named}"] = None
        return
    known = weights.urls(arch)
    if named not in known:
        problems[f"weights {named!r}: {arch} has {', '.join(known)}; or name a file"] = None
        return
    url, place = known[named], Path(torch.hub.get_dir()) / "checkpoints"
    if not (place / Path(url).name).is_file():
        problems[
            f"weights {named!r} of {arch} are not on this machine: fetch {url} and give that file to "
            f"--weights, or put it into {place}"
        ] = None


def _look_for_masks(config: Config, problems: dict[str, None]) -> None:
    """Of the regime segmenter."""
    makes = config.generator or config.segmenter_weights
    if config.segmenter_weights is not None and not Path(config.segmenter_weights).is_file():
        problems[f"segmenter_weights: file not found: {config.segmenter_weights}"] = None
    if config.segmenter_masks is not None:
        if not makes and not Path(config.segmenter_masks).is_dir():
            problems[f"segmenter_masks: no such folder: {config.segmenter_masks}"] = None
        return
    try:
        config.check()
    except InputError as error:
        name = short_name(config.data)
        problems[f"data {name}: {error} (of a sweep: DIR/{name}/<id>.png)"] = None


def _with_shares(planned: list[Planned]) -> list[Planned]:
    alike: dict[Hashable, list[Planned]] = {}
    for one in planned:
        group = alike.setdefault(common_key(one.config, one.plan), [])
        for other in group:
            count = same_beginning((one.config, one.plan), (other.config, other.plan))
            if count:
                one.shares[other.run.name] = other.shares[one.run.name] = count
        group.append(one)
    return planned


def copied(planned: Sequence[Planned]) -> dict[str, int]:
    """How many rounds each run takes over from one before it."""
    before: set[str] = set()
    counts = {}
    for one in planned:
        counts[one.run.name] = max((n for name, n in one.shares.items() if name in before), default=0)
        before.add(one.run.name)
    return counts


# --- time ------------------------------------------------------------------------------------------------


def models(config: Config, plan: Plan, number: int) -> int:
    """Models trained in a round."""
    asks = sources(config, plan)
    if number + 1 >= plan.rounds:
        return 1
    teaches = asks[number + 1] == "teacher" and "teacher" not in asks[: number + 1]
    return 1 + (asks[number + 1] == "interpretability") + teaches


def work(config: Config, plan: Plan, first: int = 0) -> float:
    """Images trained on from round `first` to the end: the measure of what a run takes."""
    return sum(_work(config, plan, number) for number in range(first, plan.rounds))


def _work(config: Config, plan: Plan, number: int) -> float:
    return float(plan.labelled[number] * models(config, plan, number) * config.epochs)


class Rates:
    """Seconds per image trained on, from finished rounds, for each data set and network."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Any, ...], tuple[float, float]] = {}

    def add(self, config: Config, plan: Plan, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            if line["round"] < plan.rounds:
                seconds, done = self._sums.get(_kind(config), (0.0, 0.0))
                done += _work(config, plan, line["round"])
                self._sums[_kind(config)] = (seconds + line["seconds"], done)

    def seconds(self, config: Config, amount: float, rough: bool = False) -> float | None:
        """None: nothing of that kind has finished yet (`rough`: nor of any other)."""
        sums = [self._sums[_kind(config)]] if _kind(config) in self._sums else []
        if rough and not sums:
            sums = list(self._sums.values())
        if not sums:
            return None
        return amount * sum(seconds for seconds, _ in sums) / sum(done for _, done in sums)


def _kind(config: Config) -> tuple[Any, ...]:
    fields = "data", "root", "arch", "image_size", "output_stride", "map_size", "cam_layer"
    return tuple(getattr(config, field) for field in fields)


def finished(out: Path) -> list[tuple[Config, Plan, list[dict[str, Any]], Path]]:
    """The finished runs in a folder, whoever made them."""
    found = []
    for file in sorted(out.glob("*/summary.json")):
        folder = RunFolder(file.parent)
        try:
            run, lines = folder.run(), folder.rounds()
            config = Config(**run["config"])
            found.append((config, config.plan(len(run["splits"]["train"])), lines, folder.path))
        except (InputError, KeyError, TypeError):
            continue  # the start says what is wrong with it, if it is one of the sweep's
    return found


# --- memory and disk -------------------------------------------------------------------------------------


def image_bytes(one: Planned) -> int:
    """Images and maps of a run, kept in memory."""
    stored = augment.stored_size(one.config.augment, one.config.image_size)
    return one.pool.images * (3 * stored**2 + one.config.image_size**2 // 8)


def disk_bytes(one: Planned) -> tuple[int, int]:
    """What a run leaves, and what it takes more while it replaces its weights by a round's new ones."""
    own = _weights_bytes(one.config.arch, one.pool.classes)
    asks = sources(one.config, one.plan)
    kept = own * (2 if "interpretability" in asks else 1) + EXAMPLES * one.config.image_size**2 * 8
    teacher = _weights_bytes(teacher_arch(one.config), one.pool.classes) if "teacher" in asks else 0
    return own + EXAMPLES * one.config.image_size**2 * 8 + teacher, kept


@cache
def _weights_bytes(arch: Any, classes: int) -> int:
    with torch.device("meta"):
        state = build(arch, classes).net.state_dict()
    return sum(value.numel() * value.element_size() for value in state.values())


# --- in words --------------------------------------------------------------------------------------------


def describe(name: str, outlook: Outlook, out: Path, slots: int, start: str) -> str:
    """The answer to --plan. `slots`: how many runs this machine makes at a time; `start`: the command."""
    planned = outlook.planned
    takes = copied(planned)
    alone = sum(models(one.config, one.plan, r) for one in planned for r in range(one.plan.rounds))
    spared = sum(models(one.config, one.plan, r) for one in planned for r in range(takes[one.run.name]))
    runs = len(planned) + len(outlook.unknown)
    lines = [f"{name}: {runs} run{'s' * (runs != 1)}, into {out}"]
    if planned:
        rounds = sum(one.plan.rounds for one in planned)
        shared = sum(takes.values())
        lines.append(
            f"  trainings  {alone - spared}, in {rounds - shared} rounds"
            + (f" ({spared} more without the {shared} rounds that are shared)" if shared else "")
        )
    if outlook.unknown:
        lines.append(f"             and those of {len(outlook.unknown)} runs whose data are missing")
    done = finished(out)
    lines += _time(planned, takes, done, slots, start)
    lines += _space(planned, done, out, slots)
    lines += [f"warning: {problem}" for problem in outlook.problems]
    return "\n".join(lines)


def _time(
    planned: Sequence[Planned],
    takes: Mapping[str, int],
    done: Sequence[tuple[Config, Plan, list[dict[str, Any]], Path]],
    slots: int,
    start: str,
) -> list[str]:
    rates = Rates()
    for config, plan, lines, _ in done:
        rates.add(config, plan, lines)
    kept = {path.name: len(lines) for _, _, lines, path in done}
    total, longest, missing = 0.0, 0.0, []
    for one in planned:
        first = max(takes[one.run.name], kept.get(one.run.name, 0))
        seconds = rates.seconds(one.config, work(one.config, one.plan, first))
        if seconds is None:
            missing.append(one)
        else:
            total += seconds
            longest = max(longest, seconds)
    out = []
    if len(missing) < len(planned):
        spent = duration(max(total / slots, longest))
        out.append(
            f"  time       about {spent} on this machine, {slots} at a time ({duration(total)} of runs); "
            f"from the finished runs there"
        )
    if missing:
        which = sorted({f"{one.config.data} with {one.config.arch}" for one in missing})
        out.append(
            f"  time       not known yet for {', '.join(which)}: no finished run of it in that folder; start "
            f"({start}) and ask again when its first run is finished: nothing is lost by an interruption"
        )
    return out


def _space(
    planned: Sequence[Planned],
    done: Sequence[tuple[Config, Plan, list[dict[str, Any]], Path]],
    out: Path,
    slots: int,
) -> list[str]:
    """Memory and disk, with a warning where there is less."""
    if not planned:
        return []
    lines, warnings = [], []
    free = free_memory(torch.device("cpu"))
    kinds = {_kind(one.config) for one in planned}
    seen = [line["memory"] for config, _, rows, _ in done if _kind(config) in kinds for line in rows]
    peaks = {
        place: max((float(entry[key]) * 2**20 for entry in seen if key in entry), default=0.0)
        for key, place in (("peak_rss_mb", "here"), ("peak_gpu_mb", "on the GPU"))
    }
    least = max(image_bytes(one) for one in planned)
    told = [f"{size(peak)} {place} in the finished runs" for place, peak in peaks.items() if peak]
    known = ", ".join(told) or "of networks not known yet"
    lines.append(
        f"  memory     a run: {size(least)} of images, {known}; {slots} at a time, {size(free)} are free here"
    )
    if slots * max(least, peaks["here"]) > free:
        warnings.append(f"warning: memory for {slots} runs at a time is not free; raise --cpus-per-run")
    left = sum(disk_bytes(one)[0] for one in planned)
    written = slots * max(disk_bytes(one)[1] for one in planned)
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    room = shutil.disk_usage(there).free
    kept = sum(
        path.stat().st_size for one in planned for path in (out / one.run.name).rglob("*") if path.is_file()
    )
    lines.append(
        f"  disk       {size(left + written)} at most ({size(left)} when all is finished, {size(kept)} there "
        f"already), and generated maps; {size(room)} are free"
    )
    if left + written - kept > room:
        warnings.append(f"warning: the disk of {there} has too little room; choose another --out")
    return lines + warnings


def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def slots_here(cpu_only: bool, cpus_per_run: int | None, gpus_per_run: float | None) -> int:
    """How many runs fit on this machine at a time; at least one."""
    gpus = 0 if cpu_only else torch.cuda.device_count()
    share = (1.0 if gpus else 0.0) if gpus_per_run is None else gpus_per_run
    fits = cores() // (cpus_per_run or cpus_beside_gpus(cores(), gpus, share))
    if share:
        fits = min(fits, gpus * int(1 / share + 1e-9))
    return max(1, fits)


def cpus_beside_gpus(cpus: int, gpus: int, gpus_per_run: float) -> int:
    """Cores that fall to a run: one on CPUs; beside GPUs its share, 8 at most."""
    if not gpus or not gpus_per_run:
        return 1
    return max(1, min(8, cpus // max(1, gpus * int(1 / gpus_per_run + 1e-9))))
