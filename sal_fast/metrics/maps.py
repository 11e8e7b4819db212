"""Figures of a model's map (a CAM) beside what people marked: a mask, or a graded map.

All functions take cam, floating [B, h, w], which is enlarged bilinearly (without aligned corners) to the size
of the other map, [B, H, W]. They compute in float32, give float32 [B], and are not differentiable. Each image
has its own figure; NaN says that the image has none, so that a mean can leave it out. The figures of a map
that holds NaN or an infinity are NaN.

They raise TypeError for a cam that is not floating or a mask that is not bool or a `BitMask`, and ValueError
for other shapes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops

EPSILON = torch.finfo(torch.float32).eps

# On a CPU so many maps are judged together: what is computed of them then stays in its cache.
CHUNK = 8

Mask = Tensor | ops.BitMask


class MapFigures(NamedTuple):
    """The figures of B maps beside what people marked, float32 [B] each.

    dice: Dice of the map's top N pixels and the mask of N pixels (`ops.topn_dice`). floor: the Dice that a
    random map has on average, which is the mask's share of the pixels. The others: see the functions. Beside
    an empty mask all are NaN. `cc` and those after it are for graded maps, and NaN beside masks.
    """

    dice: Tensor
    floor: Tensor
    iou: Tensor
    pointing: Tensor
    energy: Tensor
    energy_gain: Tensor
    cc: Tensor
    kl: Tensor
    nss: Tensor
    sim: Tensor
    auc_judd: Tensor


GRADED = ("cc", "kl", "nss", "sim", "auc_judd")  # the figures that are for graded maps


@torch.no_grad()
def map_figures(cam: Tensor, human: Mask) -> MapFigures:
    """All figures of maps beside what people marked. Each map is enlarged once for all of them.

    human: masks, bool [B, H, W] or a `BitMask`, or graded maps, uint8 or floating [B, H, W]. Pixels of uint8
    maps are divided by 255. A graded map also counts as a mask, which is its N highest pixels, N = the sum
    of the map, rounded; NSS and AUC-Judd take these pixels for those that people looked at.
    """
    if cam.device.type != "cpu" or len(cam) <= CHUNK:
        return _figures(cam, human)
    parts = [_figures(cam[at : at + CHUNK], human[at : at + CHUNK]) for at in range(0, len(cam), CHUNK)]
    return MapFigures(*map(torch.cat, zip(*parts, strict=True)))


def _figures(cam: Tensor, human: Mask) -> MapFigures:
    mask, graded = as_mask(human)
    marked = _marked(cam, mask)
    scaled, floor = _scaled(cam, marked), _share(marked)
    dice = ops.topn_dice(cam, mask).dice
    outside = _outside(scaled, marked)
    pointing, gain = _pointing(scaled, marked), _gain(outside, marked)
    figures = dice, floor, _iou(dice), pointing, 1 - outside, gain
    if graded is None:
        return MapFigures(*figures, *torch.full((len(GRADED), len(cam)), torch.nan, device=cam.device))
    g = ops.minmax_normalize(graded)
    return MapFigures(
        *figures,
        _correlation(scaled, g),
        _divergence(scaled, g),
        _nss(scaled, marked),
        _similarity(scaled, g),
        _auc_judd(scaled, marked),
    )


def as_mask(human: Mask) -> tuple[Mask, Tensor | None]:
    """Return what people marked as a mask, and in float32 if it is a graded map."""
    if isinstance(human, ops.BitMask) or human.dtype == torch.bool:
        return human, None
    graded = human.float() / 255 if human.dtype == torch.uint8 else human.float()
    return ops.topn_mask(graded, graded.sum((-2, -1)).round().long(), packed=True), graded


# --- beside a mask ---------------------------------------------------------------------------------------


@torch.no_grad()
def iou(cam: Tensor, mask: Mask) -> Tensor:
    """Intersection over union of a map's top N pixels and a mask of N pixels, in [0, 1].

    Both have N pixels, so `IoU = TP / (2 N - TP) = Dice / (2 - Dice)` for each image. NaN where the mask is
    empty.

    Source: Jaccard 1912, "The distribution of the flora in the alpine zone".
    """
    return _iou(ops.topn_dice(cam, mask).dice)


@torch.no_grad()
def pointing_game(cam: Tensor, mask: Mask) -> Tensor:
    """1 if the map's highest pixel lies on the mask, else 0.

    If several pixels are highest, it is the share of them that lies on the mask. So a flat map gets the
    mask's share of the image, which is also what a random map gets on average. NaN where the mask is empty.
    The paper allows a miss by 15 pixels; nothing is allowed here.

    Source: Zhang et al. 2018, "Top-down neural attention by excitation backprop".
    """
    marked = _marked(cam, mask)
    return _pointing(_scaled(cam, marked), marked)


@torch.no_grad()
def energy(cam: Tensor, mask: Mask) -> Tensor:
    """The energy-based pointing game: the share of a map's sum that lies on the mask, in [0, 1].

    `sum_{i in mask} L_i / sum_i L_i`, L the map, min-max normalised. A flat map counts as 1 everywhere, and
    so gets the mask's share of the image. NaN where the mask is empty.

    Source: Wang et al. 2020, "Score-CAM: score-weighted visual explanations for convolutional neural
    networks".
    """
    marked = _marked(cam, mask)
    return 1 - _outside(_scaled(cam, marked), marked)


@torch.no_grad()
def energy_gain(cam: Tensor, mask: Mask) -> Tensor:
    """The energy-based pointing game, corrected for the size of the mask: at most 1, and 0 for a flat map.

    `(e - a) / (1 - a)`, e the `energy` and a the mask's share of the image. A large mask holds much energy
    of any map. This is how much of the energy that a flat map has outside the mask was brought inside. It is
    negative for a map that avoids the mask. NaN where the mask is empty or full.
    """
    marked = _marked(cam, mask)
    return _gain(_outside(_scaled(cam, marked), marked), marked)


# --- beside a graded map ---------------------------------------------------------------------------------


@torch.no_grad()
def correlation(cam: Tensor, human: Tensor) -> Tensor:
    """CC: Pearson's correlation over an image's pixels, in [-1, 1].

    `sum (c - mean c)(g - mean g) / sqrt(sum (c - mean c)^2  sum (g - mean g)^2)`, c the CAM, g the human map,
    uint8 or floating [B, H, W]. NaN if one of them is flat (see `ops.minmax_normalize`).

    Source: Bylinskii et al. 2019, "What do different evaluation metrics tell us about saliency models?", and
    the MIT/Tuebingen saliency benchmark, as for all figures beside graded maps.
    """
    return _correlation(*_aligned(cam, human))


@torch.no_grad()
def divergence(cam: Tensor, human: Tensor) -> Tensor:
    """KL(human || cam) in nats: how much of where people looked the CAM misses; less is better.

    `sum_i q_i log(eps + q_i / (p_i + eps))`, p and q the CAM and the human map, each min-max normalised and
    divided by its sum. eps stands where the benchmark has it, and is float32's, 2^-23 = 1.2e-7. So KL of two
    equal maps lies between 0 and -HW eps (-0.006 at 224 x 224), and a pixel with p = 0 costs
    `q log(q / eps)`. The benchmark computes in double precision with eps = 2.2e-16, where such a pixel costs
    20 q more, and it does not subtract the minimum. So compare with published values only if they were
    computed in this way. NaN if a map is flat.
    """
    return _divergence(*_aligned(cam, human))


@torch.no_grad()
def similarity(cam: Tensor, human: Tensor) -> Tensor:
    """SIM: what two maps have in common, in [0, 1].

    `sum_i min(p_i, q_i)`, p and q the CAM and the human map, each min-max normalised and divided by its sum.
    NaN if a map is flat.
    """
    return _similarity(*_aligned(cam, human))


@torch.no_grad()
def nss(cam: Tensor, fixated: Mask) -> Tensor:
    """NSS, normalised scanpath saliency: the mean height of the map where people looked; 0 is chance.

    The mean of `(c_i - mean c) / std c` over the fixated pixels i, c the map. std is over all pixels, and
    divides by their number. NaN if the map is flat, or if no pixel is fixated.

    Source: Peters et al. 2005, "Components of bottom-up gaze allocation in natural images".
    """
    marked = _marked(cam, fixated)
    return _nss(_scaled(cam, marked), marked)


@torch.no_grad()
def auc_judd(cam: Tensor, fixated: Mask) -> Tensor:
    """AUC-Judd: the probability that a fixated pixel is higher on the map than another; 0.5 is chance.

    The area under the ROC curve over all thresholds, in which the fixated pixels are the positives and all
    others the negatives. Equal heights count one half, so a flat map gets 0.5. NaN if no pixel or every pixel
    is fixated. The code of the MIT benchmark joins the thresholds at fixated pixels only, by straight lines,
    which adds up to 1 / (2 N) for N fixated pixels, and adds noise to the map to part equal heights.

    Source: Judd et al. 2009, "Learning to predict where humans look".
    """
    marked = _marked(cam, fixated)
    return _auc_judd(_scaled(cam, marked), marked)


# --- of maps in [0, 1] -----------------------------------------------------------------------------------


def _iou(dice: Tensor) -> Tensor:
    return dice / (2 - dice)


def _pointing(scaled: Tensor, marked: Tensor) -> Tensor:
    highest = scaled == scaled.amax((-2, -1), keepdim=True)
    hits = (highest & marked).sum((-2, -1)) / highest.sum((-2, -1))
    return _where_marked(hits, marked)


def _outside(scaled: Tensor, marked: Tensor) -> Tensor:
    """The share of a map's sum that lies outside the mask. A flat map counts as 1 everywhere."""
    total, free = scaled.sum((-2, -1)), ~marked
    outside = (scaled * free).sum((-2, -1)) / total
    return _where_marked(torch.where(total == 0, free.float().mean((-2, -1)), outside), marked)


