"""The probes on torchvision's networks: against the definitions; grad-cam and captum, where installed.

Which definitions coincide: captum's LayerGradCam with relu_attributions is Grad-CAM; grad-cam puts a ReLU on
every map and then min-max and a resize, and adds 1e-6 to Grad-CAM++'s `2 g^2 + S g^3`, which counts unless g
is large. Under a GAP head Grad-CAM is HiResCAM and CAM / (hw), with its ReLU. On the CPU grad-cam keeps the
features without a copy: a module behind the layer that works in place (DenseNet's ReLU) changes its maps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import DenseNet, MobileNetV2, ResNet, SwinTransformer, VisionTransformer
from torchvision.models.resnet import BasicBlock

from sal_fast import ops, probes

CLASSES = 6


class Case(NamedTuple):
    """A network, one of its layers, and the network cut there in two by hand."""

    net: nn.Module
    layer: str
    before: Callable[[Tensor], Tensor]
    after: Callable[[Tensor], Tensor]
    to_maps: Callable[[Tensor], Tensor] | None = None
    size: int = 64
    closed: bool = False  # global average pool and one linear layer follow


def resnet() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 2], num_classes=CLASSES)


def vgg() -> nn.Sequential:
    """VGG's parts at a size for tests: in-place ReLUs, a 2x2 pool, two linear layers."""
    features = torchvision.models.vgg.make_layers([8, "M", 12, "M", 16, 16, "M"])
    head = nn.Sequential(nn.Linear(64, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, CLASSES))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)


def densenet() -> DenseNet:
    return DenseNet(growth_rate=6, block_config=(2, 2), num_init_features=8, num_classes=CLASSES)


def mobilenet() -> MobileNetV2:
    return MobileNetV2(CLASSES, width_mult=0.25, inverted_residual_setting=[[1, 8, 1, 1], [6, 12, 2, 2]])


def swin() -> SwinTransformer:
    return SwinTransformer([4, 4], 12, [1, 2], [1, 2], [3, 3], num_classes=CLASSES)


def vit() -> VisionTransformer:
    return VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=CLASSES)


def channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def vit_maps(output: Tensor) -> Tensor:
    return output[:, 1:].mT.unflatten(2, (4, 4))


@cache
def case(name: str) -> Case:
    kind, _, layer = name.partition(".")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = globals()[kind]().double().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            elif isinstance(module, nn.Linear):  # torchvision's ViT begins with a head of zeros
                nn.init.normal_(module.weight, std=0.3)
    if kind == "resnet":
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
        tail = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
        if layer == "layer4":
            return Case(net, layer, nn.Sequential(stem, net.layer3, net.layer4), tail, closed=True)
        if layer == "layer3":
            return Case(net, layer, nn.Sequential(stem, net.layer3), nn.Sequential(net.layer4, tail))
        block = net.layer4[1]
        assert isinstance(block, BasicBlock)
        before = nn.Sequential(stem, net.layer3, net.layer4[0])
        kept: list[Tensor] = []

        def to_bn2(x: Tensor) -> Tensor:
            kept[:] = [before(x).detach()]
            return block.bn2(block.conv2(block.relu(block.bn1(block.conv1(kept[0])))))

        return Case(net, layer, to_bn2, lambda f: tail((f + kept[0]).relu()))
    if kind == "vgg":
        at = int(layer.split(".")[1]) + 1
        return Case(net, layer, net[0][:at], nn.Sequential(*net[0][at:], *net[1:]))
    if kind == "densenet":
        return Case(net, layer, net.features, lambda f: net.classifier(f.relu().mean((2, 3))))
    if kind == "mobilenet":
        return Case(net, layer, net.features, lambda f: net.classifier(f.mean((2, 3))))
    if kind == "swin":
        tail = nn.Sequential(net.permute, net.avgpool, net.flatten, net.head)
        if layer == "norm":
            before = nn.Sequential(net.features, net.norm)
            return Case(net, layer, before, tail, channels_first, closed=True)
        if layer == "permute":
            return Case(net, layer, nn.Sequential(net.features, net.norm, net.permute), tail[1:], closed=True)
        return Case(net, layer, net.features, nn.Sequential(net.norm, tail), channels_first)

    def to_ln_1(x: Tensor) -> Tensor:
        x = net.conv_proj(x).flatten(2).mT
        x = torch.cat([net.class_token.expand(len(x), -1, -1), x], 1) + net.encoder.pos_embedding
        return net.encoder.layers[0](x)

    return Case(
        net, layer, to_ln_1, lambda f: net.heads(net.encoder.ln(net.encoder.layers[1](f))[:, 0]), vit_maps, 32
    )


