"""The training loop: what it minimises, what it keeps, what it does not depend on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from sal_fast import models, train
from sal_fast.data import decode, store
from sal_fast.data.masks import Masks
from sal_fast.errors import InputError
from sal_fast.train.loop import batches

SMALL = f"{Path(__file__).parents[1] / 'helpers' / 'small_network.py'}:Small"
RECIPE = train.Recipe(
    epochs=2,
    batch_size=8,
    lr=0.01,
    lr_step=12,
    augment="none",
    probe="cam",
    map_size=None,
    saliency_loss="ssim_l1",
    seed=0,
)


def fit(samples: store.Store, alpha: float = 0.5, recipe: train.Recipe = RECIPE, **maps: Any) -> tuple:
    rows = samples.rows("train")
    model = models.build(SMALL, 3, seed=0)
    (fitted,) = train.Training(
        [train.Job(model, alpha, "test")],
        samples,
        rows,
        maps.get("maps", samples.masks[rows]),
        maps.get("has_map", samples.has_mask[rows]),
        recipe=recipe,
        round_index=0,
    ).fit()
    return model, fitted


def flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All elements in one vector, float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Each map's minimum becomes 0 and its maximum 1."""
    low, high = (edge(maps, (1, 2), keepdim=True) for edge in (torch.amin, torch.amax))
    return (maps - low) / (high - low)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_training_repeats_itself_whatever_the_callers_random_state(samples: store.Store) -> None:
    torch.manual_seed(1)
    first, _ = fit(samples)
    torch.manual_seed(2)
    again, _ = fit(samples)
    assert same(first, again)
    assert not same(first, fit(samples, recipe=replace(RECIPE, seed=1))[0])


def test_alpha_1_looks_at_no_map(samples: store.Store) -> None:
    rows = samples.rows("train")
    noise = Masks.pack(torch.randint(0, 256, (len(rows), 32, 32), dtype=torch.uint8))
    assert same(fit(samples, alpha=1.0)[0], fit(samples, alpha=1.0, maps=noise)[0])
    assert not same(fit(samples, alpha=0.9)[0], fit(samples, alpha=0.9, maps=noise)[0])


