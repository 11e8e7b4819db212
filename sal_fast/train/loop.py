"""Train the models of a round on the labelled set with the CYBORG loss."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sal_fast import seeds
from sal_fast._util import progress
from sal_fast.data import augment
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.train.evaluate import accuracy
from sal_fast.train.recipe import Recipe
from sal_fast.train.step import Step


@dataclass(frozen=True)
class Job:
    """A model to train: alpha is the trade-off of Eq. 1, at 1 no map is looked at; `name` is for people."""

    model: Classifier
    alpha: float
    name: str


@dataclass(frozen=True)
class Fitted:
    """The weights of the best validation accuracy are in the model; which epoch they are from.

    parts: how many the batches had to be cut into for want of memory.
    """

    epoch: int
    val_accuracy: float
    parts: int = 1


def fit(
    jobs: Sequence[Job],
    store: Store,
    rows: Tensor,
    maps: Masks,
    has_map: Tensor,
    *,
    recipe: Recipe,
    round_number: int,
    ranks: Ranks = ALONE,
) -> list[Fitted]:
    """Train in place on `rows` and keep the best validation accuracy, the later epoch on a tie.

    All models see the same batches, each made once. Several ranks take a model each, or with
    `recipe.data_parallel` a part of every batch; all have all models at the end.

    Args:
        rows: int64 [L], rows of the store.
        maps: L of them, one for each, human or generated; has_map: bool [L].

    Batches, crops and whatever a network draws come from (seed, purpose, round): a model does not depend on
    what is trained beside it.

    Raises InputError where a loss is no longer finite, or the smallest part of a batch needs more memory than
    there is.
    """
    together = recipe.data_parallel or ranks.count == 1
    mine = [i for i in range(len(jobs)) if together or i % ranks.count == ranks.rank]
    work = _Work([jobs[i] for i in mine], store, rows, maps, has_map, recipe, round_number, ranks)
    if together:
        return work.run()
    results: list[Fitted] = []
    error: InputError | None = None
    try:
        results = work.run() if mine else []
    except InputError as found:  # the others wait
        error = found
    everyone = []
    for i, job in enumerate(jobs):
        source = i % ranks.count
        own = results[mine.index(i)] if i in mine and error is None else Fitted(-1, -1.0)
        told = torch.tensor([own.epoch, own.val_accuracy, own.parts], dtype=torch.float64)
        epoch, reached, parts = ranks.broadcast(told, source).tolist()
        if epoch < 0:
            raise error or InputError(f"the {job.name} could not be trained by rank {source}, which says why")
        ranks.same(job.model, source)
        everyone.append(Fitted(int(epoch), reached, int(parts)))
    return everyone


@dataclass(frozen=True)
class _Work:
    """Jobs of this rank, and what they are trained on."""

    jobs: list[Job]
    store: Store
    rows: Tensor
    maps: Masks
    has_map: Tensor
    recipe: Recipe
    round_number: int
    ranks: Ranks

    def run(self) -> list[Fitted]:
        """Train; where device memory runs out, begin again with batches cut in two, and so on."""
        initial = [copy.deepcopy(job.model.state_dict()) for job in self.jobs]
        parts = 1
        while True:
            try:
                return self._train(parts)
            except torch.OutOfMemoryError:
                names = " and ".join(job.name for job in self.jobs)
                size = self.recipe.batch_size
                if size < 4 * parts or self.recipe.data_parallel:
                    raise InputError(
                        f"{self.store.device} has too little memory to train the {names} on {size // parts} "
                        f"images at a time; lower --batch-size or --image-size"
                    ) from None
            parts *= 2
            torch.cuda.empty_cache()
            for job, state in zip(self.jobs, initial, strict=True):
                job.model.load_state_dict(state)
            print(
                f"sal-fast: note: round {self.round_number}: too little memory on {self.store.device} for "
                f"batches of {size}; they go through the {names} in {parts} parts",
                file=sys.stderr,
            )

    def _train(self, parts: int) -> list[Fitted]:
        recipe, number = self.recipe, self.round_number
        noise = seeds.integer(recipe.seed, "dropout", number)
        steps = [
            Step(job.model, alpha=job.alpha, recipe=recipe, parts=parts, ranks=self.ranks, noise=noise)
            for job in self.jobs
        ]
        best = [(Fitted(-1, -1.0), job.model.state_dict()) for job in self.jobs]
        val = self.store.rows("val")
        names = " and ".join(job.name for job in self.jobs)
        with progress.bar(f"round {number}: {names}", recipe.epochs, log=False) as advance:
            for epoch in range(recipe.epochs):
                totals = self._epoch(steps, epoch)
                for i, (job, total) in enumerate(zip(self.jobs, totals, strict=True)):
                    if not bool((total + job.model.head.weight.sum()).isfinite()):
                        raise InputError(
                            f"training of the {job.name} diverged in round {number}, epoch {epoch + 1}: "
                            f"the loss is {float(total)}; lower --lr (it is {recipe.lr:g})"
                        )
                    if recipe.data_parallel:
                        self.ranks.same(job.model)  # statistics of batches are each rank's own
                    reached = accuracy(
                        job.model, self.store, val, self.ranks if recipe.data_parallel else ALONE
                    )
                    if reached >= best[i][0].val_accuracy:
                        best[i] = Fitted(epoch, reached, parts), copy.deepcopy(job.model.state_dict())
                advance()
        for job, (_, state) in zip(self.jobs, best, strict=True):
            job.model.load_state_dict(state)
        return [fitted for fitted, _ in best]

    def _epoch(self, steps: list[Step], epoch: int) -> list[Tensor]:
        """Every row once; the sum of each model's losses."""
        recipe, device = self.recipe, self.store.device
        for job in self.jobs:
            job.model.train()
        order = seeds.stream(recipe.seed, "batches", self.round_number, epoch).permutation(len(self.rows))
        parts = list(batches(torch.from_numpy(order).to(device), recipe.batch_size))
        groups = [self.rows[part] for part in parts]
        augmentation = augment.Augmentation(recipe.augment, recipe.seed, self.round_number, epoch)
        draws = self.store.draws(groups, augmentation)
        totals = [torch.zeros((), device=device) for _ in steps]
        views = self.store.views(groups, draws)
        graphs = any(job.model.compiled for job in self.jobs)  # they bring a stream of their own
        side_by_side = device.type == "cuda" and len(steps) > 1 and not graphs
        streams = [torch.cuda.Stream(device) if side_by_side else None for _ in steps]
        for part, at, drawn, images in zip(parts, groups, draws, views, strict=True):
            batch = images, self.store.labels[at], self.maps.batch(part, drawn.box), self.has_map[part]
            with _side_by_side(streams):
                for step, total, stream in zip(steps, totals, streams, strict=True):
                    with torch.cuda.stream(stream):
                        total += step(*batch)
        for step in steps:
            step.schedule.step()
        return totals


@contextmanager
def _side_by_side(streams: Sequence[torch.cuda.Stream | None]) -> Iterator[None]:
    """Streams that begin after what was asked for before, and end before what is asked for after."""
    waiting = [stream for stream in streams if stream is not None]
    for stream in waiting:
        stream.wait_stream(torch.cuda.current_stream(stream.device))
    yield
    for stream in waiting:
        torch.cuda.current_stream(stream.device).wait_stream(stream)


def batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Cut into batches; a trailing batch of one image joins the one before (batch norm needs two)."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts
