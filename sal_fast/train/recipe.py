"""How models are trained."""

from __future__ import annotations

from dataclasses import dataclass

from sal_fast import ops
from sal_fast._util.words import CamClass
from sal_fast.data import augment


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
