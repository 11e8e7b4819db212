"""The CYBORG loss: classification and saliency in one number."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.saliency_loss import Kind, saliency_loss
from sal_fast.ops.ssim import Border


def cyborg_loss(
    logits: Tensor,
    cam: Tensor,
    labels: Tensor,
    target: Tensor | BitMask,
    *,
    alpha: float,
    has_map: Tensor | None = None,
    map_size: int | None = None,
    window: int | None = None,
    border: Border = "valid",
    kind: Kind = "ssim_l1",
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """`L = 1/B sum_i [ alpha CE_i + (1 - alpha) has_map_i Ls_i ]` (paper Eq. 1).

    `CE` is the cross-entropy in nats, `Ls` is `saliency_loss`. An image without a map contributes only its
    classification term, but the mean still divides by the batch size. With weights `w` of the K classes and
    label smoothing `s`, as torch defines them, and with `p` the softmax of an image's logits, for a label::

        CE = (1 - s) w[label] (-log p[label])  +  s / K  sum_c w[c] (-log p[c])

    and for soft labels `q`, the probabilities of the classes::

        CE = sum_c w[c] ((1 - s) q[c] + s / K) (-log p[c])

    The mean divides by the batch size here, too, and not by the sum of the weights, as torch's own does.

    Args:
        logits: [B, K], floating.
        cam: [B, h, w], the CAM of the labelled class, not normalised.
        labels: int64 [B], 0..K-1 or `ignore_index`; or soft labels, floating [B, K].
        target: [B, H, W], human or generated maps.
        alpha: in [0, 1]. 1 means cross-entropy alone, 0 saliency alone.
        has_map, map_size, window, border, kind: see `saliency_loss`.
        class_weight: floating [K], finite and not negative; a constant. None means 1 for every class.
        label_smoothing: in [0, 1], the share of the label that is spread evenly over all classes.
        ignore_index: an image with this label has no classification term. Its map counts as that of others.

    Returns:
        A scalar, float32 (float64 for float64). Differentiable in `logits` and `cam`.

    Raises:
        TypeError, ValueError: wrong types or shapes, an alpha or a label smoothing outside [0, 1], and as
            `saliency_loss`; on the CPU also a label out of range, and a weight that is negative or not
            finite.

    Source: paper Sec. 3, Eq. 1; CYBORG (Boyd, Tinsley, Bowyer and Czajka 2023). Label smoothing: Szegedy et
    al. 2016, "Rethinking the Inception Architecture for Computer Vision", Sec. 7.
    """
    _checks.floating("cyborg_loss", logits=logits, cam=cam)
    _checks.together("cyborg_loss", logits=logits, cam=cam, labels=labels)
    _checks.shape("cyborg_loss", "logits", logits, cam.shape[0], None)
    _check_labels(labels, logits, ignore_index)
    if not 0 <= alpha <= 1:
        raise ValueError(f"cyborg_loss: alpha must lie in [0, 1], got {alpha}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cyborg_loss: label_smoothing must lie in [0, 1], got {label_smoothing}")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    weight = None if class_weight is None else _weight(class_weight, logits)
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    each = F.cross_entropy(
        logits, labels, weight, reduction="sum", label_smoothing=label_smoothing, ignore_index=ignore_index
    )
    classification = each / max(1, logits.shape[0])
    if alpha == 1:  # then no map counts, and a CAM with NaN changes nothing
        has_map = torch.zeros(cam.shape[0], dtype=torch.bool, device=cam.device)
    saliency = saliency_loss(
        cam, target, has_map=has_map, map_size=map_size, window=window, border=border, kind=kind
    )
    return alpha * classification + (1 - alpha) * saliency


def _check_labels(labels: Tensor, logits: Tensor, ignore_index: int) -> None:
    """Check that labels are classes or the index that is ignored, or probabilities of the classes."""
    batch, classes = logits.shape
    _checks.a_tensor("cyborg_loss", "labels", labels)
    if labels.is_floating_point():
        if labels.ndim == 1:
            raise TypeError(f"cyborg_loss: labels must be int64, or [B, K] if soft, got {labels.dtype} [B]")
        _checks.shape("cyborg_loss", "labels", labels, batch, classes)
        if _checks.visible(labels) and not bool((labels >= 0).all()):
            raise ValueError("cyborg_loss: soft labels must be probabilities, got a negative one or NaN")
        return
    _checks.label_type("cyborg_loss", "labels", labels, batch)
    if _checks.visible(labels):
        _checks.label_values("cyborg_loss", "labels", labels[labels != ignore_index], classes)


def _weight(class_weight: Tensor, logits: Tensor) -> Tensor:
    """The weights of the classes in the precision of the logits, after checks."""
    _checks.floating("cyborg_loss", class_weight=class_weight)
    _checks.together("cyborg_loss", logits=logits, class_weight=class_weight)
    _checks.shape("cyborg_loss", "class_weight", class_weight, logits.shape[1])
    weight = class_weight.detach().to(logits.dtype)
    if _checks.visible(weight):
        bad = weight[~(weight.isfinite() & (weight >= 0))]
        if len(bad):
            raise ValueError(
                f"cyborg_loss: class_weight must be finite and not negative, got {float(bad[0])}"
            )
    return weight
