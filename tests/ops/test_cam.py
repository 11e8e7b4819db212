"""sal_fast.ops.cam and cam_head against plain torch in float64, on every device that exists."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from precision import assert_replays, full, on_gpu, run_python
from torch import Tensor

import sal_fast
from sal_fast import ops
from sal_fast.ops import _launch
from sal_fast.ops.cam import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
probes = pytest.mark.parametrize("probe", ops.PROBES)
# The two probes that differ most, in both layouts between them; the others are in the full tier.
LAYOUTS_OF_PROBES = [("cam", "channels_last"), ("gradcam++", "contiguous"), ("gradcam++", "channels_last")]
probes_and_layouts = pytest.mark.parametrize(
    ("probe", "layout"),
    [
        case if case in LAYOUTS_OF_PROBES else full(*case)
        for case in itertools.product(ops.PROBES, ("contiguous", "channels_last"))
    ],
)
# channels, height, width
SIZES = [(1, 1, 1), (3, 7, 7), (2049, 7, 7), (64, 1, 1), (5, 5, 10), (6, 31, 33), (130, 14, 14), (2, 1, 3),
         (16, 7, 12), (33, 2, 2), (40, 64, 64)]  # fmt: skip
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
CLASSES = 7


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    size: tuple[int, int, int],
    dtype: torch.dtype,
    batch: int = 5,
    head: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and classes, some of them repeated."""
    draws = generator(seed)
    features = torch.rand(batch, *size, generator=draws) - 0.2
    weight = torch.randn(CLASSES, size[0], generator=draws)
    bias = torch.randn(CLASSES, generator=draws)
    target = torch.tensor([6, 2, 6, 0, 6, 2, 1])[:batch]
    return features.to(dtype), weight.to(head or dtype), bias.to(head or dtype), target


# How features of [B, C, h, w] may lie.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda f: f.contiguous(),
    "channels_last": lambda f: f.to(memory_format=torch.channels_last),
    "tokens": lambda f: f.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "batch-slice": lambda f: f.repeat_interleave(2, 0).contiguous()[::2],
    "batch-slice-channels_last": lambda f: f.repeat_interleave(2, 0).contiguous(
        memory_format=torch.channels_last
    )[1::2],
    "channel-slice": lambda f: torch.cat([f, f], 1).contiguous()[:, : f.shape[1]],
    "channel-slice-channels_last": lambda f: torch.cat([f, f], 1).contiguous(
        memory_format=torch.channels_last
    )[:, f.shape[1] :],
}
LAYOUTS["every-other-channel"] = lambda f: f.repeat_interleave(2, 1).contiguous()[:, ::2]
COPIED: dict[str, Callable[[Tensor], Tensor]] = {
    "crop": lambda f: torch.nn.functional.pad(f, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "transposed": lambda f: f.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda f: f[:, :1].expand_as(f),
}


def gradients(
    head: ops.CamHead, inputs: list[Tensor], upstream: list[Tensor], dtype: torch.dtype | None = None
) -> tuple[Tensor, ...]:
    ups = [u if dtype is None else u.to(dtype) for u in upstream]
    return torch.autograd.grad([head.logits, head.cam, head.pooled], inputs, ups)


def assert_as_good_as_torch(got: Tensor, torchs: Tensor, exact: Tensor, what: str) -> None:
    """The error is at most twice that of torch at the same precision."""
    assert got.shape == exact.shape, what
    assert got.dtype == torchs.dtype, what
    got, torchs = got.detach().cpu().double(), torchs.detach().cpu().double()
    error = (got - exact).abs().max()
    eps = {torch.float32: 2e-7}.get(torchs.dtype, 2e-7)
    allowed = 2 * (torchs - exact).abs().max() + eps * exact.abs().max()
    assert error <= allowed, f"{what}: error {error:.3g}, torch's {allowed / 2:.3g}"


def check(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, probe: ops.Probe
) -> None:
    """Values and gradients of cam_head and cam, with every output's gradient at once."""
    inputs = [x.detach().requires_grad_() for x in (features, weight, bias) if x is not None]
    f, w = inputs[:2]
    b = inputs[2] if bias is not None else None
    exact_inputs = [x.detach().cpu().double().requires_grad_() for x in inputs]
    exact_bias = exact_inputs[2] if bias is not None else None
    got = ops.cam_head(f, w, b, target, probe=probe)
    classes = got.classes.cpu()
    exact = ops.CamHead(*reference.cam_head(*exact_inputs[:2], exact_bias, classes, probe))
    torchs = ops.CamHead(*reference.cam_head(f, w, b, got.classes, probe))
    if target is None:
        assert torch.equal(got.classes, got.logits.argmax(1))
    for name in ("logits", "cam", "pooled"):
        values = [getattr(head, name) for head in (got, torchs, exact)]
        assert_as_good_as_torch(values[0], values[1], values[2].detach(), name)
    upstream = [torch.randn(x.shape, generator=generator(i)) for i, x in enumerate(exact[:3])]
    ups = [u.to(f.device) for u in upstream]
    ours, theirs = gradients(got, inputs, ups), gradients(torchs, inputs, ups)
    truth = gradients(exact, exact_inputs, upstream, torch.float64)
    for name, x, *grads in zip(("features", "weight", "bias"), inputs, ours, theirs, truth, strict=False):
        assert grads[0].dtype == x.dtype
        assert_as_good_as_torch(*grads, f"gradient to {name}")

    alone = ops.cam(f, w, got.classes, probe=probe)
    torch.testing.assert_close(alone, got.cam, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(alone, inputs[:2], ups[1])
    theirs = torch.autograd.grad(reference.cam(f, w, got.classes, probe), inputs[:2], ups[1])
    truth = torch.autograd.grad(
        reference.cam(*exact_inputs[:2], classes, probe), exact_inputs[:2], upstream[1].double()
    )
    for name, *grads in zip(("features", "weight"), ours, theirs, truth, strict=True):
        assert_as_good_as_torch(*grads, f"cam's gradient to {name}")


# Values ----------------------------------------------------------------------------------------------------


@probes_and_layouts
@sizes
def test_sizes(probe: ops.Probe, size: tuple[int, int, int], layout: str, device: torch.device) -> None:
    features, weight, bias, target = (x.to(device) for x in make(size, torch.float32))
    check(LAYOUTS[layout](features), weight, bias, target, probe)
    check(LAYOUTS[layout](features), weight, None, None, probe)


@pytest.mark.parametrize("layout", ["contiguous", full("channels_last")])
@pytest.mark.parametrize(
    ("dtype", "head"),
    [case if len(set(case)) == 2 else full(*case) for case in itertools.product(DTYPES, DTYPES)],
)
def test_every_pair_of_dtypes(
    dtype: torch.dtype, head: torch.dtype, layout: str, device: torch.device
) -> None:
    for size, probe in itertools.product([(3, 7, 7), (130, 7, 7), (24, 14, 16)], ops.PROBES):
        features, weight, bias, target = (x.to(device) for x in make(size, dtype, head=head))
        check(LAYOUTS[layout](features), weight, bias, target, probe)
    check(LAYOUTS[layout](features), weight, bias.float(), None, "cam")  # a bias of another dtype


@pytest.mark.parametrize("probe", ["gradcam++", *map(full, ("cam", "gradcam", "hirescam"))])
@pytest.mark.parametrize("layout", [*LAYOUTS, *COPIED])
def test_layouts(probe: ops.Probe, layout: str, device: torch.device) -> None:
    for size in ((20, 7, 7), (3, 5, 10), (8, 8, 8), (17, 1, 6)):
        features, weight, bias, target = (x.to(device) for x in make(size, torch.float32))
        view = {**LAYOUTS, **COPIED}[layout](features)
        check(view, weight, bias, target, probe)


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of the features that the launchers got."""
    addresses = []
    launch = _launch.launch

    def spy(name: str, device: torch.device, **fields: Any) -> None:
        addresses.append(fields["features"].data_ptr())
        launch(name, device, **fields)

    monkeypatch.setattr(_launch, "launch", spy)
    return addresses


@pytest.mark.parametrize("layout", [*LAYOUTS, *COPIED])
@pytest.mark.parametrize("size", [(20, 7, 7), (8, 1, 1), (5, 1, 6)])
def test_features_are_not_copied(
    layout: str, size: tuple[int, int, int], device: torch.device, read_from: list[int]
) -> None:
    features, weight, bias, target = (x.to(device) for x in make(size, torch.float32))
    view = {**LAYOUTS, **COPIED}[layout](features).detach().requires_grad_()
    head = ops.cam_head(view, weight.requires_grad_(), bias, target)
    (head.logits.sum() + head.cam.sum()).backward()
    assert len(read_from) == 2
    if layout in LAYOUTS:
        assert set(read_from) == {view.data_ptr()}
    elif size == (20, 7, 7):  # smaller ones may happen to be matrices
        assert view.data_ptr() not in read_from
    assert view.grad is not None
    if layout in ("contiguous", "channels_last", "tokens"):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            same = view.is_contiguous(memory_format=memory_format)
            assert view.grad.is_contiguous(memory_format=memory_format) == same


def test_token_layout(device: torch.device, read_from: list[int]) -> None:
    features, weight, bias, target = (x.to(device) for x in make((24, 7, 12), torch.bfloat16))
    tokens = features.permute(0, 2, 3, 1).contiguous().requires_grad_()
    head = ops.cam_head(tokens, weight, bias, target, layout="nhwc")
    expected = ops.cam_head(features, weight, bias, target)
    for got, same in zip(head, expected, strict=True):
        torch.testing.assert_close(got, same, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ops.cam(tokens, weight, target, layout="nhwc"), head.cam)
    head.cam.sum().backward()
    assert read_from[0] == tokens.data_ptr()
    assert tokens.grad is not None
    assert tokens.grad.is_contiguous()


@probes
def test_against_autograd(probe: ops.Probe) -> None:
    """Each probe by its own paper's definition, from gradients of the logit."""
    draws = generator(1)
    features = torch.rand(3, 6, 4, 5, dtype=torch.float64, generator=draws).requires_grad_()
    weight = torch.randn(7, 6, dtype=torch.float64, generator=draws)
    target = torch.tensor([0, 6, 3])
    logit = (features.mean((2, 3)) @ weight.T).gather(1, target[:, None]).sum()
    (g,) = torch.autograd.grad(logit, features)
    f = features.detach()
    if probe == "cam":
        expected = (weight[target][:, :, None, None] * f).sum(1)
    elif probe == "hirescam":
        expected = (g * f).sum(1)
    elif probe == "gradcam":
        expected = (g.mean((2, 3), keepdim=True) * f).sum(1).relu()
    else:
        share = g**2 / (2 * g**2 + f.sum((2, 3), keepdim=True) * g**3)
        expected = ((share * g.relu()).sum((2, 3), keepdim=True) * f).sum(1).relu()
    torch.testing.assert_close(ops.cam(f, weight, target, probe=probe), expected, rtol=1e-10, atol=1e-12)
    single = ops.cam(f.float(), weight.float(), target, probe=probe)
    torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-6)


@probes
def test_gradcheck(probe: ops.Probe) -> None:
    draws = generator(2)
    features = torch.rand(3, 3, 3, 4, dtype=torch.float64, generator=draws).requires_grad_()
    weight = (torch.rand(5, 3, dtype=torch.float64, generator=draws) - 0.2).requires_grad_()
    bias = torch.rand(5, dtype=torch.float64, generator=draws).requires_grad_()
    target = torch.tensor([4, 1, 4])
    assert torch.autograd.gradcheck(lambda f, w: ops.cam(f, w, target, probe=probe), (features, weight))
    assert torch.autograd.gradcheck(
        lambda f, w, b: ops.cam_head(f, w, b, target, probe=probe)[:3], (features, weight, bias)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [-2.0, -2.0005, -1.9995])
def test_gradcampp_denominator_at_zero(mean: float, dtype: torch.dtype, device: torch.device) -> None:
    """Features whose mean is about -2 / w bring the denominator to zero: it is held at 1e-3, and constant."""
    features = torch.full((1, 1, 2, 2), mean, dtype=dtype, device=device, requires_grad=True)
    weight = torch.ones(1, 1, dtype=dtype, device=device, requires_grad=True)
    out = ops.cam(features, weight, torch.tensor([0], device=device), probe="gradcam++")
    out.sum().backward()
    sign = -1 if mean < -2 else 1  # of the denominator: negative features then give a positive map
    expected = max(0.0, sign * mean * 1000)
    np.testing.assert_allclose(out.detach().cpu(), np.full((1, 2, 2), expected), rtol=1e-6)
    assert features.grad is not None
    assert weight.grad is not None
    by_feature = sign * 1000.0 if expected else 0.0
    np.testing.assert_allclose(features.grad.cpu(), np.full((1, 1, 2, 2), by_feature), rtol=1e-6)
    np.testing.assert_allclose(weight.grad.cpu(), [[4 * expected]], rtol=1e-6)


@pytest.mark.parametrize("probe", ["gradcam", "gradcam++"])
def test_relu_of_a_map_without_positive_values(probe: ops.Probe, device: torch.device) -> None:
    features = torch.ones(2, 3, 7, 7, device=device)
    features[1] = 0  # a sum of 0 has derivative 0 too
    weight = torch.tensor([[-1.0, -2.0, -3.0]], device=device)
    if probe == "gradcam++":  # its weights are never negative: features are
        features, weight = -0.1 * features, -weight
    features.requires_grad_(), weight.requires_grad_()
    out = ops.cam(features, weight, torch.tensor([0, 0], device=device), probe=probe)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    for tensor in (features, weight):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, torch.zeros_like(tensor))


@probes
def test_one_hot_pixel(probe: ops.Probe, device: torch.device) -> None:
    for layout, at in itertools.product(("contiguous", "channels_last"), (0, 31, 48)):
        features = torch.zeros(1, 20, 7, 7, device=device)
        features.view(20, 49)[:, at] = 2
        weight = torch.ones(1, 20, device=device)
        out = ops.cam(LAYOUTS[layout](features), weight, torch.tensor([0], device=device), probe=probe)
        per_channel = {"cam": 1.0, "gradcam++": 1 / (2 + 2 / 49)}.get(probe, 1 / 49)
        expected = torch.zeros(49)
        expected[at] = 40 * per_channel
        torch.testing.assert_close(out.flatten().cpu(), expected)


def test_normalize_of_flat_and_other_maps(device: torch.device) -> None:
    features = torch.rand(2, 4, 7, 12, generator=generator(0)).to(device)
    features[0] = 1
    weight, target = torch.ones(1, 4, device=device), torch.zeros(2, dtype=torch.int64, device=device)
    maps = ops.cam(features, weight, target, normalize=True)
    assert torch.equal(maps[0], torch.zeros_like(maps[0]))
    assert (float(maps[1].min()), float(maps[1].max())) == (0, 1)


def test_the_lowest_class_wins_a_tie(device: torch.device) -> None:
    weight = torch.tensor([[0.0, 0], [1, 1], [1, 1], [1, 1]], device=device)
    head = ops.cam_head(torch.ones(3, 2, 7, 7, device=device), weight, None)
    assert head.classes.tolist() == [1, 1, 1]
    assert torch.equal(head.cam, torch.full((3, 7, 7), 2.0, device=device))


