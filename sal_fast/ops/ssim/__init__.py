"""Structural similarity: its mean, its map, and its mean over several scales."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops._reductions import REDUCTIONS, Reduction, reduce
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.ssim import registration, volumes
from sal_fast.ops.ssim.registration import Options

Border = Literal["valid", "zero", "reflect"]
BORDERS: tuple[Border, ...] = get_args(Border)
# The exponents of the scales, from the finest on (Wang et al. 2003, Sec. 3.2).
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_RANGES = {torch.uint8: 255.0, torch.uint16: 65535.0}
_PLAIN_RANGE = (1e-6, 1e6)  # beyond these, images are scaled first


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    border: Border = "valid",
    data_range: float | None = None,
    mask: Tensor | BitMask | None = None,
    reduction: Reduction = "mean",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Mean structural similarity of two images or volumes under a Gaussian window.

    `SSIM = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sxx + syy + C2))`, `C1 = (0.01 L)^2`,
    `C2 = (0.03 L)^2`, with the data range L. The means m and the (co)variances s are weighted by a normalised
    Gaussian of `window` samples along each side. With a mask w, the result is `sum w SSIM / sum w`.

    Args:
        x, y: images [B, C, H, W] or volumes [B, C, D, H, W], of one shape, dtype and device, with any
            strides: floating, uint8 or uint16. On the CPU their moments are computed in float64. On a GPU,
            and for volumes, the arithmetic is float32 (float64 for float64).
        window: samples along a side, odd, at most the shortest side.
        sigma: standard deviation of the Gaussian, in pixels.
        border: `valid` (only windows inside the image, as pytorch-msssim), `zero` (padded with zeros, as
            fused-ssim), `reflect` (as torchmetrics and kornia).
        data_range: the range of the values. None means 255 for uint8, 65535 for uint16 and otherwise 1.
        mask: weights at least 0 of the pixels at the centres of the windows: [B, H, W] or [B, 1 or C, H, W]
            (with D for volumes), of any real dtype, or a `BitMask`. An image whose weights sum to 0 gives
            NaN.
        reduction: how the means of the images are reduced; `none` gives [B].
        out_dtype: float32 or float64. None means float32, or float64 for float64 images.

    Returns:
        The similarity, in [-1, 1]. It can be differentiated once (float64 images and volumes: twice), in `x`
        and `y`. The gradients are made in the forward and take 4 bytes a value. An image with NaN gives NaN.

    Raises:
        TypeError, ValueError: wrong types or shapes, a window that is even or does not fit, a range or sigma
            that is not above 0, a mask that requires a gradient or has a negative weight.

    Source: Wang et al. 2004 (IEEE Transactions on Image Processing 13); paper Eq. 1.
    """
    x, y, options, dtype = _checked("ssim", x, y, window, sigma, border, data_range, out_dtype)
    _checks.choice("ssim", "reduction", reduction, REDUCTIONS)
    weights = None if mask is None else _weights(mask, x, options)
    means = registration.ssim if x.ndim == 4 else volumes.ssim
    return reduce(means(x, y, weights, options), reduction).to(dtype)


def ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    border: Border = "valid",
    data_range: float | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """The structural similarity at each position of the window; `ssim` is its mean.

    Args:
        x, y, window, sigma, border, data_range, out_dtype: see `ssim`.

    Returns:
        [B, C, H, W], or [B, C, D, H, W] for volumes. With the border `valid` every side is `window - 1`
        shorter. It can be differentiated as `ssim` can.

    Raises:
        TypeError, ValueError: as `ssim`.

    Source: Wang et al. 2004 (IEEE Transactions on Image Processing 13).
    """
    x, y, options, dtype = _checked("ssim_map", x, y, window, sigma, border, data_range, out_dtype)
    maps = registration.ssim_map if x.ndim == 4 else volumes.ssim_map
    return maps(x, y, options).to(dtype)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    weights: Sequence[float] = MS_SSIM_WEIGHTS,
    window: int = 11,
    sigma: float = 1.5,
    data_range: float | None = None,
    reduction: Reduction = "mean",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Multi-scale structural similarity, `prod_j max(s_j, 0)^weights[j]` over halved images.

    At all scales but the coarsest, s is the mean of the factor of the structure,
    `(2 sxy + C2) / (sxx + syy + C2)`, and at the coarsest the mean SSIM (see `ssim`). Each scale is made from
    the one before by means of 2 x 2 pixels; an odd last row or column is left out. The product is taken for
    each channel, and then averaged over the channels.

    Args:
        x, y: images [B, C, H, W]; see `ssim`.
        weights: the exponents, one for each scale, from the finest on.
        window: samples along a side, odd. It has to fit into the image of the coarsest scale: with five
            scales and 11 samples the shorter side has at least 176 pixels.
        sigma, data_range, reduction, out_dtype: see `ssim`.

    Returns:
        The similarity, in [0, 1]. It can be differentiated once, in `x` and `y`; where a factor is negative,
        its image has no gradient.

    Raises:
        TypeError, ValueError: as `ssim`; no weights; an image that is too small for so many scales.

    Source: Wang, Simoncelli and Bovik 2003 (Asilomar Conference on Signals, Systems and Computers).
    """
    if not weights:
        raise ValueError("ms_ssim: weights must have a value for each scale, got none")
    _checks.shape("ms_ssim", "x", x, None, None, None, None)
    x, y, options, dtype = _checked("ms_ssim", x, y, window, sigma, "valid", data_range, out_dtype)
    _checks.choice("ms_ssim", "reduction", reduction, REDUCTIONS)
    coarsest, least = len(weights) - 1, options.window << (len(weights) - 1)
    if min(x.shape[2:]) < least:
        raise ValueError(
            f"ms_ssim: {len(weights)} scales and a window of {options.window} need images of at least "
            f"{least} x {least} pixels, got {x.shape[2]} x {x.shape[3]}: "
            "give fewer weights or a smaller window"
        )
    batch, channels = x.shape[:2]
    factors = []
    for scale in range(len(weights)):
        if scale:
            x, y = _halved(x, options.exact), _halved(y, options.exact)
        # Every channel is an image of its own, because the product is taken for each.
        a, b = (image.reshape(batch * channels, 1, *image.shape[2:]) for image in (x, y))
        factors.append(registration.ssim(a, b, None, options._replace(structure=scale < coarsest)))
    exponents = torch.tensor(weights, dtype=factors[0].dtype, device=x.device)
    product = (torch.stack(factors, 1).clamp(min=0) ** exponents).prod(1)
    return reduce(product.view(batch, channels).mean(1), reduction).to(dtype)


def checked_window(op: str, window: int, side: int) -> int:
    """The window, after a check that it is a whole number, odd and at most `side`."""
    window = _checks.integer(op, "window", window)
    if window % 2 == 0 or not 1 <= window <= side:
        raise ValueError(
            f"{op}: window must be odd and between 1 and the image's shorter side {side}, got {window}"
        )
    return window


def _checked(
    op: str,
    x: Tensor,
    y: Tensor,
    window: int,
    sigma: float,
    border: Border,
    data_range: float | None,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Options, torch.dtype]:
    """The images in a plain range, the settings, and the dtype of the result."""
    for name, image in (("x", x), ("y", y)):
        _checks.a_tensor(op, name, image)
        if not image.is_floating_point() and image.dtype not in _RANGES:
            raise TypeError(f"{op}: {name} must be of a floating dtype, uint8 or uint16, got {image.dtype}")
    _checks.together(op, x=x, y=y)
    if x.dtype != y.dtype:
        raise TypeError(f"{op}: expected one dtype, got x {x.dtype}, y {y.dtype}")
    if x.ndim != 5:
        _checks.shape(op, "x", x, None, None, None, None)
    _checks.shape(op, "y", y, *x.shape)
    window = checked_window(op, window, min(x.shape[2:]))
    if x.shape[1] == 0:
        raise ValueError(f"{op}: x must have at least one channel, got {list(x.shape)}")
    if data_range is None:
        data_range = _RANGES.get(x.dtype, 1.0)
    for name, value in (("sigma", sigma), ("data_range", data_range)):
        if not value > 0:
            raise ValueError(f"{op}: {name} must be above 0, got {value:g}")
    _checks.choice(op, "border", border, BORDERS)
    dtype = out_dtype or (torch.float64 if x.dtype == torch.float64 else torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: out_dtype must be float32 or float64, got {dtype}")
    if not _PLAIN_RANGE[0] <= data_range <= _PLAIN_RANGE[1]:
        exponent = math.frexp(data_range)[1]
        x, y, data_range = _scaled(x, exponent), _scaled(y, exponent), math.ldexp(data_range, -exponent)
    exact = torch.float64 in (dtype, x.dtype)
    return x, y, Options(window, float(sigma), border, float(data_range), False, exact), dtype


def _scaled(image: Tensor, exponent: int) -> Tensor:
    """The image divided by 2^exponent. SSIM has no scale, but float32 would lose C1, C2 or the squares."""
    image = image if image.dtype == torch.float64 else image.float()
    half = exponent // 2  # in two steps, because 2^-exponent may be no number of float32
    return image * 2.0**-half * 2.0 ** (half - exponent)


def _weights(mask: Tensor | BitMask, x: Tensor, options: Options) -> Tensor:
    """The mask as float32 weights of the window's positions, with the channels of x."""
    mask = mask.unpack() if isinstance(mask, BitMask) else mask
    _checks.a_tensor("ssim", "mask", mask)
    _checks.together("ssim", x=x, mask=mask)
    if mask.is_complex():
        raise TypeError(f"ssim: mask must be of a real dtype, got {mask.dtype}")
    if mask.requires_grad:
        raise ValueError("ssim: mask must not require a gradient; give mask.detach()")
    if mask.ndim != x.ndim:
        _checks.shape("ssim", "mask", mask, x.shape[0], *x.shape[2:])
        mask = mask[:, None]
    own = x.shape[1] if mask.shape[1] == x.shape[1] else 1
    _checks.shape("ssim", "mask", mask, x.shape[0], own, *x.shape[2:])
    if mask.dtype != torch.bool and _checks.visible(mask) and bool((mask < 0).any()):
        raise ValueError(f"ssim: mask must have weights of at least 0, got {float(mask.min()):g}")
    if options.border == "valid":
        for side in range(2, x.ndim):
            mask = mask.narrow(side, options.window // 2, mask.shape[side] - options.window + 1)
    return mask.float().expand(-1, x.shape[1], *[-1] * (x.ndim - 2))


def _halved(image: Tensor, exact: bool) -> Tensor:
    """The means of 2 x 2 pixels. Those of whole numbers are taken without a copy of the image as floats."""
    dtype = torch.float64 if exact else torch.float32
    if image.is_floating_point():
        return F.avg_pool2d(image.to(dtype), 2)
    height, width = image.shape[2] // 2 * 2, image.shape[3] // 2 * 2
    total = image[..., 0:height:2, 0:width:2].to(dtype)
    for down, across in ((0, 1), (1, 0), (1, 1)):
        total += image[..., down:height:2, across:width:2]
    return total / 4
