"""The Dice overlap of binary masks."""

from torch import Tensor

from sal_fast.ops import _checks, _masks
from sal_fast.ops._masks import Empty
from sal_fast.ops.bit_mask import BitMask
from sal_fast.ops.dice import registration


def dice(pred: Tensor | BitMask, mask: Tensor | BitMask, *, empty: Empty = "skip") -> Tensor:
    """`Dice = 2 |A and B| / (|A| + |B|)` of two masks A and B, for each image.

    Args:
        pred, mask: bool [B, H, W], or a `BitMask` of that shape.
        empty: the Dice of two masks that are both empty. `skip` gives NaN (leave it out of means), `zero` 0,
            `one` 1. If only one of them is empty, the formula gives 0.

    Returns:
        float32 [B]. The counts are exact integers, so that nothing overflows or rounds before the quotient.
        Not differentiable.

    Raises:
        TypeError, ValueError: wrong types or shapes, an unknown policy.

    Source: Dice 1945; docs/method.md, "Testing".
    """
    first, width = _masks.stored("dice", "pred", pred)
    second, _ = _masks.stored("dice", "mask", mask)
    _checks.together("dice", pred=first, mask=second)
    if pred.shape != mask.shape:
        raise ValueError(f"dice: mask must have shape {list(pred.shape)} as pred, got {list(mask.shape)}")
    return registration.dice(first, second, width, _masks.empty_dice("dice", empty))
