"""Explanations of a network by `sal_fast.probes`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sal_fast import ops, probes
from sal_fast.bench.single import draws, resnet
from sal_fast.bench.suite import Benchmark as Base
from sal_fast.bench.suite import Case, Variant

NAMES: tuple[ops.Probe, ...] = ("gradcam++", "gradcam")


@torch.no_grad()
def ours(images: Tensor, classes: Tensor, probe: ops.Probe, model: nn.Module) -> Tensor:
    """Return the maps by the closed form."""
    return probes.explain(model, model.get_submodule("layer4"), images, classes, probe=probe).maps


def grad_cam(images: Tensor, classes: Tensor, probe: str, model: nn.Module) -> object:
    """Return the maps by grad-cam, which enlarges and normalises them too, in a small part of its time."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus"}[probe]
    with getattr(pytorch_grad_cam, method)(model, [model.get_submodule("layer4")]) as explain:
        return explain(images, [ClassifierOutputTarget(int(c)) for c in classes])


def captum(images: Tensor, classes: Tensor, model: nn.Module) -> object:
    """Return the maps by captum."""
    from captum.attr import LayerGradCam

    explain = LayerGradCam(model, model.get_submodule("layer4"))
    return explain.attribute(images, classes, relu_attributions=True)


@torch.no_grad()
def forward_alone(images: Tensor, classes: Tensor, model: nn.Module) -> object:
    """Return the logits: the network itself, without a map, is the floor."""
    return model(images)


def by_autograd(images: Tensor, classes: Tensor, probe: ops.Probe, model: nn.Module) -> Tensor:
    """Return the normalised maps from autograd's gradient, which a layer before the last one takes."""
    features = nn.Sequential(*list(model.children())[:-2])(images).detach().requires_grad_()
    logits = model.get_submodule("fc")(features.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
    return ops.minmax_normalize(probes.formulas.gradient_map(features, gradient, probe).detach())


@dataclass(frozen=True)
class Benchmark(Base):
    """Maps of a ResNet end to end, against grad-cam and captum if they are installed.

    The variant `forward_alone` is the network without a map, the floor.
    """

    SMALL: ClassVar = {"batch": 2, "depth": 18, "image": 64}
    UNIT: ClassVar = "calls"

    rounds: int = 15
    """Every variant has its turn in each round."""
    batch: int = 16
    """Images."""
    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers of the ResNet."""
    image: int = 224
    """Pixels a side."""

    def cases(self, device: torch.device) -> Iterator[Case]:
        model = resnet(self.depth, device).eval()

        def inputs(seed: int) -> tuple[Tensor, ...]:
            normal, _, below = draws(device, seed)
            return normal(self.batch, 3, self.image, self.image), below(1000, (self.batch,))

        def verify(images: Tensor, classes: Tensor, probe: ops.Probe) -> None:
            images, classes = images[:2], classes[:2]
            got = ops.minmax_normalize(ours(images, classes, probe, model))
            torch.testing.assert_close(got, by_autograd(images, classes, probe, model), rtol=1e-3, atol=1e-3)

        for probe in NAMES:
            variants: dict[str, Variant] = {"sal_fast": partial(ours, probe=probe)}
            if importlib.util.find_spec("pytorch_grad_cam"):
                variants["grad_cam"] = partial(grad_cam, probe=probe)
            if importlib.util.find_spec("captum") and probe == "gradcam":
                variants["captum"] = captum
            variants["forward_alone"] = forward_alone
            yield Case(
                f"resnet{self.depth}-{probe}",
                {name: partial(function, model=model) for name, function in variants.items()},
                inputs,
                partial(verify, probe=probe),
                bytes_moved=4 * self.batch * 3 * self.image**2,
            )
