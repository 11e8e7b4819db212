"""A checkpoint of Segment Anything that is small enough for tests."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import pytest
import torch

from sal_fast.annotate import sam


def narrow_sam(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Write a checkpoint with a narrow image encoder, `vit_narrow`, and make the library know it."""
    library = pytest.importorskip("segment_anything")
    build = functools.partial(
        importlib.import_module("segment_anything.build_sam")._build_sam,
        encoder_embed_dim=48,
        encoder_depth=1,
        encoder_num_heads=2,
        encoder_global_attn_indexes=[],
    )
    monkeypatch.setitem(library.sam_model_registry, "vit_narrow", build)
    monkeypatch.setitem(sam.KINDS, 48, "vit_narrow")
    torch.manual_seed(0)
    path = folder / "sam.pth"
    torch.save(build().state_dict(), path)
    return path
