"""Make a run from a configuration. This module puts the parts together, and does nothing else."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sal_fast import annotate, distributed, plugins, query, seeds
from sal_fast._util.curves import aulc
from sal_fast._util.devices import torch_device
from sal_fast._util.files import write_json
from sal_fast.data import (
    StoreOptions,
    Table,
    augment,
    decode,
    load_table,
    open_store,
    plan_store,
    splits,
    store,
)
from sal_fast.data.masks import Masks
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment import (
    baseline,
    checks,
    class_weights,
    forecast,
    frozen,
    growing,
    provenance,
    references,
    settling,
    start,
)
from sal_fast.experiment.algorithm import active_learning
from sal_fast.experiment.answers.answering import Answering
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import AUTO, OPTIONS, Config
from sal_fast.experiment.growing import Growth
from sal_fast.experiment.loading import Run, load
from sal_fast.experiment.networks import new_model
from sal_fast.experiment.record import FIGURES, Round, RunFolder
from sal_fast.experiment.rounds import Steps
from sal_fast.models import feature_size
from sal_fast.train import Epoch
from sal_fast.trained import folder as trained_folder
from sal_fast.trained import metadata

log = logging.getLogger(__name__)

OnRound = Callable[[Run, Round], None]

# torch refuses `--deterministic` on a GPU without it, and cuBLAS reads it once, at its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def run(
    config: Config | None = None,
    *,
    criterion: query.Criterion | str | None = None,
    network: Callable[[int], torch.nn.Module] | str | None = None,
    data: Table | Callable[[Path | None], Table] | str | Path | None = None,
    generator: annotate.Generator | str | None = None,
    augmentation: augment.Function | str | None = None,
    on_round: OnRound | None = None,
    until: int | None = None,
) -> Run:
    """Run, or continue, the experiment that `config` describes, and return it.

    The first five keyword arguments override the configuration. Each takes what its option takes (`network`
    that of `arch`, `augmentation` that of `augment`), or the object itself; docs/plugins.md describes each
    kind of object.

    Args:
        config: the options. None: the built-in set with its own preset.
        criterion: `f(pool, k, seed)`, which returns k positions of the pool.
        network: `f(classes)`, which returns a module with `features` and `head`.
        data: a `sal_fast.data.Table`, or `f(root)`, which returns one; or a path, as `Config.data`.
        generator: `f(pictures, labels)`, which returns maps, for the regimes sal and segmenter.
        augmentation: `f(image, map, rng)`, which returns an image and its map.
        on_round: it is called as `on_round(run, round)` after each finished round, in the first process of
            several. It replaces the table on the screen. A tracker that the configuration names is called
            as well.
        until: stop after so many rounds; a later call goes on from there.

    Raises:
        InputError: something cannot work. No file has been overwritten.
        Waiting: people have to answer a query first (`annotator="people"`). The same call continues after it.
    """
    config = Config() if config is None else config
    config = _with_names(
        config, criterion=criterion, arch=network, data=data, generator=generator, augment=augmentation
    )
    config = metadata.like_its_weights(config)
    config.check()
    checks.check_networks(config)
    folder = RunFolder(config.run_folder)
    plug_ins = _PlugIns.of(config, on_round)
    # This comes before the folder is made, so that a mistyped name leaves nothing behind.
    table = None if folder.run_json.exists() else _table(config)
    with (
        distributed.ranks() as ranks,
        folder.lock() if ranks.first else nullcontext(),
        _deterministic(config.deterministic),
    ):
        try:
            _run(config, folder, ranks, plug_ins, table, until)
        except Waiting:
            ranks.number(0)  # torchrun ends all when one ends: we wait until the first has written its round
            raise
        finally:
            plug_ins.close()
    return load(folder.path)


@dataclass(frozen=True)
class _PlugIns:
    """The objects that a run's configuration names, and that the run calls itself."""

    generator: annotate.Generator | None
    trackers: Sequence[Any]

    @classmethod
    def of(cls, config: Config, on_round: OnRound | None) -> _PlugIns:
        generator = None if config.generator is None else plugins.load("generator", config.generator)
        trackers = [] if on_round is None else [on_round]
        if on_round is None or "tracker" in config.given:
            names = [config.tracker] if plugins.is_reference(config.tracker) else config.tracker.split("+")
            loaded = [plugins.load("tracker", name) for name in dict.fromkeys(names)]
            trackers += [one() if isinstance(one, type) else one for one in loaded]
        plugins.load("criterion", config.criterion)  # refuse it before anything is computed
        return cls(generator, trackers)

    def tell(self, folder: RunFolder) -> None:
        """Tell the trackers that a round has just finished."""
        run = load(folder.path)
        for tracker in self.trackers:
            tracker(run, run.rounds[-1])

    def on_epoch(self, folder: RunFolder, ranks: Ranks) -> Callable[[Epoch], None] | None:
        """A function that tells trackers of each epoch; None if none of them has a method `epoch`.

        The first process alone tells, of the models that it trains.
        """
        told = [one.epoch for one in self.trackers if hasattr(one, "epoch")]
        if not told or not ranks.first:
            return None

        @functools.cache
        def before(round_index: int) -> Run:
            """The run as it is during a round. One that is not told of its epochs is not read."""
            return load(folder.path)

        def tell(epoch: Epoch) -> None:
            for one in told:
                one(before(epoch.round), epoch)

        return tell

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        for tracker in self.trackers:
            getattr(tracker, "close", lambda: None)()


