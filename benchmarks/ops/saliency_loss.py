"""saliency_loss: ours, eager torch, pytorch-msssim and torch.compile; byte, packed, graded targets."""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.ops.saliency_loss import reference

SIZES = {"batch": 64, "side": 7, "frame": 224}


def fused(cam: Tensor, target: Tensor, map_size: int | None) -> Tensor:
    return ops.saliency_loss(cam, target, map_size=map_size)


def packed(cam: Tensor, target: Tensor, map_size: int | None, width: int) -> Tensor:
    return ops.saliency_loss(cam, ops.BitMask(target, width), map_size=map_size)


def msssim(cam: Tensor, target: Tensor, map_size: int | None) -> Tensor:
    from pytorch_msssim import ssim

    x, y = usual.at_one_size(cam, target, map_size)
    window = 7 if map_size is None else 11
    return 1 - ssim(x, y, data_range=1.0, win_size=window) + (x - y).abs().mean()


def _verify(function: Variant, map_size: int | None, cam: Tensor, target: Tensor) -> None:
    side = map_size or cam.shape[1]
    mask = ops.BitMask(target, 32 * target.shape[2]).unpack() if target.dtype == torch.int32 else target

    def exact(cam: Tensor) -> Tensor:
        window = 7 if map_size is None else 11
        y = mask.double()
        return reference.saliency_loss(cam, y, None, (side, side), window, "valid", "ssim_l1").mean()

    torch.testing.assert_close(
        function(cam, target).double(), exact(cam.double()).detach(), rtol=1e-5, atol=1e-5
    )
    (got,), (expected,) = with_gradient(function)(cam, target), with_gradient(exact)(cam.double())
    torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


def cases(dtype: torch.dtype, batch: int, side: int, frame: int) -> list[Case]:
    """A CAM of `dtype`; masks of one blob an image, as people draw them, and graded maps."""

    def inputs(device: torch.device, seed: int, kind: str) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        cam = torch.randn(batch, side, side, generator=draws, device=device).to(dtype)
        centre = torch.rand(2 * batch, 1, 1, generator=draws, device=device)
        radius = torch.rand(batch, 1, 1, generator=draws, device=device)
        at = (torch.arange(frame, device=device) + 0.5) / frame
        down, across = (0.3 + 0.4 * centre).split(batch)
        far = (((at[:, None] - down) ** 2 + (at - across) ** 2).sqrt()) / (0.15 + 0.15 * radius)
        if kind == "graded":
            return cam, torch.exp(-(far**2))
        return cam, ops.BitMask.pack(far < 1).words if kind == "packed" else far < 1

    result = []
    for map_size in (frame, None):
        for kind in ("bool", "packed", "graded"):
            for backward in (False, True):
                ours = functools.partial(packed, width=frame) if kind == "packed" else fused
                variants: dict[str, Variant] = {"sal_fast": ours}
                if kind != "packed":
                    variants["eager"] = usual.saliency_loss
                    if importlib.util.find_spec("pytorch_msssim"):
                        variants["msssim"] = msssim
                    variants["compile"] = torch.compile(usual.saliency_loss, dynamic=False)
                variants = {
                    name: functools.partial(function, map_size=map_size)
                    for name, function in variants.items()
                }
                verify = functools.partial(_verify, variants["sal_fast"], map_size)
                if backward:
                    variants = {name: with_gradient(function) for name, function in variants.items()}
                target = batch * frame * frame * {"bool": 1, "packed": 1 / 8, "graded": 4}[kind]
                maps = batch * side * side * (dtype.itemsize + (4 if backward else 0))
                result.append(
                    Case(
                        op="saliency_loss",
                        name=f"{map_size or side}-{kind}-{'forward-backward' if backward else 'forward'}",
                        inputs=functools.partial(inputs, kind=kind),
                        variants=variants,
                        verify=verify,
                        bytes_moved=int(target) + maps,
                        shape=(batch, side, side, frame, frame),
                        dtype=name_of(dtype),
                    )
                )
    return result
