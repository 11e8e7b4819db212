"""badge: in blocks, one at a time in float64, and the factorised numpy loop, a pass a pick, as published."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of
from sal_fast import ops
from sal_fast.bench import usual

SIZES = {"rows": 20_000, "classes": 100, "columns": 512, "picks": 400}


def _verify(probs: Tensor, features: Tensor, k: int) -> None:
    """The first pick is the longest gradient, no row comes twice; the tests hold the law."""
    q = probs.double()
    q[torch.arange(len(q)), q.argmax(1)] -= 1
    longest = (q.square().sum(1) * features.double().square().sum(1)).argmax()
    picks = ops.badge(probs, features, k, seed=0)
    assert int(picks[0]) == int(longest)
    assert len(picks.unique()) == k


def cases(dtype: torch.dtype, rows: int, classes: int, columns: int, picks: int) -> list[Case]:
    def inputs(device: torch.device, seed: int) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        logits = 3 * torch.randn(rows, classes, generator=draws, device=device)
        features = torch.randn(rows, columns, generator=draws, device=device).relu()
        return logits.softmax(1).to(dtype), features.to(dtype)

    variants: dict[str, Variant] = {
        "sal_fast": functools.partial(ops.badge, k=picks, seed=0),
        "sequential": functools.partial(ops.badge, k=picks, seed=0, method="sequential"),
    }
    if not torch.cuda.is_available():
        variants["numpy"] = functools.partial(usual.badge, k=picks)
    return [
        Case(
            op="badge",
            name=f"{picks}-picks",
            inputs=inputs,
            variants=variants,
            verify=functools.partial(_verify, k=picks),
            bytes_moved=rows * (classes + columns) * dtype.itemsize,  # once, were all picks known
            shape=(rows, classes, columns),
            dtype=name_of(dtype),
        )
    ]