def _with_names(config: Config, **given: Any) -> Config:
    """The configuration with the names of the objects in `given`, which are handed over to `plugins`."""
    named: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, str | Path):
            named[name] = str(value)
        elif isinstance(value, Table):
            spec = "given:" + re.sub(r"\W", "_", value.name)
            named[name] = plugins.hand_over("data", partial(_given_table, value), spec)
        elif value is not None:
            kind = OPTIONS[name].plugin
            assert kind is not None
            named[name] = plugins.hand_over(kind, value)
    return config.replace(**named) if named else config


def _table(config: Config) -> Table:
    return load_table(config.data, config.root, config.its_rule, config.its_format)


def _given_table(table: Table, root: Path | None) -> Table:
    """Return a table that was handed over, in the way of a plug-in for data."""
    return table


def _run(
    config: Config,
    folder: RunFolder,
    ranks: Ranks,
    plug_ins: _PlugIns,
    table: Table | None,
    until: int | None,
) -> None:
    """Do the part of a run that every rank does. The first alone reads the run folder and writes to it."""
    larger = growing.larger(config, folder) if ranks.first else []
    nothing_left = bool(ranks.number(ranks.first and _nothing_left(config, folder)))
    may_grow = config.add_data or bool(ranks.number(bool(larger)))
    if ranks.first:
        trained_folder.write(folder)  # a killed process, or an older version, has not
    if nothing_left and not may_grow:
        log.info("%s is finished; nothing to do", folder.path)
        return
    device = _device(config, ranks)
    table = _with_splits(config, folder, ranks, table or _table(config))
    growth = growing.growth(folder, larger, table) if ranks.first else None
    if nothing_left and not ranks.number(growth is not None):
        log.info("%s is finished, and no images have come; nothing to do", folder.path)
        return
    checks.check_labels(config, table)
    if ranks.first:
        joined = growth is not None and growth.joined
        checks.check_groups(config, table, begun=folder.run_json.exists() and not joined)
    class_weights.resolved(config.class_weights, table.classes)  # it refuses a file that does not fit
    pool = len(table.rows("train"))
    took = folder.took() if ranks.first else {}
    if growth is not None:
        took = growth.took(config, pool)
    asked, config = config, settling.settle(config, pool, took, ranks)
    checks.check_weights(config)
    plan = config.plan(pool, growing.earlier(folder, growth, ranks))
    if growth is not None:
        growth.check(config, plan)
    if ranks.first:
        checks.check_maps(config, table)
    stored = augment.stored_size(config.augment, config.image_size)
    with closing(decode.choose(config.decoder, device)) as decoder:
        options = plan_store(table, StoreOptions(config.image_size, stored, decoder, config.store))
        checks.check_features(config, table, plan)
        if config.train == "head":
            stores: tuple[store.Store, store.Store] = frozen.open_stores(
                config, table, options, folder.path, ranks
            )
        else:
            stores = (open_store(table, options),) * 2
            if ranks.first:
                checks.check_twice(config, stores[0])
        if ranks.first:
            checks.check_drawn(config, stores[0])
        answering, begin = _answering(asked, config, plan, folder, growth, ranks, plug_ins, stores, decoder)
        told, epoch = partial(plug_ins.tell, folder), plug_ins.on_epoch(folder, ranks)
        steps = Steps(config, answering.store, folder, begin, answering, told, ranks, epoch)
        if log.isEnabledFor(logging.INFO):  # the estimate takes a few seconds
            log.info("%s\n%s", _announcement(config, steps), forecast.plan_in_words(steps))
        labelled = active_learning(steps, until)
        if ranks.number(ranks.first and steps.ended):
            if config.baseline != "none":
                baseline.compare(steps, labelled)
            if ranks.first:
                write_json(folder.summary_json, summary(config, steps.lines) | references.dices(steps.store))
                trained_folder.write(folder)


