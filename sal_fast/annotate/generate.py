"""Maps by a model: made once, when an image is queried, and never again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops
from sal_fast.data.store import Store
from sal_fast.models import Classifier

THRESHOLD = 0.5
BATCH = 256


@torch.no_grad()
def generate(model: Classifier, store: Store, rows: Tensor, probe: ops.Probe) -> Tensor:
    """Binary maps, uint8 [k, F, F] of 0 or 255, from the labelled class's CAM.

    CAM -> bilinear to the frame -> min-max -> above 0.5 (paper Sec. 4 and 6; docs/method.md). A flat CAM
    gives an empty map. The label is known here: people gave it when they answered the query.
    """
    model.eval()
    maps = []
    groups = rows.split(BATCH)
    for at, images in zip(groups, store.views(groups), strict=True):
        cam = ops.cam(model.features(images), model.head.weight, store.labels[at], probe=probe)
        size = (store.image_size, store.image_size)
        frame = F.interpolate(cam[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        maps.append((ops.minmax_normalize(frame) > THRESHOLD).to(torch.uint8) * 255)
    return torch.cat(maps) if maps else store.masks.unpack(rows)
