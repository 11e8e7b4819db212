"""The criteria of selection, the ops that choose rows of a pool, and how their time grows."""

import itertools
import logging
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from sal_fast import ops, plugins, query
from sal_fast._util.memory import free_memory
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, OpSetup, Ratio, Setup, Variant, against, benchmark, both_ways

VERIFIED = 512  # rows of logits
UNCERTAIN = ("margin", "least-confidence", "entropy")
SHARE = 0.25  # of the free memory that materialised gradients may take
FEW_ROWS, FEW_PICKS = 1000, 100  # for the loop on materialised gradients, and for ours against it
POOLS = ("spread", "clusters")
GROWTH = (1, 2, 4, 8)
MOST_PICKS = 1000  # of the largest pool
SELECTIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "badge": lambda probs, features, k: ops.badge(probs, features, k, seed=0),
    "kcenter": lambda probs, features, k: ops.kcenter(features, k),
}
_log = logging.getLogger(__name__)


@benchmark(rounds=3, unit="rows", least={"rows": 2, "classes": 2})
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


@benchmark(rounds=15)
def uncertainty(setup: OpSetup, rows: int = 65_536, columns: int = 1000) -> Iterator[Case]:
    """Uncertainty of rows of logits.

    The variant `eager` makes the matrix of probabilities, as one usually does; `lean` is the best that we
    found in eager torch; `compile` is torch.compile of eager.

    Args:
        rows: rows of logits.
        columns: classes.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        return ((3 * setup.draws(seed)[0](rows, columns)).to(setup.kind),)

    matrix, sums = rows * columns * setup.kind.itemsize, 4 * rows
    moved = matrix + sums, 3 * matrix + sums  # backward reads the logits again and writes the gradient
    tolerances = (1e-5, 1e-6, VERIFIED), (1e-2, 1e-6, VERIFIED)
    for kind in get_args(ops.UncertaintyKind):
        functions = (ops.uncertainty, usual.uncertainty, usual.lean_uncertainty)
        ours, eager, lean = (partial(function, kind=kind) for function in functions)
        yield from both_ways(
            Case(kind, against(ours, eager, lean=lean), inputs), moved=moved, verify=tolerances
        )


@benchmark(rounds=15)
def kcenter(
    setup: OpSetup, rows: int = 20_000, columns: int = 512, labelled: int = 1000, picks: int = 400
) -> Iterator[Case]:
    """The greedy k-center, in blocks, against one pick a pass with torch.cdist (as dal-toolbox writes it).

    The variant `differences` avoids products of matrices, because their set-up costs more than one column.

    Args:
        rows: rows of the pool.
        columns: features.
        labelled: rows that are labelled already.
        picks: rows to choose.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, *_ = setup.draws(seed)
        return tuple(normal(count, columns).relu().to(setup.kind) for count in (rows, labelled))

    def verify(features: Tensor, centers: Tensor) -> None:
        part, known, few = features[:2000], centers[:100], min(picks, 50)
        expected = usual.kcenter(part.double(), known.double(), few, products=False)
        assert torch.equal(ops.kcenter(part, few, centers=known).to(expected), expected)

    variants: dict[str, Variant] = {
        "sal_fast": lambda features, centers: ops.kcenter(features, picks, centers=centers),
        "cdist": partial(usual.kcenter, k=picks),
        "differences": partial(usual.kcenter, k=picks, products=False),
    }
    moved = (rows + labelled) * columns * setup.kind.itemsize  # one pass
    yield Case(f"{picks}-picks", variants, inputs, verify, floor=moved)


