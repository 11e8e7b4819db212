"""The saliency term of the CYBORG loss: how far a CAM is from a human map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sal_fast._util.words import SALIENCY_KINDS as KINDS
from sal_fast._util.words import SaliencyKind as Kind
from sal_fast.ops import _checks
from sal_fast.ops._reductions import REDUCTIONS, Reduction
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.saliency_loss import plans, reference, registration
from sal_fast.ops.ssim import BORDERS, Border, checked_window


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

    The resolution of the loss is the CAM's own, or `map_size` x `map_size`, to which the CAM is enlarged
    bilinearly. The target is averaged over areas down to it, then min-max normalised. A flat CAM counts as
    zeros, with zero gradient. A target that is flat at that resolution does not say where to look, and counts
    as no map.

    Args:
        cam: [B, h, w], floating, not normalised. float16 and bfloat16 are computed in float32.
        target: [B, H, W] of any size; bool, uint8 or floating, of any range; or a `BitMask`.
        has_map: bool [B]. Images without a map give 0. None means that all have one.
        map_size: the side of the loss's resolution. None means the CAM's own size.
        window: the SSIM window, odd. None means 7 at the CAM's resolution and 11 with `map_size`, or the
            largest odd size that fits.
        border: see `ssim`.
        kind: `ssim_l1`, or `mse`, the mean squared difference, as the public CYBORG code computes it.
        reduction: `mean` divides by B; `none` gives [B].

    Returns:
        float32 (float64 for a float64 CAM). It can be differentiated once, in `cam`, through its minimum and
        maximum too. The gradient is made in the forward. NaN or an infinity in a CAM or a map gives NaN for
        its image.

    Raises:
        TypeError, ValueError: wrong types or shapes, a window that is even or does not fit.

    Source: paper Sec. 3, Eq. 1; docs/method.md, "The loss".
    """
    signature, plan = plans.find(cam, target, has_map, map_size, window, kind, border, reduction)
    if plan:
        return plan(cam, target, has_map)  # type: ignore[arg-type]
    _checks.floating("saliency_loss", cam=cam)
    _checks.shape("saliency_loss", "cam", cam, None, None, None)
    words = stored_target("saliency_loss", target, has_map, cam.shape[0])
    _checks.together("saliency_loss", cam=cam, target=words, has_map=has_map)
    check_sides("saliency_loss", "cam", [cam.shape[0], *cam.shape[1:]])
    _checks.choice("saliency_loss", "border", border, BORDERS)
    _checks.choice("saliency_loss", "kind", kind, KINDS)
    _checks.choice("saliency_loss", "reduction", reduction, REDUCTIONS)
    height, width, window = resolution("saliency_loss", (cam.shape[1], cam.shape[2]), map_size, window)
    sizes = (target.shape[2], height, width, window)
    plans.add(signature, cam, words, has_map, sizes, (kind, border, reduction))
    return registration.saliency_loss(cam, words, has_map, sizes, (kind, border, reduction))


def stored_target(op: str, target: Tensor | BitMask, has_map: Tensor | None, images: int) -> Tensor:
    """The tensor that stores the maps of so many images, after checks of types and shapes."""
    words = target.words if isinstance(target, BitMask) else target
    if not isinstance(words, Tensor):
        raise TypeError(f"{op}: target must be a tensor or a BitMask, got {type(target).__name__}")
    if words is target and not (target.is_floating_point() or target.dtype in (torch.bool, torch.uint8)):
        raise TypeError(f"{op}: target must be bool, uint8 or floating, got {target.dtype}")
    _checks.shape(op, "target", words, images, None, None)
    check_sides(op, "target", target.shape)
    if has_map is not None:
        _checks.shape(op, "has_map", has_map, images)
        _checks.tensor(op, torch.bool, has_map=has_map)
    return words


def check_sides(op: str, name: str, shape: Sequence[int]) -> None:
    """Check that maps [B, H, W] have a pixel."""
    if 0 in shape[1:]:
        raise ValueError(f"{op}: {name} must have at least one pixel, got {list(shape)}")


def resolution(
    op: str, cam_size: tuple[int, int], map_size: int | None, window: int | None
) -> tuple[int, int, int]:
    """The height and the width at which maps are compared, and the window; see `saliency_loss`."""
    if map_size is not None:
        map_size = _checks.integer(op, "map_size", map_size)
        if map_size < 1:
            raise ValueError(f"{op}: map_size must be at least 1, got {map_size}")
    size = (map_size, map_size) if map_size is not None else cam_size
    if window is None:
        window = min(7 if map_size is None else 11, (min(size) - 1) // 2 * 2 + 1)
    return (*size, checked_window(op, window, min(size)))


def says_where(target: Tensor | BitMask, size: tuple[int, int]) -> Tensor:
    """Which maps [B, H, W] are not flat once they are reduced to `size`, and so count as a map; bool [B]."""
    return reference.says_where(target.unpack() if isinstance(target, BitMask) else target, size)
