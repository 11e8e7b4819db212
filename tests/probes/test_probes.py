"""The probes on small networks: the papers' formulas in loops, the closed form, a model left alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sal_fast import ops, probes


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in float64, in eval mode, whose batch norms are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build().double().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return net


def images(batch: int = 3, channels: int = 3, size: int = 12, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, dtype=torch.float64, generator=generator)


def body() -> list[nn.Module]:
    return [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, stride=2)]


def gap(*between: nn.Module, head: nn.Module | None = None) -> nn.Sequential:
    """layer `2` -> global average pool -> flatten -> whatever is `between` -> linear."""
    head = nn.Linear(5, 4) if head is None else head
    return nn.Sequential(*body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *between, head)


def two_linear() -> nn.Sequential:
    """VGG's tail; the module behind layer `2` works in place."""
    tail = [nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 8), nn.Tanh()]
    return nn.Sequential(*body(), *tail, nn.Linear(8, 4))


class Through(nn.Module):
    """A network whose logits are another tensor than its head's, so that no closed form is seen."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + 0


def by_definition(features: Tensor, gradient: Tensor, probe: str) -> Tensor:
    """One image's map [h, w] from F and g [C, h, w], channel by channel and pixel by pixel."""
    height, width = features.shape[1:]
    total = torch.zeros(height, width, dtype=features.dtype)
    for f, g in zip(features, gradient, strict=True):
        if probe == "hirescam":
            total += g * f
        elif probe == "cam":
            total += g.sum() * f
        elif probe == "gradcam":
            total += g.sum() / (height * width) * f
        else:
            weight = 0.0
            for value in g.flatten().tolist():
                if value > 0:
                    weight += value**2 / (2 * value**2 + float(f.sum()) * value**3) * value
            total += weight * f
    return total if probe in ("cam", "hirescam") else total.clamp(min=0)


def oracle(net: nn.Sequential, cut: int, x: Tensor, target: Tensor, probe: str) -> Tensor:
    """Image by image, with the network cut in two by hand: no hooks."""
    maps = []
    for image, label in zip(x, target.tolist(), strict=True):
        features = net[:cut](image[None]).detach().requires_grad_()
        logit = net[cut:](features.clone())[0, label]
        (gradient,) = torch.autograd.grad(logit, features)
        maps.append(by_definition(features.detach()[0], gradient[0], probe))
    return torch.stack(maps)


TARGET = torch.tensor([3, 0, 2])


