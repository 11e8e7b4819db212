"""Keep some test images, with the saliency maps of the model on them, for the report."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sal_fast import seeds
from sal_fast.data.store import Store
from sal_fast.train import Scores

EXAMPLES = 24


def keep(folder: Path, seen: Scores, store: Store, test_rows: Tensor, seed: int) -> None:
    """Write examples.npz into `folder`.

    Every run with this data and seed keeps the same images. Images whose mask has a foreground are preferred.
    """
    has_mask = store.has_mask[test_rows].cpu().numpy()
    drawn = store.masks.drawn()[test_rows].cpu().numpy()
    order = seeds.stream(seed, "examples").permutation(len(test_rows))
    at = np.sort(order[np.argsort(~drawn[order], kind="stable")][:EXAMPLES])
    index = torch.from_numpy(at).to(store.device)
    rows = test_rows[index]
    np.savez_compressed(
        folder / "examples.npz",
        ids=np.array([store.table.ids[row] for row in rows.tolist()]),
        labels=store.labels[rows].cpu().numpy(),
        predicted=seen.tested.predicted[index].cpu().numpy(),
        images=store.pictures(rows).cpu().numpy(),
        masks=store.masks.unpack(rows).cpu().numpy(),
        has_mask=has_mask[at],
        cams=seen.cams[index].cpu().numpy(),
        dice=seen.tested.maps.dice[index].cpu().numpy(),
    )