@probes
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_nan_and_infinity_stay_in_their_image(probe: ops.Probe, layout: str, device: torch.device) -> None:
    for bad in (torch.nan, torch.inf):
        features, weight, bias, target = (x.to(device) for x in make((9, 7, 7), torch.float32))
        features[1, 4, 3, 3] = bad
        weight = weight.abs()
        f = LAYOUTS[layout](features).requires_grad_()
        head = ops.cam_head(f, weight.requires_grad_(), bias, target, probe=probe)
        assert head.logits.isfinite().all(1).tolist() == [True, False, True, True, True]
        others = [0, 2, 3, 4]
        assert head.cam[others].isfinite().all()
        # An infinite channel has weight 0 in gradcam++, and 0 inf is NaN.
        assert not head.cam[1].isfinite().all()
        (grad,) = torch.autograd.grad(head.cam.sum() + head.logits.sum(), f)
        assert grad[others].isfinite().all()


# Batches and what is differentiated ------------------------------------------------------------------------


@probes
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_no_images_and_one(probe: ops.Probe, layout: str, device: torch.device) -> None:
    for known in (True, False):
        features, weight, bias, target = (x.to(device) for x in make((5, 7, 7), torch.float32, batch=0))
        inputs = [x.requires_grad_() for x in (LAYOUTS[layout](features), weight, bias)]
        head = ops.cam_head(*inputs, target if known else None, probe=probe)
        assert [tuple(x.shape) for x in head] == [(0, CLASSES), (0, 7, 7), (0, 5), (0,)]
        grads = torch.autograd.grad(head.logits.sum() + head.cam.sum(), inputs)
        for x, grad in zip(inputs, grads, strict=True):
            assert grad.shape == x.shape
            assert (grad == 0).all()
        assert ops.cam(*inputs[:2], target, probe=probe).shape == (0, 7, 7)
    features, weight, bias, target = (x.to(device) for x in make((5, 7, 7), torch.float32, batch=1))
    check(LAYOUTS[layout](features), weight, bias, target, probe)


