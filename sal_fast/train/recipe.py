"""The options of training, and what follows from them: optimizer, learning rates, class weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast._util.words import CamClass, Optimizer, Schedule
from sal_fast.data import augment

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-6
STEP_FACTOR = 0.1
FORWARDS = 3  # the forward passes that training on an image costs


@dataclass(frozen=True)
class Recipe:
    """The options of training.

    lr, lr_step, schedule, warmup: see `rate`. head_lr: the rate of the head; None: lr.
    augment: words, or a plug-in (`data.augment.Augmentation`).
    map_size: pixels a side at which CAM and map are compared; None: the resolution of the CAM.
    cam_class: the class whose CAM is compared, the label's or the predicted one.
    data_parallel: all ranks train each model, a part of every batch each.
    shards: with `data_parallel`, the number of parts that a batch is cut into, however many ranks there are;
        each part has its own batch statistics, and gradients are summed in the order of the parts. 0: a part
        for each rank.
    weight_decay: with AdamW it leaves out biases and the parameters of norms.
    label_smoothing, class_weights: see `ops.cyborg_loss`; the weights are a number for each class, `none`, or
        `balanced` (`balanced_weights`).
    val_every: a model is validated after every so many epochs, and after the last one. `auto`:
        `validation_interval`.
    """

    epochs: int
    batch_size: int
    lr: float
    lr_step: int
    augment: str | augment.Function
    probe: ops.Probe
    map_size: int | None
    saliency_loss: ops.SaliencyKind
    seed: int
    cam_class: CamClass = "labelled"
    data_parallel: bool = False
    shards: int = 0
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "step"
    warmup: int = 0
    weight_decay: float = WEIGHT_DECAY
    head_lr: float | None = None
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    val_every: int | Literal["auto"] = 1


class Group(NamedTuple):
    """Parameters that one learning rate and one weight decay go for.

    head: True for those of the head. decays: False for biases and the parameters of norms.
    """

    parameters: Sequence[nn.Parameter]
    head: bool
    decays: bool


def optimizer(recipe: Recipe, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """The optimizer that a recipe asks for, with the rates of the first epoch."""
    listed: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in groups:
        highest = recipe.head_lr if group.head and recipe.head_lr is not None else recipe.lr
        decay = recipe.weight_decay if group.decays or recipe.optimizer == "sgd" else 0.0
        listed.setdefault((highest, decay), []).extend(group.parameters)
    # `highest` is the rate that the warm-up leads to; torch keeps it with the group
    given: list[dict[str, Any]] = [
        {"params": parameters, "lr": highest, "weight_decay": decay, "highest": highest}
        for (highest, decay), parameters in listed.items()
    ]
    made: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        made = torch.optim.AdamW(given, fused=True)
    else:
        made = torch.optim.SGD(given, lr=recipe.lr, momentum=MOMENTUM, fused=True)
    set_rates(made, recipe, 0)
    return made


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: int) -> None:
    """Set the rates of an epoch, counted from 0.

    torch's schedulers do the same, but they and the optimizer refer to each other: their memory, and the
    model's, would wait for the garbage collector.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate(recipe, group["highest"], epoch)


def rate(recipe: Recipe, highest: float, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0, where `highest` is the rate after the warm-up.

    In the W epochs of the warm-up it rises linearly, `highest (epoch + 1) / (W + 1)`. Then `step` lowers it
    to a tenth after every `lr_step` epochs, and `cosine` follows
    `highest (1 + cos(pi (epoch - W) / (epochs - W))) / 2` (Loshchilov and Hutter 2017, SGDR, no restarts).
    """
    since = epoch - recipe.warmup
    if since < 0:
        return highest * (epoch + 1) / (recipe.warmup + 1)
    if recipe.schedule == "cosine":
        return highest * (1 + math.cos(math.pi * since / (recipe.epochs - recipe.warmup))) / 2
    for _ in range(since // recipe.lr_step):  # a power of the factor would round otherwise
        highest *= STEP_FACTOR
    return highest


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights that let every class count alike: `n / (K n_c)`, float32 [classes].

    n is the number of labels, K the number of classes among them, and n_c that of class c. So the mean weight
    of the images is 1, and alpha keeps its meaning. A class without an image has weight 1, which only label
    smoothing reads.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts), 1.0)


def validation_interval(trained: int, validated: int) -> int:
    """The number of epochs from one validation to the next that makes them at most as dear as training.

    `trained` and `validated` are the images of an epoch and of a validation. Training on an image costs about
    three forward passes, of which two are for the backward one, and validating it costs one.
    """
    return max(1, math.ceil(validated / (FORWARDS * trained)))
