"""Structural similarity."""

from typing import Literal, get_args

import torch
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops._reductions import REDUCTIONS, Reduction, reduce
from sal_fast.ops.ssim import registration

Border = Literal["valid", "zero", "reflect"]
BORDERS: tuple[Border, ...] = get_args(Border)
_PLAIN_RANGE = (1e-6, 1e6)  # beyond these, images are scaled first


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    border: Border = "valid",
    data_range: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean structural similarity of two images under a Gaussian window.

    `SSIM = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sxx + syy + C2))`, `C1 = (0.01 L)^2`,
    `C2 = (0.03 L)^2`, with the data range L. The means m and the (co)variances s are weighted by a normalised
    Gaussian of `window` x `window` samples.

    Args:
        x, y: [B, C, H, W], floating, of one shape, dtype and device, with any strides. float16 and bfloat16
            are computed in float32.
        window: samples along a side, odd, at most min(H, W).
        sigma: standard deviation of the Gaussian, in pixels.
        border: `valid` (only windows inside the image, as pytorch-msssim), `zero` (padded with zeros, as
            fused-ssim), `reflect` (as torchmetrics and kornia).
        data_range: the range of the values.
        reduction: how the means of the images are reduced; `none` gives [B].

    Returns:
        float32 (float64 for float64), in [-1, 1]. It can be differentiated once (float64: twice), in `x` and
        `y`. The gradients are made in the forward and take 4 bytes a value. An image with NaN gives NaN.

    Raises:
        TypeError, ValueError: wrong types or shapes, a window that is even or does not fit, a range or sigma
            that is not above 0.

    Source: Wang et al. 2004 (IEEE Transactions on Image Processing 13); paper Eq. 1.
    """
    _checks.floating("ssim", x=x, y=y)
    _checks.together("ssim", x=x, y=y)
    if x.dtype != y.dtype:
        raise TypeError(f"ssim: expected one dtype, got x {x.dtype}, y {y.dtype}")
    _checks.shape("ssim", "x", x, None, None, None, None)
    _checks.shape("ssim", "y", y, *x.shape)
    window = checked_window("ssim", window, min(x.shape[-2:]))
    if x.shape[1] == 0:
        raise ValueError(f"ssim: x must have at least one channel, got {list(x.shape)}")
    for name, value in (("sigma", sigma), ("data_range", data_range)):
        if not value > 0:
            raise ValueError(f"ssim: {name} must be above 0, got {value:g}")
    _checks.choice("ssim", "border", border, BORDERS)
    _checks.choice("ssim", "reduction", reduction, REDUCTIONS)
    if not _PLAIN_RANGE[0] <= data_range <= _PLAIN_RANGE[1]:
        x, y, data_range = _scaled(x, data_range), _scaled(y, data_range), 1.0
    return reduce(registration.ssim(x, y, window, sigma, border, data_range), reduction)


def _scaled(image: Tensor, data_range: float) -> Tensor:
    """The image in units of the range. SSIM has no scale, but float32 would lose C1, C2 or the squares."""
    return (image if image.dtype == torch.float64 else image.float()) / data_range


def checked_window(op: str, window: int, side: int) -> int:
    """The window, after a check that it is a whole number, odd and at most `side`."""
    window = _checks.integer(op, "window", window)
    if window % 2 == 0 or not 1 <= window <= side:
        raise ValueError(
            f"{op}: window must be odd and between 1 and the image's shorter side {side}, got {window}"
        )
    return window
