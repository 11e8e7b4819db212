"""A training step of linear heads on frozen features, in plain torch with autograd."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops.cam.reference import cam_head
from sal_fast.ops.saliency_loss.reference import saliency_loss


class Batch(NamedTuple):
    """The images of a step; None: see `sal_fast.ops.head_step`."""

    features: Tensor  # [B, h, w, C]
    labels: Tensor  # [B]
    target: Tensor | None  # [B, H, W]
    has_map: Tensor | None  # [B]


class Options(NamedTuple):
    """The arguments of `sal_fast.ops.head_step` that are no tensors of the batch or the heads."""

    alpha: Sequence[float]
    class_weight: Tensor | None
    label_smoothing: float
    probe: str
    cam_class: str
    size: tuple[int, int]
    window: int
    border: str
    kind: str


Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def head_step(
    batch: Batch,
    weight: Tensor,
    bias: Tensor,
    options: Options,
    cam_head: Callable[..., tuple[Tensor, ...]] = cam_head,
    saliency_loss: Callable[..., Tensor] = saliency_loss,
) -> Results:
    """Losses, logits, maps and the gradients to weight and bias; see `sal_fast.ops.head_step`.

    Args:
        batch: the images.
        weight: [M, K, C].
        bias: [M, K].
        options: the other arguments.
        cam_head: computes the logits and the map of one head, as the reference of `sal_fast.ops.cam_head`.
        saliency_loss: computes the losses of images, as the reference of `sal_fast.ops.saliency_loss`.
    """
    features = batch.features.permute(0, 3, 1, 2)
    given = batch.labels if options.cam_class == "labelled" else None
    with torch.inference_mode(False), torch.enable_grad():
        weight, bias = (x.detach().clone().requires_grad_() for x in (weight, bias))
        losses, logits, maps = [], [], []
        for alpha, w, b in zip(options.alpha, weight, bias, strict=True):
            of_head = cam_head(features, w, b, given, options.probe)
            # A head whose loss has no term left still has a gradient, of zeros.
            loss = 0 * (w.sum() + b.sum())
            if alpha > 0:
                loss = loss + alpha * _cross_entropy(of_head[0], batch.labels, options)
            if alpha < 1 and batch.target is not None:
                how = options.size, options.window, options.border, options.kind
                values = saliency_loss(of_head[1], batch.target, batch.has_map, *how)
                loss = loss + (1 - alpha) * values.sum()
            losses.append(loss / max(1, len(features)))
            logits.append(of_head[0])
            maps.append(of_head[1])
        # No head's loss depends on another's weight.
        grads = torch.autograd.grad(torch.stack(losses).sum(), (weight, bias))
    of_heads = [torch.stack(x).detach() for x in (losses, logits, maps)]
    return of_heads[0], of_heads[1], of_heads[2], grads[0], grads[1]


def _cross_entropy(logits: Tensor, labels: Tensor, options: Options) -> Tensor:
    weight = None if options.class_weight is None else options.class_weight.to(logits.dtype)
    smoothing = options.label_smoothing
    return F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=smoothing)
