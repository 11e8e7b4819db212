"""What saliency costs of a training step, on fixed tensors and fed from the store, for one model and two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sal_fast import ops
from sal_fast.bench import pool, timing, usual
from sal_fast.bench.timing import Ratio, autocast
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


@dataclass(frozen=True)
class Options(pool.Network):
    """A step of training: with saliency and without, fed from the store, two models, in eager torch.

    Asked: with saliency at most 1.15 times the step without (ResNet-18, 64 px, CPU), two models at most twice
    one; on a GPU 0.95 (one model) and 0.9 (two) of the bare forward and backward on a fixed tensor.
    """

    batch_size: int = 16
    """Images a step."""
    images: int = 512
    """In the store."""


class Batch(NamedTuple):
    """What a step is given."""

    images: Tensor
    labels: Tensor
    targets: Tensor | ops.BitMask
    has_map: Tensor


def measure(options: Options, device: torch.device) -> dict[str, Any]:
    load = os.getloadavg()[0]
    new = partial(pool.model, options, device)
    new()  # refuses what cannot be
    recipe = _recipe(options)
    batch_size = min(options.batch_size, options.images)
    stored = augment.stored_size("standard", options.image_size)
    samples = pool.store(options.images, options.classes, options.image_size, stored, device)
    fixed = next(feed(samples, batch_size))
    _verify(new(), fixed)
    fed, fed_two = feed(samples, batch_size), feed(samples, batch_size)
    one = Step(new(), alpha=ALPHA, recipe=recipe)
    two = [Step(new(), alpha=alpha, recipe=recipe) for alpha in (ALPHA, INTERPRETABILITY_ALPHA)]

    def both() -> None:
        batch = next(fed_two)
        for step in two:
            step(*batch)

    timed = timing.in_turn(
        "step",
        {
            BARE: _bare(new(), fixed),
            CLASSIFY: partial(Step(new(), alpha=1, recipe=recipe), *fixed),
            SALIENCY: partial(Step(new(), alpha=ALPHA, recipe=recipe), *fixed),
            FED: lambda: one(*next(fed)),
            TWO: both,
            EAGER: _eager(new(), fixed, options),
        },
        device,
        options,
    )
    gpu = device.type == "cuda"
    small = not gpu and (options.arch, options.image_size) == ("resnet18", 64)
    ratios = [
        Ratio(SALIENCY, CLASSIFY, at_most=1.15 if small else None),
        Ratio(TWO, FED, at_most=2),
        Ratio(BARE, FED, at_least=0.95 if gpu else None),
        Ratio(BARE, TWO, times=2, at_least=0.9 if gpu else None),
        Ratio(FED, SALIENCY),
        Ratio(EAGER, SALIENCY),
    ]
    items = dict.fromkeys(timed, batch_size)
    return timing.document("step", device, options, load, timed, ratios, unit="images", items=items)


def feed(samples: Store, batch_size: int) -> Iterator[Batch]:
    """Epoch after epoch as the training loop has them: cropped, mirrored and normalised, the map alike."""
    draws = torch.Generator().manual_seed(0)
    for epoch in count():
        order = torch.randperm(len(samples.table), generator=draws).to(samples.device)
        groups = [rows for rows in order.split(batch_size) if len(rows) == batch_size]
        drawn = samples.draws(groups, Augmentation("standard", 0, 0, epoch))
        for rows, draw, images in zip(groups, drawn, samples.views(groups, drawn), strict=True):
            targets = samples.masks.batch(rows, draw.box)
            yield Batch(images, samples.labels[rows], targets, samples.has_mask[rows])


def _recipe(options: Options) -> Recipe:
    return Recipe(
        epochs=1,
        batch_size=options.batch_size,
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


def _eager(model: Classifier, batch: Batch, options: Options) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    masks = _unpacked(batch.targets)
    head = model.head

    def call() -> None:
        optimizer.zero_grad()
        with autocast(batch.images.device, options.precision):
            features = model.features(batch.images)
            loss = usual.cyborg_loss(features, head.weight, head.bias, batch.labels, masks, ALPHA)
        loss.backward()
        optimizer.step()

    return call


@torch.no_grad()
def _verify(model: Classifier, batch: Batch) -> None:
    """No speed of a wrong result: both losses of the same features."""
    features, head = model.features(batch.images), model.head
    ours = ops.cam_head(features, head.weight, head.bias, batch.labels)
    got = ops.cyborg_loss(ours.logits, ours.cam, batch.labels, batch.targets, alpha=ALPHA)
    masks = _unpacked(batch.targets)
    expected = usual.cyborg_loss(features, head.weight, head.bias, batch.labels, masks, ALPHA)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def _unpacked(targets: Tensor | ops.BitMask) -> Tensor:
    return targets.unpack() if isinstance(targets, ops.BitMask) else targets
