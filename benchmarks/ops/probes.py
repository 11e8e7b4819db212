"""probes.explain: maps of a network end to end, against grad-cam and captum where they are there."""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from benchmarks.registry import Case, Variant, name_of
from sal_fast import ops, probes

SIZES = {"batch": 16, "depth": 50, "image": 224}


@functools.cache
def network(depth: int, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return get_model(f"resnet{depth}", weights=None).to(device).eval()


def ours(probe: ops.Probe, depth: int, images: Tensor, classes: Tensor) -> Tensor:
    model = network(depth, images.device)
    with torch.no_grad():
        return probes.explain(model, model.get_submodule("layer4"), images, classes, probe=probe).maps


def grad_cam(probe: str, depth: int, images: Tensor, classes: Tensor) -> object:
    """Enlarged to the image and normalised, as it always does: the small part of its time."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = network(depth, images.device)
    method = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM"}[probe]
    with getattr(pytorch_grad_cam, method)(model, [model.get_submodule("layer4")]) as explain:
        return explain(images, [ClassifierOutputTarget(int(c)) for c in classes])


def captum(probe: str, depth: int, images: Tensor, classes: Tensor) -> Tensor:
    from captum.attr import LayerGradCam

    model = network(depth, images.device)
    result: Tensor = LayerGradCam(model, model.get_submodule("layer4")).attribute(
        images, classes, relu_attributions=True
    )
    return result


def forward_alone(depth: int, images: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(depth, images.device)(images)
    return logits


def _verify(probe: ops.Probe, depth: int, images: Tensor, classes: Tensor) -> None:
    """The closed form against autograd's maps, which a layer before the last one takes."""
    model = network(depth, images.device)
    features = nn.Sequential(*list(model.children())[:-2])(images[:2]).detach().requires_grad_()
    logits = model.get_submodule("fc")(features.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:2, None]).sum(), features)
    expected = probes.formulas.gradient_map(features, gradient, probe)
    got = ours(probe, depth, images[:2], classes[:2])
    torch.testing.assert_close(
        *(ops.minmax_normalize(maps) for maps in (got, expected.detach())), rtol=1e-3, atol=1e-3
    )


def cases(dtype: torch.dtype, batch: int, depth: int, image: int) -> list[Case]:
    """`forward_alone` is the floor: the network itself, without a map."""
    if dtype != torch.float32:
        raise ValueError(f"probes: expected float32, the networks' own, got {dtype}")

    def inputs(device: torch.device, seed: int) -> tuple[Tensor, ...]:
        draws = torch.Generator(device).manual_seed(seed)
        images = torch.randn(batch, 3, image, image, generator=draws, device=device)
        return images, torch.randint(1000, (batch,), generator=draws, device=device)

    result = []
    for probe in ("gradcam++", "gradcam"):
        variants: dict[str, Variant] = {"sal_fast": functools.partial(ours, probe, depth)}
        if importlib.util.find_spec("pytorch_grad_cam"):
            variants["grad_cam"] = functools.partial(grad_cam, probe, depth)
        if importlib.util.find_spec("captum") and probe == "gradcam":
            variants["captum"] = functools.partial(captum, probe, depth)
        variants["forward_alone"] = functools.partial(forward_alone, depth)
        result.append(
            Case(
                op="probes",
                name=f"resnet{depth}-{probe}",
                inputs=inputs,
                variants=variants,
                verify=functools.partial(_verify, probe, depth),
                bytes_moved=batch * 3 * image * image * dtype.itemsize,
                shape=(batch, 3, image, image),
                dtype=name_of(dtype),
            )
        )
    return result
