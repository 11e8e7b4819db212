"""The place that `probes.find` finds, and `probes.explain` without a layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from sal_fast import ops, probes
from sal_fast.probes.layout import Clues, Layout

CLASSES = 4


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in float64 and in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double().eval()


def images(batch: int = 3, height: int = 16, width: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=generator)


def convolutional(*tail: nn.Module) -> nn.Sequential:
    body = [
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 3),
    ]
    return nn.Sequential(*body, *tail)


def pooled(*between: nn.Module) -> nn.Sequential:
    return convolutional(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *between, nn.Linear(5, CLASSES))


class Last(nn.Module):
    """Channels last, with a norm, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.drop(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2)))


class Tokens(nn.Module):
    """A small vision transformer of torch's own layers. With `patches`, it has no convolution."""

    def __init__(self, extra: int = 1, by_class: bool = True, patches: bool = False) -> None:
        super().__init__()
        self.conv = None if patches else nn.Conv2d(3, 8, 4, 4)
        self.linear = nn.Linear(48, 8) if patches else None
        self.extra, self.by_class = nn.Parameter(torch.randn(1, extra, 8)), by_class
        self.drop = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear is None:
            x = self.conv(x).flatten(2).mT
        else:
            x = self.linear(nn.functional.unfold(x, 4, stride=4).mT)
        x = self.drop(torch.cat([self.extra.expand(len(x), -1, -1), x], 1))
        x = self.norm(self.encoder(x))
        return self.head(x[:, 0] if self.by_class else x[:, self.extra.shape[1] :].mean(1))


class Frozen(nn.Module):
    """A backbone under no_grad, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*convolutional()), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.head(x.mean((2, 3)))


class Bare(nn.Module):
    """No module gives a map: all is done by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.relu().mean((2, 3)))


NCHW, NHWC = Layout("nchw", 6, 6), Layout("nhwc", 4, 4)
GLOBAL = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
LAST_NORM = "encoder.layers.1.norm1"
PLACES: dict[str, tuple[Callable[[], nn.Module], str, Layout, str | None, bool, bool]] = {
    "pooled": (pooled, "3", NCHW, "6", True, True),
    "dropout": (lambda: pooled(nn.Dropout(0.5)), "3", NCHW, "7", True, False),
    "activation": (lambda: pooled(nn.Tanh()), "3", NCHW, "7", False, False),
    "in place": (
        lambda: convolutional(nn.ReLU(inplace=True), *GLOBAL, nn.Linear(5, CLASSES)),
        "4", NCHW, "7", True, True,
    ),
    "two linear": (
        lambda: convolutional(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, CLASSES)
        ),
        "3", NCHW, "8", False, False,
    ),
    "convolution as head": (
        lambda: convolutional(nn.Conv2d(5, CLASSES, 1), *GLOBAL), "4", NCHW, None, False, False,
    ),
    "channels last": (Last, "norm", NHWC, "head", True, True),
    "frozen": (Frozen, "body", NCHW, "head", True, True),
    "class token": (Tokens, LAST_NORM, Layout("tokens", 4, 4, 1), "head", False, False),
    "registers": (lambda: Tokens(3), LAST_NORM, Layout("tokens", 4, 4, 3), "head", False, False),
    "mean of tokens": (lambda: Tokens(2, False), "norm", Layout("tokens", 4, 4, 2), "head", True, True),
    "no convolution": (
        lambda: Tokens(1, True, True), LAST_NORM, Layout("tokens", 4, 4, 1), "head", False, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str) -> None:
    build, layer, layout, head, closed, closed_in_training = PLACES[name]
    net, x = seeded(build), images()
    place = probes.find(net, x)
    assert (place.layer, place.to_maps, place.head) == (layer, layout, head)
    assert (place.closed_form, place.closed_form_in_training) == (closed, closed_in_training)
    for probe in ops.PROBES:
        result = probes.explain(net, x, probe=probe)
        known = probes.explain(net, x, layer=place.layer, to_maps=place.to_maps, probe=probe)
        assert result.layer == layer
        assert result.maps.shape == (3, *place.shape[1:])
        assert torch.equal(result.maps, known.maps)
    if closed:
        maps = probes.explain(net, x, layer=layer, probe="cam").maps
        weight = net.get_submodule(str(head)).weight[net(x).argmax(1)]
        assert torch.isfinite(maps).all()
        kept: list[Tensor] = []
        with net.get_submodule(layer).register_forward_hook(lambda *given: kept.append(given[2].clone())):
            net(x)
        by_weights = torch.einsum("bchw,bc->bhw", place.to_maps(kept[0]), weight)
        torch.testing.assert_close(maps, by_weights, rtol=1e-9, atol=1e-12)