def test_without_maps_only_the_classification_term_remains(samples: store.Store) -> None:
    """All weights move as alpha times the cross-entropy would move them: half the rate at alpha 1."""
    none = torch.zeros(len(samples.rows("train")), dtype=torch.bool)
    one = replace(RECIPE, epochs=1, batch_size=100)
    half, _ = fit(samples, alpha=0.5, recipe=one, has_map=none)
    slow, _ = fit(samples, alpha=1.0, recipe=replace(one, lr=one.lr / 2))
    torch.testing.assert_close(half.head.weight, slow.head.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_a_step_follows_the_gradient_of_equation_1(samples: store.Store, alpha: float) -> None:
    """One epoch of one batch moves the weights along a gradient that is worked out by hand in float64.

    The relative error in float32 is 2e-5. Without the saliency term it would be 0.95 at alpha 0.1.
    """
    rows = samples.rows("train")
    has_map = samples.has_mask[rows].clone()
    has_map[:5] = False
    one = replace(RECIPE, epochs=1, batch_size=100, saliency_loss="mse")
    moved, _ = fit(samples, alpha=alpha, recipe=one, has_map=has_map)

    exact = models.build(SMALL, 3, seed=0)
    start = flat(exact.parameters())
    exact.double().train()
    (images,) = samples.views([rows])
    labels = samples.labels[rows]
    seen = exact.look(images.double(), labels)
    human = functional.adaptive_avg_pool2d(samples.masks.unpack(rows).double(), seen.cam.shape[-2:])
    distances = (scaled(seen.cam) - scaled(human)).square().mean((1, 2)) * has_map
    loss = alpha * functional.cross_entropy(seen.logits, labels) + (1 - alpha) * distances.mean()
    gradient = flat(torch.autograd.grad(loss, list(exact.parameters())))
    error = (start - flat(moved.parameters())) / one.lr - gradient
    assert float(error.norm() / gradient.norm()) < 0.1


def test_a_network_looks_where_its_maps_say(samples: store.Store) -> None:
    """Maps that mark the left half, or the right half, of every image leave no doubt after eight epochs.

    The Dice of the CAMs with the left half is 0.96 to 0.99 or 0.01 to 0.03, whichever the seed. Without the
    saliency term both networks of a seed would be the same one.
    """
    rows = samples.rows("train")
    left = torch.zeros(len(samples.table), 32, 32, dtype=torch.uint8)
    left[..., :16] = 255
    on_the_left = replace(samples, masks=Masks.pack(left))
    every = torch.ones(len(rows), dtype=torch.bool)

    def dice(maps: torch.Tensor, seed: int) -> float:
        recipe = replace(RECIPE, epochs=8, lr=0.05, seed=seed)
        model, _ = fit(samples, alpha=0.1, recipe=recipe, maps=Masks.pack(maps[rows]), has_map=every)
        found = train.evaluate(model, on_the_left, rows, "cam").tested.maps
        assert found.floor.unique().tolist() == [0.5]
        return float(found.dice.mean())

    guided, misguided = ([dice(maps, seed) for seed in range(3)] for maps in (left, 255 - left))
    assert sum(guided) / 3 > 0.75
    assert sum(misguided) / 3 < 0.25


def test_best_epoch_is_kept_and_the_later_one_on_a_tie(
    samples: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = iter([0.5, 0.7, 0.7, 0.2])
    monkeypatch.setattr("sal_fast.train.loop.accuracy", lambda *_: next(reached))
    kept, fitted = fit(samples, recipe=replace(RECIPE, epochs=4))
    assert fitted == train.Fitted(epoch=2, val_accuracy=0.7)
    monkeypatch.setattr("sal_fast.train.loop.accuracy", lambda *_: 0.0)
    assert same(kept, fit(samples, recipe=replace(RECIPE, epochs=3))[0])


@pytest.mark.parametrize(
    ("val_every", "expected"),
    [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (5, [4]), (9, [4]), ("auto", [0, 1, 2, 3, 4])],
)
def test_epochs_that_are_validated(
    val_every: Any, expected: list[int], samples: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them counts as the best here, as each is worse than the one before."""
    epochs, seen = iter(range(5)), []
    trained = train.Training._epoch

    def counted(self: train.Training, steps: Any, epoch: int) -> Any:
        seen.append(next(epochs))
        return trained(self, steps, epoch)

    validated: list[int] = []

    def reached(*_: Any) -> float:
        validated.append(seen[-1])
        return 1 / (1 + seen[-1])

    monkeypatch.setattr(train.Training, "_epoch", counted)
    monkeypatch.setattr("sal_fast.train.loop.accuracy", reached)
    _, fitted = fit(samples, recipe=replace(RECIPE, epochs=5, val_every=val_every))
    assert validated == expected
    assert fitted.epoch == expected[0]


def test_class_weights_reach_the_loss(samples: store.Store) -> None:
    """A class of weight 0 counts as if its images were not there, but for the batch size."""
    rows = samples.rows("train")
    one = replace(RECIPE, epochs=1, batch_size=100, class_weights=(1.0, 0.0, 1.0))
    moved, _ = fit(samples, alpha=1.0, recipe=one)
    exact = models.build(SMALL, 3, seed=0).train()
    (images,) = samples.views([rows])
    labels = samples.labels[rows]
    each = functional.cross_entropy(exact(images)[0], labels, reduction="none") * (labels != 1)
    gradient = torch.autograd.grad(each.sum() / len(rows), exact.head.weight)[0]
    step = (exact.head.weight - moved.head.weight) / one.lr
    torch.testing.assert_close(step, gradient, rtol=1e-2, atol=1e-4)
    even, _ = fit(samples, alpha=1.0, recipe=replace(one, class_weights="none"))
    balanced, _ = fit(samples, alpha=1.0, recipe=replace(one, class_weights="balanced"))
    counts = labels.bincount(minlength=3)
    assert same(even, balanced) == bool((counts == counts[0]).all())


def test_divergence_is_said(samples: store.Store) -> None:
    with pytest.raises(InputError, match=r"diverged in round 1, epoch .* lower --lr"):
        fit(samples, recipe=replace(RECIPE, lr=1e30, epochs=4))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(7, 3, [3, 4]), (8, 3, [3, 3, 2]), (1, 3, [1]), (4, 4, [4]), (5, 1, [1, 1, 1, 2])],
)
def test_a_trailing_batch_of_one_joins_the_one_before(count: int, size: int, expected: list[int]) -> None:
    parts = batches(torch.arange(count), size)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), torch.arange(count))


def inverted(image: np.ndarray, map_: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A plug-in: the image in negative, or as it is."""
    return (255 - image if rng.random() < 0.5 else image), map_


@pytest.mark.parametrize("preset", ["standard", "color+turn", "vflip+rotate", inverted])
def test_augmentation_runs_and_repeats(samples: store.Store, preset: Any) -> None:
    table = samples.table
    stored = 32 if callable(preset) else 37
    larger = store.build(table, store.StoreOptions(32, stored, decode.choose("torch", torch.device("cpu"))))
    recipe = replace(RECIPE, augment=preset)
    assert same(fit(larger, recipe=recipe)[0], fit(larger, recipe=recipe)[0])
    scores = train.evaluate(fit(larger, recipe=recipe)[0], larger, larger.rows("test"), "gradcam++")
    assert int((~scores.tested.maps.dice.isnan()).sum()) == 6


def test_scoring_keeps_the_order_and_the_pooled_features(samples: store.Store) -> None:
    model, _ = fit(samples)
    rows = torch.tensor([29, 3, 17])
    logits, features = train.score(model, samples, rows)
    torch.testing.assert_close(model.head(features), logits)
    torch.testing.assert_close(train.score(model, samples, rows[1:2])[0], logits[1:2], rtol=1e-4, atol=1e-5)


def test_graded_masks_and_missing_masks_in_evaluation(samples: store.Store) -> None:
    """A graded map counts as its own top pixels at its mass share; images without a map are left out."""
    model, _ = fit(samples)
    test = samples.rows("test")
    masks = samples.masks.unpack(torch.arange(len(samples.table)))
    masks[test[0]] = 0
    ramp = torch.arange(32 * 32, dtype=torch.float32).view(32, 32) / 1023
    masks[test[1]] = (ramp * 255).to(torch.uint8)
    scores = train.evaluate(model, replace(samples, masks=Masks.pack(masks)), test, "cam")
    maps = scores.tested.maps
    assert maps.dice.isnan().tolist() == [True] + [False] * (len(test) - 1)
    for graded in maps[6:]:  # the figures beside graded maps, of which there is one
        assert graded.isnan().tolist() == [True, False] + [True] * (len(test) - 2)
    n = int((masks[test[1]].float() / 255).sum().round())
    from sal_fast import ops

    truth = torch.zeros(1, 32 * 32, dtype=torch.bool)
    truth[0, -n:] = True
    # equal values fill up from the lowest index, so only whole steps of the ramp can be told here
    expected = ops.topn_dice(scores.cams[1:2], truth.view(1, 32, 32)).dice
    assert float(maps.dice[1]) == pytest.approx(float(expected), abs=0.01)
