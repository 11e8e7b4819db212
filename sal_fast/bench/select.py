"""The six criteria on one pool of logits and features, against the usual loops."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from sal_fast import plugins, query
from sal_fast._util.memory import free_memory
from sal_fast.bench import timing, usual
from sal_fast.bench.timing import Call, Ratio
from sal_fast.query import Pool

UNCERTAIN = ("margin", "least-confidence", "entropy")
SHARE = 0.25  # of the free memory that materialised gradients may take
FEW_ROWS, FEW_PICKS = 1000, 100  # for the loop on materialised gradients, and for ours against it


@dataclass(frozen=True)
class Options(timing.Options):
    """The six criteria, against argsort, a k-center by torch.cdist and BADGE in numpy, a pass a pick.

    BADGE on materialised gradients needs rows x classes x features floats: it and ours run on 1,000 of the
    rows and 100 picks too, fewer rows where memory does not allow that.
    """

    LEAST: ClassVar = {"rows": 2, "classes": 2}

    rounds: int = 3
    """In each of which every variant has its turn."""
    rows: int = 20_000
    """In the pool."""
    classes: int = 100
    """Columns of the logits."""
    features: int = 512
    """Columns of the features."""
    labelled: int = 1000
    """Rows that are labelled already."""
    k: int = 1000
    """Picks."""


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    load = os.getloadavg()[0]
    draws = torch.Generator(device).manual_seed(0)

    def normal(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=draws, device=device)

    rows, k = options.rows, min(options.k, options.rows)
    logits, features = 3 * normal(rows, options.classes), normal(rows, options.features).relu()
    labelled = normal(options.labelled, options.features).relu()
    ids = list(map(str, range(rows)))
    pool = Pool(ids, logits=logits, features=features, labelled=query.Labelled(features=labelled))
    names = plugins.names("criterion")
    variants: dict[str, Call] = {name: partial(query.select, name, pool, k, seed=0) for name in names}
    variants["random, randperm"] = lambda: torch.randperm(rows, device=device)[:k]
    for name in UNCERTAIN:
        _verify(name, pool, k)
        variants[f"{name}, argsort"] = partial(usual.most_uncertain, logits, k, name)
    variants["core-set, cdist"] = lambda: usual.kcenter(features, labelled, k)
    variants["badge, numpy"] = lambda: usual.badge(logits.softmax(1), features, k)
    ratios = [Ratio(other, name) for name in names for other in variants if other.startswith(f"{name}, ")]
    items = dict.fromkeys(variants, rows)
    a_row = 4 * options.classes * options.features
    few = min(FEW_ROWS, rows, int(SHARE * free_memory(device) / (3 * a_row)))  # they are made in three steps
    picks = min(FEW_PICKS, k, few)
    if few >= 2:
        part = pool.replace(ids=ids[:few], logits=logits[:few], features=features[:few])
        name = f"badge, {picks:,} of {few:,} rows"
        added: dict[str, Call] = {
            name: partial(query.select, "badge", part, picks, seed=0),
            f"{name}, gradients": lambda: usual.badge_gradients(logits[:few], features[:few], picks),
        }
        variants |= added
        items |= dict.fromkeys(added, few)
        ratios.append(Ratio(f"{name}, gradients", name))
    else:
        print("bench select: no memory for BADGE on materialised gradients; left out", file=sys.stderr)
    timed = timing.in_turn("select", variants, device, options)
    return timing.document("select", device, options, load, timed, ratios, unit="rows", items=items)


def _verify(name: str, pool: Pool, k: int) -> None:
    """No speed of a wrong result: nearly all picks are the same (rounding may swap the last)."""
    ours = query.select(name, pool, k, seed=0).positions
    theirs = usual.most_uncertain(pool.logits, k, name)
    shared = int(torch.isin(ours, theirs).sum())
    if shared < 0.99 * k - 1:
        raise AssertionError(f"{name}: {shared} of {k} picks are those of the usual loop")