def vit_of_torchvision() -> nn.Module:
    net = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=CLASSES)
    nn.init.normal_(net.heads.head.weight)  # it begins as zeros
    return net


def vit_of_timm(**settings: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 8,
        "depth": 2,
        "num_heads": 2,
        "num_classes": CLASSES,
    }
    return timm.models.VisionTransformer(**sizes, **settings)


VITS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": vit_of_torchvision, "timm": vit_of_timm, "torch": Tokens,
}  # fmt: skip


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("probe", [probe for probe in ops.PROBES if probe != "gradcam++"])
def test_maps_behind_attention_are_differentiable(name: str, probe: ops.Probe) -> None:
    """Against a central difference along a random direction in the space of all parameters."""
    net, x, classes = seeded(VITS[name]), images(2), torch.tensor([1, 0])
    place = probes.find(net, x)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in net.parameters()]
    coefficients = torch.randn(2, *place.shape[1:], generator=generator, dtype=torch.float64)

    def loss(step: float = 0.0) -> tuple[Tensor, list[nn.Parameter]]:
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter += step * direction
        result = probes.explain(moved, x, classes, layer=place.layer, probe=probe, to_maps=place.to_maps)
        return (result.maps * coefficients).sum(), list(moved.parameters())

    step = 1e-6
    with torch.no_grad():
        expected = float(loss(step)[0] - loss(-step)[0]) / (2 * step)
    gradients = torch.autograd.grad(*loss(), allow_unused=True)
    got = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert expected != 0
    assert got == pytest.approx(expected, rel=1e-5)
    assert gradients[0] is not None  # it reaches what lies before the layer


@pytest.mark.parametrize(
    ("settings", "layer", "extra", "closed"),
    [
        ({}, "blocks.1.norm1", 1, False),
        ({"reg_tokens": 2}, "blocks.1.norm1", 3, False),
        ({"reg_tokens": 2, "global_pool": "avg", "fc_norm": False}, "norm", 3, True),
        ({"global_pool": "avg"}, "blocks", 1, False),  # a norm follows the mean
        ({"global_pool": "avg", "class_token": False, "fc_norm": False}, "norm", 0, True),
        ({"global_pool": "map"}, "norm", 1, False),
        ({"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True}, "norm", 1, False),
    ],
)
def test_pools_of_a_vit(settings: dict[str, object], layer: str, extra: int, closed: bool) -> None:
    place = probes.find(seeded(lambda: vit_of_timm(**settings)), images())
    assert (place.layer, place.to_maps, place.closed_form) == (layer, Layout("tokens", 4, 4, extra), closed)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("torchvision", "encoder.layers.encoder_layer_1.ln_1"), ("timm", "blocks.1.norm1"),
     ("torch", "encoder.layers.1.norm1")],
)  # fmt: skip
def test_a_layer_behind_which_only_the_class_token_counts_is_refused(name: str, layer: str) -> None:
    net = seeded(VITS[name])
    last = "encoder.ln" if name == "torchvision" else "norm"
    for to_maps in (None, lambda tokens: tokens[:, 1:].mT.unflatten(2, (4, 4))):
        with pytest.raises(ValueError, match=f"not at the positions of the maps.* Take layer='{layer}'"):
            probes.explain(net, images(), layer=last, to_maps=to_maps)


