"""Training of heads on kept features: the same as by autograd, and each head as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sal_fast import ops, seeds
from sal_fast.data.augment import Augmentation
from sal_fast.data.features import FeatureStore, feature_store
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE
from sal_fast.models import frozen
from sal_fast.train import HeadTraining, Job, Recipe
from sal_fast.train.loop import batches
from sal_fast.train.recipe import Group, optimizer

SHAPE = (12, 5, 4)  # channels, rows and columns of the features


def patches(images: Tensor) -> Tensor:
    """Features that tell colours and places apart: [B, 12, 5, 4]."""
    small = torch.nn.functional.adaptive_avg_pool2d(images, SHAPE[1:])
    return torch.cat([small, small.relu(), small.square(), small.sin()], 1)


@pytest.fixture(params=[0, 3], ids=["whole", "crops"])
def store(request: pytest.FixtureRequest, samples: Store, tmp_path: Path) -> FeatureStore:
    crops = [Augmentation("standard", 5, 0, number) for number in range(request.param)]
    return feature_store(samples, tmp_path / "features", {}, patches, crops, ALONE)


def recipe(**changes: object) -> Recipe:
    usual: dict[str, object] = {
        "epochs": 3, "batch_size": 4, "lr": 0.5, "lr_step": 12, "augment": "none", "probe": "cam",
        "map_size": None, "saliency_loss": "ssim_l1", "seed": 1,
    }  # fmt: skip
    return Recipe(**{**usual, **changes})  # type: ignore[arg-type]


def trained(store: FeatureStore, alphas: Sequence[float], **changes: object) -> list[Tensor]:
    """The weights of heads that are trained together, after the best epoch."""
    rows = store.rows("train")
    models = [frozen.on_features("patches", SHAPE, len(store.table.classes), seed=2) for _ in alphas]
    jobs = [Job(model, alpha, "head") for model, alpha in zip(models, alphas, strict=True)]
    HeadTraining(jobs, store, rows, store.masks[rows], store.has_mask[rows], recipe(**changes), 0).fit()
    return [model.head.weight.detach() for model in models]


def by_autograd(store: FeatureStore, alpha: float, options: Recipe) -> Tensor:
    """The weights after all epochs, by `cam_head`, `cyborg_loss` and a backward pass for each batch."""
    rows = store.rows("train")
    head = frozen.on_features("patches", SHAPE, len(store.table.classes), seed=2).head
    steps = optimizer(options, [Group(list(head.parameters()), head=True, decays=True)])
    masks, labels, has_map = store.masks[rows], store.labels[rows], store.has_mask[rows]
    entries = store.entries(rows)
    boxes = [drawn.box for drawn in store.crops(rows) if drawn is not None and drawn.box is not None]
    for epoch in range(options.epochs):
        order = seeds.stream(options.seed, "batches", 0, epoch).permutation(len(rows))
        crop = seeds.stream(options.seed, "crops", 0, epoch).integers(len(entries), size=len(rows))
        for part in batches(torch.from_numpy(order), options.batch_size):
            shown = torch.from_numpy(crop)[part]
            features = store.features[entries[shown, part]].float().permute(0, 3, 1, 2)
            box = torch.stack(boxes)[shown, part] if boxes else None
            seen = ops.cam_head(features, head.weight, head.bias, labels[part])
            loss = ops.cyborg_loss(
                seen.logits,
                seen.cam,
                labels[part],
                masks.batch(part, box),
                alpha=alpha,
                has_map=has_map[part],
                map_size=options.map_size,
                kind=options.saliency_loss,
            )
            steps.zero_grad()
            loss.backward()
            steps.step()
    return head.weight.detach()


@pytest.mark.parametrize("changes", [{}, {"map_size": 9}, {"saliency_loss": "mse"}])
def test_it_is_training_by_autograd(store: FeatureStore, changes: dict[str, object]) -> None:
    one_epoch = {**changes, "epochs": 1}  # there is no choice of a best epoch then
    for alpha in (0.3, 1.0):
        expected = by_autograd(store, alpha, recipe(**one_epoch))
        (found,) = trained(store, [alpha], **one_epoch)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_head_does_not_depend_on_the_others(store: FeatureStore) -> None:
    together = trained(store, [0.9, 0.1, 1.0])
    for weight, alpha in zip(together, (0.9, 0.1, 1.0), strict=True):
        (alone,) = trained(store, [alpha])
        assert torch.equal(weight, alone)


def test_rows_are_shown_as_their_features(store: FeatureStore) -> None:
    rows = torch.tensor([4, 0, 4])
    (seen,) = store.views([rows])
    assert seen.shape == (3, *SHAPE)
    assert torch.equal(seen, store.features[rows].permute(0, 3, 1, 2))
    torch.testing.assert_close(store.pooled[rows], seen.float().mean((2, 3)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="expected no draws"):
        next(store.views([rows], [object()]))  # type: ignore[list-item]


def test_maps_are_cropped_as_the_features_are(store: FeatureStore) -> None:
    """The map of each entry is that of its image, cropped and then averaged."""
    rows = store.rows("train")
    model = frozen.on_features("patches", SHAPE, len(store.table.classes), seed=2)
    maps = store.masks[rows]
    training = HeadTraining([Job(model, 0.5, "head")], store, rows, maps, store.has_mask[rows], recipe(), 0)
    every = torch.arange(len(rows))
    for entries, drawn in zip(store.entries(rows), store.crops(rows), strict=True):
        cropped = maps.batch(every) if drawn is None else maps.batch(every, *drawn.of_map)
        whole = (cropped.unpack() if isinstance(cropped, ops.BitMask) else cropped).float()
        expected = torch.nn.functional.adaptive_avg_pool2d(whole, SHAPE[1:])
        torch.testing.assert_close(training._small[entries], expected)
        assert torch.equal(training._labels[entries], store.labels[rows])