def _gain(outside: Tensor, marked: Tensor) -> Tensor:
    """`(e - a) / (1 - a)`, which is `1 - (1 - e) / (1 - a)`, and so keeps its digits beside a large mask."""
    free = (~marked).float().mean((-2, -1))
    return torch.where(free == 0, torch.nan, 1 - outside / free)


def _correlation(scaled: Tensor, human: Tensor) -> Tensor:
    c, g = (values - values.mean((-2, -1), keepdim=True) for values in (scaled, human))
    spread = c.square().sum((-2, -1)).sqrt() * g.square().sum((-2, -1)).sqrt()
    return ((c * g).sum((-2, -1)) / spread).clamp(-1, 1)


def _divergence(scaled: Tensor, human: Tensor) -> Tensor:
    p, q = (values / values.sum((-2, -1), keepdim=True) for values in (scaled, human))
    return (q * (EPSILON + q / (p + EPSILON)).log()).sum((-2, -1))


def _similarity(scaled: Tensor, human: Tensor) -> Tensor:
    p, q = (values / values.sum((-2, -1), keepdim=True) for values in (scaled, human))
    return torch.minimum(p, q).sum((-2, -1))


def _nss(scaled: Tensor, marked: Tensor) -> Tensor:
    raised = scaled - scaled.mean((-2, -1), keepdim=True)
    spread = raised.square().mean((-2, -1)).sqrt()
    return (raised * marked).sum((-2, -1)) / marked.sum((-2, -1)) / spread


