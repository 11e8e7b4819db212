"""One step of training: its options, the CYBORG loss of a batch, its gradient, and the optimizer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast._util.words import CamClass
from sal_fast.data import augment
from sal_fast.distributed import ALONE, Ranks
from sal_fast.models import Classifier
from sal_fast.train.parallel import Batch, Replicated, Sharded, pieces

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-6
STEP_FACTOR = 0.1


@dataclass(frozen=True)
class Recipe:
    """The options of training by SGD with momentum; the rate falls to a tenth every `lr_step` epochs.

    map_size: pixels a side at which CAM and map are compared; None: the resolution of the CAM. cam_class: the
    class whose CAM is compared, the label's or the predicted one. data_parallel: all ranks train each model,
    a part of every batch each. shards: with `data_parallel`, the number of parts that a batch is cut into,
    however many ranks there are; each part has its own batch statistics, and gradients are summed in the
    order of the parts. 0: a part for each rank.
    """

    epochs: int
    batch_size: int
    lr: float
    lr_step: int
    augment: augment.Preset
    probe: ops.Probe
    map_size: int | None
    saliency_loss: ops.SaliencyKind
    seed: int
    cam_class: CamClass = "labelled"
    data_parallel: bool = False
    shards: int = 0


def optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer that a recipe asks for."""
    return torch.optim.SGD(parameters, lr=recipe.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)


class Loss(nn.Module):
    """Eq. 1 on one batch, with the CAM of `recipe.cam_class`. At alpha 1 no map is looked at."""

    def __init__(self, model: Classifier, alpha: float, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.alpha, self.recipe = model, alpha, recipe

    def forward(
        self, images: Tensor, labels: Tensor, targets: Tensor | ops.BitMask, has_map: Tensor
    ) -> Tensor:
        if self.alpha == 1:
            return nn.functional.cross_entropy(self.model(images)[0], labels)
        target = labels if self.recipe.cam_class == "labelled" else None
        seen = self.model.look(images, target, probe=self.recipe.probe)
        return ops.cyborg_loss(
            seen.logits,
            seen.cam,
            labels,
            targets,
            alpha=self.alpha,
            has_map=has_map,
            map_size=self.recipe.map_size,
            kind=self.recipe.saliency_loss,
        )


class Step:
    """A model and its optimizer. Each call makes one step on a batch and returns the loss, detached.

    Args:
        alpha: the trade-off of Eq. 1, in [0, 1].
        parts: the batch goes through the network in so many parts, one after the other, and the gradients
            are added up. That takes less memory, and each part has its own batch statistics.
        ranks: the ranks that share the batch, with `recipe.data_parallel`; all call with the same batch.
        noise: the seed of random numbers that the network draws itself (dropout, stochastic depth). The
            caller's random numbers are left as they are.
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
    ) -> None:
        self.model, self.parts = model, parts
        self.loss = Loss(model, alpha, recipe)
        device = model.head.weight.device
        if device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        self.optimizer = optimizer(model.parameters(), recipe)
        self.epochs, self.lr_step = 0, recipe.lr_step
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
        """Lower the rate to a tenth after every `lr_step` epochs.

        torch's StepLR does the same, but it and the optimizer refer to each other: their memory, and the
        model's, would wait for the garbage collector.
        """
        self.epochs += 1
        if self.epochs % self.lr_step == 0:
            for group in self.optimizer.param_groups:
                group["lr"] *= STEP_FACTOR

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
