"""Test a model, and score a pool with it."""

from collections.abc import Callable, Iterator
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
from sal_fast.models import Classifier, Look, feature_size
from sal_fast.train import agreement

BATCH = 256
Found = TypeVar("Found", Tensor, Look)


@dataclass(frozen=True)
class Examples:
    """What a model saw in each of E test images.

    predicted: int64 [E]. cams: float32 [E, h, w]. dice: float32 [E], NaN where an image has no mask.
    """

    predicted: Tensor
    cams: Tensor
    dice: Tensor


@dataclass(frozen=True)
class Scores:
    """How good a model is on a set.

    accuracy: the share of right classes. dice: the mean Dice of a CAM's top N pixels with the human mask, and
    floor: the Dice of a random map (N / pixels), both over the `images` that have a mask. correlation and
    divergence (see `agreement`): means over the images that have a graded map. A mean over no image is None.
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
    """Accuracy, and Dice of the predicted class's CAM with the human masks, in the frame (paper Sec. 6).

    A graded map counts as its own top N pixels, N = round(sum of the map). Each rank tests some blocks of
    images, and all ranks get the scores. Raises InputError if a logit is not finite.
    """
    model.eval()
    one = torch.empty(len(rows), device=store.device)
    predicted = one.to(torch.int64)
    cams = one.new_empty(len(rows), *feature_size(model, store.image_size))
    dices, shares, correlations, divergences = (torch.empty_like(one) for _ in range(4))
    columns = predicted, cams, dices, shares, correlations, divergences
    for at, block, images in blocks(store, rows, ranks):
        seen = _looked_at(model, store, block, images, probe)
        for column, values in zip(columns, seen, strict=True):
            column[at] = values
    for column in columns:
        ranks.complete(column, BATCH)
    return Scores(
        accuracy=float((predicted == store.labels[rows]).double().mean()),
        dice=_mean(dices),
        floor=_mean(shares[~dices.isnan()]),
        images=int((~dices.isnan()).sum()),
        correlation=_mean(correlations),
        divergence=_mean(divergences),
        examples=Examples(predicted, cams, dices),
    )


def _looked_at(
    model: Classifier, store: Store, block: Tensor, images: Tensor, probe: ops.Probe
) -> tuple[Tensor, ...]:
    """For each image: the predicted class, its CAM, Dice, N's share of the frame, CC and KL.

    Dice is NaN without a mask; CC and KL are NaN without a graded map.
    """
    seen = in_halves(partial(model.look, probe=probe), images)
    if not bool(seen.logits.isfinite().all()):
        raise InputError("the model's outputs are not finite numbers; lower --lr or check --weights")
    maps = store.masks.batch(block)
    correlation, divergence = torch.full((2, len(block)), torch.nan, device=block.device)
    if isinstance(maps, ops.BitMask):
        n, drawn = maps.unpack().sum((-2, -1)), maps
    else:
        human = maps.float() / 255
        n = human.sum((-2, -1)).round().long()
        drawn = ops.topn_mask(human, n, packed=True)
        graded = store.masks.place[block] >= 0
        correlation[graded] = agreement.correlation(seen.cam[graded], human[graded])
        divergence[graded] = agreement.divergence(seen.cam[graded], human[graded])
    dice = ops.topn_dice(seen.cam, drawn).dice
    return seen.classes, seen.cam, dice, n / store.image_size**2, correlation, divergence


def blocks(store: Store, rows: Tensor, ranks: Ranks) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Go through this rank's share of the blocks of `BATCH` images that `rows` are cut into.

    Yields a block's place among `rows`, its rows, and its images [B, 3, H, W].
    """
    parts = rows.split(BATCH)
    mine = ranks.share(len(parts))
    for i, images in zip(mine, store.views([parts[i] for i in mine]), strict=True):
        yield slice(i * BATCH, i * BATCH + len(images)), parts[i], images


def _mean(found: Tensor) -> float | None:
    """The mean over the images that have a value; None if none has."""
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
    """Logits [N, K], float32, and pooled features [N, d] of all rows in their order, in eval mode.

    Args:
        features: whether features are wanted; None is returned for them otherwise.
        dtype: the type of the features. They are kept on the store's device if they take at most half of
            its free memory, else in the host's memory, else in a mapped file that goes with the tensor.
        ranks: each scores some blocks of images, and all get the whole.
    """
    model.eval()
    logits = torch.empty(len(rows), model.head.out_features, device=store.device)
    kept = roomy((len(rows), model.head.in_features), dtype, store.device) if features else None
    for at, _, images in blocks(store, rows, ranks):
        seen = in_halves(model.embedding, images)
        logits[at] = model.head(seen)
        if kept is not None:
            kept[at] = seen
    for values in (logits, kept):
        if values is not None:
            ranks.complete(values, BATCH)
    return logits, kept


def accuracy(model: Classifier, store: Store, rows: Tensor, ranks: Ranks = ALONE) -> float:
    """The share of rows whose largest logit is the label's."""
    logits, _ = score(model, store, rows, features=False, ranks=ranks)
    return int((logits.argmax(1) == store.labels[rows]).sum()) / len(rows)


def in_halves(work: Callable[..., Found], *rows: Tensor) -> Found:
    """`work(*rows)` of tensors of one length; if device memory runs out, in two halves, and so on."""
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
