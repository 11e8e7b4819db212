"""crop: ours to kept memory, ours to fresh, and what one writes: index, convert, grid_sample, normalise."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of
from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.usual import MEAN, STD
from sal_fast.ops.crop import reference

SIZES = {"batch": 64, "stored": 1000, "side": 256, "frame": 224}


def normalising(device: torch.device) -> Tensor:
    scale = torch.tensor([1 / (255 * std) for std in STD]).diag()
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    return torch.cat([scale, shift[:, None]], 1).to(device)


def fresh(images: Tensor, rows: Tensor, *box: Tensor, frame: int, dtype: torch.dtype) -> Tensor:
    edges = box[0] if box else None
    color = normalising(images.device)
    return ops.crop_images(images, rows, edges, size=frame, color=color, dtype=dtype)


class Kept:
    """As a training loop would: to the memory of the batch before."""

    def __init__(self, frame: int, dtype: torch.dtype) -> None:
        self.frame, self.dtype = frame, dtype
        self.out: Tensor | None = None

    def __call__(self, images: Tensor, rows: Tensor, *box: Tensor) -> Tensor:
        if self.out is None:
            shape = (len(rows), 3, self.frame, self.frame)
            self.out = torch.empty(shape, dtype=self.dtype, device=images.device)
        edges = box[0] if box else None
        color = normalising(images.device)
        return ops.crop_images(
            images, rows, edges, size=self.frame, color=color, dtype=self.dtype, out=self.out
        )


def cropped_masks(words: Tensor, rows: Tensor, box: Tensor, frame: int) -> Tensor:
    return ops.crop_masks(ops.BitMask(words, frame), rows, box, size=frame)


def _verify(frame: int, dtype: torch.dtype, images: Tensor, rows: Tensor, *box: Tensor) -> None:
    few = (rows[:4], *(edges[:4] for edges in box))
    color = normalising(images.device)
    got = fresh(images, *few, frame=frame, dtype=dtype)
    edges = few[1] if box else None
    exact = reference.crop_images(images, few[0], edges, color.double(), (frame, frame))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got.double(), exact, rtol=eps, atol=4 * eps)


def _verify_masks(frame: int, words: Tensor, rows: Tensor, box: Tensor) -> None:
    masks = ops.BitMask(words, frame)[rows].unpack()
    expected = reference.crop_masks(masks, None, box, (frame, frame))
    assert torch.equal(cropped_masks(words, rows, box, frame), expected)


def cases(dtype: torch.dtype, batch: int, stored: int, side: int, frame: int) -> list[Case]:
    """`frame`: whole images of the result's size. `crop`: boxes of larger ones. `masks`: boxes, packed."""

    def inputs(device: torch.device, seed: int, kind: str) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        rows = torch.randint(stored, (batch,), generator=draws, device=device)
        corners = 0.3 * torch.rand(batch, 4, generator=draws, device=device)
        box = torch.cat([corners[:, :2], 1 - corners[:, 2:]], 1)
        if kind == "masks":
            masks = torch.rand(stored, frame, frame, generator=draws, device=device) < 0.3
            return ops.BitMask.pack(masks).words, rows, box
        shape = (stored, frame, frame, 3) if kind == "frame" else (stored, side, side, 3)
        images = torch.randint(256, shape, generator=draws, device=device, dtype=torch.uint8)
        return (images, rows) if kind == "frame" else (images, rows, box)

    result = []
    for kind in ("frame", "crop", "masks"):
        variants: dict[str, Variant]
        if kind == "masks":
            functions = {"sal_fast": cropped_masks, "eager": usual.crop_masks}
            variants = {name: functools.partial(f, frame=frame) for name, f in functions.items()}
            verify = functools.partial(_verify_masks, frame)
            read, written = 0.49 * frame * 4 * -(-frame // 32), 1
        else:
            options = {"frame": frame, "dtype": dtype}
            variants = {
                "sal_fast": Kept(frame, dtype),
                "fresh": functools.partial(fresh, **options),
                "eager": functools.partial(usual.crop_images, **options),
                "compile": torch.compile(functools.partial(usual.crop_images, **options), dynamic=False),
            }
            verify = functools.partial(_verify, frame, dtype)
            # Boxes cover 0.7 of a side on average.
            read, written = 3 * (frame**2 if kind == "frame" else 0.49 * side**2), 3 * dtype.itemsize
        result.append(
            Case(
                op="crop",
                name=kind,
                inputs=functools.partial(inputs, kind=kind),
                variants=variants,
                verify=verify,
                bytes_moved=round(batch * (read + written * frame**2)),
                shape=(batch, stored, frame if kind == "frame" else side, frame),
                dtype=name_of(dtype),
            )
        )
    return result
