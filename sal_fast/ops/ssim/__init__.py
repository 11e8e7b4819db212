"""Structural similarity."""

from typing import Literal, get_args

from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops._reductions import REDUCTIONS, Reduction, reduce
from sal_fast.ops.ssim import registration

Border = Literal["valid", "zero", "reflect"]
BORDERS: tuple[Border, ...] = get_args(Border)


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
    check_window("ssim", window, min(x.shape[-2:]))
    if x.shape[1] == 0:
        raise ValueError(f"ssim: x must have at least one channel, got {list(x.shape)}")
    for name, value in (("sigma", sigma), ("data_range", data_range)):
        if not value > 0:
            raise ValueError(f"ssim: {name} must be above 0, got {value:g}")
    _checks.choice("ssim", "border", border, BORDERS)
    _checks.choice("ssim", "reduction", reduction, REDUCTIONS)
    return reduce(registration.ssim(x, y, window, sigma, border, data_range), reduction)


def check_window(op: str, window: int, side: int) -> None:
    """Check that the window is odd and at most `side`."""
    if window % 2 == 0 or not 1 <= window <= side:
        raise ValueError(
            f"{op}: window must be odd and between 1 and the image's shorter side {side}, got {window}"
        )