@probes
def test_only_some_gradients_are_wanted(probe: ops.Probe, device: torch.device) -> None:
    """Each is the same with and without the others."""
    tensors = [x.to(device) for x in make((70, 7, 7), torch.float32)]
    target = tensors.pop()
    outputs = {"logits": 0, "cam": 1, "pooled": 2}
    ups = [torch.randn(s, generator=generator(3)).to(device) for s in ((5, CLASSES), (5, 7, 7), (5, 70))]

    def grads(wanted: tuple[bool, ...], used: tuple[str, ...]) -> dict[int, Tensor]:
        inputs = [x.detach().requires_grad_(wanted[i]) for i, x in enumerate(tensors)]
        head = ops.cam_head(*inputs, target, probe=probe)
        ins = {i: x for i, x in enumerate(inputs) if wanted[i]}
        outs = [(getattr(head, name), ups[outputs[name]]) for name in used]
        found = torch.autograd.grad(
            [o for o, _ in outs], list(ins.values()), [u for _, u in outs], allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        return dict(zip(ins, found, strict=True))

    every = (True, True, True)
    for used in [("logits",), ("cam",), ("pooled",), ("logits", "cam"), ("cam", "pooled"), tuple(outputs)]:
        whole = grads(every, used)
        parts = [grads(every, (name,)) for name in used]
        for i in whole:
            torch.testing.assert_close(whole[i], sum(part[i] for part in parts), rtol=1e-4, atol=1e-5)
        for wanted in itertools.product((False, True), repeat=3):
            if wanted[0] or wanted[1]:
                for i, grad in grads(wanted, used).items():
                    assert torch.equal(grad, whole[i]), (wanted, used, i)


def test_the_features_are_not_read_without_need(device: torch.device) -> None:
    """The gradient to the features of a plain CAM does not depend on them."""
    features, weight, bias, target = (x.to(device) for x in make((20, 7, 7), torch.float32))
    head = ops.cam_head(features, weight, bias, target)
    poisoned = torch.full_like(features, torch.nan)
    ups = [torch.ones_like(x) for x in head[:3]]
    backward = torch.ops.sal_fast.cam_head_backward.default
    for wanted in ([True, False, False], [True, False, True]):
        grad, none, _ = backward(*ups, poisoned, weight, target, head.pooled, head.cam, "cam", wanted)
        assert grad.isfinite().all()
        assert none.numel() == 0
    both = backward(*ups, poisoned, weight, target, head.pooled, head.cam, "cam", [True, True, True])
    assert both[0].isfinite().all()
    assert not both[1].isfinite().all()


@probes
def test_expanded_and_strided_upstream(probe: ops.Probe, device: torch.device) -> None:
    tensors = [x.to(device) for x in make((70, 7, 12), torch.float32)]
    target = tensors.pop()
    inputs = [x.requires_grad_() for x in tensors]

    def grads(transform: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        head = ops.cam_head(*inputs, target, probe=probe)
        ups = [transform(torch.ones((), device=device).expand_as(x)) for x in head[:3]]
        return torch.autograd.grad(head[:3], inputs, ups)

    packed = grads(lambda up: up.contiguous())
    for other in (grads(lambda up: up), grads(lambda up: up.repeat_interleave(2, -1)[..., ::2])):
        for a, b in zip(packed, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [-1, CLASSES, 2**40])
def test_class_out_of_range(bad: int, dtype: torch.dtype, device: torch.device) -> None:
    features, weight, bias, target = (x.to(device) for x in make((5, 7, 7), dtype))
    target[3] = bad
    if device.type == "cpu":
        with pytest.raises(ValueError, match=rf"cam: target must lie in 0\.\.6, got .*{bad}"):
            ops.cam(features, weight, target)
        with pytest.raises(ValueError, match=rf"cam_head: target must lie in 0\.\.6, got .*{bad}"):
            ops.cam_head(features, weight, bias, target)
        return
    weight.requires_grad_()
    head = ops.cam_head(features, weight, bias, target)
    assert head.cam.isnan().all((1, 2)).tolist() == [False, False, False, True, False]
    assert head.logits.isfinite().all()
    (grad,) = torch.autograd.grad(head.cam.sum(), weight)
    assert grad.isfinite().all() or dtype == torch.float64


def test_shapes_of_a_bad_class_in_the_reference() -> None:
    """Where it cannot raise, it gives NaN for that image alone."""
    features, weight, _, target = make((5, 7, 7), torch.float64)
    target[3] = CLASSES
    maps = reference.cam(features, weight, target, "cam")
    assert maps.isnan().all((1, 2)).tolist() == [False, False, False, True, False]
    assert maps.isnan().any((1, 2)).tolist() == [False, False, False, True, False]


F, W, T = torch.rand(2, 3, 4, 4), torch.rand(5, 3), torch.zeros(2, dtype=torch.int64)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"features": [1.0]}, TypeError, "features must be a tensor, got list"),
    ({"features": F.long()}, TypeError, "floating dtype, got torch.int64"),
    ({"features": F.to(torch.float8_e5m2)}, TypeError, "features must be of dtype float32.*float8_e5m2"),
    ({"weight": W.double()}, TypeError, "float64 for all or none, got features torch.float32"),
    ({"features": F[0]}, ValueError, r"features must have shape \[\*, \*, \*, \*\], got \[3, 4, 4\]"),
    ({"features": F[:, :0]}, ValueError, r"a channel and a pixel, got \[2, 0, 4, 4\]"),
    ({"weight": W[:, :2]}, ValueError, r"weight must have shape \[\*, 3\], got \[5, 2\]"),
    ({"weight": W[:0]}, ValueError, "at least one class"),
    ({"layout": "nhwc"}, ValueError, r"weight must have shape \[\*, 4\], got \[5, 3\]"),
    ({"layout": "nwhc"}, ValueError, "layout must be one of nchw, nhwc, got 'nwhc'"),
    ({"probe": "scorecam"}, ValueError, "probe must be one of cam, gradcam"),
    ({"target": T[:1]}, ValueError, r"target must have shape \[2\], got \[1\]"),
    ({"target": T.int()}, TypeError, "target must be int64, got torch.int32"),
    ({"target": T.to("meta")}, ValueError, "one device, got features on cpu, weight on cpu.*target on meta"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"features": F, "weight": W, "target": T} | changes
    with pytest.raises(error, match=f"cam: .*{message}"):
        ops.cam(**arguments)
    with pytest.raises(error, match=f"cam_head: .*{message}"):
        ops.cam_head(**arguments, bias=None)


