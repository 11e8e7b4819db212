"""The training loss of Eq. 1, from features to their gradient and within a training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sal_fast import ops
from sal_fast.bench import usual
from sal_fast.bench.cases import saliency_loss
from sal_fast.bench.single import OpBenchmark, agree, draws, resnet
from sal_fast.bench.suite import Case, Variant
from sal_fast.bench.usual import with_gradient

ALPHA = 0.5


def cam_fused(
    features: Tensor, weight: Tensor, labels: Tensor, masks: Tensor, map_size: int | None
) -> Tensor:
    """Return the saliency loss of the features' CAMs."""
    return ops.saliency_loss(ops.cam(features, weight, labels), masks, map_size=map_size)


def cam_eager(
    features: Tensor, weight: Tensor, labels: Tensor, masks: Tensor, map_size: int | None
) -> Tensor:
    """Return the same in eager torch."""
    cam = torch.einsum("bchw,bc->bhw", features.float(), weight[labels])
    return usual.saliency_loss(cam, masks, map_size)


def fused(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, masks: Tensor, map_size: int | None
) -> Tensor:
    """Return the whole loss."""
    head = ops.cam_head(features, weight, bias, labels)
    return ops.cyborg_loss(head.logits, head.cam, labels, masks, alpha=ALPHA, map_size=map_size)


def cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *unused: Any, **also_unused: Any
) -> Tensor:
    """Return the loss without saliency."""
    return F.cross_entropy(F.linear(features.float().mean((2, 3)), weight, bias), labels)


class Step:
    """The forward and backward of a ResNet with a loss."""

    def __init__(self, depth: int, device: torch.device) -> None:
        self.depth, self.device = depth, device

    @cached_property
    def trunk(self) -> nn.Module:
        """The layers that give the features."""
        layers = list(resnet(self.depth, self.device).train().children())
        return nn.Sequential(*layers[:-2]).to(memory_format=torch.channels_last)

    @property
    def width(self) -> int:
        """The channels of the features."""
        return resnet(self.depth, self.device).get_submodule("fc").in_features  # type: ignore[return-value]

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature maps, by autocast if the images are bfloat16."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.dtype == torch.bfloat16):
            found: Tensor = self.trunk(images.float())
        return found

    def __call__(self, images: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor, loss: Variant) -> object:
        leaves = [weight.detach().requires_grad_(), bias.detach().requires_grad_()]
        result = loss(self.features(images), *leaves, *rest)
        return torch.autograd.grad(result, [*self.trunk.parameters(), *leaves])

    @torch.no_grad()
    def verify(self, images: Tensor, *rest: Tensor, ours: Variant, eager: Variant) -> None:
        """Compare the losses of the same features."""
        features = self.features(images)
        torch.testing.assert_close(ours(features, *rest), eager(features, *rest), rtol=1e-3, atol=1e-3)


@dataclass(frozen=True)
class Benchmark(OpBenchmark):
    """The loss of Eq. 1, at the size of the human map and at that of the CAM, forward and backward.

    The case `cam` is CAM and saliency loss, with the gradient to the features. `head` has the linear layer,
    the cross-entropy and the gradients to weight and bias as well. `step` is a ResNet's forward and backward
    with the loss, so that 1 - cross_entropy / sal_fast is the share of saliency in a step.
    """

    SMALL: ClassVar = {"batch": 2, "channels": 16, "classes": 5, "frame": 32, "depth": 18, "image": 96}

    batch: int = 64
    """Images."""
    channels: int = 2048
    """Channels of the features."""
    side: int = 7
    """Rows and columns of the features."""
    classes: int = 1000
    """Outputs of the linear layer."""
    frame: int = 224
    """Pixels a side of the human maps."""
    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers of the ResNet."""
    image: int = 224
    """Pixels a side of the ResNet's images."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        maps = saliency_loss.Benchmark(batch=self.batch, frame=self.frame)

        def inputs(seed: int, case: str) -> tuple[Tensor, ...]:
            normal, _, below = draws(device, seed)
            shape = (3, self.image, self.image) if case == "step" else (self.channels, self.side, self.side)
            first = normal(self.batch, *shape)
            first = (first if case == "step" else first.relu()).to(
                self.kind, memory_format=torch.channels_last
            )
            width = step.width if case == "step" else self.channels
            bias = () if case == "cam" else (torch.zeros(self.classes, device=device),)
            labels, masks = below(self.classes, (self.batch,)), maps.inputs(device, seed, "bool")[1]
            return first, 0.02 * normal(self.classes, width), *bias, labels, masks

        step = Step(self.depth, device)
        # The weight's gradient needs the features a second time: from the cache, if they fit.
        features = self.batch * self.channels * self.side**2 * self.kind.itemsize
        cam_bytes = 2 * features + self.batch * self.frame**2
        head_bytes = cam_bytes + 2 * 4 * self.classes * self.channels
        eager = partial(usual.cyborg_loss, alpha=ALPHA)
        for map_size in (self.frame, None):
            sized = partial(partial, map_size=map_size)
            cam: dict[str, Variant] = {"sal_fast": sized(cam_fused), "eager": sized(cam_eager)}
            head: dict[str, Variant] = {
                "sal_fast": sized(fused),
                "eager": sized(eager),
                "cross_entropy": cross_entropy,
            }
            for name, losses, leaves, moved in (("cam", cam, 1, cam_bytes), ("head", head, 3, head_bytes)):
                variants = {key: with_gradient(loss, leaves) for key, loss in losses.items()}
                yield Case(
                    f"{name}-{map_size or self.side}",
                    variants,
                    partial(inputs, case=name),
                    partial(agree, variants["sal_fast"], rtol=2e-2, atol=1e-2),
                    bytes_moved=moved,
                )
            yield Case(
                f"step-resnet{self.depth}-{map_size or self.side}",
                {key: partial(step, loss=loss) for key, loss in head.items()},
                partial(inputs, case="step"),
                partial(step.verify, ours=head["sal_fast"], eager=head["eager"]),
                bytes_moved=head_bytes,
            )
