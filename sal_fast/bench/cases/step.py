"""A step of training with saliency and without, on fixed tensors and fed from the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sal_fast import ops
from sal_fast.bench import network, usual
from sal_fast.bench.suite import Case, Ratio
from sal_fast.data import augment
from sal_fast.data.augment import Augmentation
from sal_fast.data.store import Store
from sal_fast.experiment.regimes import INTERPRETABILITY_ALPHA, REGIMES
from sal_fast.models import Classifier
from sal_fast.train import Recipe, Step
from sal_fast.train.step import MOMENTUM, WEIGHT_DECAY

ALPHA = REGIMES["sal"].alpha
BARE, CLASSIFY, SALIENCY = "bare forward and backward", "cross-entropy step", "saliency step"
FED, TWO, EAGER = "saliency step from the store", "two models from the store", "saliency step, eager torch"


class Batch(NamedTuple):
    """The arguments of a step."""

    images: Tensor
    labels: Tensor
    targets: Tensor | ops.BitMask
    has_map: Tensor


@dataclass(frozen=True)
class Benchmark(network.NetworkBenchmark):
    """A step of training: with saliency and without, fed from the store, two models, in eager torch.

    A step with saliency should take at most 1.15 times as long as one without (ResNet-18, 64 px, CPU), and
    two models at most twice as long as one. On a GPU one model should reach 0.95 of the speed of a bare
    forward and backward on a fixed tensor, and two models 0.9.
    """

    SMALL: ClassVar = {"batch_size": 2, "image_size": 48, "images": 5, "classes": 3}
    UNIT: ClassVar = "images"

    batch_size: int = 16
    """Images a step."""
    images: int = 512
    """Images in the store."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        new = partial(network.model, self, device)
        model = new()  # raises InputError before anything costly is made
        step = partial(Step, recipe=_recipe(self.batch_size))
        batch_size = min(self.batch_size, self.images)
        stored = augment.stored_size("standard", self.image_size)
        samples = network.store(self.images, self.classes, self.image_size, stored, device)
        fixed = next(feed(samples, batch_size))
        fed, fed_two = feed(samples, batch_size), feed(samples, batch_size)
        one = step(new(), alpha=ALPHA)
        two = [step(new(), alpha=alpha) for alpha in (ALPHA, INTERPRETABILITY_ALPHA)]

        def both() -> None:
            batch = next(fed_two)
            for each in two:
                each(*batch)

        gpu = device.type == "cuda"
        small = not gpu and (self.arch, self.image_size) == ("resnet18", 64)
        yield Case(
            variants={
                BARE: _bare(new(), fixed),
                CLASSIFY: partial(step(new(), alpha=1), *fixed),
                SALIENCY: partial(step(new(), alpha=ALPHA), *fixed),
                FED: lambda: one(*next(fed)),
                TWO: both,
                EAGER: _eager(new(), fixed, self.precision == "bfloat16"),
            },
            verify=partial(_verify, model, fixed),
            ratios=[
                Ratio(SALIENCY, CLASSIFY, at_most=1.15 if small else None),
                Ratio(TWO, FED, at_most=2),
                Ratio(BARE, FED, at_least=0.95 if gpu else None),
                Ratio(BARE, TWO, times=2, at_least=0.9 if gpu else None),
                Ratio(FED, SALIENCY),
                Ratio(EAGER, SALIENCY),
            ],
            items=batch_size,
        )


def feed(samples: Store, batch_size: int) -> Iterator[Batch]:
    """Yield batches without end as the training loop does: cropped, mirrored, normalised, the maps alike."""
    draws = torch.Generator().manual_seed(0)
    for epoch in count():
        order = torch.randperm(len(samples.table), generator=draws).to(samples.device)
        groups = [rows for rows in order.split(batch_size) if len(rows) == batch_size]
        drawn = samples.draws(groups, Augmentation("standard", 0, 0, epoch))
        for rows, draw, images in zip(groups, drawn, samples.views(groups, drawn), strict=True):
            targets = samples.masks.batch(rows, draw.box)
            yield Batch(images, samples.labels[rows], targets, samples.has_mask[rows])


def _recipe(batch_size: int) -> Recipe:
    return Recipe(
        epochs=1,
        batch_size=batch_size,
        lr=0.005,
        lr_step=1,
        augment="standard",
        probe="cam",
        map_size=None,
        saliency_loss="ssim_l1",
        seed=0,
    )


def _bare(model: Classifier, batch: Batch) -> Callable[[], None]:
    images = batch.images
    if images.device.type == "cuda":
        images = images.contiguous(memory_format=torch.channels_last)

    def call() -> None:
        model.zero_grad()
        cross_entropy(model(images)[0], batch.labels).backward()

    return call


def _eager(model: Classifier, batch: Batch, bfloat16: bool) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    masks = _unpacked(batch.targets)
    head = model.head

    def call() -> None:
        optimizer.zero_grad()
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bfloat16):
            features = model.features(batch.images)
            loss = usual.cyborg_loss(features, head.weight, head.bias, batch.labels, masks, ALPHA)
        loss.backward()
        optimizer.step()

    return call


@torch.no_grad()
def _verify(model: Classifier, batch: Batch) -> None:
    """Compare both losses of the same features."""
    features, head = model.features(batch.images), model.head
    ours = ops.cam_head(features, head.weight, head.bias, batch.labels)
    got = ops.cyborg_loss(ours.logits, ours.cam, batch.labels, batch.targets, alpha=ALPHA)
    masks = _unpacked(batch.targets)
    expected = usual.cyborg_loss(features, head.weight, head.bias, batch.labels, masks, ALPHA)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def _unpacked(targets: Tensor | ops.BitMask) -> Tensor:
    return targets.unpack() if isinstance(targets, ops.BitMask) else targets