@pytest.fixture
def backward(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each backward pass."""
    passes: list[int] = []
    inner = torch.autograd.grad

    def counted(*args: object, **kwargs: object) -> tuple[Tensor, ...]:
        passes.append(1)
        return inner(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return passes


@pytest.mark.parametrize("probe", ops.PROBES)
@pytest.mark.parametrize("build", [gap, two_linear])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_definitions(build: Callable[[], nn.Sequential], layer: int, probe: ops.Probe) -> None:
    net, x = seeded(build), images()
    before = [p.clone() for p in net.parameters()]
    for by in (net[layer], str(layer)):
        result = probes.explain(net, x, TARGET, layer=by, probe=probe)
        torch.testing.assert_close(
            result.maps, oracle(net, layer + 1, x, TARGET, probe), rtol=1e-10, atol=1e-12
        )
        assert torch.equal(result.logits, net(x))
        assert result.classes is TARGET
    assert all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize("probe", ops.PROBES)
def test_closed_form_equals_autograd_and_runs_no_backward(probe: ops.Probe, backward: list[int]) -> None:
    net, x = seeded(gap), images()
    expected = probes.explain(Through(net), x, TARGET, layer=net[2], probe=probe).maps
    if probe == "cam":
        by_weights = torch.einsum("bchw,bc->bhw", net[:3](x), net[5].weight[TARGET])
        torch.testing.assert_close(expected, by_weights, rtol=1e-10, atol=1e-12)
    assert backward.pop()
    with torch.no_grad():
        result = probes.explain(net, x, TARGET, layer="2", probe=probe)
    assert not backward
    torch.testing.assert_close(result.maps, expected, rtol=1e-10, atol=1e-12)
    assert result.maps.grad_fn is None
    assert result.logits.grad_fn is None
    assert not result.logits.requires_grad


def test_predicted_class() -> None:
    net, x = seeded(two_linear), images(5)
    result = probes.explain(net, x, layer="2")
    assert torch.equal(result.classes, net(x).argmax(1))
    assert torch.equal(result.maps, probes.explain(net, x, result.classes, layer="2", probe="gradcam").maps)


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


class Transposed(nn.Module):
    """Tokens [B, h, w, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


class Back(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def tokens() -> nn.Sequential:
    head = [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(5, 4)]
    return nn.Sequential(nn.Conv2d(3, 5, 3), Transposed(), nn.LayerNorm(5), Back(), *head)


def as_it_is(output: Tensor) -> Tensor:
    return output


def to_channels(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("build", "layer", "to_maps"),
    [
        (gap, "2", None),
        (lambda: gap(nn.Dropout(0.5)), "2", None),
        (lambda: gap(nn.Dropout(0.5, inplace=True), nn.Identity()), "2", None),
        (lambda: gap(head=nn.Linear(5, 4, bias=False)), "2", None),
        (lambda: nn.Sequential(*body(), nn.AdaptiveAvgPool2d(1), Squeeze(), nn.Linear(5, 4)), "2", None),
        (tokens, "2", to_channels),
        (tokens, "3", None),
    ],
    ids=["plain", "dropout", "in-place-dropout", "no-bias", "view", "tokens", "permuted"],
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_closed_form_is_seen(
    build: Callable[[], nn.Module],
    layer: str,
    to_maps: Callable[[Tensor], Tensor] | None,
    batch: int,
    memory: torch.memory_format,
    backward: list[int],
) -> None:
    net, x = seeded(build).to(memory_format=memory), images(batch).to(memory_format=memory)
    target = TARGET[:batch]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            backward.clear()
            cam = probes.explain(net, x, target, layer=layer, probe="cam", to_maps=to_maps).maps
            assert not backward
            hirescam = probes.explain(
                Through(net), x, target, layer=f"net.{layer}", probe="hirescam", to_maps=to_maps
            )
        torch.testing.assert_close(cam / cam[0].numel(), hirescam.maps, rtol=1e-10, atol=1e-12)


class InPlace(nn.Module):
    """Writes over what it is given; `behind` autograd's and the version counter's back, by another tensor."""

    def __init__(self, behind: bool = False) -> None:
        super().__init__()
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        return x.data.mul_(2) if self.behind else x.mul_(2)


class Low(nn.Linear):
    """As LoRA does it: a linear layer that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x[:, :4]


def hooked(change: Callable[[Tensor], Tensor | None]) -> nn.Sequential:
    net = gap()
    net[5].register_forward_hook(lambda module, args, output: change(output))
    return net


def patched() -> nn.Sequential:
    net = gap()
    head, inner = net[5], net[5].forward
    head.forward = lambda x: inner(x).tanh()
    return net


@pytest.mark.parametrize(
    "build",
    [
        lambda: gap(InPlace()),
        lambda: gap(nn.Dropout(0.0), nn.Tanh()),
        lambda: gap(head=Low(5, 4)),
        lambda: nn.Sequential(*gap(), nn.Softmax(1)),
        lambda: nn.Sequential(*gap(), InPlace()),
        lambda: nn.Sequential(*body(), nn.ReLU(inplace=True), *gap()[3:]),
        lambda: nn.Sequential(*body(), InPlace(), *gap()[3:]),
        lambda: nn.Sequential(*body(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)),
        lambda: nn.Sequential(*body(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(5, 4)),
        lambda: nn.Sequential(*gap(), nn.Linear(4, 4)),
        two_linear,
        patched,
        lambda: hooked(lambda output: output * 2),
        lambda: hooked(lambda output: output.mul_(2)),
    ],
    ids=[
        "in-place-after-pool", "tanh-after-pool", "subclass", "softmax", "in-place-logits", "in-place-relu",
        "in-place-before-pool", "pool-2x2", "max-pool", "two-heads", "two-linear", "patched", "hook",
        "in-place-hook",
    ],
)  # fmt: skip
def test_closed_form_is_not_seen_where_it_does_not_hold(
    build: Callable[[], nn.Sequential], backward: list[int]
) -> None:
    net, x = seeded(build), images()
    for probe in ops.PROBES:
        expected = oracle(net, 3, x, TARGET, probe)
        for grad in (True, False):
            backward.clear()
            with torch.set_grad_enabled(grad):
                maps = probes.explain(net, x, TARGET, layer="2", probe=probe).maps
            torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-12)
            assert backward


@pytest.mark.parametrize("at", ["before the pool", "after the pool"])
def test_writing_behind_the_version_counter_is_seen(at: str) -> None:
    """`x.data.mul_(2)` leaves x's version alone, and cuts the graph: what comes out has no gradient."""
    behind = InPlace(behind=True)
    net = gap(behind) if at == "after the pool" else nn.Sequential(*body(), behind, *gap()[3:])
    with pytest.raises(ValueError, match="logits that depend on the layer's output"):
        probes.explain(seeded(lambda: net), images(), TARGET, layer="2", probe="cam")


def test_dropout_in_training_is_no_closed_form(backward: list[int]) -> None:
    for inplace in (False, True):
        net = seeded(lambda inplace=inplace: gap(nn.Dropout(0.5, inplace=inplace))).train()
        probes.explain(net, images(), TARGET, layer="2", probe="cam")
        assert backward.pop()


class Branches(nn.Module):
    """Another head reads the same features, runs last and has a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.pool = nn.Sequential(*body()), nn.AdaptiveAvgPool2d(1)
        self.head, self.other = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.body(x)).flatten(1)
        logits = self.head(pooled)
        self.auxiliary = self.other(pooled)
        return logits


def test_the_head_is_the_one_that_made_the_logits() -> None:
    """A head that runs after it hides it: then autograd answers, and is right."""
    net, x = seeded(Branches), images()
    expected = probes.explain(Through(net), x, TARGET, layer=net.body, probe="hirescam").maps
    maps = probes.explain(net, x, TARGET, layer="body", probe="hirescam").maps
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-12)


def state(net: nn.Module) -> dict[str, object]:
    """All that `explain` must leave alone, but for buffers."""
    result: dict[str, object] = {}
    for name, module in net.named_modules():
        hooks = [vars(module)[key] for key in sorted(vars(module)) if "hooks" in key]
        result[name] = (module.training, [len(kind) for kind in hooks if kind is not None])
    for name, parameter in net.named_parameters():
        grad = None if parameter.grad is None else parameter.grad.clone().tolist()
        result[name] = (parameter.requires_grad, grad, parameter._version)
    return result


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("inside the model")


@pytest.mark.parametrize("probe", ops.PROBES)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(probe: ops.Probe, grad: bool, broken: bool) -> None:
    net = seeded(lambda: gap(*([Breaks()] if broken else [])))
    net[1].train()
    net[0].weight.requires_grad_(False)
    net[2].weight.grad = torch.ones_like(net[2].weight)
    net[5].register_forward_hook(lambda module, args, output: None)
    before, x = state(net), images().requires_grad_()
    with torch.set_grad_enabled(grad):
        for model, to_maps in ((net, as_it_is), (Through(net), None)):
            if broken:
                with pytest.raises(RuntimeError, match="inside the model"):
                    probes.explain(model, x, TARGET, layer=net[2], probe=probe, to_maps=to_maps)
            else:
                probes.explain(model, x, TARGET, layer=net[2], probe=probe, to_maps=to_maps)
            assert torch.is_grad_enabled() == grad
    assert state(net) == before
    assert x.grad is None
    assert net[2].bias.grad is None
    assert int(net[1].num_batches_tracked) == (1 if broken else 2)  # none in a rehearsal


def test_batch_statistics_change_as_in_one_forward_pass() -> None:
    net, other = (seeded(two_linear).train() for _ in range(2))
    x = images()
    other(x)
    with torch.no_grad():
        probes.explain(net, x, layer="2")
    for mine, theirs in zip(net.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("probe", ops.PROBES)
@pytest.mark.parametrize("through", [False, True])
def test_gradcheck(probe: ops.Probe, through: bool) -> None:
    """Closed form and autograd path: maps are differentiable in images and parameters, through g as well."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus(), *gap()[3:5], nn.Linear(2, 3)), 3)
    model = Through(net) if through else net
    x = images(2, 1, 3).requires_grad_()
    target = torch.tensor([2, 0])

    def maps(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        result = probes.explain(model, x, target, layer=net[1], probe=probe)
        return result.maps, result.logits

    assert torch.autograd.gradcheck(maps, (x, *net.parameters()))


@pytest.mark.parametrize("probe", ops.PROBES)
def test_gradcheck_of_a_curved_tail(probe: ops.Probe) -> None:
    """Where g itself depends on F; at every layer the loss reaches the parameters on both sides."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3),
                                       nn.Tanh(), nn.Linear(3, 2)), 3)  # fmt: skip
    x = images(2, 1, 3).requires_grad_()

    def maps(*inputs: Tensor) -> Tensor:
        return probes.explain(net, inputs[0], torch.tensor([1, 0]), layer="1", probe=probe).maps

    assert maps(x).abs().sum() > 0
    assert torch.autograd.gradcheck(maps, (x, *net.parameters()))


@pytest.mark.parametrize("build", [gap, two_linear])
def test_frozen_parts(build: Callable[[], nn.Sequential]) -> None:
    """A graph where something requires grad, and none where nothing does."""
    net, x = seeded(build), images()
    net.requires_grad_(False)
    result = probes.explain(net, x, TARGET, layer="2", probe="hirescam")
    assert not result.maps.requires_grad
    assert not result.logits.requires_grad
    net[-1].requires_grad_(True)
    result = probes.explain(net, x, TARGET, layer="2", probe="hirescam")
    (result.maps.sum() + result.logits.sum()).backward()
    assert net[-1].weight.grad is not None
    assert all(p.grad is None for p in net[:-1].parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("build", [gap, two_linear])
@pytest.mark.parametrize("probe", ops.PROBES)
def test_nothing_is_kept(mode: Callable, build: Callable[[], nn.Sequential], probe: ops.Probe) -> None:
    """The features are freed on return, not at the next collection of cycles."""
    net, x = seeded(build), images()
    expected = probes.explain(net, x, layer="2", probe=probe)
    kept: list[weakref.ref] = []
    net[2].register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))
    gc.collect()
    gc.disable()
    try:
        with mode():
            result = probes.explain(net, x + 0, layer="2", probe=probe, to_maps=as_it_is)
        assert len(kept) == 1
        assert kept[0]() is None
    finally:
        gc.enable()
    for got, wanted in zip(result[:3], expected[:3], strict=True):
        assert not got.requires_grad
        assert not got.is_inference()
        assert torch.equal(got, wanted)


def test_a_model_with_its_own_no_grad() -> None:
    """A backbone that runs under no_grad inside a model under grad."""

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = two_linear()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.net[:3](x)
            assert torch.is_grad_enabled()
            return self.net[3:](x)

    model, x = seeded(Frozen), images()
    maps = probes.explain(model, x, TARGET, layer=model.net[2], probe="gradcam++").maps
    torch.testing.assert_close(maps, oracle(model.net, 3, x, TARGET, "gradcam++"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [gap, two_linear])
@pytest.mark.parametrize("probe", ops.PROBES)
def test_images_do_not_see_each_other(build: Callable[[], nn.Sequential], probe: ops.Probe) -> None:
    net, x = seeded(build), images(4)
    whole = probes.explain(net, x, layer="1", probe=probe)
    for i in range(4):
        alone = probes.explain(net, x[i : i + 1], layer="1", probe=probe)
        for got, wanted in zip(alone[:3], whole[:3], strict=True):
            torch.testing.assert_close(got[0], wanted[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.float32, False)]
    + [(dtype, on) for dtype in (torch.bfloat16, torch.float16) for on in (False, True)],
)
@pytest.mark.parametrize("build", [gap, two_linear])
@pytest.mark.parametrize("probe", ops.PROBES)
def test_precisions(
    dtype: torch.dtype, autocast: bool, build: Callable[[], nn.Sequential], probe: ops.Probe
) -> None:
    """Half a network's precision goes into features and gradient; the map itself is made in float32."""
    exact = probes.explain(seeded(build), images(), TARGET, layer="2", probe=probe).maps
    net = seeded(build).to(torch.float32 if autocast else dtype)
    x = images().to(torch.float32 if autocast else dtype)
    for grad in (False, True):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=autocast):
            result = probes.explain(net, x, TARGET, layer="2", probe=probe)
        assert result.maps.dtype == torch.float32
        assert result.logits.dtype == dtype
        error = (result.maps - exact).abs().max() / exact.abs().max()
        assert error < 12 * torch.finfo(dtype).eps


@pytest.mark.parametrize("through", [False, True])
def test_denominator_at_zero(through: bool) -> None:
    """Features that sum to -2/g: value and gradient stay finite, and both paths agree."""
    net = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1)).double()
    nn.init.ones_(net[3].weight)
    x = torch.full((1, 1, 2, 2), -2.0, dtype=torch.float64)  # S g = -8 / 4
    x[0, 0, 0, 0] = 1e-9 - 2
    x.requires_grad_()
    maps = probes.explain(Through(net) if through else net, x, layer=net[0], probe="gradcam++").maps
    raw = maps.detach()
    assert float(raw.max()) == 0  # relu of 1000 * -2
    (gradient,) = torch.autograd.grad(maps.sum(), x)
    assert bool(gradient.isfinite().all())
    with torch.no_grad():
        x[0, 0, 0, 1] = 1  # another pixel high, the sum as it was
        x[0, 0, 1, :] = -3.5
    maps = probes.explain(Through(net) if through else net, x, layer=net[0], probe="gradcam++").maps
    assert float(maps.detach().max()) == pytest.approx(1000)  # 4 pixels of 1/4, over 1e-3
    (gradient,) = torch.autograd.grad(maps.sum(), x)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


def test_empty_batch() -> None:
    for build in (gap, two_linear):
        result = probes.explain(seeded(build), images(0), layer="2", probe="gradcam++")
        assert result.maps.shape == (0, 5, 5)
        assert result.logits.shape == (0, 4)
        assert result.classes.shape == (0,)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.tensor([1]), ValueError, r"target must have shape \[3\], got \[1\]"),
        (torch.tensor([1, 2, 3, 0]), ValueError, r"target must have shape \[3\], got \[4\]"),
        (torch.tensor([[1], [2], [3]]), ValueError, r"target must have shape \[3\], got \[3, 1\]"),
        (torch.tensor([0, 1, 4]), ValueError, r"target must lie in 0..3, got 0..4"),
        (torch.tensor([0, -1, 2]), ValueError, r"target must lie in 0..3, got -1..2"),
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, "target must be an int64 tensor, got torch.float32"),
        ([0, 1, 2], TypeError, "target must be an int64 tensor, got list"),
        (torch.zeros(3, dtype=torch.int64, device="meta"), ValueError, "images on cpu, target on meta"),
    ],
)
@pytest.mark.parametrize("build", [gap, two_linear])
def test_targets_refused(
    build: Callable[[], nn.Sequential], target: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        probes.explain(seeded(build), images(), target, layer="2")


class Returns(nn.Module):
    """gap, and whatever `make` makes of its logits."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net, self.make = gap(), make

    def forward(self, x: Tensor) -> object:
        return self.make(self.net(x))


class Named(NamedTuple):
    """As Inception's outputs in training."""

    logits: Tensor
    auxiliary: Tensor


@pytest.mark.parametrize("layer", ["net.2", None])
@pytest.mark.parametrize(
    "make",
    [
        lambda y: {"loss": None, "logits": y},
        lambda y: SimpleNamespace(loss=None, logits=y),
        lambda y: Named(y, y * 2),
        lambda y: (y, None),
        lambda y: [y],
    ],
    ids=["dict", "object", "named-tuple", "tuple", "list"],
)
def test_logits_are_taken_as_they_come(make: Callable[[Tensor], object], layer: str | None) -> None:
    net, x = seeded(lambda: Returns(make)), images()
    plain = probes.explain(net.net, x, TARGET, layer="2")
    result = probes.explain(net, x, TARGET, layer=layer)
    assert torch.equal(result.logits, plain.logits)
    assert torch.equal(result.maps, plain.maps)
    assert result.layer == "net.2"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda y: {"scores": y}, TypeError, r"returns logits \[B, K\], .* got dict"),
        (lambda y: (), TypeError, r"tuple or list that begins with them, got tuple"),
        (lambda y: ("a", y), TypeError, r"returns logits \[B, K\], .* got tuple"),
        (lambda y: y[:, 0], ValueError, r"floating logits \[B, K\], got torch.float64 \[2\] for 2 images"),
        (lambda y: y[:, :, None], ValueError, r"floating logits \[B, K\], got torch.float64 \[2, 4, 1\]"),
        (lambda y: y[:2], ValueError, r"floating logits \[B, K\], got torch.float64 \[2, 4\] for 3 images"),
        (lambda y: y.argsort(1), ValueError, r"floating logits \[B, K\], got torch.int64 \[2, 4\]"),
        (
            lambda y: y.detach(),
            ValueError,
            "logits that depend on the layer's output, got logits that do not",
        ),
        (lambda y: torch.zeros_like(y), ValueError, "logits that depend on the layer's output"),
    ],
)
def test_outputs_refused(make: Callable[[Tensor], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        probes.explain(seeded(lambda: Returns(make)), images(), layer="net.2")


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class First(nn.Module):
    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return x[0]


def shared() -> nn.Sequential:
    relu = nn.ReLU()
    return nn.Sequential(nn.Conv2d(3, 5, 3), relu, nn.Conv2d(5, 5, 3), relu, *gap()[3:])


class Unused(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[1](x)


class Ignored(nn.Module):
    """A layer that works in place, whose returned value nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.rest = nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), gap()[3:]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.relu(x)
        return self.rest(x)


class Alias(nn.Module):
    """A layer that returns its input, which is written over later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same, self.rest = nn.Conv2d(3, 5, 3), nn.Identity(), gap()[3:]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.same(x) * 2
        x += 1
        return self.rest(x + y)


@pytest.mark.parametrize(
    ("build", "layer", "error", "message"),
    [
        (gap, "4", ValueError, r"a layer whose maps are \[3, C, h, w\], got \[3, 5\]; pass to_maps"),
        (gap, "", ValueError, r"a layer whose maps are \[3, C, h, w\], got \[3, 4\]; pass to_maps"),
        (gap, "22", ValueError, "the name of a module of the model, got '22'; the nearest is '2'"),
        (gap, 2, TypeError, "layer must be a module, its name or None, got int"),
        (gap, nn.Conv2d(1, 1, 1), ValueError, "a module of the model, got another Conv2d"),
        (shared, "1", ValueError, "runs once in a forward pass, got one that runs again: ReLU"),
        (lambda: Unused(nn.ReLU(), gap()), "0", ValueError, "runs in the forward pass, got one that did not"),
        (lambda: nn.Sequential(Pair(), First(), gap()), "0", TypeError, "a floating tensor, got tuple"),
        (Alias, "same", ValueError, "written over by way of another tensor"),
    ],
)
def test_layers_refused(
    build: Callable[[], nn.Module], layer: nn.Module | str, error: type[Exception], message: str
) -> None:
    net = seeded(build)
    with pytest.raises(error, match=message):
        probes.explain(net, images(), layer=layer)
    assert all(not module._forward_hooks for module in net.modules())


def test_a_layer_whose_result_is_its_input() -> None:
    """Autograd follows the input where it has a graph; where it has none, the copy handed on is not read."""
    net, x = seeded(Ignored), images()
    cut = nn.Sequential(net.conv, nn.ReLU(), *net.rest)
    maps = probes.explain(net, x, TARGET, layer="relu").maps
    torch.testing.assert_close(maps, oracle(cut, 2, x, TARGET, "gradcam"), rtol=1e-10, atol=1e-12)
    with torch.no_grad(), pytest.raises(ValueError, match="logits that depend on the layer's output"):
        probes.explain(net, x, TARGET, layer="relu")


def test_to_maps_and_probe_refused() -> None:
    with pytest.raises(ValueError, match=r"a layer whose maps are \[3, C, h, w\], got \[3, 25\]$"):
        probes.explain(seeded(gap), images(), layer="2", to_maps=lambda t: t[:, 0].flatten(1))
    with pytest.raises(ValueError, match=r"probe must be one of cam, gradcam, .*, got 'scorecam'"):
        probes.explain(seeded(gap), images(), layer="2", probe="scorecam")


def test_a_compiled_model_runs_its_hooks() -> None:
    net, x = seeded(gap), images()
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x), net(x))
    for probe in ops.PROBES:
        maps = probes.explain(compiled, x, TARGET, layer=net[2], probe=probe).maps
        assert torch.equal(maps, probes.explain(net, x, TARGET, layer="2", probe=probe).maps)


@pytest.mark.parametrize("build", [gap, two_linear])
@pytest.mark.parametrize("probe", ops.PROBES)
def test_devices(build: Callable[[], nn.Sequential], probe: ops.Probe, device: torch.device) -> None:
    """Results stay where the model is; a bad class gives a map of NaN on a GPU, without a synchronisation."""
    exact = probes.explain(seeded(build), images(), TARGET, layer="2", probe=probe)
    net, x = seeded(build).to(device), images().to(device)
    result = probes.explain(net, x, TARGET.to(device), layer="2", probe=probe)
    for got, wanted in zip(result[:3], exact[:3], strict=True):
        assert got.device.type == device.type
        torch.testing.assert_close(got.cpu(), wanted, rtol=1e-9, atol=1e-12)
    if device.type == "cuda":
        bad = torch.tensor([0, 4, -1], device=device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            maps = probes.explain(net, x, bad, layer="2", probe=probe).maps
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert maps.isnan().flatten(1).all(1).tolist() == [False, True, True]
