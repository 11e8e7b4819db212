"""SSIM in plain torch, by separable Gaussian blurs, in two and three dimensions."""

import torch
import torch.nn.functional as F
from torch import Tensor

K1, K2 = 0.01, 0.03
_CONVOLUTIONS = {2: F.conv2d, 3: F.conv3d}


def gaussian(window: int, sigma: float, like: Tensor) -> Tensor:
    """Normalised Gaussian samples, [window]."""
    offset = torch.arange(window, dtype=torch.float64) - window // 2
    samples = torch.exp(-(offset**2) / (2 * sigma**2))
    return (samples / samples.sum()).to(like)


def _blur(image: Tensor, taps: Tensor, border: str) -> Tensor:
    """The weighted means under the window at each of its positions, over all dimensions but the first two."""
    dimensions = image.ndim - 2
    planes = image.flatten(0, 1)[:, None]
    if border != "valid":
        pads = [len(taps) // 2] * (2 * dimensions)
        planes = F.pad(planes, pads, mode="constant" if border == "zero" else "reflect")
    for dimension in range(dimensions):
        shape = [1] * (dimensions + 2)
        shape[-1 - dimension] = -1
        planes = _CONVOLUTIONS[dimensions](planes, taps.view(shape))
    return planes.reshape(*image.shape[:2], *planes.shape[2:])


def ssim(
    x: Tensor, y: Tensor, window: int, sigma: float, border: str, data_range: float, structure: bool = False
) -> Tensor:
    """The local similarities, [B, C, H', W'] or [B, C, D', H', W'], or their factor of the structure."""
    taps = gaussian(window, sigma, x)
    mean_x, mean_y, xx, yy, xy = (_blur(image, taps, border) for image in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    of_structure = (2 * cov + c2) / (var_x + var_y + c2)
    if structure:
        return of_structure
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * of_structure


def weighted_mean(maps: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over everything but the batch, weighted where weights are given."""
    if weights is None:
        return maps.flatten(1).mean(1)
    weights = weights.to(maps.dtype)
    return (maps * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
