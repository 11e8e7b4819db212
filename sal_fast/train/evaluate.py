"""Testing a model, and scoring a pool with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast._util.memory import roomy
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.models import Classifier, Look, feature_size, pooled
from sal_fast.train import agreement

BATCH = 256
Found = TypeVar("Found", Tensor, Look)


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
def evaluate(model: Classifier, store: Store, rows: Tensor, probe: ops.Probe, ranks: Ranks = ALONE) -> Scores:
    """Accuracy, and Dice of the predicted class's CAM against the human masks, in the frame (paper Sec. 6).

    A graded map is compared by its own top pixels at its mass share: N = round(sum of the map). Each rank
    tests blocks of its own, and all know the scores.
    """
    model.eval()
    blocks = rows.split(BATCH)
    one = torch.empty(len(rows), device=store.device)
    predicted = one.to(torch.int64)
    cams = one.new_empty(len(rows), *feature_size(model, store.image_size))
    dices, shares, correlations, divergences = (torch.empty_like(one) for _ in range(4))
    columns = predicted, cams, dices, shares, correlations, divergences
    for i, images in zip(ranks.share(len(blocks)), _views(store, blocks, ranks), strict=True):
        seen = _looked_at(model, store, blocks[i], images, probe)
        for column, values in zip(columns, seen, strict=True):
            column[i * BATCH : i * BATCH + len(images)] = values
    for column in columns:
        ranks.complete(column, BATCH)
    examples = Examples(predicted, cams, dices)
    drawn = ~dices.isnan()
    count = int(drawn.sum())
    return Scores(
        accuracy=float((predicted == store.labels[rows]).double().mean()),
        dice=float(dices[drawn].double().mean()) if count else None,
        floor=float(shares[drawn].double().mean()) if count else None,
        images=count,
        correlation=_mean(correlations),
        divergence=_mean(divergences),
        examples=examples,
    )


def _looked_at(
    model: Classifier, store: Store, at: Tensor, images: Tensor, probe: ops.Probe
) -> tuple[Tensor, ...]:
    """Of a batch: predicted classes, CAMs, Dice, N's share of the frame, CC and KL (NaN where not graded)."""
    seen = in_halves(partial(model.look, probe=probe), images)
    if not bool(seen.logits.isfinite().all()):
        raise InputError("the model's outputs are not finite numbers; lower --lr or check --weights")
    maps = store.masks.batch(at)
    correlation = divergence = torch.full((len(at),), torch.nan, device=at.device)
    if isinstance(maps, ops.BitMask):
        n, drawn_at = maps.unpack().sum((-2, -1)), maps
    else:
        human = maps.float() / 255
        n = human.sum((-2, -1)).round().long()
        drawn_at = ops.topn_mask(human, n, packed=True)
        graded = store.masks.place[at] >= 0
        found = [
            measure(seen.cam[graded], human[graded])
            for measure in (agreement.correlation, agreement.divergence)
        ]
        correlation, divergence = (
            correlation.masked_scatter(graded, values.to(correlation.dtype)) for values in found
        )
    dice = ops.topn_dice(seen.cam, drawn_at).dice
    return seen.classes, seen.cam, dice, n / store.image_size**2, correlation, divergence


def _views(store: Store, blocks: Sequence[Tensor], ranks: Ranks) -> Iterator[Tensor]:
    return store.views([blocks[i] for i in ranks.share(len(blocks))])


def _mean(found: Tensor) -> float | None:
    """Over the images that have one; None where none has."""
    found = found[~found.isnan()]
    return float(found.double().mean()) if len(found) else None


@torch.no_grad()
def score(
    model: Classifier,
    store: Store,
    rows: Tensor,
    *,
    features: bool = True,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor | None]:
    """Logits [N, K], float32, and penultimate (pooled) features [N, d] of every row, in order, in eval mode.

    Args:
        features: whether they are wanted, else None; dtype: what they are kept in. On the store's device if
            they fit in half of what is free there, else in memory, else in a file that is mapped and gone
            with the tensor.
        ranks: each scores blocks of its own, and all have all at the end.
    """
    model.eval()
    blocks = rows.split(BATCH)
    logits = torch.empty(len(rows), model.head.out_features, device=store.device)
    kept = roomy((len(rows), model.head.in_features), dtype, store.device) if features else None
    for i, images in zip(ranks.share(len(blocks)), _views(store, blocks, ranks), strict=True):
        at = slice(i * BATCH, i * BATCH + len(images))
        seen = pooled(in_halves(model.features, images))
        logits[at] = model.head(seen)
        if kept is not None:
            kept[at] = seen
    for values in (logits, kept):
        if values is not None:
            ranks.complete(values, BATCH)
    return logits, kept


@torch.no_grad()
def accuracy(model: Classifier, store: Store, rows: Tensor, ranks: Ranks = ALONE) -> float:
    """Share of rows whose largest logit is the label's."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=store.device)
    blocks = rows.split(BATCH)
    for i, images in zip(ranks.share(len(blocks)), _views(store, blocks, ranks), strict=True):
        logits = model.head(pooled(in_halves(model.features, images)))
        right += (logits.argmax(1) == store.labels[blocks[i]]).sum()
    return int(ranks.total(right)) / len(rows)


def in_halves(work: Callable[..., Found], *rows: Tensor) -> Found:
    """`work(*rows)`, of tensors of one length; where device memory runs out, by halves, and so on."""
    try:
        return work(*rows)
    except torch.OutOfMemoryError:
        if len(rows[0]) == 1:
            raise
    torch.cuda.empty_cache()
    halves = zip(*(values.chunk(2) for values in rows), strict=True)
    one, other = (in_halves(work, *half) for half in halves)
    if isinstance(one, Tensor):
        return torch.cat([one, other])
    return Look(*map(torch.cat, zip(one, other, strict=True)))
