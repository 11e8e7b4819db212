"""How far a model looks where people looked: CC and KL of a CAM and a graded human map.

Both functions take cam, floating [B, h, w], which is resized bilinearly (without aligned corners) to human,
uint8 or floating [B, H, W], and return float32 [B], computed in float32. A map that is flat (see
`ops.minmax_normalize`) or holds NaN gives NaN, so that a mean can leave it out. Neither is differentiable.
They raise TypeError for a cam that is not floating, and ValueError for other shapes.

Source: Bylinskii et al. 2019, "What do different evaluation metrics tell us about saliency models?", and
the MIT/Tuebingen saliency benchmark.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sal_fast import ops

EPSILON = torch.finfo(torch.float32).eps


@torch.no_grad()
def correlation(cam: Tensor, human: Tensor) -> Tensor:
    """CC: Pearson's correlation over an image's pixels, float32 [B] in [-1, 1].

    `sum (c - mean c)(g - mean g) / sqrt(sum (c - mean c)^2  sum (g - mean g)^2)`, c the CAM, g the human map.
    """
    c, g = (values - values.mean((-2, -1), keepdim=True) for values in _aligned(cam, human))
    spread = c.square().sum((-2, -1)).sqrt() * g.square().sum((-2, -1)).sqrt()
    return ((c * g).sum((-2, -1)) / spread).clamp(-1, 1)


@torch.no_grad()
def divergence(cam: Tensor, human: Tensor) -> Tensor:
    """KL(human || cam) in nats, float32 [B]: how much of where people looked the CAM misses; less is better.

    `sum_i q_i log(eps + q_i / (p_i + eps))`, p and q the CAM and the human map, each min-max normalised and
    divided by its sum. eps stands where the benchmark has it, and is float32's, 2^-23 = 1.2e-7. So KL of two
    equal maps lies between 0 and -HW eps (-0.006 at 224 x 224), and a pixel with p = 0 costs
    `q log(q / eps)`. The benchmark computes in double precision with eps = 2.2e-16, where such a pixel costs
    20 q more, and it does not subtract the minimum. So compare with published values only if they were
    computed in this way.
    """
    p, q = (values / values.sum((-2, -1), keepdim=True) for values in _aligned(cam, human))
    return (q * (EPSILON + q / (p + EPSILON)).log()).sum((-2, -1))


def _aligned(cam: Tensor, human: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as float32 [B, H, W] in [0, 1]. Flat maps become zeros, whose quotients above are NaN."""
    if not cam.is_floating_point():
        raise TypeError(f"agreement: cam must be floating, got {cam.dtype}")
    if cam.ndim != 3 or human.ndim != 3 or len(cam) != len(human):
        raise ValueError(
            f"agreement: expected cam [B, h, w] and human [B, H, W], "
            f"got {list(cam.shape)} and {list(human.shape)}"
        )
    enlarged = functional.interpolate(
        cam[:, None].float(), human.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0]
    return ops.minmax_normalize(enlarged), ops.minmax_normalize(human.float())
