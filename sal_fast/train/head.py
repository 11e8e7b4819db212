"""Train the heads of a round on features that are computed once (`--train head`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sal_fast import ops, seeds
from sal_fast.data.features import BLOCK, FeatureStore
from sal_fast.models import Classifier
from sal_fast.train.loop import Training, batches
from sal_fast.train.recipe import Group, optimizer, set_rates


class _Heads:
    """The heads of all jobs, which take their steps together.

    weight: float32 [M, K, C]. bias: float32 [M, K]. told: float32 [M], the sums of the cross-entropies in
    this epoch, or None if no tracker wants them. A parameter of each head lies over its part of them. (One
    parameter for all would be cut into vectors where other heads end, which changes last digits.)
    """

    def __init__(self, training: HeadTraining) -> None:
        heads = [job.model.head for job in training.jobs]
        self.weight = torch.stack([head.weight.detach() for head in heads])
        self.bias = torch.stack([head.bias.detach() for head in heads])
        self._weights = [nn.Parameter(one) for one in self.weight]
        self._biases = [nn.Parameter(one) for one in self.bias]
        groups = [Group(self._weights, head=True, decays=True), Group(self._biases, head=True, decays=False)]
        self.optimizer = optimizer(training.recipe, groups)
        self.class_weight = training.class_weight()
        self.alphas = [job.alpha for job in training.jobs]
        tells = training.on_epoch is not None
        self.told = torch.zeros(len(heads), device=self.weight.device) if tells else None

    def step(self, grad_weight: Tensor, grad_bias: Tensor) -> None:
        """Let the optimizer make a step by these gradients, of the shapes of `weight` and `bias`."""
        for parameters, gradients in ((self._weights, grad_weight), (self._biases, grad_bias)):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        self.optimizer.step()


@dataclass(frozen=True)
class HeadTraining(Training):
    """As `Training`, for models that are a linear head on the features of a `FeatureStore`.

    `ops.head_step` reads the features of a batch once for all heads. What a head learns does not depend on
    the others. In each epoch an image shows one of its crops, which is drawn from (seed, round, epoch).
    """

    store: FeatureStore

    def _steps(self, parts: int) -> Any:
        return _Heads(self)

    def _epoch(self, heads: _Heads, epoch: int) -> list[Tensor]:
        recipe, device, count = self.recipe, self.store.device, len(self.rows)
        set_rates(heads.optimizer, recipe, epoch)
        order = seeds.stream(recipe.seed, "batches", self.round_index, epoch).permutation(count)
        crops = len(self._entries)
        crop = seeds.stream(recipe.seed, "crops", self.round_index, epoch).integers(crops, size=count)
        shown = torch.from_numpy(crop).to(device)
        total = torch.zeros(len(self.jobs), device=device)
        for part in batches(torch.from_numpy(order).to(device), recipe.batch_size):
            total += self._step(heads, part, shown[part]) * (len(part) / count)
        for job, weight, bias in zip(self.jobs, heads.weight, heads.bias, strict=True):
            job.model.head.load_state_dict({"weight": weight, "bias": bias})
        return list(total)

    def _step(self, heads: _Heads, part: Tensor, crop: Tensor) -> Tensor:
        """One step of all heads on a batch; returns their losses [M]."""
        recipe, store = self.recipe, self.store
        entries = self._entries[crop, part]
        in_place = recipe.map_size is None and store.features.device == store.device
        done = ops.head_step(
            store.features if in_place else store.seen(entries),
            heads.weight,
            heads.bias,
            self._labels if in_place else store.labels[self.rows[part]],
            self._small if in_place else self._cropped(part, crop),
            rows=entries if in_place else None,
            alpha=heads.alphas,
            has_map=self._has_map if in_place else self.has_map[part],
            map_size=recipe.map_size,
            kind=recipe.saliency_loss,
            probe=recipe.probe,
            cam_class=recipe.cam_class,
            class_weight=heads.class_weight,
            label_smoothing=recipe.label_smoothing,
        )
        heads.step(done.grad_weight, done.grad_bias)
        if heads.told is not None:
            for i, logits in enumerate(done.logits):
                heads.told[i] += self._cross_entropy(logits, store.labels[self.rows[part]], heads)
        return done.loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor, heads: _Heads) -> Tensor:
        """The sum of the cross-entropies of a batch."""
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits, labels, heads.class_weight, reduction="sum", label_smoothing=smoothing)

    def _classification(self, heads: _Heads, i: int) -> float | None:
        if heads.told is None:
            return None
        total = float(heads.told[i])
        heads.told[i] = 0
        return total / len(self.rows)

    def _accuracy(self, model: Classifier) -> float:
        rows = self.store.rows("val")
        logits = F.linear(self.store.pooled[rows], model.head.weight, model.head.bias)
        return int((logits.argmax(1) == self.store.labels[rows]).sum()) / len(rows)

    def _cropped(self, part: Tensor, crop: Tensor) -> Tensor | ops.BitMask:
        """The maps of a batch in the frame, each cropped as the features are."""
        box, angle = (
            None if values is None else values[crop, part] for values in (self._boxes, self._angles)
        )
        return self.maps.batch(part, box, angle)

    # --- what does not change during a round ----------------------------------------------------------------

    @cached_property
    def _boxes(self) -> Tensor | None:
        """The boxes of each crop, float32 [V, L, 4] (see `Draws.box`); None if whole images are shown."""
        boxes = [drawn.box for drawn in self.store.crops(self.rows) if drawn and drawn.box is not None]
        return torch.stack(boxes) if boxes else None

    @cached_property
    def _angles(self) -> Tensor | None:
        """The angles of each crop, float32 [V, L] (see `Draws.angle`); None if nothing is turned."""
        angles = [drawn.angle for drawn in self.store.crops(self.rows) if drawn and drawn.angle is not None]
        return torch.stack(angles) if angles else None

    @cached_property
    def _entries(self) -> Tensor:
        """The entries of the labelled images, int64 [V, L]."""
        return self.store.entries(self.rows)

    @cached_property
    def _labels(self) -> Tensor:
        return self._of_entries(self.store.labels[self.rows])

    @cached_property
    def _has_map(self) -> Tensor:
        return self._of_entries(self.has_map)

    @cached_property
    def _small(self) -> Tensor:
        """The maps at the resolution of the features, float32 [E, h, w]: averaged once, not in each step."""
        maps = (
            self._cropped(part, torch.full_like(part, crop))
            for crop in range(len(self._entries))
            for part in torch.arange(len(self.rows), device=self.store.device).split(BLOCK)
        )
        small = [F.adaptive_avg_pool2d(_floats(one), self.store.shape[1:]) for one in maps]
        return self._of_entries(torch.cat(small).unflatten(0, (-1, len(self.rows))))

    def _of_entries(self, values: Tensor) -> Tensor:
        """Values of the labelled images, [L] or [V, L, ...], as values of all entries; 0 for the others."""
        every = values.new_zeros(len(self.store.features), *values.shape[2:])
        every[self._entries] = values
        return every


def _floats(maps: Tensor | ops.BitMask) -> Tensor:
    return (maps.unpack() if isinstance(maps, ops.BitMask) else maps).float()
