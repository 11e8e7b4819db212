"""Segment Anything (Kirillov et al., ICCV 2023) as a segmenter, as in App. F of the paper."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sal_fast.annotate.generator import Generator
from sal_fast.errors import InputError
from sal_fast.models import weights

KINDS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}  # by the width of the image encoder


def segment_anything(checkpoint: str, device: torch.device) -> Generator:
    """A generator that gives each picture the mask of the highest `predicted_iou`, or an empty one.

    It runs the library's automatic mask generator with its default settings. Raises InputError if the library
    is not installed, or if the checkpoint is not an official `sam_vit_*.pth`.
    """
    library, model = load(checkpoint, device)
    segmenter = library.SamAutomaticMaskGenerator(model)

    def draw(pictures: Sequence[np.ndarray], labels: Sequence[int]) -> list[np.ndarray]:
        return [_best(segmenter.generate(picture), picture.shape[:2]) for picture in pictures]

    return draw


def load(checkpoint: str, device: torch.device) -> tuple[Any, torch.nn.Module]:
    """The library of Segment Anything, and its model with the weights of a checkpoint.

    Raises InputError if the library is not installed, or if the checkpoint is not an official
    `sam_vit_*.pth`.
    """
    try:
        import segment_anything as library
    except ImportError:
        raise InputError(
            '--segmenter-weights needs the library of Segment Anything: pip install "sal-fast[segmenter]"'
        ) from None
    state = weights.read(Path(os.path.expanduser(checkpoint)))
    width = state["image_encoder.pos_embed"].shape[-1] if "image_encoder.pos_embed" in state else 0
    if width not in KINDS:
        raise InputError(
            f"--segmenter-weights {checkpoint}: expected a checkpoint of Segment Anything, "
            f"{', '.join(KINDS.values())}"
        )
    sam = library.sam_model_registry[KINDS[width]]()
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        said = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(f"--segmenter-weights {checkpoint}: {said[0].strip()}") from None
    return library, sam.to(device).eval()


def _best(found: Sequence[dict[str, object]], size: tuple[int, int]) -> np.ndarray:
    """The mask of the highest `predicted_iou`, the first of equals; an empty mask if none was found."""
    if not found:
        return np.zeros(size, dtype=bool)
    best = max(found, key=lambda mask: float(mask["predicted_iou"]))  # type: ignore[arg-type]
    return np.asarray(best["segmentation"], dtype=bool)
