"""Scoring a pool: logits and features in one pass from the store, against a bare forward."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sal_fast import train
from sal_fast.bench import pool, timing
from sal_fast.bench.timing import Ratio
from sal_fast.data.store import Store
from sal_fast.models import Classifier
from sal_fast.train.evaluate import BATCH

OURS, BARE, LOADER = "score", "bare forward loop", "DataLoader, softmax, to the host"


@dataclass(frozen=True)
class Options(pool.Network):
    """Pool scoring: logits and penultimate features from the store, against a bare loop and a user's.

    Asked: at least 0.95 of a bare forward loop over a fixed batch of the same size.
    """

    images: int = 1024
    """In the pool."""


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    load = os.getloadavg()[0]
    model = pool.model(options, device).eval()
    size = options.image_size
    samples = pool.store(options.images, options.classes, size, size, device)
    rows = torch.arange(options.images, device=device)
    views = torch.cat([images.cpu() for images in samples.views(rows.split(BATCH))])

    def ours() -> tuple[Tensor, Tensor | None]:
        return train.score(model, samples, rows)

    usual = _loader(model, views, device)
    tolerance = 1e-3 if options.precision == "float32" else 5e-2
    torch.testing.assert_close(ours()[0].softmax(1).cpu(), usual(), rtol=tolerance, atol=tolerance)
    variants = {OURS: ours, BARE: _bare(model, samples, rows), LOADER: usual}
    timed = timing.in_turn("score", variants, device, options)
    ratios = [Ratio(BARE, OURS, at_least=0.95), Ratio(LOADER, OURS)]
    items = dict.fromkeys(timed, options.images)
    return timing.document("score", device, options, load, timed, ratios, unit="images", items=items)


def _bare(model: Classifier, samples: Store, rows: Tensor) -> Callable[[], None]:
    """As many batches of the same sizes, each a part of one fixed tensor."""
    sizes = [len(part) for part in rows.split(BATCH)]
    fixed = next(samples.views([rows[:BATCH]]))

    @torch.no_grad()
    def call() -> None:
        for size in sizes:
            model(fixed[:size])

    return call


def _loader(model: Classifier, views: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """What one usually writes."""
    loader = DataLoader(TensorDataset(views), batch_size=BATCH)

    @torch.no_grad()
    def call() -> Tensor:
        found = []
        for (images,) in loader:
            found.append(model(images.to(device))[0].softmax(1).cpu())
        return torch.cat(found)

    return call
