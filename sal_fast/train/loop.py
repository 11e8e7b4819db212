"""Train one model on the labelled set with the CYBORG loss."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sal_fast import ops, progress, seeds
from sal_fast.data import augment
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.train.evaluate import accuracy

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-6
STEP_FACTOR = 0.1


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: SGD with momentum, the rate times 0.1 every `lr_step` epochs."""

    epochs: int
    batch_size: int
    lr: float
    lr_step: int
    augment: augment.Preset
    probe: ops.Probe
    map_size: int | None
    saliency_loss: ops.SaliencyKind
    seed: int


@dataclass(frozen=True)
class Fitted:
    """The weights of the best validation accuracy are in the model; which epoch they are from."""

    epoch: int
    val_accuracy: float


def fit(
    model: Classifier,
    store: Store,
    rows: Tensor,
    maps: Masks,
    has_map: Tensor,
    *,
    alpha: float,
    recipe: Recipe,
    round_number: int,
    name: str,
) -> Fitted:
    """Train in place on `rows` and keep the best validation accuracy, the later epoch on a tie.

    Args:
        rows: int64 [L], rows of the store.
        maps: L of them, one for each, human or generated; has_map: bool [L].
        alpha: trade-off of Eq. 1; at 1 no map is looked at.
        name: what to call the model where progress is shown.

    Batches, crops and whatever the network draws come from (seed, purpose, round), so that models trained on
    the same rows see the same batches.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.lr_step, STEP_FACTOR)
    val = store.rows("val")
    best, best_state = Fitted(-1, -1.0), model.state_dict()
    with (
        _own_stream(seeds.integer(recipe.seed, "dropout", round_number), store.device),
        progress.bar(f"round {round_number}: {name}", recipe.epochs, log=False) as advance,
    ):
        for epoch in range(recipe.epochs):
            model.train()
            order = seeds.stream(recipe.seed, "batches", round_number, epoch).permutation(len(rows))
            parts = list(batches(torch.from_numpy(order).to(store.device), recipe.batch_size))
            groups = [rows[part] for part in parts]
            epoch_draws = augment.Augmentation(recipe.augment, recipe.seed, round_number, epoch)
            draws = store.draws(groups, epoch_draws)
            total = torch.zeros((), device=store.device)
            views = store.views(groups, draws)
            for part, at, drawn, images in zip(parts, groups, draws, views, strict=True):
                targets = maps.batch(part, drawn.box)
                loss = step_loss(model, images, store.labels[at], targets, has_map[part], alpha, recipe)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            schedule.step()
            if not (bool(total.isfinite()) and bool(model.head.weight.isfinite().all())):
                raise InputError(
                    f"training of the {name} diverged in round {round_number}, epoch {epoch + 1}: "
                    f"the loss is {float(total)}; lower --lr (it is {recipe.lr:g})"
                )
            reached = accuracy(model, store, val)
            if reached >= best.val_accuracy:
                best, best_state = Fitted(epoch, reached), copy.deepcopy(model.state_dict())
            advance()
    model.load_state_dict(best_state)
    return best


@contextmanager
def _own_stream(seed: int, device: torch.device) -> Iterator[None]:
    """What the network draws itself (dropout, stochastic depth) follows from `seed`, and leaves no trace."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def step_loss(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | ops.BitMask,
    has_map: Tensor,
    alpha: float,
    recipe: Recipe,
) -> Tensor:
    """Eq. 1 on one batch, with the CAM of the labelled class."""
    if alpha == 1:
        return torch.nn.functional.cross_entropy(model(images)[0], labels)
    head = ops.cam_head(
        model.features(images), model.head.weight, model.head.bias, labels, probe=recipe.probe
    )
    return ops.cyborg_loss(
        head.logits,
        head.cam,
        labels,
        targets,
        alpha=alpha,
        has_map=has_map,
        map_size=recipe.map_size,
        kind=recipe.saliency_loss,
    )


def batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Cut into batches; a trailing batch of one image joins the one before (batch norm needs two)."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts
