"""Networks from outside: a short module is enough, and a subclass of `Backbone` can do more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sal_fast import models, ops, plugins, train
from sal_fast.errors import InputError
from sal_fast.models import weights
from sal_fast.models.backbone import Backbone, Weights

MINE = '''
from torch import nn


class Mine(nn.Module):
    """Two convolutions, eight channels, and a head."""

    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Linear(8, classes)

    def features(self, images):
        return self.body(images)


def no_network(classes):
    return nn.Linear(3, classes)


def other_classes(classes):
    return Mine(classes + 1)


NUMBER = 3
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file with a network of somebody else's."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


def images(count: int = 4, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_module_with_features_and_a_head_is_a_network(mine: str) -> None:
    model = models.build(f"{mine}:Mine", 5, seed=1).eval()
    x = images()
    expected = model.net.body(x)
    logits, features = model(x)
    assert torch.equal(features, expected)
    assert torch.equal(logits, model.net.head(expected.mean((2, 3))))
    assert models.map_shape(model, 32) == (8, 8, 8)
    labels = torch.arange(4)
    cam = torch.einsum("bchw,bc->bhw", expected, model.net.head.weight[labels])
    torch.testing.assert_close(model.look(x, labels).cam, cam, rtol=1e-4, atol=1e-6)
    inner = models.build(f"{mine}:Mine", 5, seed=1, cam_layer="body.0").eval()
    assert models.map_shape(inner, 32) == (8, 8, 8)
    for probe in ops.PROBES:
        assert inner.look(x, labels, probe=probe).cam.shape == (4, 8, 8)


def test_it_is_seeded_trained_and_kept(mine: str, tmp_path: Path) -> None:
    made = [models.build(f"{mine}:Mine", 3, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (model.net.head.weight.detach().clone() for model in made)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    recipe = train.Recipe(
        epochs=1, batch_size=4, lr=0.1, lr_step=1, augment="none", probe="cam", map_size=None,
        saliency_loss="ssim_l1", seed=0,
    )  # fmt: skip
    targets = torch.zeros(4, 32, 32)
    targets[:, :16] = 1
    train.Step(made[0], alpha=0.5, recipe=recipe)(
        images(), torch.arange(4) % 3, targets, torch.ones(4, dtype=torch.bool)
    )
    assert not torch.equal(made[0].net.head.weight, first)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(weights.to_bytes(made[0].net))
    loaded = models.build(f"{mine}:Mine", 3, weights=str(path))
    assert torch.equal(loaded.net.head.weight, made[0].net.head.weight)
    assert models.build(f"{mine}:Mine", 7, weights=str(path)).head.out_features == 7


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no_network", r"expected an nn.Module with features\(images\) and with a head, .* got Linear"),
        ("other_classes", "expected a head with 4 outputs, got 5"),
        ("NUMBER", r"expected a function f\(classes\) -> nn.Module, got 3"),
        ("Yours", "has no 'Yours'"),
    ],
)
def test_networks_refused(mine: str, what: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(f"{mine}:{what}", 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 8}, "Mine has a fixed stride"),
        (
            {"weights": "DEFAULT"},
            r"'DEFAULT': expected none, or a \.safetensors, \.pth, \.pt, \.ckpt or \.bin file",
        ),
        (
            {"cam_layer": "bodi.2"},
            r"the nearest is 'body\.2' \(expected features or a module's dotted name\)",
        ),
    ],
)
def test_options_refused(mine: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(f"{mine}:Mine", 4, **options)


class Tokens(nn.Module):
    """Sixteen tokens of six channels for an image of 32 x 32, and a head with another name."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, stride=8)
        self.norm = nn.LayerNorm(6)
        self.classifier = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.patches(x).flatten(2).mT)


class Rich(Backbone):
    """Every ability of a backbone."""

    head = "classifier"
    strides = (8, 4)

    def __call__(self, classes: int) -> nn.Module:
        return Tokens(classes)

    def features(self, net: Any, images: Tensor) -> Tensor:
        return self.maps(net.norm, net(images))

    def maps(self, layer: nn.Module, output: Tensor) -> Tensor:
        if output.ndim == 4:
            return output
        side = int(output.shape[1] ** 0.5)
        return output.mT.unflatten(2, (side, side))

    def aliases(self, net: Any) -> dict[str, str]:
        return {"last": "features", "first": "patches"}

    def set_output_stride(self, net: Any, stride: int) -> None:
        net.patches.stride = (stride, stride)

    def weights(self) -> dict[str, Weights]:
        ones = {name: torch.ones_like(value) for name, value in Tokens(7).state_dict().items()}
        return {"ONES": Weights("https://example.org/ones", lambda: ones)}


def test_a_backbone_that_can_do_more() -> None:
    backbone = Rich("rich")
    assert models.network(backbone) is backbone
    x = images()
    plain = models.build(backbone, 3)
    assert plain.features(x).shape == (4, 6, 4, 4)
    assert torch.equal(plain.features(x)[:, :, 1, 2], plain.net(x)[:, 6])
    assert models.build(backbone, 3, cam_layer="last").cam_layer == "features"
    assert models.map_shape(models.build(backbone, 3, cam_layer="first"), 32) == (6, 4, 4)
    assert models.map_shape(models.build(backbone, 3, output_stride=4), 32) == (6, 7, 7)
    named = models.build(backbone, 3, weights="ONES")
    assert bool((named.net.norm.bias == 1).all())
    assert named.head.out_features == 3
    assert weights.urls(backbone) == {"ONES": "https://example.org/ones"}
    with pytest.raises(InputError, match=r"expected none, one of .*'s for rich \(ONES\), or a"):
        models.build(backbone, 3, weights="TWOS")


def test_features_that_do_not_fit_the_head_are_refused() -> None:
    class Flat(Tokens):
        head = property(lambda self: self.classifier)

        def features(self, images: Tensor) -> Tensor:
            return self(images)

    with pytest.raises(InputError, match=r"expected features \[B, 6, h, w\], .* got \[1, 16, 6\]"):
        models.map_shape(models.build(Flat, 3), 32)


def test_the_built_in_networks_answer_for_themselves() -> None:
    found = {name: models.network(name) for name in plugins.names("network")}
    assert list(found) == ["resnet18", "resnet34", "resnet50", "swin_t", "xception"]
    assert {name for name, one in found.items() if one.strides} == {"resnet18", "resnet34", "resnet50"}
    assert [one.library for one in found.values()] == ["torchvision"] * 4 + ["timm"]
    assert [one.name for one in found.values()] == list(found)
    with pytest.raises(InputError, match="unknown network 'resnet181'; did you mean 'resnet18'"):
        models.network("resnet181")
