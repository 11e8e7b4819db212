"""topn_dice: ours; image by image by topk, as N differs; a batch by a stable sort, and its torch.compile."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of
from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.ops.topn import reference

SIZES = {"batch": 64, "side": 7, "frame": 224}


def packed(cam: Tensor, words: Tensor, width: int) -> Tensor:
    return ops.topn_dice(cam, ops.BitMask(words, width)).dice


def fused(cam: Tensor, mask: Tensor) -> Tensor:
    return ops.topn_dice(cam, mask).dice


def enlarged(cam: Tensor, mask: Tensor) -> Tensor:
    size = (mask.shape[1], mask.shape[2])
    return F.interpolate(cam.float()[:, None], size, mode="bilinear")[:, 0]


def sort(cam: Tensor, mask: Tensor) -> Tensor:
    n = mask.flatten(1).sum(1)
    return (reference.topn_mask(enlarged(cam, mask), n) & mask).flatten(1).sum(1) / n


def _verify(width: int, cam: Tensor, stored: Tensor) -> None:
    mask = stored if stored.dtype == torch.bool else ops.BitMask(stored, width).unpack()
    got = ops.topn_dice(cam, mask if stored is mask else ops.BitMask(stored, width))
    hits, n = reference.topn_hits(cam.double(), mask)
    assert torch.equal(got.n, n)
    assert (
        int((got.hits - hits).abs().max()) <= 2
    )  # float32 may put neighbours of the N-th the other way round


def cases(dtype: torch.dtype, batch: int, side: int, frame: int) -> list[Case]:
    """CAMs of `dtype`, as they are and after a ReLU that leaves a third; masks of one blob an image."""

    def inputs(device: torch.device, seed: int, kind: str) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        cam = torch.randn(batch, side, side, generator=draws, device=device)
        centre = torch.rand(2 * batch, 1, 1, generator=draws, device=device)
        radius = torch.rand(batch, 1, 1, generator=draws, device=device)
        at = (torch.arange(frame, device=device) + 0.5) / frame
        down, across = (0.3 + 0.4 * centre).split(batch)
        mask = ((at[:, None] - down) ** 2 + (at - across) ** 2).sqrt() < 0.15 + 0.15 * radius
        if kind == "relu":
            cam = (cam - 0.43).relu()
        return cam.to(dtype), ops.BitMask.pack(mask).words if kind == "packed" else mask

    result = []
    for kind in ("bool", "packed", "relu"):
        variants: dict[str, Variant] = {"sal_fast": fused}
        if kind == "packed":
            variants = {"sal_fast": functools.partial(packed, width=frame)}
        else:
            variants |= {"topk": usual.topn_dice, "sort": sort, "compile": torch.compile(sort, dynamic=False)}
        row = 4 * (-(-frame // 32)) if kind == "packed" else frame
        result.append(
            Case(
                op="topn_dice",
                name=kind,
                inputs=functools.partial(inputs, kind=kind),
                variants=variants,
                verify=functools.partial(_verify, frame),
                # The mask's size is needed before a pixel is chosen; the second read is of the cache.
                bytes_moved=batch * (frame * row + side * side * dtype.itemsize + 20),
                shape=(batch, side, side, frame, frame),
                dtype=name_of(dtype),
            )
        )
    return result
