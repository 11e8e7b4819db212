"""Maps laid over images, for people to look at."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.minmax_normalize import minmax_normalize

Colours = Literal["inferno", "viridis"]
COLOURS: tuple[Colours, ...] = get_args(Colours)

# 17 colours at equal steps, of the colour maps of these names by S. van der Walt and N. Smith (CC0).
_STEPS = {
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 "
    "fcac11 f9cb35 f2ea69 fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 "
    "84d44b addc30 d8e219 fde725",
}


def overlay(
    images: Tensor,
    maps: Tensor,
    *,
    opacity: float = 0.6,
    colours: Colours = "inferno",
    normalize: bool = True,
) -> Tensor:
    """`(1 - o) image + o colour(map)`, with the map enlarged to the image and the opacity `o`.

    The map is enlarged bilinearly (half-pixel centres). Its colours lie on straight lines between 17 steps of
    a colour map, within 7 grey levels of that.

    Args:
        images: uint8 [B, H, W, 3], or floating [B, 3, H, W] in [0, 1].
        maps: [B, h, w], floating.
        opacity: in [0, 1]: 0 shows the image alone, 1 the map alone.
        colours: `inferno` or `viridis`, from the lowest value to the highest.
        normalize: whether each map is min-max normalised first. Without it values are held in [0, 1].

    Returns:
        The shape and dtype of `images`. Not differentiable. A map with NaN or an infinity shows the image
        alone.

    Raises:
        TypeError, ValueError: wrong types, shapes or devices, an opacity outside [0, 1], unknown colours.
    """
    _checks.a_tensor("overlay", "images", images)
    _checks.floating("overlay", maps=maps)
    _checks.together("overlay", images=images, maps=maps)
    _checks.shape("overlay", "maps", maps, None, None, None)
    batch = maps.shape[0]
    if images.dtype == torch.uint8:
        _checks.shape("overlay", "images", images, batch, None, None, 3)
        pixels = images.permute(0, 3, 1, 2) / 255
    else:
        _checks.floating("overlay", images=images)
        _checks.shape("overlay", "images", images, batch, 3, None, None)
        pixels = images.detach()
    _checks.choice("overlay", "colours", colours, COLOURS)
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity must lie in [0, 1], got {opacity}")
    if 0 in maps.shape[1:]:
        raise ValueError(f"overlay: maps must have at least one pixel, got {list(maps.shape)}")
    heat = maps.detach().float()
    known = heat.isfinite().flatten(1).all(1)
    heat = minmax_normalize(heat) if normalize else heat.clamp(0, 1)
    heat = torch.where(known[:, None, None], heat, 0.0)
    heat = F.interpolate(
        heat[:, None], (pixels.shape[2], pixels.shape[3]), mode="bilinear", align_corners=False
    )[:, 0]
    shown = (opacity * known)[:, None, None, None]
    mixed = (1 - shown) * pixels + shown * _coloured(heat, colours)
    if images.dtype == torch.uint8:
        return (mixed * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return mixed.to(images.dtype)


def _coloured(heat: Tensor, colours: str) -> Tensor:
    """The colours of values in [0, 1]: [B, H, W] to [B, 3, H, W]."""
    steps = [list(bytes.fromhex(code)) for code in _STEPS[colours].split()]
    table = torch.tensor(steps, dtype=torch.float32, device=heat.device) / 255
    place = heat * (len(steps) - 1)
    first = place.long().clamp(0, len(steps) - 2)
    weight = (place - first)[..., None]
    return torch.lerp(table[first], table[first + 1], weight).permute(0, 3, 1, 2)
