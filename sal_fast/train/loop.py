"""Train the models of a round on the labelled set with the CYBORG loss."""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sal_fast import seeds
from sal_fast._util import progress
from sal_fast.data.augment import Augmentation
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.data.varied import varied
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.train.evaluate import accuracy
from sal_fast.train.recipe import Recipe, balanced_weights, rate, validation_interval
from sal_fast.train.step import Step

LONG = 2.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A model to train.

    alpha: the trade-off of Eq. 1, in [0, 1]; at 1 no map is looked at. name: for messages.
    """

    model: Classifier
    alpha: float
    name: str


@dataclass(frozen=True)
class Fitted:
    """How the training of a model went; the model has the weights of the epoch with the best accuracy.

    epoch: that epoch, from 0. val_accuracy: its accuracy on the validation set, in [0, 1]. parts: how many
    parts each batch was cut into for want of memory.
    """

    epoch: int
    val_accuracy: float
    parts: int = 1


@dataclass(frozen=True)
class Epoch:
    """The numbers of an epoch of one model, for trackers.

    model: its name, such as `accuracy model`. round, epoch: counted from 0.
    loss: the mean over the images of Eq. 1, `alpha classification + (1 - alpha) saliency`.
    classification, saliency: its two parts, before they are weighted. Images without a map count as 0 in the
        second. It is None if no map is looked at (alpha 1), and both are None if several processes share
        the batches.
    val_accuracy: None if the model was not validated after this epoch.
    lr: the learning rate of the epoch, without that of the head.
    images_per_second: of the training, for all models of the round that are trained together.
    """

    model: str
    round: int
    epoch: int
    loss: float
    classification: float | None
    saliency: float | None
    val_accuracy: float | None
    lr: float
    images_per_second: float


class _Done(NamedTuple):
    """An epoch of a model: its mean loss, its validation accuracy if there was one, the time of training."""

    epoch: int
    total: Tensor
    reached: float | None
    seconds: float


_FAILED = Fitted(-1, -1.0)


@dataclass(frozen=True)
class Training:
    """The models to train in a round, and all that they are trained on.

    All models see the same batches, each made once. Several ranks take a model each, or with
    `recipe.data_parallel` a part of every batch. Batches, crops and the random numbers of a network come from
    (seed, purpose, round), so a model does not depend on what is trained beside it.

    rows: int64 [L], rows of the store. maps: L maps, human or generated, one for each row. has_map: bool [L];
    a map counts only where it is True. round_index: of the round, from 0. on_epoch: it is called after each
    epoch, with one model after the other.
    """

    jobs: Sequence[Job]
    store: Store
    rows: Tensor
    maps: Masks
    has_map: Tensor
    recipe: Recipe
    round_index: int
    ranks: Ranks = ALONE
    on_epoch: Callable[[Epoch], None] | None = None

    def fit(self) -> list[Fitted]:
        """Train the models in place, and keep for each the weights of the best validation accuracy.

        Of epochs with equal accuracy the later one counts. All ranks have all models at the end.

        Raises InputError if a loss is not finite, or if the smallest part of a batch does not fit in memory.
        """
        ranks = self.ranks
        if self.recipe.data_parallel or ranks.count == 1:
            return self._run()
        mine = replace(self, jobs=self.jobs[ranks.rank :: ranks.count])
        everyone, error = [_FAILED] * len(self.jobs), None
        try:
            everyone[ranks.rank :: ranks.count] = mine._run() if mine.jobs else []
        except InputError as found:  # the others wait
            error = found
        for i, job in enumerate(self.jobs):
            source, own = i % ranks.count, everyone[i]
            told = torch.tensor([own.epoch, own.val_accuracy, own.parts], dtype=torch.float64)
            epoch, reached, parts = ranks.broadcast(told, source).tolist()
            if epoch < 0:
                raise error or InputError(
                    f"the {job.name} could not be trained by rank {source}, which says why"
                )
            ranks.same(job.model, source)
            everyone[i] = Fitted(int(epoch), reached, int(parts))
        return everyone

    def seconds_per_image(self) -> float:
        """The time that training one model on one image takes here, measured on an epoch.

        The models change. The first epoch of a process takes longer than others, so if it was short a second
        one is measured.
        """
        steps, spent = self._steps(1), 0.0
        for epoch in range(2):
            begin = time.perf_counter()
            self._epoch(steps, epoch)
            if self.store.device.type == "cuda":
                torch.cuda.synchronize(self.store.device)
            spent = time.perf_counter() - begin
            if spent > LONG:
                break
        return spent / (len(self.rows) * len(self.jobs))

    @property
    def _names(self) -> str:
        return " and ".join(job.name for job in self.jobs)

    @property
    def _side_streams(self) -> Sequence[torch.cuda.Stream | None]:
        """A stream for each model; None for the current one."""
        graphs = any(job.model.compiled for job in self.jobs)  # they bring a stream of their own
        replicas = self.recipe.data_parallel and self.ranks.count > 1  # these add up on the default stream
        if self.store.device.type == "cuda" and len(self.jobs) > 1 and not (graphs or replicas):
            return _streams(self.store.device, len(self.jobs))
        return [None] * len(self.jobs)

    def _run(self) -> list[Fitted]:
        """Train; if device memory runs out, begin again with batches in two parts, in four, and so on."""
        initial = [copy.deepcopy(job.model.state_dict()) for job in self.jobs]
        device, size, parts = self.store.device, self.recipe.batch_size, 1
        while True:
            try:
                return self._train(parts)
            except torch.OutOfMemoryError:
                if size < 4 * parts or self.recipe.data_parallel:
                    raise InputError(
                        f"{device} has too little memory to train the {self._names} on {size // parts} "
                        f"images at a time; lower --batch-size or --image-size"
                    ) from None
            parts *= 2
            torch.cuda.empty_cache()
            for job, state in zip(self.jobs, initial, strict=True):
                job.model.load_state_dict(state)
            log.warning(
                "round %d: too little memory on %s for batches of %d; they go through the %s in %d parts",
                self.round_index + 1, device, size, self._names, parts,
            )  # fmt: skip

    def _train(self, parts: int) -> list[Fitted]:
        """Train with batches in so many parts; OutOfMemoryError if that does not fit."""
        steps, recipe, every = self._steps(parts), self.recipe, self._val_every()
        best = [(_FAILED, job.model.state_dict()) for job in self.jobs]
        title = f"round {self.round_index + 1}: {self._names}"
        with progress.bar(title, recipe.epochs, log=False) as advance:
            for epoch in range(recipe.epochs):
                begin, spent = time.perf_counter(), 0.0
                totals = self._epoch(steps, epoch)
                seen = (epoch + 1) % every == 0 or epoch + 1 == recipe.epochs
                for i, (job, total) in enumerate(zip(self.jobs, totals, strict=True)):
                    self._check_finite(job, total, epoch)
                    spent = spent or time.perf_counter() - begin  # the check has waited for the device
                    reached = self._validated(job) if seen else None
                    if self.on_epoch is not None:
                        self.on_epoch(
                            _told(
                                self, i, _Done(epoch, total, reached, spent), self._classification(steps, i)
                            )
                        )
                    if reached is not None and reached >= best[i][0].val_accuracy:
                        best[i] = Fitted(epoch, reached, parts), copy.deepcopy(job.model.state_dict())
                advance()
        for job, (_, state) in zip(self.jobs, best, strict=True):
            job.model.load_state_dict(state)
        return [fitted for fitted, _ in best]

    def _classification(self, steps: Any, i: int) -> float | None:
        """The mean cross-entropy of the i-th model in the epoch that has just ended."""
        told: float | None = steps[i].told()
        return None if told is None else told / len(self.rows)

    def _steps(self, parts: int) -> Any:
        """What takes the steps of training: for each model a `Step`."""
        own: dict[str, Any] = {
            "recipe": self.recipe,
            "parts": parts,
            "ranks": self.ranks,
            "noise": seeds.integer(self.recipe.seed, "dropout", self.round_index),
            "class_weight": self.class_weight(),
            "tells": self.on_epoch is not None,
        }
        return [Step(job.model, alpha=job.alpha, **own) for job in self.jobs]

    def _epoch(self, steps: Any, epoch: int) -> list[Tensor]:
        """Train on every row once, and return each model's mean loss over the images."""
        recipe, device = self.recipe, self.store.device
        for job in self.jobs:
            job.model.train()
        order = seeds.stream(recipe.seed, "batches", self.round_index, epoch).permutation(len(self.rows))
        parts = batches(torch.from_numpy(order).to(device), recipe.batch_size)
        augmentation = Augmentation(recipe.augment, recipe.seed, self.round_index, epoch)
        made = varied(self.store, self.rows, self.maps, parts, augmentation)
        totals, streams = [torch.zeros((), device=device) for _ in steps], self._side_streams
        for part, (images, maps) in zip(parts, made, strict=True):
            batch = images, self.store.labels[self.rows[part]], maps, self.has_map[part]
            with _side_by_side(streams):
                for step, total, stream in zip(steps, totals, streams, strict=True):
                    with torch.cuda.stream(stream):
                        total += step(*batch) * (len(part) / len(self.rows))
        for step in steps:
            step.end_epoch()
        return totals

    def class_weight(self) -> Tensor | None:
        """The weights of the classes in this round."""
        given, labels = self.recipe.class_weights, self.store.labels[self.rows]
        if given == "none":
            return None
        if given == "balanced":
            return balanced_weights(labels, self.jobs[0].model.head.out_features)
        return torch.tensor(given, device=labels.device)

    def _val_every(self) -> int:
        """The number of epochs from one validation to the next."""
        given = self.recipe.val_every
        return validation_interval(len(self.rows), len(self.store.rows("val"))) if given == "auto" else given

    def _check_finite(self, job: Job, total: Tensor, epoch: int) -> None:
        """Raise InputError if a model's losses or weights are not finite after an epoch."""
        if not bool((total + job.model.head.weight.sum()).isfinite()):
            raise InputError(
                f"training of the {job.name} diverged in round {self.round_index + 1}, epoch {epoch + 1}: "
                f"the loss is {float(total)}; lower --lr (it is {self.recipe.lr:g})"
            )

    def _validated(self, job: Job) -> float:
        """The accuracy of a job's model on the validation set."""
        if self.recipe.data_parallel:
            self.ranks.same(job.model)  # statistics of batches are each rank's own
        return self._accuracy(job.model)

    def _accuracy(self, model: Classifier) -> float:
        """The accuracy of a model on the validation set."""
        ranks = self.ranks if self.recipe.data_parallel else ALONE
        return accuracy(model, self.store, self.store.rows("val"), ranks)


