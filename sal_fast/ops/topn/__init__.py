"""The N largest pixels of maps, and their Dice overlap with masks."""

from typing import Literal, NamedTuple, overload

from torch import Tensor

from sal_fast.ops import _checks, _masks
from sal_fast.ops._masks import Empty
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.topn import registration


class TopnDice(NamedTuple):
    """For each image: dice float32 [B], hits int64 [B] (pixels in both), n int64 [B] (pixels in the mask)."""

    dice: Tensor
    hits: Tensor
    n: Tensor


@overload
def topn_mask(maps: Tensor, n: int | Tensor, *, packed: Literal[False] = False) -> Tensor: ...
@overload
def topn_mask(maps: Tensor, n: int | Tensor, *, packed: Literal[True]) -> BitMask: ...
def topn_mask(maps: Tensor, n: int | Tensor, *, packed: bool = False) -> Tensor | BitMask:
    """Masks of exactly the n largest values of each map. The lowest index (row-major) wins a tie.

    Args:
        maps: [B, H, W], floating, with any strides. Infinities are values like others, and -0 equals 0.
        n: how many values, 0..HW: one number, or int64 [B] on the maps' device.
        packed: whether the result is a `BitMask`, which takes an eighth of the bytes.

    Returns:
        bool [B, H, W], or a `BitMask`. Not differentiable. On a GPU, and in a compiled graph, the mask of a
        map with NaN, or with an n out of range, is empty.

    Raises:
        TypeError: wrong types.
        ValueError: wrong shapes, an n out of range that is a number; on the CPU also NaN in the maps and any
            n out of range.

    Source: paper Sec. 6; docs/method.md, "Testing".
    """
    _checks.floating("topn_mask", maps=maps)
    _checks.shape("topn_mask", "maps", maps, None, None, None)
    area = maps.shape[1] * maps.shape[2]
    if isinstance(n, Tensor):
        _checks.label_type("topn_mask", "n", n, maps.shape[0])
        _checks.together("topn_mask", maps=maps, n=n)
        _checks.label_values("topn_mask", "n", n, area + 1)
    else:
        n = _checks.integer("topn_mask", "n", n, "an int or an int64 tensor")
        if not 0 <= n <= area:
            raise ValueError(f"topn_mask: n must lie in 0..{area}, got {n}")
    tensor, count = (n, 0) if isinstance(n, Tensor) else (None, n)
    mask, valid = registration.topn_mask(maps.detach(), tensor, count, packed)
    if _checks.visible(maps) and not bool(valid.all()):
        raise ValueError("topn_mask: maps contain NaN; expected numbers")
    return BitMask(mask, maps.shape[2]) if packed else mask


def topn_dice(
    cam: Tensor,
    mask: Tensor | BitMask,
    *,
    size: tuple[int, int] | None = None,
    empty: Empty = "skip",
) -> TopnDice:
    """Dice of a CAM's top N pixels against a mask of N pixels: `Dice = 2 TP / (N + N) = TP / N`.

    The CAM is enlarged bilinearly (half-pixel centres) to `size` while its pixels are compared; the enlarged
    map is never in memory. The lowest index (row-major) wins a tie. A pixel is two blends `a + t (b - a)`,
    down and then across, in float32 with one rounding after the subtraction. So neighbours of one value, as
    the zeros of a ReLU, give pixels of exactly that value. A map that is enlarged by other means rounds
    differently, and may differ in pixels that are within rounding of the N-th.

    Args:
        cam: [B, h, w], floating. It need not be normalised, which does not change the order. float16 and
            bfloat16 are computed in float32.
        mask: bool [B, H, W] with any strides, or a `BitMask`. With `size`, pixel i of a side is read by
            nearest, at `floor(i in / out)`.
        size: (height, width) at which pixels are counted. None means the mask's size.
        empty: the Dice of an image whose mask is empty. `skip` gives NaN (leave it out of means), `zero` 0,
            `one` 1.

    Returns:
        TopnDice. Not differentiable. On a GPU, and in a compiled graph, an image whose CAM holds NaN or an
        infinity has a Dice of NaN and no hits.

    Raises:
        TypeError, ValueError: wrong types or shapes, an unknown policy; on the CPU NaN or an infinity in the
            CAM (values beyond 1.7e38 count as infinite).

    Source: paper Sec. 6; docs/method.md, "Testing".
    """
    _checks.floating("topn_dice", cam=cam)
    stored, columns = _masks.stored("topn_dice", "mask", mask)
    _checks.together("topn_dice", cam=cam, mask=stored)
    _checks.shape("topn_dice", "cam", cam, None, None, None)
    batch, *cells = cam.shape
    images, *pixels = mask.shape
    if images != batch:
        raise ValueError(f"topn_dice: mask must have shape [{batch}, *, *], got {list(mask.shape)}")
    value = _masks.empty_dice("topn_dice", empty)
    height, width = pixels if size is None else (int(size[0]), int(size[1]))
    if height < 0 or width < 0:
        raise ValueError(f"topn_dice: size must not be negative, got {(height, width)}")
    if 0 in cells:
        raise ValueError(f"topn_dice: cam must have at least one pixel, got {list(cam.shape)}")
    if 0 in pixels and height and width:
        raise ValueError(f"topn_dice: mask must have at least one pixel, got {list(mask.shape)}")
    if cam.requires_grad:
        cam = cam.detach()
    if _checks.visible(cam) and not _all_finite(cam):
        raise ValueError(
            "topn_dice: cam contains NaN, an infinity or values beyond 1.7e38; expected finite numbers"
        )
    return TopnDice(*registration.topn_dice(cam, stored, (columns, height, width), value))


def _all_finite(cam: Tensor) -> bool:
    """True if no cell is beyond LARGEST_CELL. Of torch's operators this is the cheapest that tells."""
    if cam.numel() == 0:
        return True
    low, high = (float(value) for value in cam.aminmax())
    return low >= -registration.LARGEST_CELL and high <= registration.LARGEST_CELL
