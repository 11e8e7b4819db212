"""How selection grows with the pool and the query, and one pool of a million: JSON and a plot.

python -m benchmarks.selection_growth [--out results/selection-growth.json] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import torch
from torch import Tensor

import sal_fast
from benchmarks.run import commit
from sal_fast import ops

ROWS = (25_000, 50_000, 100_000, 200_000)  # at 200 picks
PICKS = (100, 200, 400, 800)  # of 50,000 rows
POOLS = ("spread", "clusters")
CLASSES, WIDTH = 100, 256
MILLION, THOUSAND = 1_000_000, 1000
RESULTS = Path(__file__).parent / "results" / "selection-growth.json"


def pool(rows: int, kind: str) -> tuple[Tensor, Tensor]:
    """Probabilities and features in float32; nothing else of their size is made.

    spread: every row by itself, all about as far apart. clusters: as of a trained network, each row near the
    centre of its class and mostly sure of it; what is far is soon taken.
    """
    draws = torch.Generator().manual_seed(0)
    probs, features = torch.empty(rows, CLASSES), torch.empty(rows, WIDTH)
    centers = torch.randn(CLASSES, WIDTH, generator=draws).relu_()
    for p, e in zip(probs.split(10_000), features.split(10_000), strict=True):
        p.copy_(3 * torch.randn(p.shape, generator=draws))
        e.copy_(torch.randn(e.shape, generator=draws).relu_())
        if kind == "clusters":
            classes = torch.randint(CLASSES, (len(e),), generator=draws)
            p[torch.arange(len(e)), classes] += 10
            e.mul_(0.2).add_(centers[classes])
        p.copy_(p.softmax(1))
    return probs, features


OPS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "badge": lambda probs, features, k: ops.badge(probs, features, k, seed=0),
    "kcenter": lambda probs, features, k: ops.kcenter(features, k),
}


def seconds(op: str, probs: Tensor, features: Tensor, k: int) -> float:
    begin = time.perf_counter()
    picks = OPS[op](probs, features, k)
    spent = time.perf_counter() - begin
    assert len(picks.unique()) == k
    return spent


def growth(repeats: int) -> list[dict[str, float | str]]:
    """Medians over rounds in which every case has its turn."""
    pools = {kind: pool(max(ROWS), kind) for kind in POOLS}
    sizes = sorted({(n, 200) for n in ROWS} | {(50_000, k) for k in PICKS})
    times: dict[tuple[str, str, int, int], list[float]] = {}
    for _ in range(repeats):
        for (kind, (probs, features)), (n, k), op in itertools.product(pools.items(), sizes, OPS):
            times.setdefault((op, kind, n, k), []).append(seconds(op, probs[:n], features[:n], k))
    return [
        {"op": op, "pool": kind, "rows": n, "picks": k, "seconds": statistics.median(found)}
        for (op, kind, n, k), found in times.items()
    ]


def million(op: str, kind: str) -> dict[str, float | str]:
    """In a process of its own, whose peak of memory is the call's."""
    probs, features = pool(MILLION, kind)
    OPS[op](probs[:2000], features[:2000], 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    spent = seconds(op, probs, features, THOUSAND)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    inputs = features.nbytes + (probs.nbytes if op == "badge" else 0)
    return {
        "op": op,
        "pool": kind,
        "rows": MILLION,
        "picks": THOUSAND,
        "seconds": spent,
        "picks_per_second": THOUSAND / spent,
        "peak_bytes": after,
        "peak_over_inputs": (after - before) / inputs,
    }


def in_a_process(op: str, kind: str, threads: int) -> dict[str, float | str]:
    command = [sys.executable, "-m", "benchmarks.selection_growth"]
    command += ["--million", op, kind, "--threads", str(threads)]
    found: dict[str, float | str] = json.loads(subprocess.run(command, check=True, stdout=PIPE).stdout)
    return found


def plot(results: list[dict[str, float | str]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, by, fixed, value in ((panels[0], "rows", "picks", 200), (panels[1], "picks", "rows", 50_000)):
        for op, kind in itertools.product(OPS, POOLS):
            chosen = sorted(
                (row[by], row["seconds"])
                for row in results
                if (row["op"], row["pool"], row[fixed]) == (op, kind, value)
            )
            style = {"badge": "oC0", "kcenter": "sC1"}[op] + {"spread": "-", "clusters": "--"}[kind]
            axis.loglog(*zip(*chosen, strict=True), style, label=f"{op}, {kind}")
        axis.set(xlabel=by, ylabel="seconds", title=f"{value:,} {fixed}", ylim=(1e-2, 10))
        axis.set_xticks([x for x, _ in chosen], labels=[f"{x:,}" for x, _ in chosen])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--million", nargs=2, metavar=("OP", "POOL"), help=f"only this: {'|'.join(OPS)} {'|'.join(POOLS)}"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.million and not (options.million[0] in OPS and options.million[1] in POOLS):
        parser.error(f"--million: one of {', '.join(OPS)} and one of {', '.join(POOLS)}")
    if options.million:
        print(json.dumps(million(*options.million)))
        return
    document = {
        "version": sal_fast.__version__,
        "commit": commit(),
        "threads": options.threads,
        "classes": CLASSES,
        "columns": WIDTH,
        "results": growth(options.repeats),
        "million": [in_a_process(op, kind, options.threads) for kind in POOLS for op in OPS],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        plot(document["results"], options.plot)
    print(options.out)


if __name__ == "__main__":
    main()
