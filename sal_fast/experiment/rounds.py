"""The steps of Algorithm 1. Each has its seed, measures its time, and keeps its results."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sal_fast import metrics, query, seeds
from sal_fast._util.files import write_bytes
from sal_fast.annotate import suggest
from sal_fast.data import augment
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.experiment import class_weights, examples
from sal_fast.experiment.answers.answering import Answering
from sal_fast.experiment.answers.labelled import Labelled
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import load_kept, new_model, teacher_arch
from sal_fast.experiment.record import NEW_TIES, TIES, RunFolder, write_query
from sal_fast.experiment.regimes import INTERPRETABILITY_ALPHA, TEACHER_ALPHA
from sal_fast.experiment.stopping import Stopping
from sal_fast.metrics.summary import Tested, mean, per_class
from sal_fast.models import Classifier, resolved, weights
from sal_fast.train import Epoch, Fitted, HeadTraining, Job, Recipe, Scores, Training, evaluate, score
from sal_fast.trained import folder as trained_folder
from sal_fast.trained import metadata


@dataclass
class Work:
    """A round while it runs: the folder for its files, and the results of its steps.

    folder: it is renamed to rounds/NNN at the end. None on the ranks that write nothing.
    stop: what the round's line says of `--stop-fraction auto`.
    """

    round_index: int
    folder: Path | None
    fitted: Fitted | None = None
    scores: Scores | None = None
    stop: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


class Steps:
    """The steps of one run. Every rank takes every step; the first alone writes, and tells the others.

    start: int64, the rows of the start set. finished_rounds: the number of rounds that were finished before.
    ended: True once no query follows the last round. on_round, on_epoch: they are called after each round and
    after each epoch of each model.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        folder: RunFolder,
        start: Tensor,
        answering: Answering,
        on_round: Callable[[], None] = lambda: None,
        ranks: Ranks = ALONE,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> None:
        self.config, self.store, self.folder, self.start = config, store, folder, start
        self.answering, self.plan = answering, answering.plan
        self.on_round, self.on_epoch, self.ranks = on_round, on_epoch, ranks
        by_key = ranks.number(ranks.first and folder.run()[TIES] == NEW_TIES)
        self.ties: query.Ties = "key" if by_key else "position"
        self.pool = store.rows("train")
        self.test_rows = store.rows("test")
        self.lines = folder.rounds() if ranks.first else []
        self.finished_rounds = int(ranks.number(len(self.lines)))
        stopped = bool(self.lines) and bool(self.lines[-1].get("stopped"))
        self.ended = bool(ranks.number(stopped)) or self.finished_rounds == self.plan.rounds
        self.row_of = {name: row for row, name in enumerate(store.table.ids)}
        self.recipe = recipe(config, store.table.classes)
        self.stopping = Stopping(config.seed, store, folder, ranks) if self.plan.open_end else None

    # --- the steps ---------------------------------------------------------------------------------------

    def labelled_so_far(self) -> Labelled:
        """The labelled set: the start set, and the answers to the queries of all finished rounds."""
        labelled = self.answering.answer(0, self.start, None, None)
        for round_index in range(self.finished_rounds - self.ended):
            rows = _finished_query(self, round_index, labelled)
            labelled = labelled.add(self.answering.answer(round_index + 1, rows, None, None))
        return labelled

    def train(self, work: Work, labelled: Labelled) -> tuple[Classifier, Classifier | None]:
        """Train the accuracy model of a round, and the model that draws the next maps, if one does."""
        drawer = self.answering.drawer_after(work.round_index)
        wanted: list[tuple[str, float]] = [("accuracy", self.config.its_alpha)]
        if drawer == "interpretability":
            wanted.append((drawer, INTERPRETABILITY_ALPHA))
        jobs = [Job(self._begun(work, name), alpha, f"{name} model") for name, alpha in wanted]
        work.fitted, *_ = self._fit(work, labelled, jobs)
        if work.folder is not None:
            record, counts = self.folder.run(), labelled.counts()
            about = metadata.of_run(record, self.config, work.round_index, counts)
            for (name, _), job in zip(wanted, jobs, strict=True):
                said = about if name == "accuracy" else None
                (work.folder / f"{name}.safetensors").write_bytes(weights.to_bytes(job.model.net, said))
        accuracy_model = jobs[0].model
        match drawer:
            case "accuracy":
                return accuracy_model, accuracy_model
            case "interpretability":
                return accuracy_model, jobs[1].model
            case "teacher":
                return accuracy_model, self._teacher(work, labelled)
            case _:
                return accuracy_model, None

    def test(self, work: Work, model: Classifier) -> Scores:
        """Measure on the test set how well a model classifies, and whether it looks where people look."""
        with self._timed(work, "evaluate"):
            work.scores = evaluate(model, self.store, self.test_rows, self.recipe.probe, self.ranks)
        return work.scores

    def goes_on(self, work: Work, model: Classifier, labelled: Labelled) -> bool:
        """True if a query follows the round: the plan has one, and the rule does not end labelling."""
        if self.stopping is not None:
            assert work.fitted is not None
            with self._timed(work, "stop"):
                work.stop = self.stopping.judge(
                    model, labelled.rows, work.fitted.val_accuracy, work.folder, self.lines
                )
        self.ended = bool(work.stop.get("stopped")) or work.round_index + 1 == self.plan.rounds
        return not self.ended

    def select(self, work: Work, model: Classifier, labelled: Labelled) -> Tensor:
        """Choose the query after a round from the remaining pool; int64, rows of the store."""
        rest = self.remaining(labelled.rows)
        with self._timed(work, "score"):
            pool = _scored_pool(self, rest, model, labelled)
        with self._timed(work, "select"):
            result = queried(self, self.config.criterion, pool, work.round_index + 1)
        chosen = rest[result.positions]
        if work.folder is not None:
            write_query(work.folder, self.ids(chosen), result.scores.tolist())
        return chosen

    def remaining(self, taken: Tensor) -> Tensor:
        """The rows of the pool that are neither among `taken` nor skipped by people."""
        rest = self.pool[~torch.isin(self.pool, torch.cat((taken, self.answering.skipped)))]
        if self.ties == "key":
            rest = rest[query.key_order(self.ids(rest), self.config.seed).to(rest.device)]
        return rest

    def annotate(
        self, work: Work, rows: Tensor, accuracy_model: Classifier, drawing_model: Classifier | None
    ) -> Labelled:
        """Get the labels of the query after a round, and its maps; `drawing_model` draws if a model does.

        Raises Waiting if people have not answered yet. If they are to draw, the maps that a model suggests
        are kept for them.
        """
        with self._timed(work, "annotate"):
            try:
                return self.answering.answer(work.round_index + 1, rows, drawing_model, work.folder)
            except Waiting as waiting:
                if waiting.maps and work.folder is not None:
                    model = drawing_model or accuracy_model
                    suggest(model, self.store, rows, self.config.probe).write(work.folder)
                raise

    @contextmanager
    def round(self, round_index: int, labelled: Labelled) -> Iterator[Work]:
        """Time a round. When its block ends without an error, write its files and its line.

        Waiting for people is not an error here: the round is written, and then Waiting is raised again.
        """
        begin = time.perf_counter()
        waiting = None
        if self.store.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.store.device)
        if not self.ranks.first:
            yield Work(round_index, None)
            return
        with self.folder.finishing(round_index) as aside:
            work = Work(round_index, aside)
            try:
                yield work
            except Waiting as error:
                waiting = error
            assert work.scores is not None
            examples.keep(aside, work.scores, self.store, self.test_rows, self.config.seed)
        self.lines.append(_line(self.answering, work, labelled, time.perf_counter() - begin))
        self.folder.append(self.lines)
        self.folder.prune(round_index)
        trained_folder.write(self.folder)
        self.on_round()
        if waiting is not None:
            raise waiting

    # --- inside ------------------------------------------------------------------------------------------

    def _begun(self, work: Work, name: str) -> Classifier:
        """A network to train. It has the initial weights, or with `--warm-start` the last round's."""
        model, index = self.new_model(), work.round_index
        trained_before = index > 0 and name in ("accuracy", self.answering.drawer(index))
        if self.config.warm_start and trained_before:
            path = self.folder.round(index - 1) / f"{name}.safetensors"
            load_kept(model, self.config.arch, path, self.ranks)
        return model

    def _teacher(self, work: Work, labelled: Labelled) -> Classifier:
        """TAIT's teacher. It is trained once on the human maps, then frozen and kept (Crum et al. 2023)."""
        model = self.new_model(teacher=True)
        if self.ranks.number(self.ranks.first and self.folder.teacher.exists()):
            load_kept(model, teacher_arch(self.config), self.folder.teacher, self.ranks)
        else:
            self._fit(work, labelled, [Job(model, TEACHER_ALPHA, "teacher")], self.answering.teacher_store)
            if self.ranks.first:
                write_bytes(self.folder.teacher, weights.to_bytes(model.net))
        return model

    def _fit(
        self, work: Work, labelled: Labelled, jobs: list[Job], store: Store | None = None
    ) -> list[Fitted]:
        data = labelled.rows, labelled.maps, labelled.says_where
        with self._timed(work, "train"):
            return self.training(jobs, *data, round_index=work.round_index, store=store).fit()

    def training(
        self,
        jobs: list[Job],
        rows: Tensor,
        maps: Masks,
        has_map: Tensor,
        *,
        round_index: int,
        store: Store | None = None,
    ) -> Training:
        """The training of some models on some rows; `store`: another than the run's."""
        kind: type[Training] = HeadTraining if self.config.train == "head" else Training
        data = store or self.store, rows, maps, has_map
        return kind(jobs, *data, self.recipe, round_index, self.ranks, self.on_epoch)

    def new_model(self, teacher: bool = False) -> Classifier:
        return new_model(self.config, len(self.store.table.classes), teacher).to(self.store.device)

    def ids(self, rows: Tensor) -> list[str]:
        return [self.store.table.ids[row] for row in rows.tolist()]

    @contextmanager
    def _timed(self, work: Work, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if self.store.device.type == "cuda":
            torch.cuda.synchronize(self.store.device)
        work.timings[name] = work.timings.get(name, 0.0) + time.perf_counter() - begin


def queried(steps: Steps, criterion: str, pool: query.Pool, query_index: int) -> query.Query:
    """The images that a criterion, the run's or another one, chooses for one of the run's queries."""
    return query.select(
        criterion,
        pool,
        steps.plan.query_size(query_index),
        seed=seeds.integer(steps.config.seed, "query", query_index),
        ties=steps.ties,
        key_seed=steps.config.seed,
    )


def _finished_query(steps: Steps, round_index: int, labelled: Labelled) -> Tensor:
    """The query made after a finished round, as rows. Raises InputError if its file does not fit."""
    taken = torch.cat((labelled.rows, steps.answering.skipped))
    count = steps.plan.query_size(round_index + 1)
    return steps.ranks.of_first(
        lambda: _read_query(steps, round_index, taken, count), labelled.rows.new_empty(count)
    )


def _read_query(steps: Steps, round_index: int, taken: Tensor, count: int) -> Tensor:
    ids = steps.folder.query(round_index)
    pool = {steps.store.table.ids[row] for row in steps.pool.tolist()} - set(steps.ids(taken))
    if len(ids) != count or len(set(ids)) != len(ids) or not set(ids) <= pool:
        raise InputError(
            f"{steps.folder.round(round_index) / 'query.csv'}: expected {count} "
            f"unlabelled training images, each once, got {len(ids)}; restore it or choose another --out"
        )
    return torch.tensor([steps.row_of[name] for name in ids], dtype=torch.int64)


def _scored_pool(steps: Steps, rest: Tensor, model: Classifier, labelled: Labelled) -> query.Pool:
    """The remaining pool, with the fields that the criterion reads."""
    reads = query.needs_of(steps.config.criterion)
    scoring = partial(
        score, model, steps.store, dtype=_kept_dtype(steps.config, steps.store.device), ranks=steps.ranks
    )
    logits = features = known = None
    if {"logits", "features"} & reads:
        logits, features = scoring(rest, features="features" in reads)
    if "labelled" in reads:
        seen = scoring(labelled.rows)[1] if "features" in reads else None
        known = query.Labelled(steps.ids(labelled.rows), steps.store.labels[labelled.rows], seen)
    return query.Pool(
        steps.ids(rest),
        logits=logits,
        features=features,
        labelled=known,
        classes=steps.store.table.classes,
        images=lambda positions: steps.store.pictures(rest[positions]),
        model=model.eval(),
        device=steps.store.device,
        group=steps.ranks.group,
    )


def _line(answering: Answering, work: Work, labelled: Labelled, seconds: float) -> dict[str, Any]:
    """The line of rounds.jsonl. Only `seconds`, `timings` and `memory` depend on the machine."""
    assert work.scores is not None
    assert work.fitted is not None
    config = answering.config
    return {
        "round": work.round_index,
        **labelled.counts(),
        **_figures(work.scores.tested),
        **({"trial_dice": answering.trials[work.round_index]} if answering.plan.auto else {}),
        **work.stop,
        **({"people": answering.tally(work.round_index)} if config.annotator == "people" else {}),
        "val_accuracy": work.fitted.val_accuracy,
        "best_epoch": work.fitted.epoch + 1,
        "seconds": round(seconds, 3),
        "timings": {name: round(spent, 4) for name, spent in work.timings.items()},
        "memory": _memory(answering.store.device, work.fitted),
    }


def _figures(tested: Tested) -> dict[str, Any]:
    """The entries of a line on the test set."""
    confusion, maps = tested.confusion, tested.maps
    means = {name: mean(values) for name, values in maps._asdict().items()}
    dice = maps.dice[~maps.dice.isnan()]
    classes = per_class(confusion, tested.labels, maps)
    return {
        "accuracy": metrics.accuracy(confusion),
        "balanced_accuracy": metrics.balanced_accuracy(confusion),
        "macro_f1": metrics.macro_f1(confusion),
        "dice": means["dice"],
        "dice_floor": means["floor"],
        "dice_images": len(dice),
        **({"dice_std": float(dice.double().std())} if len(dice) > 1 else {}),
        "iou": means["iou"],
        "pointing": means["pointing"],
        **({} if means["cc"] is None else {"cc": means["cc"], "kl": means["kl"]}),
        "per_class": {name: list(map(_short, values)) for name, values in classes.items()},
    }


def _short(value: float | None) -> float | None:
    """A figure of a class with as many digits as a table needs; there may be a thousand classes."""
    return None if value is None else round(value, 6)


def _kept_dtype(config: Config, device: torch.device) -> torch.dtype:
    """The precision that a pool's features are kept in."""
    return torch.float16 if resolved(config.precision, device) == "bfloat16" else torch.float32


def recipe(config: Config, classes: Sequence[str] = ()) -> Recipe:
    """The recipe by which the models of a run are trained.

    classes: the names of the classes, for a file of class weights.
    """
    return Recipe(
        data_parallel=config.data_parallel,
        shards=config.shards if config.data_parallel and config.deterministic else 0,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_step=config.lr_step,
        augment=augment.load(config.augment),
        probe=config.probe,
        cam_class=config.cam_class,
        map_size=config.map_size,
        saliency_loss=config.saliency_loss,
        seed=config.seed,
        optimizer=config.optimizer,
        schedule=config.schedule,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        head_lr=config.head_lr,
        label_smoothing=config.label_smoothing,
        class_weights=class_weights.resolved(config.class_weights, classes),
        val_every=config.val_every,
    )


def _memory(device: torch.device, fitted: Fitted) -> dict[str, float]:
    unit = 1024 if sys.platform != "darwin" else 1024**2
    memory = {"peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if fitted.parts > 1:
        memory["batch_parts"] = fitted.parts
    if device.type == "cuda":
        memory["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return memory
