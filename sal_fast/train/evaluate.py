"""Testing a model, and scoring a pool with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data.store import Store
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.train import agreement

BATCH = 256


@dataclass(frozen=True)
class Examples:
    """What a model saw in each test image: predicted int64 [E], cams float32 [E, h, w], dice float32 [E]."""

    predicted: Tensor
    cams: Tensor
    dice: Tensor


@dataclass(frozen=True)
class Scores:
    """A model on a set: accuracy, and means over the images that have a mask (None without any).

    `dice` of the CAM's top N pixels, `floor` what a random map scores (N / pixels), `images` how many had a
    mask. `correlation` and `divergence` (see `agreement`) are over the images that have a graded one.
    """

    accuracy: float
    dice: float | None
    floor: float | None
    images: int
    correlation: float | None
    divergence: float | None
    examples: Examples


@torch.no_grad()
def evaluate(model: Classifier, store: Store, rows: Tensor, probe: ops.Probe) -> Scores:
    """Accuracy, and Dice of the predicted class's CAM against the human masks, in the frame (paper Sec. 6).

    A graded map is compared by its own top pixels at its mass share: N = round(sum of the map).
    """
    model.eval()
    predicted, cams, dices, floors = [], [], [], []
    correlations, divergences = [], []
    groups = rows.split(BATCH)
    for at, images in zip(groups, store.views(groups), strict=True):
        head = ops.cam_head(model.features(images), model.head.weight, model.head.bias, probe=probe)
        maps = store.masks.batch(at)
        if isinstance(maps, ops.BitMask):
            n, drawn_at = maps.unpack().sum((-2, -1)), maps
        else:
            human = maps.float() / 255
            n = human.sum((-2, -1)).round().long()
            drawn_at = ops.topn_mask(human, n, packed=True)
            graded = store.masks.place[at] >= 0
            correlations.append(agreement.correlation(head.cam[graded], human[graded]))
            divergences.append(agreement.divergence(head.cam[graded], human[graded]))
        if not bool(head.logits.isfinite().all()):
            raise InputError("the model's outputs are not finite numbers; lower --lr or check --weights")
        result = ops.topn_dice(head.cam, drawn_at)
        predicted.append(head.classes)
        cams.append(head.cam)
        dices.append(result.dice)
        floors.append(n / store.image_size**2)
    examples = Examples(torch.cat(predicted), torch.cat(cams), torch.cat(dices))
    drawn = ~examples.dice.isnan()
    count = int(drawn.sum())
    return Scores(
        accuracy=float((examples.predicted == store.labels[rows]).double().mean()),
        dice=float(examples.dice[drawn].double().mean()) if count else None,
        floor=float(torch.cat(floors)[drawn].double().mean()) if count else None,
        images=count,
        correlation=_mean(correlations),
        divergence=_mean(divergences),
        examples=examples,
    )


def _mean(values: list[Tensor]) -> float | None:
    """Over the images that have one; None where none has."""
    found = torch.cat(values) if values else torch.empty(0)
    found = found[~found.isnan()]
    return float(found.double().mean()) if len(found) else None


@torch.no_grad()
def score(model: Classifier, store: Store, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and penultimate (pooled) features [N, d] of every row, in order, in eval mode."""
    model.eval()
    logits = torch.empty(len(rows), model.head.out_features, device=store.device)
    features = torch.empty(len(rows), model.head.in_features, device=store.device)
    for start, images in zip(range(0, len(rows), BATCH), store.views(rows.split(BATCH)), strict=False):
        pooled = model.features(images).mean((-2, -1))
        logits[start : start + BATCH] = model.head(pooled)
        features[start : start + BATCH] = pooled
    return logits, features


@torch.no_grad()
def accuracy(model: Classifier, store: Store, rows: Tensor) -> float:
    """Share of rows whose largest logit is the label's."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=store.device)
    groups = rows.split(BATCH)
    for at, images in zip(groups, store.views(groups), strict=True):
        logits, _ = model(images)
        right += (logits.argmax(1) == store.labels[at]).sum()
    return int(right) / len(rows)
