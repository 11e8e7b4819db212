"""The place that `probes.find` finds, and `probes.explain` without a layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sal_fast import ops, probes
from sal_fast.probes.layout import Layout

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
PLACES: dict[str, tuple[Callable[[], nn.Module], str, Layout, str | None, bool, bool]] = {
    "pooled": (pooled, "3", NCHW, "5" and "6", True, True),
    "dropout": (lambda: pooled(nn.Dropout(0.5)), "3", NCHW, "7", True, False),
    "activation": (lambda: pooled(nn.Tanh()), "3", NCHW, "7", False, False),
    "in place": (
        lambda: convolutional(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES)),
        "4", NCHW, "7", True, True,
    ),
    "two linear": (
        lambda: convolutional(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, CLASSES)),
        "3", NCHW, "8", False, False,
    ),
    "convolution as head": (
        lambda: convolutional(nn.Conv2d(5, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "4", NCHW, None, False, False,
    ),
    "channels last": (Last, "norm", NHWC, "head", True, True),
    "frozen": (Frozen, "body", NCHW, "head", True, True),
    "class token": (Tokens, "encoder.layers.1.norm1", Layout("tokens", 4, 4, 1), "head", False, False),
    "registers": (lambda: Tokens(3), "encoder.layers.1.norm1", Layout("tokens", 4, 4, 3), "head", False, False),
    "mean of tokens": (lambda: Tokens(2, False), "norm", Layout("tokens", 4, 4, 2), "head", True, True),
    "no convolution": (lambda: Tokens(1, True, True), "encoder.layers.1.norm1", Layout("tokens", 4, 4, 1), "head",
                       False, False),
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