def test_a_head_of_zeros() -> None:
    """As torchvision's transformers begin: the layer is known, but there is no map yet."""
    net = seeded(vit_of_torchvision)
    nn.init.zeros_(net.heads.head.weight)
    assert probes.find(net, images()).layer == "encoder.layers.encoder_layer_1.ln_1"
    with pytest.raises(ValueError, match=r"all derivatives .* are zero.*Is the head still zero"):
        probes.explain(net, images())
    assert not net.heads.head.weight.any()


def test_norms_that_happen_to_change_nothing_are_seen() -> None:
    """A new batch norm is the identity in eval mode, but for 1e-5 of its variance."""
    place = probes.find(seeded(lambda: pooled(nn.BatchNorm1d(5))), images())
    assert not place.closed_form
    assert not place.closed_form_in_training


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (8, 32)])
@pytest.mark.parametrize(
    "name", ["pooled", "channels last", "class token", "no convolution", "mean of tokens"]
)
def test_images_that_are_not_square(name: str, height: int, width: int) -> None:
    build, layer, *_ = PLACES[name]
    place = probes.find(seeded(build), images(2, height, width))
    expected = (height // 2 - 2, width // 2 - 2) if name == "pooled" else (height // 4, width // 4)
    assert place.layer == layer
    assert place.shape[1:] == expected


def test_every_patch_has_its_own_place() -> None:
    """The patch that changes is the place that changes, before attention mixes the places."""
    net, x = seeded(lambda: Tokens(2, False)), images(1, 16, 24)
    layout = probes.find(net, x).to_maps
    for row in range(4):
        for column in range(6):
            other = x.clone()
            other[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
            before, after = (net.conv(image).flatten(2).mT for image in (x, other))
            extra = torch.zeros(1, 2, 8, dtype=x.dtype)
            changed = layout(torch.cat([extra, before - after], 1)).abs().sum((0, 1)) > 0
            assert changed.nonzero().tolist() == [[row, column]]


CLUES = Clues((64, 64), [(16, 16), (8, 8)], {17: 1, 65: 1}, 5)


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((2, 5, 8, 8), None, Layout("nchw", 8, 8)),
        ((2, 8, 8, 5), None, Layout("nhwc", 8, 8)),
        ((2, 32, 4, 4), None, Layout("nchw", 4, 4)),  # halved by a pool
        ((2, 8, 8, 8), None, None),  # nothing tells
        ((2, 8, 8, 8), "nhwc", Layout("nhwc", 8, 8)),  # the type of the module does
        ((2, 8, 8, 8), "nchw", Layout("nchw", 8, 8)),
        ((2, 5, 7, 7), None, None),  # no such grid
        ((2, 64, 5), None, Layout("tokens", 8, 8)),
        ((2, 17, 5), None, Layout("tokens", 4, 4, 1)),
        ((2, 257, 5), None, Layout("tokens", 16, 16, 1)),  # the class token has seen the image by now
        ((2, 66, 5), None, None),
        ((2, 16, 64), None, None),  # channels may come first
        ((2, 17, 64), None, Layout("tokens", 4, 4, 1)),
        ((2, 16, 64), "nhwc", Layout("tokens", 4, 4)),
        ((2, 5), None, None),
        ((2, 5, 2, 8, 8), None, None),
    ],
)
def test_layouts(shape: tuple[int, ...], kind: str | None, expected: Layout | None) -> None:
    assert CLUES.layout(shape, kind) == expected


def test_the_inputs_of_the_head_tell_channels() -> None:
    for inputs, expected in ((6, Layout("nchw", 4, 4)), (4, Layout("nhwc", 6, 4)), (5, None)):
        assert Clues((64, 96), [(6, 4), (4, 4)], {}, inputs).layout((2, 6, 4, 4), None) == expected
    for inputs, expected in ((16, Layout("tokens", 8, 8)), (64, None)):
        assert Clues((64, 64), [(8, 8)], {}, inputs).layout((2, 64, 16), None) == expected


