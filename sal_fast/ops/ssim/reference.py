"""SSIM in plain torch: five separable Gaussian blurs."""

import torch
import torch.nn.functional as F
from torch import Tensor

K1, K2 = 0.01, 0.03


def gaussian(window: int, sigma: float, like: Tensor) -> Tensor:
    """Normalised Gaussian samples, [window]."""
    offset = torch.arange(window, dtype=torch.float64) - window // 2
    samples = torch.exp(-(offset**2) / (2 * sigma**2))
    return (samples / samples.sum()).to(like)


def ssim(x: Tensor, y: Tensor, window: int, sigma: float, border: str, data_range: float) -> Tensor:
    """The map of local similarities, [B, C, H', W']."""
    taps = gaussian(window, sigma, x)
    pad = window // 2

    def blur(image: Tensor) -> Tensor:
        planes = image.flatten(0, 1)[:, None]
        if border != "valid":
            planes = F.pad(planes, (pad, pad, pad, pad), mode="constant" if border == "zero" else "reflect")
        planes = F.conv2d(F.conv2d(planes, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
        return planes.reshape(*image.shape[:2], *planes.shape[-2:])

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x**2
    var_y = blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    return (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