CASES = [
    "resnet.layer4", "resnet.layer3", "resnet.layer4.1.bn2", "vgg.0.6", "vgg.0.7", "densenet.features",
    "mobilenet.features", "swin.norm", "swin.permute", "swin.features", "vit.encoder.layers.encoder_layer_0",
]  # fmt: skip
TARGET = torch.tensor([4, 0, 1])


def images(size: int) -> Tensor:
    return torch.randn(3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_definition(features: Tensor, gradient: Tensor, probe: str, epsilon: float = 0.0) -> Tensor:
    """As the papers write them, for [B, C, h, w]; `epsilon` as in grad-cam."""
    if probe == "hirescam":
        return (gradient * features).sum(1)
    if probe == "cam":
        return (gradient.sum((2, 3), keepdim=True) * features).sum(1)
    if probe == "gradcam":
        weights = gradient.mean((2, 3), keepdim=True)
    else:
        squared = gradient**2
        share = squared / (2 * squared + features.sum((2, 3), keepdim=True) * gradient**3 + epsilon)
        share = torch.where(gradient == 0, 0, share)
        weights = (share * gradient.relu()).sum((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()


@pytest.mark.parametrize("name", CASES)
def test_by_definition(name: str) -> None:
    net, layer, before, after, to_maps, size, closed = case(name)
    x = images(size)
    features = before(x).detach().requires_grad_()
    logits = after(features.clone())
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGET[:, None]).sum(), features)
    f, g = ((to_maps or (lambda t: t))(t.detach()) for t in (features, gradient))
    for probe in ops.PROBES:
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                result = probes.explain(net, x, TARGET, layer=layer, probe=probe, to_maps=to_maps)
            torch.testing.assert_close(result.logits, logits, rtol=1e-9, atol=1e-9)
            expected = by_definition(f, g, probe)
            if probe == "cam" and closed:
                torch.testing.assert_close(expected, by_definition(f, g, "hirescam") * f[0, 0].numel())
            assert float(expected.abs().max()) > 0
            torch.testing.assert_close(
                result.maps, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max())
            )