@benchmark(rounds=15)
def badge(
    setup: OpSetup, rows: int = 20_000, classes: int = 100, columns: int = 512, picks: int = 400
) -> Iterator[Case]:
    """BADGE in blocks, against one pick a pass in float64 (sequential), and in numpy on a CPU.

    Args:
        rows: rows of the pool.
        classes: columns of the probabilities.
        columns: features.
        picks: rows to choose.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, *_ = setup.draws(seed)
        probs = (3 * normal(rows, classes)).softmax(1)
        return probs.to(setup.kind), normal(rows, columns).relu().to(setup.kind)

    def verify(probs: Tensor, features: Tensor) -> None:
        """The first pick is the longest gradient and no row comes twice; tests hold the distribution."""
        q = probs.double()
        q[torch.arange(len(q)), q.argmax(1)] -= 1
        longest = (q.square().sum(1) * features.double().square().sum(1)).argmax()
        chosen = ops.badge(probs, features, picks, seed=0)
        assert int(chosen[0]) == int(longest)
        assert len(chosen.unique()) == picks

    variants: dict[str, Variant] = {
        "sal_fast": partial(ops.badge, k=picks, seed=0),
        "sequential": partial(ops.badge, k=picks, seed=0, method="sequential"),
    }
    variants |= {"numpy": partial(usual.badge, k=picks)} if setup.place.type == "cpu" else {}
    moved = rows * (classes + columns) * setup.kind.itemsize  # one pass
    yield Case(f"{picks}-picks", variants, inputs, verify, floor=moved)


@benchmark(rounds=3, least={"largest": 0})
def growth(
    setup: Setup,
    rows: int = 25_000,
    picks: int = 100,
    classes: int = 100,
    columns: int = 256,
    largest: int = 10**6,
) -> Iterator[Case]:
    """How the time of BADGE and k-center grows with the rows of a pool and with the picks.

    A case has 50,000 rows or 200 picks and varies the other. Its ratio is the largest over the smallest.
    The rows of the pool `spread` are all about equally far apart. Those of `clusters` are like a trained
    network's: each is near the centre of its class and mostly sure of it, and the few far ones are taken
    first. A larger pool is measured once, in a process of its own, with its peak of memory.

    Args:
        rows: rows of the smallest pool; the others have 2, 4 and 8 times as many.
        picks: the smallest query; the others have 2, 4 and 8 times as many picks.
        classes: columns of the probabilities.
        columns: features.
        largest: rows of the larger pool, of which 1,000 are picked; 0 leaves it out.
    """

    def one_large(op: str, kind: str) -> dict[str, float]:
        spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
        with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (threads,)) as process:
            found = process.submit(once, op, largest, kind, classes, columns).result()
        return {f"{op}, {kind}, {largest} rows: {name}": value for name, value in found.items()}

    sizes = {
        "rows": {str(scale * rows): (scale * rows, 2 * picks) for scale in GROWTH},
        "picks": {str(scale * picks): (2 * rows, scale * picks) for scale in GROWTH},
    }
    for kind in POOLS:
        probs, features = (part.to(setup.place) for part in pool(GROWTH[-1] * rows, kind, classes, columns))
        for (op, select), by in itertools.product(SELECTIONS.items(), sizes):
            variants = {
                name: partial(select, probs[:n], features[:n], k) for name, (n, k) in sizes[by].items()
            }
            figures = partial(one_large, op, kind) if by == "rows" and largest else dict
            smallest, *_, biggest = variants
            yield Case(f"{op}, {kind}, by {by}", variants, ratios=[Ratio(biggest, smallest)], figures=figures)


def pool(rows: int, kind: str, classes: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return probabilities and features in float32; no other tensor of their size is made."""
    draws = torch.Generator().manual_seed(0)
    probs, features = torch.empty(rows, classes), torch.empty(rows, columns)
    centers = torch.randn(classes, columns, generator=draws).relu_()
    for p, e in zip(probs.split(10_000), features.split(10_000), strict=True):
        p.copy_(3 * torch.randn(p.shape, generator=draws))
        e.copy_(torch.randn(e.shape, generator=draws).relu_())
        if kind == "clusters":
            labels = torch.randint(classes, (len(e),), generator=draws)
            p[torch.arange(len(e)), labels] += 10
            e.mul_(0.2).add_(centers[labels])
        p.copy_(p.softmax(1))
    return probs, features


def once(op: str, rows: int, kind: str, classes: int, columns: int) -> dict[str, float]:
    """Select once from a pool on the CPU, in a process whose peak of memory is the call's."""
    probs, features = pool(rows, kind, classes, columns)
    SELECTIONS[op](probs[:2000], features[:2000], 10)
    before, begin = _peak(), time.perf_counter()
    chosen = SELECTIONS[op](probs, features, min(MOST_PICKS, rows))
    spent, peak = time.perf_counter() - begin, _peak()
    assert len(chosen.unique()) == len(chosen)
    over = (peak - before) / (features.nbytes + (probs.nbytes if op == "badge" else 0))
    rate = len(chosen) / spent
    return {"seconds": spent, "picks_per_second": rate, "peak_bytes": peak, "peak_over_inputs": over}


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
