"""Scoring of a pool: logits and features in one pass from the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sal_fast import train
from sal_fast.bench import network
from sal_fast.bench.suite import Case, Ratio
from sal_fast.data.store import Store
from sal_fast.models import Classifier
from sal_fast.train.evaluate import BATCH

OURS, BARE, LOADER = "score", "bare forward loop", "DataLoader, softmax, to the host"


@dataclass(frozen=True)
class Benchmark(network.NetworkBenchmark):
    """Logits and penultimate features of a pool from the store, against a bare forward loop.

    The bare loop takes a fixed batch of the same size; its time over ours should be at least 0.95. The usual
    loop has a DataLoader, softmax, and each batch copied to the host.
    """

    SMALL: ClassVar = {"image_size": 48, "images": 5, "classes": 3}
    UNIT: ClassVar = "images"

    images: int = 1024
    """Images in the pool."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        model = network.model(self, device).eval()
        samples = network.store(self.images, self.classes, self.image_size, self.image_size, device)
        rows = torch.arange(self.images, device=device)
        views = torch.cat([images.cpu() for images in samples.views(rows.split(BATCH))])
        ours = partial(train.score, model, samples, rows)
        loader = _loader(model, views, device)

        def verify() -> None:
            tolerance = 1e-3 if self.precision == "float32" else 5e-2
            torch.testing.assert_close(ours()[0].softmax(1).cpu(), loader(), rtol=tolerance, atol=tolerance)

        yield Case(
            variants={OURS: ours, BARE: _bare(model, samples, rows), LOADER: loader},
            verify=verify,
            ratios=[Ratio(BARE, OURS, at_least=0.95), Ratio(LOADER, OURS)],
            items=self.images,
        )


def _bare(model: Classifier, samples: Store, rows: Tensor) -> Callable[[], None]:
    """Return a loop over as many batches of the same sizes, each a part of one fixed tensor."""
    sizes = [len(part) for part in rows.split(BATCH)]
    fixed = next(samples.views([rows[:BATCH]]))

    @torch.no_grad()
    def call() -> None:
        for size in sizes:
            model(fixed[:size])

    return call


def _loader(model: Classifier, views: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """Return the usual loop."""
    loader = DataLoader(TensorDataset(views), batch_size=BATCH)

    @torch.no_grad()
    def call() -> Tensor:
        found = []
        for (images,) in loader:
            found.append(model(images.to(device))[0].softmax(1).cpu())
        return torch.cat(found)

    return call
