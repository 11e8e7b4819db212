"""One step of training: the CYBORG loss of a batch, its gradient, and the optimizer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast.distributed import ALONE, Ranks
from sal_fast.models import Classifier
from sal_fast.train.parallel import Batch, Replicated, Sharded, pieces
from sal_fast.train.recipe import Group, Recipe, optimizer, set_rates


class Loss(nn.Module):
    """Eq. 1 on one batch, with the CAM of `recipe.cam_class`. At alpha 1 no map is looked at.

    class_weight: float32 [K], the weights of the classes; None: 1 each.
    """

    def __init__(
        self, model: Classifier, alpha: float, recipe: Recipe, class_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.alpha, self.recipe = model, alpha, recipe
        self.class_weight = class_weight  # it is no buffer: buffers are parts of a model's state
        self.told: Tensor | None = None  # the sum of the cross-entropies so far, if somebody asks for it

    def forward(
        self, images: Tensor, labels: Tensor, targets: Tensor | ops.BitMask, has_map: Tensor
    ) -> Tensor:
        if self.alpha == 1:
            return self._tell(self._classification(self.model(images)[0], labels), len(images))
        target = labels if self.recipe.cam_class == "labelled" else None
        seen = self.model.look(images, target, probe=self.recipe.probe)
        if self.told is not None:
            self._tell(self._classification(seen.logits.detach(), labels), len(images))
        return ops.cyborg_loss(
            seen.logits,
            seen.cam,
            labels,
            targets,
            alpha=self.alpha,
            has_map=has_map,
            map_size=self.recipe.map_size,
            kind=self.recipe.saliency_loss,
            class_weight=self.class_weight,
            label_smoothing=self.recipe.label_smoothing,
        )

    def _tell(self, mean: Tensor, images: int) -> Tensor:
        """Add the mean cross-entropy of some images to the sum, and return it."""
        if self.told is not None:
            self.told += mean.detach() * images
        return mean

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of `ops.cyborg_loss`: its mean divides by the images, not by their weights."""
        smoothing = self.recipe.label_smoothing
        if self.class_weight is None:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        weight = self.class_weight.to(logits.dtype)
        total = nn.functional.cross_entropy(
            logits, labels, weight, reduction="sum", label_smoothing=smoothing
        )
        return total / len(logits)


class Step:
    """A model and its optimizer. Each call makes one step on a batch and returns the loss, detached.

    Args:
        alpha: the trade-off of Eq. 1, in [0, 1].
        parts: the batch goes through the network in so many parts, one after the other, and the gradients
            are added up. That takes less memory, and each part has its own batch statistics.
        ranks: the ranks that share the batch, with `recipe.data_parallel`; all call with the same batch.
        noise: the seed of random numbers that the network draws itself (dropout, stochastic depth). The
            caller's random numbers are left as they are.
        class_weight: float32 [K], the weights of the classes; None: 1 each.
        tells: True if `told` is going to be called.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        alpha: float,
        recipe: Recipe,
        parts: int = 1,
        ranks: Ranks = ALONE,
        noise: int = 0,
        class_weight: Tensor | None = None,
        tells: bool = False,
    ) -> None:
        self.model, self.parts, self.recipe = model, parts, recipe
        self.loss = Loss(model, alpha, recipe, class_weight)
        device = model.head.weight.device
        if tells and not (recipe.data_parallel and ranks.count > 1):
            self.loss.told = torch.zeros((), device=device)
        if device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        self.optimizer = optimizer(recipe, list(_groups(model)))
        self.epochs = 0
        self._shared: Callable[[Batch], Tensor] | None = None  # the gradient of a batch that ranks share
        if recipe.data_parallel and recipe.shards:
            self._shared = Sharded(self.loss, ranks, recipe.shards)
        elif recipe.data_parallel and ranks.count > 1:
            self._shared = Replicated(self.loss, ranks)
        self._gpus = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self._gpus):
            torch.manual_seed(noise)
            self._noise = self._random_states()

    def __call__(
        self, images: Tensor, labels: Tensor, targets: Tensor | ops.BitMask, has_map: Tensor
    ) -> Tensor:
        self.optimizer.zero_grad()
        with self._own_noise():
            batch = images, labels, targets, has_map
            loss = self._gradient(batch) if self._shared is None else self._shared(batch)
        self.optimizer.step()
        return loss

    def end_epoch(self) -> None:
        """Set the rates of the next epoch."""
        self.epochs += 1
        set_rates(self.optimizer, self.recipe, self.epochs)

    def told(self) -> float | None:
        """The sum of the cross-entropies of all images since the last call; None if it is not known."""
        if self.loss.told is None:
            return None
        total = float(self.loss.told)
        self.loss.told.zero_()
        return total

    def _gradient(self, batch: Batch) -> Tensor:
        if self.parts == 1:
            loss = self.loss(*batch)
            loss.backward()
            return loss.detach()
        total = self.model.head.weight.new_zeros(())
        # autograd would keep the first part's gradients themselves. Those of a compiled network lie in the
        # memory of a CUDA graph, which the next part writes over.
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        for part in pieces(len(batch[0]), self.parts):
            loss = self.loss(*(values[part] for values in batch)) * ((part.stop - part.start) / len(batch[0]))
            loss.backward()
            total += loss.detach()
        return total

    @contextmanager
    def _own_noise(self) -> Iterator[None]:
        """Draw from this model's stream, so that it does not matter what else is trained meanwhile."""
        with torch.random.fork_rng(self._gpus):
            torch.set_rng_state(self._noise[0])
            for gpu, state in zip(self._gpus, self._noise[1:], strict=True):
                torch.cuda.set_rng_state(state, gpu)
            yield
            self._noise = self._random_states()

    def _random_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in self._gpus)]


def _groups(model: Classifier) -> Iterator[Group]:
    """Each parameter of a model by itself, in their order. Biases and those of norms have one dimension."""
    head = {id(parameter) for parameter in model.head.parameters()}
    for parameter in model.parameters():
        yield Group([parameter], id(parameter) in head, parameter.ndim > 1)
