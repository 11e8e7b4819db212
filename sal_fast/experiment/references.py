"""Maps that look at no image: what they score tells how much a Dice is worth."""

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data.store import Store
from sal_fast.metrics.maps import as_mask

BATCH = 256


def dices(store: Store) -> dict[str, float | None]:
    """The mean Dice of two maps, each the same for every test image, as `evaluate` measures it.

    `dice_disc` is that of a disc in the middle, with as many pixels as the image's mask. `dice_mean_mask` is
    that of the mean of all masks of training images: its N highest pixels, if the image's mask has N. Both
    are None if no test image has a mask with a foreground, and the second if no training image has.
    """
    side = torch.arange(store.image_size, device=store.device) - (store.image_size - 1) / 2
    disc = -(side[:, None] ** 2 + side**2).float()
    return {"dice_disc": _dice(store, disc), "dice_mean_mask": _dice(store, _mean_mask(store))}


def _mean_mask(store: Store) -> Tensor | None:
    """The mean of the training images' masks, float32 [F, F] in 0..255; None if none has a foreground."""
    rows = store.rows("train")
    rows = rows[store.has_mask[rows] & store.masks.drawn()[rows]]
    if not len(rows):
        return None
    total = torch.zeros(store.image_size, store.image_size, dtype=torch.int64, device=store.device)
    for part in rows.split(BATCH):
        total += store.masks.unpack(part).sum(0, dtype=torch.int64)
    return (total.double() / len(rows)).float()


def _dice(store: Store, shown: Tensor | None) -> float | None:
    """The mean Dice of one map, float32 [F, F], on the test images whose mask has a foreground."""
    if shown is None:
        return None
    found = []
    for part in store.rows("test").split(BATCH):
        masks, _ = as_mask(store.masks.batch(part))
        found.append(ops.topn_dice(shown.expand(len(part), -1, -1), masks).dice)
    dice = torch.cat(found) if found else torch.empty(0)
    dice = dice[~dice.isnan()]
    return float(dice.double().mean()) if len(dice) else None
