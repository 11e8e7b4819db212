"""The saliency term of CYBORG: how far a CAM is from a human map."""

from __future__ import annotations

import torch
from torch import Tensor

from sal_fast._util.words import SALIENCY_KINDS as KINDS
from sal_fast._util.words import SaliencyKind as Kind
from sal_fast.ops import _checks
from sal_fast.ops._reductions import REDUCTIONS, Reduction
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.saliency_loss import reference, registration
from sal_fast.ops.ssim import BORDERS, Border, check_window


def saliency_loss(
    cam: Tensor,
    target: Tensor | BitMask,
    *,
    has_map: Tensor | None = None,
    map_size: int | None = None,
    window: int | None = None,
    border: Border = "valid",
    kind: Kind = "ssim_l1",
    reduction: Reduction = "mean",
) -> Tensor:
    """`Ls = (1 - SSIM(x, y)) + mean |x - y|` of the min-max normalised CAM x and map y (paper Eq. 1).

    The target is averaged over areas down to the loss's resolution (the CAM's own, or `map_size` squared, to
    which the CAM is enlarged bilinearly), then min-max normalised. A flat CAM counts as zeros with zero
    gradient. A target that is flat at that resolution says nothing about where to look: it counts as no map.

    Args:
        cam: [B, h, w], floating, raw; fp16 and bf16 are computed in float32.
        target: [B, H, W], any size; bool, uint8 or floating, of any range; or a `BitMask`.
        has_map: bool [B]; images without a map give 0. None: all have one.
        map_size: side of the loss's resolution; None: the CAM's own.
        window: SSIM window, odd; None: 7 at the CAM's resolution, 11 with `map_size`, or the largest odd size
            that fits.
        border: see `ssim`.
        kind: `ssim_l1`, or `mse` (mean squared difference: what the public CYBORG code computes).
        reduction: `mean` divides by B; `none` gives [B].

    Returns:
        float32 (float64 for a float64 CAM). Differentiable in `cam`, once, through its minimum and maximum;
        the gradient is made in the forward. A CAM or a map with NaN or an infinity gives NaN for its image.

    Raises:
        TypeError, ValueError: types, shapes, a window that is even or does not fit.

    Source: paper Sec. 3, Eq. 1; docs/method.md, "The loss".
    """
    _checks.floating("saliency_loss", cam=cam)
    words = target.words if isinstance(target, BitMask) else target
    if not isinstance(words, Tensor):
        raise TypeError(f"saliency_loss: target must be a tensor or a BitMask, got {type(target).__name__}")
    if words is target and not (target.is_floating_point() or target.dtype in (torch.bool, torch.uint8)):
        raise TypeError(f"saliency_loss: target must be bool, uint8 or floating, got {target.dtype}")
    _checks.together("saliency_loss", cam=cam, target=words, has_map=has_map)
    _checks.shape("saliency_loss", "cam", cam, None, None, None)
    _checks.shape("saliency_loss", "target", words, len(cam), None, None)
    if has_map is not None:
        _checks.shape("saliency_loss", "has_map", has_map, len(cam))
        if has_map.dtype != torch.bool:
            raise TypeError(f"saliency_loss: has_map must be bool, got {has_map.dtype}")
    for name, sides in (("cam", cam.shape[1:]), ("target", target.shape[1:])):
        if 0 in sides:
            raise ValueError(f"saliency_loss: {name} must have at least one pixel, got {[len(cam), *sides]}")
    if map_size is not None and map_size < 1:
        raise ValueError(f"saliency_loss: map_size must be at least 1, got {map_size}")
    _checks.choice("saliency_loss", "border", border, BORDERS)
    _checks.choice("saliency_loss", "kind", kind, KINDS)
    _checks.choice("saliency_loss", "reduction", reduction, REDUCTIONS)
    size = (map_size, map_size) if map_size is not None else (cam.shape[-2], cam.shape[-1])
    if window is None:
        window = min(7 if map_size is None else 11, (min(size) - 1) // 2 * 2 + 1)
    check_window("saliency_loss", window, min(size))
    sizes = (target.shape[2], *size, window)
    return registration.saliency_loss(cam, words, has_map, sizes, (kind, border, reduction))


def says_where(target: Tensor | BitMask, size: tuple[int, int]) -> Tensor:
    """Which maps [B, H, W] are not flat once reduced to `size`, so that they count as a map; bool [B]."""
    return reference.says_where(target.unpack() if isinstance(target, BitMask) else target, size)
