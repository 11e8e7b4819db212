"""badge: in blocks, one at a time in float64, and the factorised numpy loop, a pass a pick, as published."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of
from sal_fast import ops

SIZES = {"rows": 20_000, "classes": 100, "columns": 512, "picks": 400}


def loop(probs: Tensor, features: Tensor, k: int) -> Tensor:
    """D^2 sampling on |q|^2 |e|^2 and (q.q')(e.e'), two matrix-vector products a pick."""
    p, e = probs.numpy(), features.numpy()
    q = p.copy()
    q[np.arange(len(p)), p.argmax(1)] -= 1
    norms = (q**2).sum(1) * (e**2).sum(1)
    draws = np.random.default_rng(0)
    picks = [int(norms.argmax())]
    distances = np.full(len(p), np.inf)
    for _ in range(1, k):
        last = picks[-1]
        squared = norms + norms[last] - 2 * (q @ q[last]) * (e @ e[last])
        distances = np.minimum(distances, np.maximum(squared, 0))
        distances[picks] = 0
        chances = distances.astype(np.float64)
        picks.append(int(draws.choice(len(p), p=chances / chances.sum())))
    return torch.tensor(picks)


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
        variants["numpy"] = functools.partial(loop, k=picks)
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
