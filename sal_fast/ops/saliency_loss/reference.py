"""The saliency loss, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops.minmax_normalize.reference import is_flat, minmax_normalize
from sal_fast.ops.ssim.reference import ssim
from sal_fast.ops.topn.reference import enlarged

SIGMA = 1.5


def reduced(target: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    """The target averaged over areas to `size`, in the dtype of `like`."""
    return F.adaptive_avg_pool2d(target.to(like.dtype), size)


def says_where(target: Tensor, size: tuple[int, int]) -> Tensor:
    """See `sal_fast.ops.says_where`."""
    return ~is_flat(reduced(target, size, torch.zeros((), dtype=torch.float32)))


def saliency_loss(
    cam: Tensor,
    target: Tensor,
    has_map: Tensor | None,
    size: tuple[int, int],
    window: int,
    border: str,
    kind: str,
) -> Tensor:
    """The losses of the images, [B]; see `sal_fast.ops.saliency_loss`."""
    if tuple(cam.shape[-2:]) != size:
        cam = enlarged(cam, size)  # equal neighbours give equal pixels, so that ties at an extreme stay ties
    human = reduced(target, size, cam)
    counts = ~is_flat(human)
    if has_map is not None:
        counts = counts & has_map
    # NaN in an image that does not count must have no gradient.
    cam = torch.where(counts[:, None, None], cam, 0.0)
    x, y = minmax_normalize(cam), minmax_normalize(human)
    if kind == "mse":
        loss = ((x - y) ** 2).mean((-2, -1))
    else:
        similarity = ssim(x[:, None], y[:, None], window, SIGMA, border, 1.0).mean((1, 2, 3))
        loss = (1 - similarity) + (x - y).abs().mean((-2, -1))
    return torch.where(counts, loss, 0.0)
