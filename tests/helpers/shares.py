"""What every rank of a group does in test_shares.py: `python shares.py FOLDER RANK SIZE BACKEND DEVICE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from patience import PATIENCE
from torch import Tensor, distributed

from sal_fast import ops, query
from sal_fast.ops import _rows
from sal_fast.ops.badge import METHODS
from sal_fast.ops.badge import blocks as badge_blocks
from sal_fast.ops.kcenter import blocks as kcenter_blocks


def pools() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(3000, 24, generator=generator)
    lattice = torch.randint(0, 4, (1500, 6), generator=generator).float()  # ties, and equal rows
    clusters = torch.randn(1500, 8, generator=generator) * 2.0**-6
    clusters[::2] += 1e4
    return {
        "remainder": normal[:1471],
        "blocks": normal[:1280],
        "small": normal[:50],
        "one": normal[:1],
        "none": normal[:0],
        "lattice": lattice,
        "same": lattice[:1].repeat(700, 1),
        "float64": normal.double()[:1100],
        "large": normal[:600] * 1e25,  # taken in float64
        "clusters": clusters,  # float32 bounds decide too little
        "columns": normal.T.contiguous().T[:1471],
        "long": torch.randn(9000, 3, generator=generator),
    }


def results(group: distributed.ProcessGroup | None, device: torch.device) -> dict[Any, Tensor]:
    """Picks, and the numbers that they come from."""
    found: dict[Any, Tensor] = {}
    for name, values in pools().items():
        pool = values.to(device)
        probs = pool[:, :5].double().softmax(1).to(pool.dtype)
        for k in {min(120, len(pool)), min(7, len(pool))}:
            found[name, "k-center", k] = ops.kcenter(pool, k, group=group)
            found[name, "labelled", k] = ops.kcenter(pool, k, centers=pool[: len(pool) // 3], group=group)
            for method in METHODS:
                number = k if method == "blocked" else min(k, 8)
                found[name, method, k] = ops.badge(probs, pool, number, seed=k, method=method, group=group)
        if len(pool) == 0:
            continue
        share = _rows.Share("test", device, group)
        rows, first = _rows.Rows(pool, device), pool[:300]
        kcenter = kcenter_blocks._Pool(rows, None, share)
        found[name, "norms"] = kcenter.norms.clone()
        kcenter.cover([first, pool[:1]])
        found[name, "centred"], found[name, "upper"] = kcenter.norms, kcenter.upper
        found[name, "mean"] = kcenter.mean
        badge = badge_blocks._Pool(_rows.Rows(probs, device), rows, share)
        badge.cover(list(range(0, len(pool), 3)))
        found[name, "lengths"], found[name, "tops"] = badge.norms, badge.tops
        found[name, "weights"] = badge.weights
    values = pools()["remainder"].to(device)
    labelled = query.Labelled(features=values[:9])
    ids = list(map(str, range(1462)))
    asked = query.Pool(ids, logits=values[9:], features=values[9:], labelled=labelled, group=group)
    for criterion in ("badge", "core-set"):
        for ties in ("key", "position"):
            found[criterion, ties] = query.select(criterion, asked, 40, seed=1, ties=ties).positions
    saturated = asked.replace(logits=1000 * torch.eye(5, device=device).repeat(293, 1)[:1462])
    found["badge without gradients"] = query.select("badge", saturated, 40, seed=1).positions
    return {what: value.cpu() for what, value in found.items()}


def said(error: type[Exception], run: Callable[[], object]) -> str:
    try:
        run()
    except error as raised:
        return f"{error.__name__}: {raised}"
    return "nothing"


def refusals(group: distributed.ProcessGroup | None, rank: int) -> dict[str, str]:
    """One row is bad, or one rank short of memory; all must say so, and none wait."""
    messages: dict[str, str] = {}
    good = torch.randn(1471, 6, generator=torch.Generator().manual_seed(0))
    for value in (float("nan"), float("inf"), -float("inf"), 1e200):
        for row in (0, 700, 1470):
            bad = good.double()
            bad[row, 2] = value
            for name, run in {
                "k-center": lambda bad=bad: ops.kcenter(bad, 5, group=group),
                "labelled": lambda bad=bad: ops.kcenter(good.double(), 5, centers=bad, group=group),
                "badge": lambda bad=bad: ops.badge(good.double(), bad, 5, seed=0, group=group),
            }.items():
                messages[f"{name} {value} {row}"] = said(ValueError, run)
    free = _rows.free_memory
    _rows.free_memory = lambda device: 1000 if rank == 0 else free(device)
    messages["k-center memory"] = said(MemoryError, lambda: ops.kcenter(good, 5, group=group))
    messages["badge memory"] = said(MemoryError, lambda: ops.badge(good, good, 5, seed=0, group=group))
    _rows.free_memory = free
    return messages


def shrink() -> dict[str, object]:
    """Many blocks of few rows, and more of them than parts; what was there before."""
    before: dict[str, object] = {"_BLOCK": _rows._BLOCK, "PARTS": _rows.PARTS}
    _rows._BLOCK, _rows.PARTS = {"cpu": 1 << 12, "cuda": 1 << 12}, 11
    return before


def main(folder: Path, rank: int, size: int, backend: str, device: torch.device) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )
    shrink()
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    for members in sorted({2, size}):
        group = distributed.new_group(list(range(members)))
        if rank < members:
            messages = refusals(group, rank) if device.type == "cpu" else {}
            torch.save((results(group, device), messages), folder / f"{members}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], torch.device(sys.argv[5]))
