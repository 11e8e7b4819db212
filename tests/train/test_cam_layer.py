"""CAMs of any layer: against the definition by hand, in training, in testing and where maps are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from sal_fast import annotate, models, ops, train
from sal_fast._util.words import CAM_CLASSES
from sal_fast.data import store
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.train.step import Loss, Step

RECIPE = train.Recipe(
    epochs=1,
    batch_size=8,
    lr=0.01,
    lr_step=12,
    augment="none",
    probe="cam",
    map_size=None,
    saliency_loss="ssim_l1",
    seed=0,
)
CASES: list[tuple[str, ops.Probe]] = [("layer4.0.conv2", "cam"), ("layer3", "gradcam++")]


def small(cam_layer: str, block: type[BasicBlock | Bottleneck] = BasicBlock, **options: Any) -> Classifier:
    """A ResNet of one block a stage, with 12 x 12 features in layer3 and 6 x 6 in layer4 at 96 pixels."""
    torch.manual_seed(0)
    net = ResNet(block, [1, 1, 1, 1], num_classes=3)
    for module in net.layer2.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return Classifier(net, models.backbone.ResNet("small"), cam_layer=cam_layer, **options)


def pictures(count: int = 4, size: int = 96) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=draws), torch.arange(count) % 3


def hooked(model: Classifier, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """torchvision's own logits, and the layer's output as it was when it was made."""
    kept: list[Tensor] = []
    hook = model.net.get_submodule(layer).register_forward_hook(lambda m, i, out: kept.append(out.clone()))
    logits = model.net(images)
    hook.remove()
    return logits, kept[0]


@pytest.mark.parametrize("probe", ops.PROBES)
def test_the_default_is_the_closed_form_bit_by_bit(probe: ops.Probe) -> None:
    model = small("features").eval()
    images, labels = pictures()
    features = model.features(images)
    weight, bias = model.head.weight, model.head.bias
    for target in (labels, None):
        for got, expected in zip(
            model.look(images, target, probe=probe)[:2],
            ops.cam_head(features, weight, bias, target, probe=probe)[:2],
            strict=True,
        ):
            assert torch.equal(got, expected)
    assert torch.equal(
        model.look(images, labels, probe=probe).cam, ops.cam(features, weight, labels, probe=probe)
    )
    assert small("layer4").cam_layer == "features"


@torch.no_grad()
def test_conv3_is_the_reference_codes_layer() -> None:
    """`layer4[-1].conv3` of ResNet-50, before its batch norm, times the weights of the class."""
    model = models.build("resnet50", 3, cam_layer="conv3").eval()
    assert model.cam_layer == "layer4.2.conv3"
    images, labels = pictures(2, 96)
    logits, conv3 = hooked(model, "layer4.2.conv3", images)
    seen = model.look(images, labels)
    torch.testing.assert_close(seen.logits, logits, rtol=1e-4, atol=1e-5)
    expected = torch.einsum("bchw,bc->bhw", conv3, model.head.weight[labels])
    torch.testing.assert_close(seen.cam, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.look(images).classes, logits.argmax(1))
    assert models.map_shape(model, 96) == (2048, 3, 3)


@torch.no_grad()
def test_what_follows_may_work_in_place() -> None:
    """A block's batch norm is added to and cut by a ReLU in place; the CAM is of what the layer gave."""
    model = small("layer4.0.bn2").eval()
    images, labels = pictures(2)
    _, before = hooked(model, "layer4.0.bn2", images)
    expected = torch.einsum("bchw,bc->bhw", before, model.head.weight[labels])
    torch.testing.assert_close(model.look(images, labels).cam, expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_of_an_earlier_layer() -> None:
    model = small("layer3").double().eval()
    images, labels = (values[:2] for values in pictures())
    images = images.double()
    maps: list[Tensor] = []
    hook = model.net.layer3.register_forward_hook(lambda m, i, out: maps.append(out))
    logits, _ = model(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), maps[0])
    expected = (gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1).relu()
    torch.testing.assert_close(model.look(images, labels, probe="gradcam").cam, expected)
    with torch.no_grad():
        seen = model.look(images, labels, probe="gradcam")
    torch.testing.assert_close(seen.cam, expected.detach())
    assert not seen.cam.requires_grad


@torch.no_grad()
def test_swins_layers_are_turned() -> None:
    model = models.build("swin_t", 3, cam_layer="norm").eval()
    images, labels = pictures(2)
    plain = models.build("swin_t", 3).eval()
    for probe in ops.PROBES:
        got, expected = (one.look(images, labels, probe=probe).cam for one in (model, plain))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
    for layer, shape in {"features.5": (384, 6, 6), "features.0.0": (96, 24, 24)}.items():
        assert models.map_shape(model, 96, layer) == shape