def _auc_judd(scaled: Tensor, marked: Tensor) -> Tensor:
    """For each image. numpy sorts many times faster than torch does."""
    areas = []
    for values, positive in zip(scaled.cpu().numpy(), marked.cpu().numpy(), strict=True):
        high, low = np.sort(values[positive]), np.sort(values[~positive])
        if not len(high) or not len(low) or np.isnan(values).any():
            areas.append(np.nan)
            continue
        below, up_to = (int(np.searchsorted(low, high, side).sum()) for side in ("left", "right"))
        areas.append((below + up_to) / (2 * len(high) * len(low)))
    return torch.tensor(areas, dtype=torch.float32, device=scaled.device)


def _share(marked: Tensor) -> Tensor:
    """The share of the pixels that is marked; NaN if none is."""
    share = marked.float().mean((-2, -1))
    return torch.where(share == 0, torch.nan, share)


def _where_marked(values: Tensor, marked: Tensor) -> Tensor:
    """NaN for an image without any marked pixel."""
    return torch.where(marked.flatten(1).any(1), values, torch.nan)


# --- inputs ----------------------------------------------------------------------------------------------


def _marked(cam: Tensor, mask: Mask) -> Tensor:
    """A mask as bool [B, H, W], which fits the cam."""
    marked = mask.unpack() if isinstance(mask, ops.BitMask) else mask
    if marked.dtype != torch.bool:
        raise TypeError(f"a mask must be bool or a BitMask, got {marked.dtype}")
    _check(cam, marked)
    return marked


def _aligned(cam: Tensor, human: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as float32 [B, H, W] in [0, 1]. Flat maps become zeros, whose quotients above are NaN."""
    _check(cam, human)
    return _scaled(cam, human), ops.minmax_normalize(human.float())


def _check(cam: Tensor, other: Tensor) -> None:
    if not cam.is_floating_point():
        raise TypeError(f"cam must be floating, got {cam.dtype}")
    if cam.ndim != 3 or other.ndim != 3 or len(cam) != len(other):
        raise ValueError(
            f"expected cam [B, h, w] and a mask or map [B, H, W], "
            f"got {list(cam.shape)} and {list(other.shape)}"
        )


def _scaled(cam: Tensor, like: Tensor) -> Tensor:
    """The CAM in the size of another map and min-max normalised: float32. A flat map becomes zeros."""
    return ops.minmax_normalize(enlarged(cam.float(), (like.shape[-2], like.shape[-1])))


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, h, w] in another size, bilinear without aligned corners.

    A pixel is two blends `a + t (b - a)`, down and then across, so that neighbours of one value give pixels
    of exactly that value. `torch.nn.functional.interpolate` rounds them differently, which would part ties.
    """
    for axis in (1, 2):
        cells, pixels = maps.shape[axis], size[axis - 1]
        if cells == pixels:
            continue
        at = (torch.arange(pixels, dtype=torch.float64) + 0.5) * cells / pixels - 0.5
        at = at.clamp(0, cells - 1)
        low = at.long()
        share = (at - low).to(maps).view([-1, 1] if axis == 1 else [-1])
        low = low.to(maps.device)
        a, b = (maps.index_select(axis, place) for place in (low, (low + 1).clamp(max=cells - 1)))
        maps = a + share * (b - a)
    return maps