def _nothing_left(config: Config, folder: RunFolder) -> bool:
    """True if a run is finished, and its baseline as well if it has one."""
    if not folder.finished():
        return False
    wanted = folder.took().get("baseline") if config.baseline == AUTO else config.baseline
    return wanted != "b1" or baseline.read(folder) is not None


def _answering(
    asked: Config,
    config: Config,
    plan: Plan,
    folder: RunFolder,
    growth: Growth | None,
    ranks: Ranks,
    plug_ins: _PlugIns,
    stores: tuple[store.Store, store.Store],
    decoder: decode.Decoder,
) -> tuple[Answering, torch.Tensor]:
    """Write run.json, or compare with it.

    asked: the configuration as it was given; `config` has a value for each `auto` in it. growth: how the run
    grows, if it does. stores: what the network sees, and what the teacher sees.

    Returns the object that answers the queries, and the rows of the start set.
    """
    samples, teacher_samples = stores
    table = samples.table
    _check_same(samples, ranks)
    segmented = _segmented(config, samples, decoder, plug_ins.generator, ranks)
    new = bool(ranks.number(ranks.first and not folder.run_json.exists()))
    chosen = start.chosen(config, samples, plan.labelled[0], ranks) if new else []
    if ranks.first:
        about = {
            "config": asked.options() | {"add_data": False},  # it holds for one call alone
            "took": settling.taken(asked, config),
            "environment": provenance.environment(config, samples.device, decoder),
            "data": {
                "name": table.name,
                "fingerprint": samples.fingerprint,
                "classes": table.classes,
                "counts": {split: len(table.rows(split)) for split in splits.SPLITS},
            },
            "splits": {split: [table.ids[row] for row in table.rows(split)] for split in splits.SPLITS},
            "start": chosen,
            "inputs": provenance.digests(config, segmented),
        }
        if growth is None:
            folder.claim(about)
        else:
            mark = store.fingerprint(table, samples.digests, without=set(growth.joined))
            growth.begin(about, plan, mark, provenance.digests(config, _without(growth, segmented, samples)))
    size = feature_size(new_model(config, len(table.classes)), config.image_size)
    loss_size = size if config.map_size is None else (config.map_size, config.map_size)
    rows = _start_rows(folder, table, plan.labelled[0], ranks).to(samples.device)
    answering = Answering(
        config, plan, samples, teacher_samples, folder, loss_size, segmented, plug_ins.generator, ranks
    )
    return answering, rows


