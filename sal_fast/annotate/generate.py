"""Maps that a model generates: each is made once, when its image is queried, and never again."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops
from sal_fast.data.store import Store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.models import CamClass, Classifier
from sal_fast.train.evaluate import in_halves

THRESHOLD = 0.5
BATCH = 256


@torch.no_grad()
def generate(
    model: Classifier,
    store: Store,
    rows: Tensor,
    probe: ops.Probe,
    ranks: Ranks = ALONE,
    cam_class: CamClass = "labelled",
) -> Tensor:
    """Make binary maps, uint8 [k, F, F] of 0 or 255, from the CAM of the labelled (or the predicted) class.

    The CAM is enlarged bilinearly to the frame, scaled to 0 to 1, and cut at 0.5 (paper Sec. 4 and 6;
    docs/method.md). A flat CAM gives an empty map. The labels are known here, because people gave them when
    they answered the query. Each rank draws some blocks, and every rank gets all of them.
    """
    model.eval()
    size = (store.image_size, store.image_size)
    maps = torch.empty(len(rows), *size, dtype=torch.uint8, device=store.device)
    blocks = rows.split(BATCH)
    mine = ranks.share(len(blocks))
    for i, images in zip(mine, store.views([blocks[i] for i in mine]), strict=True):
        target = [store.labels[blocks[i]]] if cam_class == "labelled" else []
        cam = in_halves(partial(model.look, probe=probe), images, *target).cam
        maps[i * BATCH : i * BATCH + len(images)] = binary_maps(cam, size)
    return ranks.complete(maps, BATCH)


def binary_maps(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge heat maps [k, h, w] bilinearly to `size`, scale each to 0 to 1, and cut it at 0.5.

    Returns uint8 [k, *size] of 0 or 255.
    """
    frame = F.interpolate(cam[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return (ops.minmax_normalize(frame) > THRESHOLD).to(torch.uint8) * 255