def test_errors_of_the_bias() -> None:
    with pytest.raises(ValueError, match=r"cam_head: bias must have shape \[5\], got \[3\]"):
        ops.cam_head(F, W, torch.zeros(3))
    with pytest.raises(TypeError, match=r"cam_head: expected float64 for all or none.*bias torch\.float64"):
        ops.cam_head(F, W, torch.zeros(5).double())


def test_second_derivative_is_refused(device: torch.device) -> None:
    f, w, t = F.to(device).requires_grad_(), W.to(device).requires_grad_(), T.to(device)
    for result in (ops.cam(f, w, t), ops.cam_head(f, w, None, t).logits):
        (grad,) = torch.autograd.grad(result.square().sum(), f, create_graph=True)
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            grad.sum().backward()


# As a torch operator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "layout"),
    [
        ("cam", "contiguous"),
        ("gradcam++", "crop"),
        *(
            full(*case)
            for case in itertools.product(
                ops.PROBES, ("contiguous", "channels_last", "batch-slice-channels_last", "crop")
            )
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(probe: ops.Probe, layout: str, device: torch.device) -> None:
    for batch in (3, 0) if layout in ("contiguous", "channels_last") else (3,):
        made = make((6, 3, 5), torch.float32, batch=batch)
        features, weight, bias, target = (x.to(device) for x in made)
        f = {**LAYOUTS, **COPIED}[layout](features).detach().requires_grad_()
        w, b = weight.requires_grad_(), bias.requires_grad_()
        for arguments in ((None, target, probe, False), (b, target, probe, True), (None, None, probe, True)):
            torch.library.opcheck(torch.ops.sal_fast.cam_head, (f, w, *arguments))
        head = ops.cam_head(f, w, b, target, probe=probe)
        ups = [torch.ones_like(x) for x in head[:3]]
        plain = [x.detach() for x in (f, w, target, head.pooled, head.cam)]
        for some, wanted in ((ups, [True, True, True]), ([None, ups[1], None], [False, True, False])):
            torch.library.opcheck(torch.ops.sal_fast.cam_head_backward, (*some, *plain, probe, wanted))


@pytest.mark.parametrize(
    ("probe", "known"),
    [
        ("cam", False),
        ("gradcam++", True),
        *(full(*case) for case in itertools.product(ops.PROBES, (True, False))),
    ],
)
def test_compile(probe: ops.Probe, known: bool, device: torch.device) -> None:
    features, weight, bias, target = (x.to(device) for x in make((6, 7, 7), torch.float32))

    def loss(f: Tensor, w: Tensor, b: Tensor, t: Tensor) -> Tensor:
        head = ops.cam_head(2 * f, w, b, t if known else None, probe=probe)
        maps = ops.cam(f, w, t, probe=probe, normalize=True)
        return head.logits.square().mean() + (head.cam * maps).sum() + head.pooled.sum()

    torch.compiler.reset()  # the limit of recompilations is that of all parameters
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled):
        inputs = [x.detach().clone().requires_grad_() for x in (features, weight, bias)]
        value = function(*inputs, target)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    if device.type == "cpu":
        with pytest.raises(ValueError, match=r"target must lie in 0\.\.6"):
            compiled(features, weight, bias, target + 3)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=short)
