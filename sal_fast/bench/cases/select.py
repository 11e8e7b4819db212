"""The criteria of selection on one pool of logits and features."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from sal_fast import plugins, query
from sal_fast._util.memory import free_memory
from sal_fast.bench import usual
from sal_fast.bench.single import draws
from sal_fast.bench.suite import Benchmark as Base
from sal_fast.bench.suite import Case, Ratio, Variant
from sal_fast.query import Pool

UNCERTAIN = ("margin", "least-confidence", "entropy")
SHARE = 0.25  # of the free memory that materialised gradients may take
FEW_ROWS, FEW_PICKS = 1000, 100  # for the loop on materialised gradients, and for ours against it
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark(Base):
    """The six criteria, against argsort, k-center by torch.cdist, and BADGE in numpy.

    BADGE on materialised gradients needs rows x classes x features floats. It and ours are compared on 1,000
    rows and 100 picks, and on fewer rows if there is less memory.
    """

    LEAST: ClassVar = {"rows": 2, "classes": 2}
    SMALL: ClassVar = {"rows": 60, "classes": 4, "features": 8, "labelled": 5, "k": 10}
    UNIT: ClassVar = "rows"

    rounds: int = 3
    """Every variant has its turn in each round."""
    rows: int = 20_000
    """Rows of the pool."""
    classes: int = 100
    """Columns of the logits."""
    features: int = 512
    """Columns of the features."""
    labelled: int = 1000
    """Rows that are labelled already."""
    k: int = 1000
    """Rows to choose."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        normal, rows, k = draws(device, 0).normal, self.rows, min(self.k, self.rows)
        logits, features = 3 * normal(rows, self.classes), normal(rows, self.features).relu()
        labelled = normal(self.labelled, self.features).relu()
        ids = list(map(str, range(rows)))
        pool = Pool(ids, logits=logits, features=features, labelled=query.Labelled(features=labelled))
        names = plugins.names("criterion")
        variants: dict[str, Variant] = {name: partial(query.select, name, pool, k, seed=0) for name in names}
        variants["random, randperm"] = lambda: torch.randperm(rows, device=device)[:k]
        for name in UNCERTAIN:
            variants[f"{name}, argsort"] = partial(usual.most_uncertain, logits, k, name)
        variants["core-set, cdist"] = partial(usual.kcenter, features, labelled, k)
        variants["badge, numpy"] = lambda: usual.badge(logits.softmax(1), features, k)
        ratios = [Ratio(other, name) for name in names for other in variants if other.startswith(f"{name}, ")]
        yield Case("all rows", variants, verify=partial(_verify, pool, k), ratios=ratios, items=rows)

        a_row = 3 * 4 * self.classes * self.features  # bytes; the gradients are made in three steps
        few = min(FEW_ROWS, rows, int(SHARE * free_memory(device) / a_row))
        if few < 2:
            _log.warning("bench select: BADGE on materialised gradients is left out: too little memory")
            return
        picks = min(FEW_PICKS, k, few)
        part = pool.replace(ids=ids[:few], logits=logits[:few], features=features[:few])
        yield Case(
            f"{picks:,} of {few:,} rows",
            {
                "badge": partial(query.select, "badge", part, picks, seed=0),
                "badge, gradients": partial(usual.badge_gradients, logits[:few], features[:few], picks),
            },
            items=few,
        )


def _verify(pool: Pool, k: int) -> None:
    """Raise AssertionError unless nearly all picks are the usual ones; rounding may swap the last."""
    for name in UNCERTAIN:
        ours = query.select(name, pool, k, seed=0).positions
        theirs = usual.most_uncertain(pool.logits, k, name)
        shared = int(torch.isin(ours, theirs).sum())
        if shared < 0.99 * k - 1:
            raise AssertionError(f"{name}: {shared} of {k} picks are those of the usual loop")
