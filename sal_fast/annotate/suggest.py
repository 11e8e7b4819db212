"""Maps that a model suggests to people, who correct them or take them as they are."""

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data.store import Store
from sal_fast.models import Classifier, Look
from sal_fast.people.suggested import Suggested
from sal_fast.train.evaluate import in_halves

MOST = 10  # classes of an image that have a map
BATCH = 64


@torch.no_grad()
def suggest(model: Classifier, store: Store, rows: Tensor, probe: ops.Probe) -> Suggested:
    """Make the maps of the most probable classes, at most MOST, of the images in `rows`, int64 [k].

    Nobody knows the class yet when a person looks at an image, so there are maps of several.
    """
    model.eval()
    most = min(MOST, len(store.table.classes))

    def look(images: Tensor) -> Look:
        logits = model(images)[0].float()
        return model.look(images, logits.topk(most, dim=1).indices, probe=probe)

    seen = [in_halves(look, images) for images in store.views(list(rows.split(BATCH)))]
    shares = torch.cat([one.logits.float().softmax(1).gather(1, one.classes) for one in seen])
    maps = torch.cat([(ops.minmax_normalize(one.cam) * 255).round().to(torch.uint8) for one in seen])
    classes = torch.cat([one.classes for one in seen])
    names = [store.table.ids[row] for row in rows.tolist()]
    return Suggested(names, classes.cpu().numpy(), shares.cpu().numpy(), maps.cpu().numpy())
