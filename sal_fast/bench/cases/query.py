"""The criteria of selection on one pool of logits and features."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import torch

from sal_fast import plugins, query
from sal_fast._util.memory import free_memory
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, Ratio, Setup, Variant, benchmark

UNCERTAIN = ("margin", "least-confidence", "entropy")
SHARE = 0.25  # of the free memory that materialised gradients may take
FEW_ROWS, FEW_PICKS = 1000, 100  # for the loop on materialised gradients, and for ours against it
_log = logging.getLogger(__name__)


@benchmark(
    rounds=3,
    unit="rows",
    small={"rows": 60, "classes": 4, "features": 8, "labelled": 5, "k": 10},
    least={"rows": 2, "classes": 2},
)
def select(
    setup: Setup,
    rows: int = 20_000,
    classes: int = 100,
    features: int = 512,
    labelled: int = 1000,
    k: int = 1000,
) -> Iterator[Case]:
    """The six criteria, against argsort, k-center by torch.cdist, and BADGE in numpy.

    BADGE on materialised gradients needs rows x classes x features floats. It and ours are compared on 1,000
    rows and 100 picks, and on fewer rows if there is less memory.

    Args:
        rows: rows of the pool.
        classes: columns of the logits.
        features: columns of the features.
        labelled: rows that are labelled already.
        k: rows to choose.
    """
    (normal, *_), k = setup.draws(0), min(k, rows)
    logits, vectors = 3 * normal(rows, classes), normal(rows, features).relu()
    known, ids = normal(labelled, features).relu(), list(map(str, range(rows)))
    pool = query.Pool(ids, logits=logits, features=vectors, labelled=query.Labelled(features=known))
    names = plugins.names("criterion")
    variants: dict[str, Variant] = {name: partial(query.select, name, pool, k, seed=0) for name in names}
    variants["random, randperm"] = lambda: torch.randperm(rows, device=setup.place)[:k]
    for name in UNCERTAIN:
        variants[f"{name}, argsort"] = partial(usual.most_uncertain, logits, k, name)
    variants["core-set, cdist"] = partial(usual.kcenter, vectors, known, k)
    variants["badge, numpy"] = lambda: usual.badge(logits.softmax(1), vectors, k)

    def verify() -> None:
        """Nearly all picks must be the usual ones; rounding may swap the last."""
        for name in UNCERTAIN:
            ours, theirs = variants[name]().positions, variants[f"{name}, argsort"]()
            shared = int(torch.isin(ours, theirs).sum())
            if shared < 0.99 * k - 1:
                raise AssertionError(f"{name}: {shared} of {k} picks are those of the usual loop")

    ratios = [Ratio(other, name) for name in names for other in variants if other.startswith(f"{name}, ")]
    yield Case("all rows", variants, verify=verify, ratios=ratios, items=rows)

    a_row = 3 * 4 * classes * features  # bytes; the gradients are made in three steps
    few = min(FEW_ROWS, rows, int(SHARE * free_memory(setup.place) / a_row))
    if few < 2:
        _log.warning("bench select: BADGE on materialised gradients is left out: too little memory")
        return
    picks = min(FEW_PICKS, k, few)
    part = pool.replace(ids=ids[:few], logits=logits[:few], features=vectors[:few])
    variants = {
        "badge": partial(query.select, "badge", part, picks, seed=0),
        "badge, gradients": partial(usual.badge_gradients, logits[:few], vectors[:few], picks),
    }
    yield Case(f"{picks:,} of {few:,} rows", variants, items=few)
