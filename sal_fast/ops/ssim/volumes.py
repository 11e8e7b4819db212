"""SSIM of volumes [B, C, D, H, W], in torch on every device.

A blur along a side is a product with a matrix that has the taps on its diagonals. That takes more operations
than a convolution of one channel, which torch computes at a small part of a processor's rate, and less time.
The arithmetic is float64, so that autocast and TF32 leave it alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops.ssim import reference
from sal_fast.ops.ssim.registration import Options


def ssim_map(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The similarity at each position of the window, float64 [B, C, D', H', W']."""
    x, y = x.double(), y.double()
    u, v = x + y, x - y  # of these, four moments are enough
    means = torch.stack([u, v, u * u, v * v])
    for side in (4, 3, 2):
        means = _blurred(means, side + 1, _bands(x.shape[side], options).to(x.device))
    u, v, uu, vv = means
    uu, vv = uu - u * u, vv - v * v
    c1, c2 = (2 * (k * options.data_range) ** 2 for k in (reference.K1, reference.K2))
    return (u * u - v * v + c1) / (u * u + v * v + c1) * (uu - vv + c2) / (uu + vv + c2)


def ssim(x: Tensor, y: Tensor, weights: Tensor | None, options: Options) -> Tensor:
    """The mean of each volume, float64 [B]. `weights`: [B, C, D', H', W']."""
    return reference.weighted_mean(ssim_map(x, y, options), weights)


def _bands(side: int, options: Options) -> Tensor:
    """The matrix [positions, side] that blurs a line of `side` samples."""
    lines = torch.eye(side, dtype=torch.float64)[:, None]
    if options.border != "valid":
        pad = options.window // 2
        lines = F.pad(lines, (pad, pad), mode="constant" if options.border == "zero" else "reflect")
    taps = reference.gaussian(options.window, options.sigma, lines)
    return F.conv1d(lines, taps.view(1, 1, -1))[:, 0].T


def _blurred(values: Tensor, dimension: int, bands: Tensor) -> Tensor:
    """The products of the bands with the lines along one dimension, and the others joined to matrices."""
    if dimension == values.ndim - 1:
        return values @ bands.T
    rest = values.shape[dimension + 1 :]
    return (bands @ values.flatten(dimension + 1)).unflatten(-1, rest)
