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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sal_fast import annotate, models, query, seeds
from sal_fast.annotate import Generator
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.labelled import MACHINE, NOBODY, PEOPLE, Labelled, answered
from sal_fast.experiment.people import Answers, Waiting, map_in_frame, tally
from sal_fast.experiment.regimes import GENERATED, INTERPRETABILITY_ALPHA, REGIMES, TEACHER_ALPHA, Source
from sal_fast.experiment.run_folder import RunFolder, write_query
from sal_fast.models import Arch, Classifier, build, feature_size, resolved, weights
from sal_fast.progress import duration
from sal_fast.train import Fitted, Job, Recipe, Scores, evaluate, fit, score
from sal_fast.whole_files import write_bytes

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
        self.segmented = segmented  # a mask for every row of the pool
        self.generator = generator  # what --generator names
        self.regime = REGIMES[config.regime]
        self.alpha = self.regime.alpha if config.alpha is None else config.alpha
        self.pool = store.rows("train")
        self.test_rows = store.rows("test")
        self.ranks, self.start = ranks, start
        self.by_people = config.annotator == "people"
        self.skipped = start[:0]  # rows that people would not label
        self.trials: list[float | None] = []  # by query: how well a model foresaw what people drew
        self.lines = folder.rounds() if ranks.first else []
        self.finished_rounds = int(ranks.number(len(self.lines)))
        self.row_of = {name: row for row, name in enumerate(store.table.ids)}
        self.recipe = recipe(config)
        size = feature_size(self._new_model(), config.image_size)
        half = resolved(config.precision, store.device) == "bfloat16"
        self._kept = torch.float16 if half else torch.float32  # what a pool's features are kept in
        self.loss_size = size if config.map_size is None else (config.map_size, config.map_size)
        self._record = Record(None)

    # --- the steps ---------------------------------------------------------------------------------------

    def labelled_so_far(self) -> Labelled:
        """The start set, then the answer of every finished round's query."""
        labelled = self.annotate(0, self.start)
        for number in range(min(self.finished_rounds, self.plan.rounds - 1)):
            labelled = labelled.add(self.annotate(number + 1, self._answered(number, labelled)))
        return labelled

    def source(self, number: int) -> Source:
        """Who draws the maps of query `number` (0 is the start set)."""
        return self.regime.source(self.plan.asks_people(number, self.trials), self.config.generator)

    def drawer(self, number: int) -> Source:
        """The model that draws for query `number`, be it on trial beside people; none where none does."""
        source = self.source(number)
        if self.plan.auto and source == "human" and number:
            source = self.regime.drawer(self.config.generator)
        return source if source in GENERATED else "none"

    def train(self, number: int, labelled: Labelled) -> tuple[Classifier, Classifier | None]:
        """The accuracy model of a round, and the model that draws the next query's maps, if one does."""
        last = number + 1 == self.plan.rounds
        generator: Source = "none" if last else self.drawer(number + 1)
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
        rest = self.pool[~torch.isin(self.pool, torch.cat((labelled.rows, self.skipped)))]
        needs = query.CRITERIA[self.config.criterion].NEEDS
        logits = features = known = None
        scoring = partial(score, model, self.store, dtype=self._kept, ranks=self.ranks)
        with self._timed("score"):
            if needs:
                logits, features = scoring(rest, features="features" in needs)
            if "labelled" in needs:
                known = scoring(labelled.rows)[1]
        with self._timed("select"):
            result = query.select(
                self.config.criterion,
                query.Pool(len(rest), logits, features, known, self.store.device, self.ranks.group),
                self.plan.query_size(number),
                seed=seeds.integer(self.config.seed, "query", number),
            )
        chosen = rest[result.positions]
        if self._record.folder is not None:
            write_query(self._record.folder, self._ids(chosen), result.scores.tolist())
        return chosen

    def annotate(self, number: int, rows: Tensor, model: Classifier | None = None) -> Labelled:
        """Labels for query `number`, and maps from its source; `model` draws them, if one does.

        Raises Waiting where people have not answered yet. Images that they would not label are left out.
        """
        source = self.source(number)
        with self._timed("annotate"):
            if self.by_people:
                rows = self._labelled_by_people(number, rows)
            foreseen = None
            if source == "human" and self.drawer(number) != "none":
                foreseen = self._drawn(number, rows, model, "predicted")
            answer = self._mapped(number, rows, source, model)
            self.trials.append(None if foreseen is None else _agreement(foreseen, answer))
            return answer

    def _mapped(self, number: int, rows: Tensor, source: Source, model: Classifier | None) -> Labelled:
        if source == "human":
            if self.by_people:
                maps, has_map = self._maps_by_people(number, rows)
            else:
                maps, has_map = annotate.human(self.store, rows)
            return answered(rows, maps, has_map, PEOPLE, self.loss_size)
        if source == "segmenter":
            assert self.segmented is not None
            return self._by_machine(rows, self.segmented[torch.searchsorted(self.pool, rows)])
        if source in GENERATED:
            return self._by_machine(rows, Masks.pack(self._drawn(number, rows, model, "maps")))
        none = torch.zeros_like(rows, dtype=torch.bool)
        empty = Masks.empty(len(rows), self.store.image_size, self.store.device)
        return answered(rows, empty, none, NOBODY, self.loss_size)

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
                **({"trial_dice": self.trials[number]} if self.plan.auto else {}),
                **({"people": self._people_so_far(number)} if self.by_people else {}),
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
        trained_before = number > 0 and (name == "accuracy" or self.drawer(number) == name)
        if self.config.warm_start and trained_before:
            self._load(model, self.config.arch, self.folder.round(number - 1) / f"{name}.safetensors")
        return model

    def _teacher(self, number: int, labelled: Labelled) -> Classifier:
        """TAIT's teacher: trained once, on the human maps, then frozen and kept (Crum et al. 2023)."""
        model = self._new_model(teacher=True)
        if self.ranks.number(self.ranks.first and self.folder.teacher.exists()):
            self._load(model, teacher_arch(self.config), self.folder.teacher)
        else:
            self._fit(number, labelled, [Job(model, TEACHER_ALPHA, "teacher")])
            if self.ranks.first:
                write_bytes(self.folder.teacher, weights.to_bytes(model.net))
        return model

    def _load(self, model: Classifier, arch: Arch, path: Path) -> None:
        """Weights that this run kept."""
        if self.ranks.first:
            weights.load_into(model.net, arch, str(path))
        self.ranks.same(model)

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

    def _by_machine(self, rows: Tensor, maps: Masks) -> Labelled:
        return answered(rows, maps, torch.ones_like(rows, dtype=torch.bool), MACHINE, self.loss_size)

    def _rows(self, ids: list[str]) -> Tensor:
        return torch.tensor([self.row_of[name] for name in ids], dtype=torch.int64, device=self.store.device)

    def _answered(self, number: int, labelled: Labelled) -> Tensor:
        """The query made after a finished round, as rows; InputError where its file is not what was asked."""
        taken = torch.cat((labelled.rows, self.skipped))
        count = self.plan.query_size(number + 1)
        if not self.ranks.first:
            return self.ranks.broadcast(labelled.rows.new_empty(count))
        ids = self.folder.query(number)
        pool = {self.store.table.ids[row] for row in self.pool.tolist()} - set(self._ids(taken))
        if len(ids) != count or len(set(ids)) != len(ids) or not set(ids) <= pool:
            raise InputError(
                f"{self.folder.round(number) / 'query.csv'}: expected {count} "
                f"unlabelled training images, each once, got {len(ids)}; restore it or choose another --out"
            )
        return self.ranks.broadcast(self._rows(ids))

    def _drawn(self, number: int, rows: Tensor, model: Classifier | None, name: str) -> Tensor:
        """The maps that the query's drawer makes: once, kept as files `name`/<id>.png, and read from then on.

        Where people answered in between, the round's model is read from its file.
        """
        size = self.store.image_size
        folder = self._record.folder or self.folder.asked(number)
        if self.ranks.number(self.ranks.first and (folder / name).is_dir()):
            if self.ranks.first:
                maps = annotate.read(folder / name, self._ids(rows), size)
            else:
                maps = torch.empty(len(rows), size, size, dtype=torch.uint8)
            return self.ranks.broadcast(maps.to(self.store.device))
        drawer = self.drawer(number)
        if drawer == "callable":
            drawn = torch.zeros(len(rows), size, size, dtype=torch.uint8, device=self.store.device)
            if self.ranks.first:
                assert self.generator is not None
                drawn = annotate.drawn(self.generator, self.store, rows)
            drawn = self.ranks.broadcast(drawn)
        else:
            model = model or self._kept_model(number, drawer)
            named = self.recipe.probe, self.ranks, self.recipe.cam_class
            drawn = annotate.generate(model, self.store, rows, *named)
        if self.ranks.first:
            annotate.write(folder / name, self._ids(rows), drawn)
        return drawn

    def _kept_model(self, number: int, drawer: Source) -> Classifier:
        """The model that the round before query `number` left for it."""
        arch, path = self.config.arch, self.folder.asked(number) / f"{drawer}.safetensors"
        if drawer == "teacher":
            arch, path = teacher_arch(self.config), self.folder.teacher
        model = self._new_model(drawer == "teacher")
        self._load(model, arch, path)
        return model

    # people: the first rank reads what they answered, and tells the others

    def _labelled_by_people(self, number: int, rows: Tensor) -> Tensor:
        """Take over the classes that people gave; the rows that they labelled, the others are skipped."""
        labels = torch.empty(len(rows), dtype=torch.int64)
        waiting = 0
        if self.ranks.first:
            ids, classes = self._ids(rows), self.store.table.classes
            answers = Answers(self.folder.asked(number))
            waiting = len(answers.open(ids))
            if not waiting:
                given = answers.verdicts()
                found = [given[name].label for name in ids]
                labels = torch.tensor([-1 if label is None else classes.index(label) for label in found])
        waiting = int(self.ranks.number(waiting))
        if waiting:
            raise Waiting(self.folder.path, number, len(rows) - waiting, len(rows))
        labels = self.ranks.broadcast(labels).to(rows.device)
        known, least = int((labels >= 0).sum()), min(2, len(rows))
        if number == 0 and known < least:
            raise InputError(
                f"{self.folder.path}: {known} images of the start set have a class, the others were skipped, "
                f"and training needs {least} at least; import classes for some that were skipped"
            )
        self.store.labels[rows] = labels
        self.skipped = torch.cat((self.skipped, rows[labels < 0]))
        return rows[labels >= 0]

    def _maps_by_people(self, number: int, rows: Tensor) -> tuple[Masks, Tensor]:
        """The maps that people drew, and which images have one, bool [k]."""
        size = self.store.image_size
        maps = torch.zeros(len(rows), size, size, dtype=torch.uint8)
        has_map = torch.zeros(len(rows), dtype=torch.bool)
        if self.ranks.first:
            given = Answers(self.folder.asked(number)).verdicts()
            for i, (row, name) in enumerate(zip(rows.tolist(), self._ids(rows), strict=True)):
                masks = given[name].masks
                if masks:
                    maps[i] = torch.from_numpy(map_in_frame(masks, self.store.table.images[row], size))
                    has_map[i] = True
        maps, has_map = (self.ranks.broadcast(values).to(rows.device) for values in (maps, has_map))
        return Masks.pack(maps), has_map

    def _people_so_far(self, number: int) -> dict[str, Any]:
        return tally(Answers(self.folder.asked(one)) for one in range(number + 1))

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
        models = 1 + (not last and self.drawer(number + 1) == "interpretability")
        return self.plan.labelled[number] * models