def test_autocast(dtype: torch.dtype, device: torch.device) -> None:
    head_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    made = make((70, 7, 7), dtype, head=head_dtype)
    features, weight, bias, target = (x.to(device) for x in made)

    def results() -> list[Tensor]:
        inputs = [x.detach().requires_grad_() for x in (features, weight, bias)]
        head = ops.cam_head(*inputs, target)
        alone = ops.cam(*inputs[:2], target)
        grads = torch.autograd.grad(head.logits.sum() + head.cam.square().sum() + alone.sum(), inputs)
        return [*head, alone, *grads]

    outside = results()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = results()
    for a, b in zip(inside, outside, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("known", [True, False])
def test_meta(known: bool) -> None:
    features, weight, bias, target = (x.to("meta") for x in make((6, 7, 12), torch.bfloat16))
    head = ops.cam_head(features.requires_grad_(), weight, bias, target if known else None)
    assert [tuple(x.shape) for x in head] == [(5, CLASSES), (5, 7, 12), (5, 6), (5,)]
    assert [x.dtype for x in head] == [torch.float32] * 3 + [torch.int64]
    (grad,) = torch.autograd.grad(head.cam.sum(), features)
    assert (grad.shape, grad.dtype) == (features.shape, torch.bfloat16)


@on_gpu
@probes
def test_replayed_graph_on_a_side_stream(probe: ops.Probe) -> None:
    *tensors, target = (x.cuda() for x in make((2048, 7, 7), torch.float32))
    inputs = [x.requires_grad_() for x in tensors]

    def step() -> list[Tensor]:
        head = ops.cam_head(*inputs, target, probe=probe)
        return [*head[:3], *torch.autograd.grad(head.logits.sum() + head.cam.square().sum(), inputs[:2])]

    assert_replays(step, lambda: inputs[0].copy_(make((2048, 7, 7), torch.float32, seed=5)[0]))


# The native core -------------------------------------------------------------------------------------------


def test_the_native_core_is_what_is_tested() -> None:
    """Otherwise the tests above compare the reference with itself."""
    info = sal_fast.build_info()
    assert info.native, info.native_error


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield (1, 2, 5)
    torch.set_num_threads(before)


@probes_and_layouts
def test_thread_counts_give_the_same_bits(
    probe: ops.Probe, layout: str, thread_counts: tuple[int, ...]
) -> None:
    features, weight, _, target = make((300, 14, 14), torch.float32, batch=7)
    results = []
    for threads in thread_counts:
        torch.set_num_threads(threads)
        f, w = LAYOUTS[layout](features).requires_grad_(), weight.detach().requires_grad_()
        maps = ops.cam(f, w, target, probe=probe)
        results.append((maps.detach(), *torch.autograd.grad(maps.square().sum(), (f, w))))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


_SAME_ANSWERS = """
import json, torch, sal_fast
from sal_fast import ops
out = {"capability": sal_fast.build_info().cpu_capability, "values": []}
for size in ((1, 1, 1), (9, 7, 7), (70, 14, 14), (5, 3, 2)):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        draws = torch.Generator().manual_seed(1)
        f = (torch.rand(4, *size, generator=draws) + 0.1).to(dtype)
        w = torch.randn(3, size[0], generator=draws).requires_grad_()
        for layout in (torch.contiguous_format, torch.channels_last):
            x = f.contiguous(memory_format=layout).requires_grad_()
            for probe in ops.PROBES:
                head = ops.cam_head(x, w, None, torch.tensor([2, 0, 2, 1]), probe=probe)
                maps = ops.minmax_normalize(head.cam.detach().to(dtype).requires_grad_())
                grads = torch.autograd.grad(head.cam.square().sum() + head.logits.sum(), (x, w))
                for tensor in (head.logits, head.cam, head.pooled, *grads):
                    out["values"] += tensor.flatten()[::5].tolist()
                out["values"] += [float(maps.min()), float(maps.max())]
print(json.dumps(out))
"""


@pytest.mark.parametrize(
    ("environment", "capability"),
    [
        ({"SAL_FAST_NATIVE": "0"}, None),
        ({"SAL_FAST_CPU_CAPABILITY": "generic"}, "generic"),
        ({"SAL_FAST_CPU_CAPABILITY": "avx2"}, "avx2"),
    ],
    ids=["reference", "generic", "avx2"],
)
def test_every_build_gives_the_same_answers(environment: dict[str, str], capability: str | None) -> None:
    ours, other = (json.loads(run_python(_SAME_ANSWERS, **extra)) for extra in ({}, environment))
    if capability is not None and other["capability"] != capability:
        pytest.skip(f"this machine has no {capability}")
    assert other["capability"] == capability
    assert len(ours["values"]) > 1000
    np.testing.assert_allclose(ours["values"], other["values"], rtol=1e-2, atol=1e-5)
