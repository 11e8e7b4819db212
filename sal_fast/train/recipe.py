"""How models are trained."""

from __future__ import annotations

from dataclasses import dataclass

from sal_fast import ops
from sal_fast.data import augment
from sal_fast.models import CamClass


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, the rate times 0.1 every `lr_step` epochs.

    cam_class: whose map is compared, the label's or the predicted class's.
    data_parallel: all ranks train each model, a part of every batch each. shards: with that, a batch is cut
    into as many parts whichever ranks there are, each with batch statistics of its own, and gradients are
    summed in their order; 0: a part a rank.
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
