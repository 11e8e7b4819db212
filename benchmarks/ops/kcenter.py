"""kcenter: in blocks, and one pick a pass with torch.cdist (as dal-toolbox writes it)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.registry import Case, name_of
from sal_fast import ops
from sal_fast.bench import usual

SIZES = {"rows": 20_000, "columns": 512, "labelled": 1000, "picks": 400}


def differences(features: Tensor, centers: Tensor, k: int) -> Tensor:
    """`usual.kcenter` without its products, whose set-up costs more than one column does."""
    nearest = torch.cdist(features, centers).amin(1)
    picks = []
    for _ in range(k):
        picks.append(nearest.argmax())
        column = torch.cdist(features, features[picks[-1], None], compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, column[:, 0])
    return torch.stack(picks)


def _verify(features: Tensor, centers: Tensor, k: int) -> None:
    """On a part: the picks of one at a time in float64."""
    part, known, few = features[:2000], centers[:100], min(k, 50)
    exact = torch.cdist(part.double(), known.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    expected = []
    for _ in range(few):
        expected.append(int(exact.argmax()))
        exact = torch.minimum(exact, (part.double() - part[expected[-1]].double()).square().sum(1).sqrt())
    assert ops.kcenter(part, few, centers=known).tolist() == expected


def cases(dtype: torch.dtype, rows: int, columns: int, labelled: int, picks: int) -> list[Case]:
    def inputs(device: torch.device, seed: int) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        shapes = (rows, columns), (labelled, columns)
        return tuple(torch.randn(shape, generator=draws, device=device).relu().to(dtype) for shape in shapes)

    return [
        Case(
            op="kcenter",
            name=f"{picks}-picks",
            inputs=inputs,
            variants={
                "sal_fast": lambda features, centers: ops.kcenter(features, picks, centers=centers),
                "cdist": functools.partial(usual.kcenter, k=picks),
                "differences": functools.partial(differences, k=picks),
            },
            verify=functools.partial(_verify, k=picks),
            bytes_moved=(rows + labelled) * columns * dtype.itemsize,  # once, were all picks known
            shape=(rows, columns),
            dtype=name_of(dtype),
        )
    ]