def new_model(config: Config, classes: int, teacher: bool = False) -> Classifier:
    """The network every round starts from, or the teacher's: the same initial weights each time.

    A layer's name belongs to one network: the CAM of a teacher of another is made of its features.
    """
    arch = teacher_arch(config) if teacher else config.arch
    own = arch == config.arch
    try:
        return build(
            arch,
            classes,
            weights=teacher_weights(config) if teacher else config.weights,
            output_stride=config.output_stride if own or arch.startswith("resnet") else 32,
            seed=seeds.integer(config.seed, "initial-weights"),
            precision=config.precision,
            compiled=config.compile,
            cam_layer=config.cam_layer if own else models.FEATURES,
        )
    except InputError as error:
        raise InputError(f"the teacher (see --teacher-weights): {error}" if teacher else error) from None


def teacher_arch(config: Config) -> Arch:
    return config.arch if config.teacher_arch == "same" else config.teacher_arch


def teacher_weights(config: Config) -> str:
    """`same`: those of --weights; but a file holds one network's alone."""
    if config.teacher_weights != "same":
        return config.teacher_weights
    fits = teacher_arch(config) == config.arch or not weights.is_file(config.weights)
    return config.weights if fits else "none"


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


def _agreement(foreseen: Tensor, answer: Labelled) -> float | None:
    """Mean Dice, 2 |A and B| / (|A| + |B|), of predicted maps and those people drew; None without any."""
    drawn = answer.maps.unpack(torch.arange(len(answer), device=foreseen.device)) > 127
    known = (answer.drawn_by == PEOPLE) & drawn.any((-2, -1))
    if not bool(known.any()):
        return None
    a, b = (foreseen > 127)[known], drawn[known]
    both = (a & b).sum((-2, -1)).double()
    return float((2 * both / (a.sum((-2, -1)) + b.sum((-2, -1)))).mean())


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
