"""Top-N binarisation of maps, and their Dice overlap with masks."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops.topn import reference

Empty = Literal["skip", "zero", "one"]
EMPTIES: tuple[Empty, ...] = get_args(Empty)


class TopnDice(NamedTuple):
    """Per image: dice float32 [B], hits int64 [B] (pixels in both), n int64 [B] (pixels in the mask)."""

    dice: Tensor
    hits: Tensor
    n: Tensor


def topn_mask(maps: Tensor, n: int | Tensor) -> Tensor:
    """Exactly the n largest values of each map set; the lowest index (row-major) wins a tie.

    Args:
        maps: [B, H, W], floating.
        n: how many, 0..HW: one number, or int64 [B] on the maps' device.

    Returns:
        bool [B, H, W]. Not differentiable.

    Raises:
        ValueError: shapes; on the CPU also NaN in the maps and n out of range.

    Source: paper Sec. 6; docs/method.md, "Evaluation".
    """
    _checks.floating("topn_mask", maps=maps)
    _checks.shape("topn_mask", "maps", maps, None, None, None)
    counts = torch.as_tensor(n, device=maps.device).expand(len(maps))
    area = maps.shape[1] * maps.shape[2]
    if maps.device.type == "cpu" and len(maps):
        if not 0 <= int(counts.min()) <= int(counts.max()) <= area:
            raise ValueError(
                f"topn_mask: n must lie in 0..{area}, got {int(counts.min())}..{int(counts.max())}"
            )
        if bool(maps.isnan().any()):
            raise ValueError("topn_mask: maps contain NaN; expected numbers")
    return reference.topn_mask(maps, counts)


def topn_dice(
    cam: Tensor, mask: Tensor, *, size: tuple[int, int] | None = None, empty: Empty = "skip"
) -> TopnDice:
    """Dice of a CAM's top N pixels against a mask of N pixels: `Dice = 2 TP / (N + N) = TP / N`.

    The CAM is enlarged bilinearly (half-pixel centres) to `size`, the mask resized by nearest.

    Args:
        cam: [B, h, w], floating, raw: min-max does not change an order.
        mask: bool [B, H, W].
        size: (height, width) at which pixels are counted; None: the mask's.
        empty: the Dice of an image whose mask is empty: `skip` gives NaN (leave it out of means), `zero` 0,
            `one` 1.

    Returns:
        TopnDice. Not differentiable. On a GPU an image whose CAM holds NaN has a Dice of NaN.

    Raises:
        TypeError, ValueError: types, shapes, an unknown policy; on the CPU NaN in the CAM.

    Source: paper Sec. 6; docs/method.md, "Evaluation".
    """
    _checks.floating("topn_dice", cam=cam)
    _checks.together("topn_dice", cam=cam, mask=mask)
    _checks.shape("topn_dice", "cam", cam, None, None, None)
    _checks.shape("topn_dice", "mask", mask, len(cam), None, None)
    _checks.choice("topn_dice", "empty", empty, EMPTIES)
    if mask.dtype != torch.bool:
        raise TypeError(f"topn_dice: mask must be bool, got {mask.dtype}")
    if size is not None and tuple(mask.shape[-2:]) != size:
        mask = F.interpolate(mask[:, None].to(torch.uint8), size, mode="nearest")[:, 0].bool()
    if cam.device.type == "cpu" and bool(cam.isnan().any()):
        raise ValueError("topn_dice: cam contains NaN; expected numbers")
    cam = cam if cam.dtype == torch.float64 else cam.float()
    hits, n = reference.topn_hits(cam, mask)
    dice = torch.where(n > 0, hits / n, {"skip": float("nan"), "zero": 0.0, "one": 1.0}[empty])
    dice = dice.masked_fill(cam.isnan().flatten(1).any(1), float("nan"))
    return TopnDice(dice, hits, n)
