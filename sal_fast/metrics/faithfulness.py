"""Insertion and deletion: how a model's answer changes while the pixels that a map calls important change.

Both functions take `logits_of`, which gives logits [B, K] of images [B, 3, H, W], maps, floating [B, h, w],
that are enlarged to the images, and the classes of the maps, int64 [B]. They give float32 [B] in [0, 1]. A
map with NaN gives NaN.

An image is changed in `steps` equal parts, the highest pixels of the map first and the lowest index (row by
row) first among equals. After each part the model is asked for the probability p of the map's class. The
figure is the area under p over the share of changed pixels, by the trapezoidal rule. It costs steps + 1
forward passes.

Source: Petsiuk et al. 2018, "RISE: randomized input sampling for explanation of black-box models".
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from sal_fast.metrics.maps import enlarged

STEPS = 32


@torch.no_grad()
def deletion(
    logits_of: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, classes: Tensor, steps: int = STEPS
) -> Tensor:
    """The area under the curve while pixels become zero, the mean of normalised images; less is better.

    Raises ValueError for shapes that do not fit, and for less than one step.
    """
    return _area(logits_of, images, torch.zeros_like(images), maps, classes, steps)


@torch.no_grad()
def insertion(
    logits_of: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, classes: Tensor, steps: int = STEPS
) -> Tensor:
    """The area under the curve while pixels are restored in the blurred image (`blurred`); more is better.

    Raises ValueError for shapes that do not fit, and for less than one step.
    """
    return _area(logits_of, blurred(images), images, maps, classes, steps)


def blurred(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] without their details.

    As in RISE, a Gaussian of deviation 5 is cut off at 5 pixels for images of 224 pixels; for others both are
    in proportion to the longer side, and at least 1.
    """
    reach = max(1, round(5 * max(images.shape[-2:]) / 224))
    kernel = [min(2 * reach + 1, 2 * side - 1) for side in (images.shape[-1], images.shape[-2])]
    return functional.gaussian_blur(images, kernel, [float(reach)] * 2)


def _area(
    logits_of: Callable[[Tensor], Tensor],
    begin: Tensor,
    end: Tensor,
    maps: Tensor,
    classes: Tensor,
    steps: int,
) -> Tensor:
    """The area under the probability of `classes` while the pixels of `begin` become those of `end`."""
    count, _, *size = begin.shape
    if maps.ndim != 3 or not len(maps) == len(classes) == count:
        raise ValueError(
            f"expected images [B, 3, H, W], maps [B, h, w] and classes [B], got {list(begin.shape)}, "
            f"{list(maps.shape)} and {list(classes.shape)}"
        )
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    heights = enlarged(maps.float(), (size[0], size[1])).flatten(1)
    order = heights.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1]).to(order).expand_as(order)
    )
    turn = place.view(count, 1, *size)
    pixels = order.shape[1]
    changed = [round(step * pixels / steps) for step in range(steps + 1)]
    found = []
    for share in changed:
        logits = logits_of(torch.where(turn < share, end, begin))
        found.append(logits.float().softmax(1).gather(1, classes[:, None])[:, 0])
    area = torch.trapezoid(torch.stack(found), torch.tensor(changed).to(found[0]) / pixels, dim=0)
    return torch.where(heights.isnan().any(1), torch.nan, area)