class Through(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + 0


@pytest.mark.parametrize("probe", [probe for probe in ops.PROBES if probe != "cam"])
def test_closed_form_equals_autograd_on_a_resnet(probe: ops.Probe) -> None:
    net, x = case("resnet.layer4").net, images(64)
    closed = probes.explain(net, x, TARGET, layer="layer4", probe=probe).maps
    general = probes.explain(Through(net), x, TARGET, layer="net.layer4", probe=probe).maps
    torch.testing.assert_close(closed, general, rtol=1e-10, atol=1e-12)
    loss, other = ((maps * torch.arange(4.0).view(2, 2)).sum() for maps in (closed, general))
    parameters = [net.conv1.weight, net.layer4[1].conv2.weight, net.fc.weight]
    for one, two in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(other, parameters), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def quickly(quick: str, *names: str) -> list[Any]:
    """One network in the quick tier; `test_by_definition` has them all there."""
    return [quick, *(pytest.param(name, marks=pytest.mark.full) for name in names if name != quick)]


@pytest.mark.parametrize(
    "name", quickly("resnet.layer3", "resnet.layer4", "vgg.0.7", "mobilenet.features", "swin.permute")
)
def test_against_captum(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    net, layer, *_ = case(name)
    x = images(64)
    expected = attr.LayerGradCam(net, net.get_submodule(layer)).attribute(x, TARGET, relu_attributions=True)
    maps = probes.explain(net, x, TARGET, layer=layer, probe="gradcam").maps
    torch.testing.assert_close(maps, expected[:, 0].detach(), rtol=1e-6, atol=1e-9)


PEERS = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM"}


def theirs(case: Case, probe: str, x: Tensor) -> Tensor:
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = [peer.utils.model_targets.ClassifierOutputTarget(int(label)) for label in TARGET]
    to_maps = case.to_maps and (lambda t: case.to_maps(t).contiguous())
    layers = [case.net.get_submodule(case.layer)]
    with getattr(peer, PEERS[probe])(case.net, layers, reshape_transform=to_maps) as method:
        result = method(x, targets=targets)
    case.net.zero_grad()  # they leave .grad filled
    return torch.as_tensor(result)


GRAD_CAM = [name for name in CASES if name not in ("densenet.features", "vgg.0.6", "resnet.layer4.1.bn2")]


@pytest.mark.parametrize("name", quickly("swin.features", *GRAD_CAM))
def test_against_grad_cam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their maps in float64, before they are scaled."""
    base = pytest.importorskip("pytorch_grad_cam.base_cam")
    monkeypatch.setattr(base, "scale_cam_image", lambda maps, size=None: maps)
    this = case(name)
    x = images(this.size)
    for probe in ("gradcam", "hirescam"):
        maps = probes.explain(this.net, x, TARGET, layer=this.layer, probe=probe, to_maps=this.to_maps).maps
        expected = theirs(this, probe, x)
        torch.testing.assert_close(maps.detach().relu(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", quickly("vgg.0.7", "resnet.layer4", "swin.permute"))
def test_against_grad_cam_plus_plus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their 1e-6 is what stands between the two: the definition with it is theirs, without it ours."""
    base = pytest.importorskip("pytorch_grad_cam.base_cam")
    monkeypatch.setattr(base, "scale_cam_image", lambda maps, size=None: maps)
    this = case(name)
    x = images(this.size)
    features = this.before(x).detach().requires_grad_()
    picked = this.after(features.clone()).gather(1, TARGET[:, None]).sum()
    (gradient,) = torch.autograd.grad(picked, features)
    f, g = features.detach(), gradient
    torch.testing.assert_close(
        theirs(this, "gradcam++", x), by_definition(f, g, "gradcam++", 1e-6), rtol=1e-6, atol=1e-9
    )
    ours = probes.explain(this.net, x, TARGET, layer=this.layer, probe="gradcam++").maps
    torch.testing.assert_close(ours.detach(), by_definition(f, g, "gradcam++"), rtol=1e-6, atol=1e-9)


def test_against_grad_cam_plus_plus_where_the_epsilon_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large gradients: a head a hundred thousand times as steep."""
    base = pytest.importorskip("pytorch_grad_cam.base_cam")
    monkeypatch.setattr(base, "scale_cam_image", lambda maps, size=None: maps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = resnet().double().eval()
    net.fc.weight.data *= 1e5
    this = case("resnet.layer4")._replace(net=net)
    x = images(64)
    ours = probes.explain(net, x, TARGET, layer="layer4", probe="gradcam++").maps.detach()
    torch.testing.assert_close(ours, theirs(this, "gradcam++", x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("probe", ["gradcam", "hirescam"])
def test_against_grad_cam_end_to_end(probe: ops.Probe) -> None:
    """With their min-max and resize (float32, OpenCV), on maps of one class."""
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    this = case("resnet.layer3")
    x = images(64)
    maps = probes.explain(this.net, x, TARGET, layer=this.layer, probe=probe).maps.detach().relu()
    scaled = image.scale_cam_image(maps.numpy(), (64, 64))
    expected = torch.as_tensor(image.scale_cam_image(scaled))
    torch.testing.assert_close(theirs(this, probe, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layer", ["layer4", "layer3"])
def test_bfloat16_is_as_exact_as_torch(layer: str, autocast: bool) -> None:
    """The error against float64 is at most twice that of the same network and formulas by hand."""
    exact_net = case("resnet.layer3").net
    x = images(64)
    net = copy.deepcopy(exact_net).to(torch.float32 if autocast else torch.bfloat16)
    low = x.to(torch.float32 if autocast else torch.bfloat16)
    children = list(net.children())
    at = children.index(net.get_submodule(layer)) + 1
    before, after = nn.Sequential(*children[:at]), nn.Sequential(*children[at:-1], nn.Flatten(), net.fc)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        features = before(low).detach().requires_grad_()
        logits = after(features.clone())
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGET[:, None]).sum(), features)
    for probe in PEERS:
        exact = probes.explain(exact_net, x, TARGET, layer=layer, probe=probe).maps.detach()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours = probes.explain(net, low, TARGET, layer=layer, probe=probe).maps
        hand = by_definition(features.detach().float(), gradient.float(), probe)
        assert ours.dtype == torch.float32
        assert (ours - exact).abs().max() <= 2 * (hand - exact).abs().max() + 1e-6