@pytest.mark.parametrize(("layer", "probe"), [("layer4.0.conv3", "cam"), CASES[1]])
def test_the_losses_gradient_by_finite_differences(layer: str, probe: ops.Probe) -> None:
    """float64, batch statistics included; along a random direction through all parameters."""
    block = Bottleneck if "conv3" in layer else BasicBlock
    model = small(layer, block).double().train()
    images, labels = pictures(size=64)
    targets = torch.zeros(4, 16, 16, dtype=torch.float64)
    targets[:, 3:9, 4:12] = 1
    loss = Loss(model, 0.3, replace(RECIPE, probe=probe))

    def value() -> Tensor:
        return loss(images.double(), labels, targets, torch.tensor([True, True, False, True]))

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    count = sum(parameter.numel() for parameter in parameters)
    draws = torch.Generator().manual_seed(0)
    along = [torch.randn(p.shape, generator=draws, dtype=torch.float64) / count**0.5 for p in parameters]
    expected = sum((a * g).sum() for a, g in zip(along, gradients, strict=True))
    found = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, direction in zip(parameters, along, strict=True):
                parameter += step * direction
            found.append(value())
    torch.testing.assert_close((found[0] - found[1]) / 2e-6, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("layer", "probe"), CASES)
def test_bfloat16(layer: str, probe: ops.Probe) -> None:
    exact, half = (small(layer, precision=precision).eval() for precision in ("float32", "bfloat16"))  # type: ignore[arg-type]
    images, labels = pictures()
    with torch.no_grad():
        found, expected = (model.look(images, labels, probe=probe) for model in (half, exact))
    assert found.cam.dtype == found.logits.dtype == torch.float32
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert 0 < float((a - b).norm() / b.norm()) < 0.1
    step = Step(half.train(), alpha=0.5, recipe=replace(RECIPE, probe=probe))
    before = half.head.weight.detach().clone()
    assert bool(step(images, labels, torch.rand(4, 96, 96), torch.ones(4, dtype=torch.bool)).isfinite())
    assert half.head.weight.dtype == torch.float32
    assert not torch.equal(half.head.weight, before)


def short_of_memory(most: int, features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def limited(images: Tensor) -> Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features(images)

    return limited


@pytest.mark.parametrize(("layer", "probe"), [("features", "cam"), *CASES])
def test_tested_and_drawn_with_by_halves(
    samples: store.Store, layer: str, probe: ops.Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(layer)
    rows = samples.rows("test")
    size = models.feature_size(model, 32)
    whole = train.evaluate(model, samples, rows, probe)
    drawn = annotate.generate(model, samples, rows, probe)
    assert whole.cams.shape == (len(rows), *size)
    monkeypatch.setattr(model, "_run", short_of_memory(2, model._run))
    parts = train.evaluate(model, samples, rows, probe)
    torch.testing.assert_close(parts.cams, whole.cams, rtol=1e-3, atol=1e-5)
    assert torch.equal(parts.tested.predicted, whole.tested.predicted)
    again = annotate.generate(model, samples, rows, probe)
    assert float((again != drawn).float().mean()) < 0.01


def test_the_class_of_the_cam(samples: store.Store) -> None:
    model = small("features").eval()
    images, _ = pictures()
    predicted = model(images)[0].argmax(1)
    labels = (predicted + torch.arange(4) % 2) % 3  # two of four are right
    targets, has_map = torch.zeros(4, 24, 24), torch.ones(4, dtype=torch.bool)
    targets[:, 4:13, 6:18] = 1

    def loss(cam_class: models.CamClass, labels: Tensor) -> Tensor:
        return Loss(model, 0.0, replace(RECIPE, cam_class=cam_class))(images, labels, targets, has_map)

    assert torch.equal(loss("predicted", labels), loss("labelled", predicted))
    assert not torch.equal(loss("predicted", labels), loss("labelled", labels))
    rows = samples.rows("train")
    views = next(samples.views([rows]))
    own = torch.arange(len(rows)) % 2 == 0
    found = model.look(views).classes
    labels = samples.labels.clone()
    labels[rows] = torch.where(own, found, (found + 1) % 3)
    samples = replace(samples, labels=labels)
    drawn, guessed = (annotate.generate(model, samples, rows, "cam", cam_class=c) for c in CAM_CLASSES)
    assert torch.equal(drawn[own], guessed[own])
    assert not torch.equal(drawn[~own], guessed[~own])


@pytest.mark.parametrize(
    ("arch", "layer", "message"),
    [
        ("resnet18", "conv3", "resnet18 has no such layer; the nearest is 'layer4.1.conv2'"),
        ("resnet34", "conv3", "resnet34 has no such layer; the nearest is 'layer4.2.conv2'"),
        ("resnet18", "layer5", r"--cam-layer 'layer5': resnet18 has no such layer; the nearest is 'layer\d'"),
        (
            "resnet18",
            "layer4.1.relu",
            "layer4.1.relu: expected a layer that runs once .*, got one that runs again",
        ),
        ("resnet18", "fc", "expected a layer whose maps are"),
        (
            "swin_t",
            "features.7.0.attn.qkv",
            "expected a layer that runs in the forward pass",
        ),
    ],
)
def test_layers_refused(arch: str, layer: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        models.map_shape(models.build(arch, 3, cam_layer=layer), 64)


def test_layers_that_are_no_maps_are_refused() -> None:
    model = small("features")
    model.net.layer4.add_module("flat", nn.Flatten(2))
    model.net.layer4.add_module("back", nn.Unflatten(2, (6, 6)))
    assert models.map_shape(model, 96) == (512, 6, 6)
    with pytest.raises(
        InputError, match=r"expected a layer whose maps are \[1, C, h, w\], got \[1, 512, 36\]"
    ):
        models.map_shape(model, 96, "layer4.flat")


def test_compiled_networks_are_closed() -> None:
    with pytest.raises(InputError, match="which --compile closes"):
        models.build("resnet18", 3, cam_layer="layer3", compiled=True)
