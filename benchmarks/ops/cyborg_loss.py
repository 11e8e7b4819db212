"""cyborg_loss: from features to their gradient, and within a training step.

`cam` is CAM and saliency loss, gradient to the features: they in once, their gradient out once, the masks in.
`head` has the linear layer, the cross-entropy and the gradients to weight and bias as well. `step` is a
ResNet's forward and backward with our loss, with the loss in eager torch, and with cross-entropy alone:
1 - cross_entropy / sal_fast is what saliency costs of a step.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from benchmarks.ops import saliency_loss
from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast import ops
from sal_fast.bench import usual

SIZES = {"batch": 64, "channels": 2048, "side": 7, "classes": 1000, "frame": 224, "depth": 50, "image": 224}
ALPHA = 0.5
MapSize = int | None


def cam_fused(features: Tensor, weight: Tensor, labels: Tensor, masks: Tensor, map_size: MapSize) -> Tensor:
    return ops.saliency_loss(ops.cam(features, weight, labels), masks, map_size=map_size)


def cam_eager(features: Tensor, weight: Tensor, labels: Tensor, masks: Tensor, map_size: MapSize) -> Tensor:
    cam = torch.einsum("bchw,bc->bhw", features.float(), weight[labels])
    return usual.saliency_loss(cam, masks, map_size)


def fused(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, masks: Tensor, map_size: MapSize
) -> Tensor:
    head = ops.cam_head(features, weight, bias, labels)
    return ops.cyborg_loss(head.logits, head.cam, labels, masks, alpha=ALPHA, map_size=map_size)


def cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, masks: Tensor, map_size: MapSize
) -> Tensor:
    return F.cross_entropy(F.linear(features.float().mean((2, 3)), weight, bias), labels)


def eager(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, masks: Tensor, map_size: MapSize
) -> Tensor:
    saliency = cam_eager(features, weight, labels, masks, map_size)
    classification = cross_entropy(features, weight, bias, labels, masks, map_size)
    return ALPHA * classification + (1 - ALPHA) * saliency


@functools.cache
def network(depth: int, device: torch.device) -> tuple[nn.Module, int]:
    """What gives the features, and their channels."""
    torch.manual_seed(0)
    model = get_model(f"resnet{depth}", weights=None)
    trunk = nn.Sequential(*list(model.children())[:-2])
    return trunk.to(device, memory_format=torch.channels_last), model.fc.in_features


def features_of(images: Tensor, depth: int) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.dtype == torch.bfloat16):
        features: Tensor = network(depth, images.device)[0](images.float())
    return features


def step(loss: Variant, depth: int, images: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    weight, bias, labels, masks = rest
    leaves = [weight.detach().requires_grad_(), bias.detach().requires_grad_()]
    result = loss(features_of(images, depth), *leaves, labels, masks)
    return torch.autograd.grad(result, [*network(depth, images.device)[0].parameters(), *leaves])


def _verify(ours: Variant, gradients: int, *inputs: Tensor) -> None:
    """Against float64, which the reference computes."""
    exact = [x.double() if x.is_floating_point() else x for x in inputs]
    results = [with_gradient(ours, gradients)(*given) for given in (inputs, exact)]
    for got, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(got.double(), expected, rtol=2e-2, atol=1e-2 * scale)


@torch.no_grad()
def _verify_step(ours: Variant, theirs: Variant, depth: int, images: Tensor, *rest: Tensor) -> None:
    features = features_of(images, depth)
    torch.testing.assert_close(ours(features, *rest), theirs(features, *rest), rtol=1e-3, atol=1e-3)


def cases(
    dtype: torch.dtype,
    batch: int,
    channels: int,
    side: int,
    classes: int,
    frame: int,
    depth: int,
    image: int,
) -> list[Case]:
    masks = saliency_loss.cases(dtype, batch, side, frame)[0].inputs

    def inputs(device: torch.device, seed: int, of: str) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        step = of == "step"
        shape = (batch, 3, image, image) if step else (batch, channels, side, side)
        width = network(depth, device)[1] if step else channels
        first = torch.randn(shape, generator=draws, device=device)
        weight = 0.02 * torch.randn(classes, width, generator=draws, device=device)
        labels = torch.randint(classes, (batch,), generator=draws, device=device)
        bias = () if of == "cam" else (torch.zeros(classes, device=device),)
        first = (first if step else first.relu()).to(dtype, memory_format=torch.channels_last)
        return first, weight, *bias, labels, masks(device, seed)[1]

    # The weight's gradient needs the features a second time: from the cache, where they fit.
    cam_bytes = 2 * batch * channels * side * side * dtype.itemsize + batch * frame * frame
    head_bytes = cam_bytes + 2 * 4 * classes * channels
    result = []
    for map_size in (frame, None):
        at_size = functools.partial(functools.partial, map_size=map_size)
        cam = {"sal_fast": at_size(cam_fused), "eager": at_size(cam_eager)}
        losses = {
            "sal_fast": at_size(fused),
            "eager": at_size(eager),
            "cross_entropy": at_size(cross_entropy),
        }
        verify = functools.partial(_verify, cam["sal_fast"], 1)
        made = {
            "cam": ({name: with_gradient(run) for name, run in cam.items()}, verify, cam_bytes),
            "head": (
                {name: with_gradient(run, 3) for name, run in losses.items()},
                functools.partial(_verify, losses["sal_fast"], 3),
                head_bytes,
            ),
            "step": (
                {name: functools.partial(step, run, depth) for name, run in losses.items()},
                functools.partial(_verify_step, losses["sal_fast"], losses["eager"], depth),
                head_bytes,
            ),
        }
        for name, (variants, check, moved) in made.items():
            network_name = f"-resnet{depth}" if name == "step" else ""
            result.append(
                Case(
                    op="cyborg_loss",
                    name=f"{name}{network_name}-{map_size or side}",
                    inputs=functools.partial(inputs, of=name),
                    variants=variants,
                    verify=check,
                    bytes_moved=moved,
                    shape=(batch, 3, image, image) if name == "step" else (batch, channels, side, side),
                    dtype=name_of(dtype),
                )
            )
    return result
