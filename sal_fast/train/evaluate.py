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
from sal_fast.metrics import MapFigures, map_figures
from sal_fast.metrics.maps import GRADED
from sal_fast.metrics.summary import Tested
from sal_fast.models import Classifier, Look, feature_size

BATCH = 256
Found = TypeVar("Found", Tensor, Look)


@dataclass(frozen=True)
class Scores:
    """The answers of a model to E test images, and its maps of the predicted classes, float32 [E, h, w]."""

    tested: Tested
    cams: Tensor


@torch.no_grad()
def evaluate(model: Classifier, store: Store, rows: Tensor, probe: ops.Probe, ranks: Ranks = ALONE) -> Scores:
    """Classify images, and compare the maps of the predicted classes with the human maps, in the frame.

    Each rank tests some blocks of images, and all ranks get the scores. Source: paper Sec. 6. Raises
    InputError if a logit is not finite.
    """
    model.eval()
    logits = torch.empty(len(rows), model.head.out_features, device=store.device)
    cams = logits.new_empty(len(rows), *feature_size(model, store.image_size))
    figures = MapFigures(*(logits.new_empty(len(rows)) for _ in MapFigures._fields))
    predicted = torch.empty(len(rows), dtype=torch.int64, device=store.device)
    columns = predicted, logits, cams, *figures
    for at, block, images in blocks(store, rows, ranks):
        seen = in_halves(partial(model.look, probe=probe), images)
        if not bool(seen.logits.isfinite().all()):
            raise InputError("the model's outputs are not finite numbers; lower --lr or check --weights")
        found = _beside_human_maps(seen.cam, store, block)
        for column, values in zip(columns, (seen.classes, seen.logits, seen.cam, *found), strict=True):
            column[at] = values
    for column in columns:
        ranks.complete(column, BATCH)
    tested = Tested(store.table.classes, store.labels[rows], predicted, logits, figures)
    return Scores(tested, cams)


def _beside_human_maps(cams: Tensor, store: Store, rows: Tensor) -> MapFigures:
    """The figures of the maps of some rows. Only a graded map has those that are for graded maps."""
    maps = store.masks.batch(rows)
    if isinstance(maps, ops.BitMask):
        return map_figures(cams, maps)
    graded = store.masks.place[rows] >= 0
    found = map_figures(cams, maps)
    return found._replace(**{name: getattr(found, name).where(graded, torch.nan) for name in GRADED})


def blocks(store: Store, rows: Tensor, ranks: Ranks) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Go through this rank's share of the blocks of `BATCH` images that `rows` are cut into.

    Yields a block's place among `rows`, its rows, and its images [B, 3, H, W].
    """
    parts = rows.split(BATCH)
    mine = ranks.share(len(parts))
    for i, images in zip(mine, store.views([parts[i] for i in mine]), strict=True):
        yield slice(i * BATCH, i * BATCH + len(images)), parts[i], images


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
