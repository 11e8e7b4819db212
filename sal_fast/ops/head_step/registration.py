"""The torch operator sal_fast::head_step: a training step of heads, with the gradients that it makes."""

import functools
from typing import Any

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.cam.registration import PROBE_CODES, cam_head
from sal_fast.ops.head_step import reference
from sal_fast.ops.saliency_loss.registration import saliency_loss, target_fields

# Of launch/head_step.h.
_CAM_CLASS_CODES = {"labelled": 0, "predicted": 1}
_MOST_PIXELS = 1024


def _takes(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *options: Any) -> bool:
    target, _, _, _, _, (target_width, *size, _), _ = options
    if not (_launch.native(features) and weight.dtype == torch.float32):
        return False
    if target is not None and max(target.shape[1], target_width) > _launch.MOST_SIDE:
        return False
    return list(features.shape[1:3]) == size and size[0] * size[1] <= _MOST_PIXELS


@functools.lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The numbers as a tensor that is copied to a GPU once, and so not while a CUDA graph is captured."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def _fill(results: tuple[Tensor, ...], features: Tensor, weight: Tensor, *options: Any) -> None:
    bias, labels, target, rows, has_map, class_weight, numbers, sizes, how = options
    kind, border, probe, cam_class = how
    # Without a target its fields are read by nobody.
    maps = target_fields(features[..., 0] if target is None else target, has_map, sizes, border, kind)
    loss, logits, cam, grad_weight, grad_bias = results
    heads, images, classes = logits.shape
    _launch.launch(
        "head_step", features.device, features=features, dtype=_launch.DTYPES[features.dtype],
        stored=len(features), channels=features.shape[3], labels=labels.contiguous(),
        **maps | ({"target": None} if target is None else {}),
        rows=None if rows is None else rows.contiguous(), images=images, weight=weight.contiguous(),
        bias=bias.contiguous(), heads=heads, classes=classes,
        alpha=_on_device(tuple(numbers[1:]), features.device),
        class_weight=None if class_weight is None else class_weight.contiguous(),
        label_smoothing=numbers[0], probe=PROBE_CODES[probe], cam_class=_CAM_CLASS_CODES[cam_class],
        loss=loss, logits=logits, cam=cam, grad_weight=grad_weight, grad_bias=grad_bias,
    )  # fmt: skip


def _empty(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    _, rows, *_ = options
    heads, classes, _ = weight.shape
    images = (features if rows is None else rows).shape[0]
    height, width = features.shape[1:3]
    logits = weight.new_empty(heads, images, classes)
    return (
        weight.new_empty(heads),
        logits,
        weight.new_empty(heads, images, height, width),
        weight.new_empty(weight.shape),
        weight.new_empty(bias.shape),
    )


def _composed(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *options: Any
) -> reference.Results:
    """The step by the ops `cam_head` and `saliency_loss`, which have kernels or references of their own."""
    target, rows, has_map, class_weight, numbers, sizes, (kind, border, probe, cam_class) = options

    def pick(x: Any) -> Any:  # autograd does not save what was made in inference mode
        return x if x is None else x[rows] if rows is not None else x.clone() if x.is_inference() else x

    with torch.inference_mode(False):
        batch = reference.Batch(pick(features), pick(labels), pick(target), pick(has_map))
        class_weight = None if class_weight is None else class_weight.clone()
    given = reference.Options(
        numbers[1:], class_weight, numbers[0], probe, cam_class, (sizes[1], sizes[2]), sizes[3], border, kind
    )

    def head(features: Tensor, weight: Tensor, bias: Tensor, classes: Tensor | None, probe: str) -> Any:
        return cam_head(features, weight, bias, classes, probe, True)

    def losses(cam: Tensor, target: Tensor, has_map: Tensor | None, *_: Any) -> Tensor:
        return saliency_loss(cam, target, has_map, sizes, (kind, border, "none"))

    return reference.head_step(batch, weight, bias, given, head, losses)


head_step = _launch.operator(
    # numbers: the label smoothing, and alpha of each head. sizes: as of saliency_loss. how: kind, border,
    # probe, class of the map.
    "head_step(Tensor features, Tensor weight, Tensor bias, Tensor labels, Tensor? target, Tensor? rows,"
    " Tensor? has_map, Tensor? class_weight, float[] numbers, SymInt[] sizes, str[] how)"
    " -> (Tensor loss, Tensor logits, Tensor cam, Tensor grad_weight, Tensor grad_bias)",
    _empty,
    _fill,
    _launch.Fallback(_takes, _composed),
)
