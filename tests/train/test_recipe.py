"""Optimizers, learning rates and class weights: torch's own are the oracles."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR

from sal_fast import models, ops, train
from sal_fast.data import store
from sal_fast.train import Step
from sal_fast.train.recipe import balanced_weights, rate, validation_interval
from sal_fast.train.step import Loss

SMALL = f"{Path(__file__).parents[1] / 'helpers' / 'small_network.py'}:Small"
RECIPE = train.Recipe(
    epochs=9,
    batch_size=8,
    lr=0.01,
    lr_step=2,
    augment="none",
    probe="cam",
    map_size=None,
    saliency_loss="ssim_l1",
    seed=0,
)


def network() -> models.Classifier:
    return models.build(SMALL, 3, seed=0).train()


def batch(samples: store.Store) -> tuple[Any, ...]:
    rows = samples.rows("train")[:8]
    (images,) = samples.views([rows])
    return images, samples.labels[rows], samples.masks.batch(rows), samples.has_mask[rows]


@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_rates_are_those_of_torchs_schedulers(schedule: Any, warmup: int) -> None:
    recipe = replace(RECIPE, schedule=schedule, warmup=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    after: Any = StepLR(optimizer, 2) if schedule == "step" else CosineAnnealingLR(optimizer, 9 - warmup)
    scheduler = after
    if warmup:
        rising = LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
        scheduler = SequentialLR(optimizer, [rising, after], [warmup])
    for epoch in range(9):
        assert rate(recipe, 0.3, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's SequentialLR warns of what it does itself
            scheduler.step()


def test_the_default_is_sgd_with_steps_bit_by_bit(samples: store.Store) -> None:
    """The oracle is torch's optimizer and scheduler, as the public CYBORG code has them."""
    step, again = Step(network(), alpha=0.5, recipe=RECIPE), network()
    optimizer = torch.optim.SGD(again.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-6, fused=True)
    scheduler, loss = StepLR(optimizer, 2), Loss(again, 0.5, RECIPE)
    given = batch(samples)
    for _ in range(5):
        step(*given)
        step.end_epoch()
        optimizer.zero_grad()
        loss(*given).backward()
        optimizer.step()
        scheduler.step()
        assert step.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert len(step.optimizer.param_groups) == 1
    for one, other in zip(step.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_adamw_is_torchs_and_leaves_biases_and_norms_without_decay(samples: store.Store) -> None:
    recipe = replace(RECIPE, optimizer="adamw", weight_decay=0.3, head_lr=0.1)
    model, again = network(), network()
    step = Step(model, alpha=0.5, recipe=recipe)
    head = {id(one) for one in again.head.parameters()}
    groups = [
        {
            "params": [one],
            "lr": 0.1 if id(one) in head else 0.01,
            "weight_decay": 0.3 if one.ndim > 1 else 0.0,
        }
        for one in again.parameters()
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    assert len(step.optimizer.param_groups) == 4
    given = batch(samples)
    for _ in range(2):
        step(*given)
        optimizer.zero_grad()
        Loss(again, 0.5, recipe)(*given).backward()
        optimizer.step()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_with_sgd_all_parameters_decay_and_the_head_may_have_a_rate_of_its_own() -> None:
    step = Step(network(), alpha=0.5, recipe=replace(RECIPE, head_lr=0.5))
    body, head = step.optimizer.param_groups
    assert [one["weight_decay"] for one in (body, head)] == [1e-6, 1e-6]
    assert [one["lr"] for one in (body, head)] == [0.01, 0.5]
    assert len(head["params"]) == 2
    for _ in range(2):
        step.end_epoch()
    assert [one["lr"] for one in (body, head)] == [0.01 * 0.1, 0.5 * 0.1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 2], [4 / (2 * 3), 1.0, 4 / 2]),  # class 1 has no image
        ([0, 1, 2], [1.0, 1.0, 1.0]),
        ([1], [1.0, 1.0, 1.0]),
    ],
)
def test_balanced_weights(labels: list[int], expected: list[float]) -> None:
    given = torch.tensor(labels)
    weights = balanced_weights(given, 3)
    assert weights.tolist() == pytest.approx(expected)
    assert float(weights[given].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("trained", "validated", "expected"),
    [(245, 2092, 3), (1000, 300, 1), (100, 300, 1), (100, 301, 2), (10, 0, 1)],
)
def test_validation_costs_no_more_than_training(trained: int, validated: int, expected: int) -> None:
    """The first pair are the sizes of HAM10000's first round."""
    assert validation_interval(trained, validated) == expected


@pytest.mark.parametrize("weight", [None, torch.tensor([0.2, 1.0, 2.0])])
def test_without_saliency_the_loss_is_that_of_the_op(samples: store.Store, weight: Tensor | None) -> None:
    """At alpha 1 no map is looked at, so the cross-entropy is computed without the op."""
    recipe = replace(RECIPE, label_smoothing=0.1)
    model, given = network(), batch(samples)
    seen = copy.deepcopy(model).look(given[0], given[1])
    expected = ops.cyborg_loss(
        seen.logits, seen.cam, given[1], given[2], alpha=1.0, class_weight=weight, label_smoothing=0.1
    )
    torch.testing.assert_close(Loss(model, 1.0, recipe, weight)(*given), expected)