def _told(training: Training, i: int, done: _Done, classification: float | None) -> Epoch:
    """The numbers of the i-th model after an epoch, for trackers."""
    job, recipe = training.jobs[i], training.recipe
    loss, saliency = float(done.total), None
    if classification is not None and job.alpha < 1:
        saliency = (loss - job.alpha * classification) / (1 - job.alpha)
    return Epoch(
        model=job.name,
        round=training.round_index,
        epoch=done.epoch,
        loss=loss,
        classification=classification,
        saliency=saliency,
        val_accuracy=done.reached,
        lr=rate(recipe, recipe.lr, done.epoch),
        images_per_second=len(training.rows) / done.seconds,
    )


@cache
def _streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The same streams in every epoch and round: the memory that torch caches belongs to one stream."""
    return [torch.cuda.Stream(device) for _ in range(count)]


@contextmanager
def _side_by_side(streams: Sequence[torch.cuda.Stream | None]) -> Iterator[None]:
    """Let streams begin after the work that was asked for before, and wait for them at the end.

    They are waited for after an error, too: the models' states may be written over then.
    """
    waiting = [stream for stream in streams if stream is not None]
    for stream in waiting:
        stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        yield
    finally:
        for stream in waiting:
            torch.cuda.current_stream(stream.device).wait_stream(stream)


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut rows into batches; a last batch of one image joins the one before, as batch norm needs two."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
