"""The steps of Algorithm 1, each with its seed, its time and what is kept of it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast import query, seeds
from sal_fast._util.files import write_bytes
from sal_fast._util.progress import duration
from sal_fast.annotate import Generator
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.answering import Answering
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.labelled import Labelled
from sal_fast.experiment.networks import load_kept, new_model, teacher_arch
from sal_fast.experiment.people import Waiting
from sal_fast.experiment.regimes import INTERPRETABILITY_ALPHA, REGIMES, TEACHER_ALPHA, Source
from sal_fast.experiment.run_folder import RunFolder, write_query
from sal_fast.models import Classifier, feature_size, resolved, weights
from sal_fast.train import Fitted, Job, Recipe, Scores, evaluate, fit, score

EXAMPLES = 24  # test images whose CAMs are kept for the report


@dataclass
class Record:
    """What one round leaves behind; written when the round ends well, by the rank that has a folder."""

    folder: Path | None
    fitted: Fitted | None = None
    scores: Scores | None = None
    timings: dict[str, float] = field(default_factory=dict)


class Lab:
    """One run: its configuration, data and folder. The methods are the steps of Algorithm 1.

    Every rank takes every step. The first alone reads and writes the folder, and tells the others.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        plan: Plan,
        folder: RunFolder,
        segmented: Masks | None,
        start: Tensor,
        ranks: Ranks = ALONE,
        generator: Generator | None = None,
    ) -> None:
        self.config, self.store, self.plan, self.folder = config, store, plan, folder
        self.regime = REGIMES[config.regime]
        self.alpha = self.regime.alpha if config.alpha is None else config.alpha
        self.pool = store.rows("train")
        self.test_rows = store.rows("test")
        self.ranks, self.start = ranks, start
        self.lines = folder.rounds() if ranks.first else []
        self.finished_rounds = int(ranks.number(len(self.lines)))
        self.row_of = {name: row for row, name in enumerate(store.table.ids)}
        self.recipe = recipe(config)
        size = feature_size(self._new_model(), config.image_size)
        half = resolved(config.precision, store.device) == "bfloat16"
        self._kept = torch.float16 if half else torch.float32  # what a pool's features are kept in
        loss_size = size if config.map_size is None else (config.map_size, config.map_size)
        self.answering = Answering(config, store, plan, folder, loss_size, segmented, generator, ranks)
        self._record = Record(None)

    # --- the steps ---------------------------------------------------------------------------------------

    def labelled_so_far(self) -> Labelled:
        """The start set, then the answer of every finished round's query."""
        labelled = self.annotate(0, self.start)
        for number in range(min(self.finished_rounds, self.plan.rounds - 1)):
            labelled = labelled.add(self.annotate(number + 1, self._answered(number, labelled)))
        return labelled

    def train(self, number: int, labelled: Labelled) -> tuple[Classifier, Classifier | None]:
        """The accuracy model of a round, and the model that draws the next query's maps, if one does."""
        last = number + 1 == self.plan.rounds
        generator: Source = "none" if last else self.answering.drawer(number + 1)
        wanted: list[tuple[str, float]] = [("accuracy", self.alpha)]
        if generator == "interpretability":
            wanted.append((generator, INTERPRETABILITY_ALPHA))
        jobs = [Job(self._begun(number, name), alpha, f"{name} model") for name, alpha in wanted]
        self._record.fitted, *_ = self._fit(number, labelled, jobs)
        if self._record.folder is not None:
            for (name, _), job in zip(wanted, jobs, strict=True):
                (self._record.folder / f"{name}.safetensors").write_bytes(weights.to_bytes(job.model.net))
        accuracy_model = jobs[0].model
        match generator:
            case "accuracy":
                return accuracy_model, accuracy_model
            case "interpretability":
                return accuracy_model, jobs[1].model
            case "teacher":
                return accuracy_model, self._teacher(number, labelled)
            case _:
                return accuracy_model, None

    def test(self, model: Classifier) -> Scores:
        """Accuracy and Dice on the test set."""
        with self._timed("evaluate"):
            self._record.scores = evaluate(model, self.store, self.test_rows, self.recipe.probe, self.ranks)
        return self._record.scores

    def select(self, number: int, model: Classifier, labelled: Labelled) -> Tensor:
        """Query `number`: rows of the store, chosen from the remaining pool by the accuracy model."""
        rest = self.pool[~torch.isin(self.pool, torch.cat((labelled.rows, self.answering.skipped)))]
        needs = query.needs_of(self.config.criterion)
        logits = features = known = None
        scoring = partial(score, model, self.store, dtype=self._kept, ranks=self.ranks)
        with self._timed("score"):
            if needs:
                logits, features = scoring(rest, features="features" in needs)
            if "labelled" in needs:
                seen = scoring(labelled.rows)[1] if "features" in needs else None
                known = query.Labelled(self._ids(labelled.rows), self.store.labels[labelled.rows], seen)
        with self._timed("select"):
            result = query.select(
                self.config.criterion,
                query.Pool(
                    self._ids(rest),
                    logits=logits,
                    features=features,
                    labelled=known,
                    classes=self.store.table.classes,
                    device=self.store.device,
                    group=self.ranks.group,
                ),
                self.plan.query_size(number),
                seed=seeds.integer(self.config.seed, "query", number),
                ties="position",
            )
        chosen = rest[result.positions]
        if self._record.folder is not None:
            write_query(self._record.folder, self._ids(chosen), result.scores.tolist())
        return chosen

    def annotate(self, number: int, rows: Tensor, model: Classifier | None = None) -> Labelled:
        """Labels for query `number`, and maps from its source; `model` draws them, if one does.

        Raises Waiting where people have not answered yet.
        """
        with self._timed("annotate"):
            return self.answering.answer(number, rows, model, self._record.folder)

    @contextmanager
    def round(self, number: int, labelled: Labelled) -> Iterator[None]:
        """Time a round and, when its block ends well, write what it leaves behind and its line.

        Ending to wait for people is ending well.
        """
        begin = time.perf_counter()
        waiting = None
        if self.store.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.store.device)
        if not self.ranks.first:
            self._record = Record(None)
            yield
            return
        with self.folder.finishing(number) as aside:
            self._record = record = Record(aside)
            try:
                yield
            except Waiting as error:
                waiting = error
            self._keep_examples(aside)
        assert record.scores is not None
        assert record.fitted is not None
        self.lines.append(
            {
                "round": number,
                **labelled.counts(),
                "accuracy": record.scores.accuracy,
                "dice": record.scores.dice,
                "dice_floor": record.scores.floor,
                "dice_images": record.scores.images,
                **_graded(record.scores),
                **({"trial_dice": self.answering.trials[number]} if self.plan.auto else {}),
                **({"people": self.answering.tally(number)} if self.config.annotator == "people" else {}),
                "val_accuracy": record.fitted.val_accuracy,
                "best_epoch": record.fitted.epoch + 1,
                "seconds": round(time.perf_counter() - begin, 3),
                "timings": {name: round(spent, 4) for name, spent in record.timings.items()},
                "memory": _memory(self.store.device, record.fitted),
            }
        )
        self.folder.append(self.lines)
        self.folder.prune(number)
        self._say(number)
        if waiting is not None:
            raise waiting

    # --- inside ------------------------------------------------------------------------------------------

    def _begun(self, number: int, name: str) -> Classifier:
        """A network to train: from the initial weights, or with `--warm-start` from the last round's."""
        model = self._new_model()
        trained_before = number > 0 and (name == "accuracy" or self.answering.drawer(number) == name)
        if self.config.warm_start and trained_before:
            path = self.folder.round(number - 1) / f"{name}.safetensors"
            load_kept(model, self.config.arch, path, self.ranks)
        return model

    def _teacher(self, number: int, labelled: Labelled) -> Classifier:
        """TAIT's teacher: trained once, on the human maps, then frozen and kept (Crum et al. 2023)."""
        model = self._new_model(teacher=True)
        if self.ranks.number(self.ranks.first and self.folder.teacher.exists()):
            load_kept(model, teacher_arch(self.config), self.folder.teacher, self.ranks)
        else:
            self._fit(number, labelled, [Job(model, TEACHER_ALPHA, "teacher")])
            if self.ranks.first:
                write_bytes(self.folder.teacher, weights.to_bytes(model.net))
        return model

    def _fit(self, number: int, labelled: Labelled, jobs: list[Job]) -> list[Fitted]:
        with self._timed("train"):
            return fit(
                jobs,
                self.store,
                labelled.rows,
                labelled.maps,
                labelled.says_where,
                recipe=self.recipe,
                round_number=number,
                ranks=self.ranks,
            )

    def _new_model(self, teacher: bool = False) -> Classifier:
        return new_model(self.config, len(self.store.table.classes), teacher).to(self.store.device)

    def _answered(self, number: int, labelled: Labelled) -> Tensor:
        """The query made after a finished round, as rows; InputError where its file is not what was asked."""
        taken = torch.cat((labelled.rows, self.answering.skipped))
        count = self.plan.query_size(number + 1)
        return self.ranks.of_first(
            lambda: self._read_query(number, taken, count), labelled.rows.new_empty(count)
        )

    def _read_query(self, number: int, taken: Tensor, count: int) -> Tensor:
        ids = self.folder.query(number)
        pool = {self.store.table.ids[row] for row in self.pool.tolist()} - set(self._ids(taken))
        if len(ids) != count or len(set(ids)) != len(ids) or not set(ids) <= pool:
            raise InputError(
                f"{self.folder.round(number) / 'query.csv'}: expected {count} "
                f"unlabelled training images, each once, got {len(ids)}; restore it or choose another --out"
            )
        return torch.tensor([self.row_of[name] for name in ids], dtype=torch.int64)

    def _ids(self, rows: Tensor) -> list[str]:
        return [self.store.table.ids[row] for row in rows.tolist()]

    def _keep_examples(self, folder: Path) -> None:
        """CAMs over some test images, the same in every run with this data and seed, for the report."""
        assert self._record.scores is not None
        seen = self._record.scores.examples
        has_mask = self.store.has_mask[self.test_rows].cpu().numpy()
        order = seeds.stream(self.config.seed, "examples").permutation(len(self.test_rows))
        at = np.sort(order[np.argsort(~has_mask[order], kind="stable")][:EXAMPLES])
        index = torch.from_numpy(at).to(self.store.device)
        rows = self.test_rows[index]
        np.savez_compressed(
            folder / "examples.npz",
            ids=np.array(self._ids(rows)),
            labels=self.store.labels[rows].cpu().numpy(),
            predicted=seen.predicted[index].cpu().numpy(),
            images=self.store.pictures(rows).cpu().numpy(),
            masks=self.store.masks.unpack(rows).cpu().numpy(),
            has_mask=has_mask[at],
            cams=seen.cams[index].cpu().numpy(),
            dice=seen.dice[index].cpu().numpy(),
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if self.store.device.type == "cuda":
            torch.cuda.synchronize(self.store.device)
        timings = self._record.timings
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - begin

    def _say(self, number: int) -> None:
        """A line of the table that a person watches, with an estimate of what is left."""
        row = self.lines[number]
        spent = row["seconds"] / self._work(number)
        left = sum(spent * self._work(later) for later in range(number + 1, self.plan.rounds))
        dice, floor = (
            "    -" if row[name] is None else f"{row[name]:.3f}" for name in ("dice", "dice_floor")
        )
        print(
            f"{number + 1:>2}/{self.plan.rounds:<2}  {row['labelled']:>8}  {row['human_maps']:>5}  "
            f"{row['generated_maps']:>9}  {row['empty_maps']:>5}  {row['accuracy']:>8.3f}  {dice}  {floor}  "
            f"{row['seconds']:>7.1f}" + (f"   about {duration(left)} left" if left else ""),
            flush=True,
        )

    def _work(self, number: int) -> float:
        """Images trained on in a round, the measure of its cost."""
        last = number + 1 == self.plan.rounds
        models = 1 + (not last and self.answering.drawer(number + 1) == "interpretability")
        return self.plan.labelled[number] * models


def recipe(config: Config) -> Recipe:
    return Recipe(
        data_parallel=config.data_parallel,
        shards=config.shards if config.data_parallel and config.deterministic else 0,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_step=config.lr_step,
        augment=config.augment,
        probe=config.probe,
        cam_class=config.cam_class,
        map_size=config.map_size,
        saliency_loss=config.saliency_loss,
        seed=config.seed,
    )


def _graded(scores: Scores) -> dict[str, float | None]:
    """CC and KL, where there are graded maps to measure them on."""
    if scores.correlation is None:
        return {}
    return {"cc": scores.correlation, "kl": scores.divergence}


def _memory(device: torch.device, fitted: Fitted) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    memory = {"peak_rss_mb": round(peak, 1)}
    if fitted.parts > 1:
        memory["batch_parts"] = fitted.parts
    if device.type == "cuda":
        memory["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return memory