def test_a_layout_of_tokens_belongs_to_one_size_of_images() -> None:
    with pytest.raises(
        ValueError, match=r"an output \[B, 17, C\] of 1 tokens and a grid of 4 x 4 .* got \[2, 26, 8\]"
    ):
        Layout("tokens", 4, 4, 1)(torch.zeros(2, 26, 8))


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_axes_that_nothing_tells_apart_are_refused() -> None:
    def build() -> nn.Module:
        rest = (Undecided(), nn.Flatten(), nn.Linear(64, CLASSES))
        return nn.Sequential(
            nn.Conv2d(3, 4, 4, 4), nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 4))), *rest
        )

    net = seeded(build)
    with pytest.raises(
        ValueError, match=r"got \[2, 4, 4, 4\] of '1.1' for two images, whose axes nothing tells"
    ):
        probes.explain(net, images(), layer="1.1")
    maps = probes.explain(net, images(), layer="1.1", to_maps=lambda output: output).maps
    assert maps.shape == (3, 4, 4)
    assert probes.explain(net, images()).layer == "0"


def test_no_layer_is_found() -> None:
    net = seeded(Bare)
    with pytest.raises(
        ValueError, match=r"no layer of this Bare was found by itself.* Pass layer= and to_maps="
    ):
        probes.explain(net, images())
    with pytest.raises(ValueError, match=r"no layer .* 2 outputs 2 are no maps"):
        probes.find(net, images())
    with pytest.raises(ValueError, match="to_maps belongs to a layer; pass layer= with it"):
        probes.explain(net, images(), to_maps=lambda output: output)


def test_logits_that_depend_on_nothing() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = pooled()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).detach() * 2

    with pytest.raises(ValueError, match=r"do not reach the logits at the positions of a map"):
        probes.explain(seeded(Constant), images())


def test_the_rehearsal_leaves_everything_as_it_was() -> None:
    net = seeded(lambda: pooled(nn.Dropout(0.5)))
    net.train()
    net[1].eval()
    net[0].requires_grad_(False)
    hooks = [len(module._forward_hooks) for module in net.modules()]
    modes = [module.training for module in net.modules()]
    tensors = {
        name: (value.clone(), value._version) for name, value in net.state_dict(keep_vars=True).items()
    }
    random, x = torch.get_rng_state(), images().requires_grad_()
    with torch.no_grad():
        assert probes.find(net, x).layer == "3"
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert [module.training for module in net.modules()] == modes
    for name, value in net.state_dict(keep_vars=True).items():
        assert torch.equal(value, tensors[name][0])
        assert value._version == tensors[name][1]
        assert value.grad is None
    assert not net[0].weight.requires_grad
    assert x.grad is None


class Bytes(nn.Module):
    """Takes images of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pooled()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double() / 255)


def test_images_of_any_kind() -> None:
    net, place = seeded(pooled), probes.find(seeded(pooled), images())
    assert probes.find(net, images(0)) == place
    assert probes.find(net, torch.zeros(5, 3, 16, 16, dtype=torch.float64)) == place
    assert probes.find(net, images(1)) == place
    with torch.inference_mode():
        assert probes.find(net, images() + 0) == place
        assert not probes.explain(net, images() + 0).maps.is_inference()
    assert probes.explain(net, images(0)).maps.shape == (0, 6, 6)
    assert probes.find(seeded(Bytes), torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)).layer == "net.3"


def test_a_compiled_model() -> None:
    net = seeded(pooled)
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(images()), net(images()))
    place = probes.find(compiled, images())
    assert place.layer == "_orig_mod.3"
    assert (place.head, place.closed_form) == ("_orig_mod.6", True)
    assert torch.equal(probes.explain(compiled, images()).maps, probes.explain(net, images()).maps)


def test_one_logit() -> None:
    """There is no second class that the map could differ from."""
    net = seeded(lambda: convolutional(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 1)))
    place = probes.find(net, images())
    assert (place.layer, place.closed_form) == ("3", True)


class Auxiliary(nn.Module):
    """A second head, in training only, that needs larger images."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.second = pooled(), nn.Conv2d(3, CLASSES, 40)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.net(x), self.second(x)) if self.training else self.net(x)


def test_a_network_that_cannot_train_on_such_images() -> None:
    place = probes.find(seeded(Auxiliary), images())
    assert (place.closed_form, place.closed_form_in_training) == (True, False)
    assert probes.find(seeded(Auxiliary), images(2, 48, 48)).closed_form_in_training