def summary(config: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of summary.json: areas under the learning curves, and the last round."""
    labelled = [row["labelled"] for row in rows]
    last = rows[-1]
    dice = [row["dice"] for row in rows]
    return {
        "regime": config.regime,
        "criterion": config.criterion,
        "seed": config.seed,
        "preset": config.preset,
        "aulc_accuracy": aulc(labelled, [row["accuracy"] for row in rows]),
        "aulc_dice": None if None in dice else aulc(labelled, dice),
        **{name: last[name] for name in FIGURES if name in last},
        **{name: last[name] for name in ("labelled", "human_maps", "generated_maps", "empty_maps")},
        **({"people": last["people"]} if "people" in last else {}),
        **({"stopped": last["stopped"]} if "stopped" in last else {}),
        "rounds": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }


def _device(config: Config, ranks: Ranks) -> torch.device:
    device = torch_device(config.device)
    if ranks.count == 1 or device.type == "cpu":
        return device
    if config.device not in ("auto", "cuda"):
        raise InputError(
            f"--device {config.device}: each of several processes takes a GPU of its own; use cuda"
        )
    return torch.device("cuda", ranks.local)


@contextmanager
def _deterministic(really: bool) -> Iterator[None]:
    """Use deterministic algorithms inside the block. The process may go on to another run after it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(really or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _with_splits(config: Config, folder: RunFolder, ranks: Ranks, table: Table) -> Table:
    """The samples with their splits, which are the same for every rank."""
    if int(ranks.number(len(table))) != len(table):
        raise InputError(
            f"rank {ranks.rank} finds {len(table)} images in {table.name}, the first rank another number"
        )
    codes = torch.empty(len(table), dtype=torch.int64)
    if ranks.first:
        table = _split(config, folder, table)
        codes = torch.tensor([splits.SPLITS.index(split) for split in table.split])
    return table.with_split([splits.SPLITS[code] for code in ranks.broadcast(codes).tolist()])


def _split(config: Config, folder: RunFolder, table: Table) -> Table:
    """The table with the splits that the run has already, or with new ones from the seed."""
    if not folder.run_json.exists():
        return splits.assign(table, seeds.stream(config.seed, "split"))
    return table.with_split(growing.splits_with(config, folder, table))


def _check_same(samples: store.Store, ranks: Ranks) -> None:
    """Refuse a rank that reads other files than the first rank."""
    mine = torch.tensor(list(bytes.fromhex(samples.fingerprint)), dtype=torch.uint8)
    if not torch.equal(ranks.broadcast(mine.clone()), mine):
        raise InputError(f"rank {ranks.rank} reads other images, masks or labels than the first rank does")


def _start_rows(folder: RunFolder, table: Table, count: int, ranks: Ranks) -> torch.Tensor:
    """The rows of the start set, which the first rank reads from run.json and tells the others."""
    chosen = torch.empty(count, dtype=torch.int64)
    if ranks.first:
        row_of = {name: row for row, name in enumerate(table.ids)}
        chosen = torch.tensor([row_of[name] for name in folder.run()["start"]])
    return ranks.broadcast(chosen)


def _segmented(
    config: Config,
    samples: store.Store,
    decoder: decode.Decoder,
    generator: annotate.Generator | None,
    ranks: Ranks,
) -> Masks | None:
    """The segmenter's masks of the training pool, in its order. Masks that are missing are made first.

    None if the regime uses no segmenter.
    """
    if not config.its_regime.uses_a_segmenter or config.segmenter_masks is None:
        return None
    folder, rows = Path(os.path.expanduser(config.segmenter_masks)), samples.rows("train")
    checkpoint = config.segmenter_weights
    if ranks.first and checkpoint is not None:
        annotate.make_missing_masks(
            folder, samples, rows, lambda: annotate.segment_anything(checkpoint, samples.device)
        )
    elif ranks.first and generator is not None:
        annotate.make_missing_masks(folder, samples, rows, lambda: generator)
    ranks.number(0)  # the others wait for the files
    return annotate.segmenter_masks(folder, samples, rows, decoder)


def _without(growth: Growth, segmented: Masks | None, samples: store.Store) -> Masks | None:
    """The segmenter's masks of the pool without the images that join it."""
    if segmented is None:
        return None
    ids = (samples.table.ids[row] for row in samples.table.rows("train"))
    joined = set(growth.joined)
    known = [place for place, name in enumerate(ids) if name not in joined]
    return segmented[torch.tensor(known, device=samples.device)]


def _announcement(config: Config, steps: Steps) -> str:
    """What a run says before it begins."""
    most = "at most " * steps.plan.open_end
    start = "the last round's" if config.warm_start else f"the same initial ({config.weights})"
    return (
        f"{_data_in_words(steps)}\n"
        f"regime {config.regime}, criterion {config.criterion}, {config.arch}, preset {config.preset}, "
        f"seed {config.seed}, on {steps.store.device}\n"
        f"every round trains from {start} weights; {most}{steps.plan.rounds} rounds, "
        f"{steps.finished_rounds} finished; {steps.folder.path}"
    )


def _data_in_words(steps: Steps) -> str:
    """How the data was read, how many images there are, and how many of them have maps."""
    table, has_map = steps.store.table, steps.store.has_mask
    empty = has_map & ~steps.store.masks.drawn()
    lines = [f"{table.name}: {note}" for note in table.notes] + [
        f"{table.name}: {len(steps.pool)} train, {len(table.rows('val'))} val, {len(steps.test_rows)} test, "
        f"{len(table.classes)} classes",
        f"human maps: {int(has_map.sum())} of {len(table)} images have one; {int(has_map[steps.pool].sum())} "
        f"of these are in train, where {int(empty[steps.pool].sum())} are empty",
    ]
    there = int(has_map[steps.pool].sum())
    if there and steps.config.uses_own_masks:
        prefers = ", and the start set prefers these images" * (steps.config.start_by == "stratified")
        lines.append(
            f"own masks: {there} of the {len(steps.pool)} training images have a mask, which is used as "
            f"people's map, so nobody draws it{prefers} (--own-masks ask has people draw these, too)"
        )
    return "\n".join(lines)
