"""sal_fast.ops.head_step: Equation 1 by hand in numpy, finite differences, float64 at each precision."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from precision import HALVES, assert_as_good_as_torch, assert_replays, name_of, on_gpu, run_python
from torch import Tensor

import sal_fast
from sal_fast import ops
from sal_fast.ops import _launch
from sal_fast.ops.head_step import reference, registration
from sal_fast.ops.saliency_loss import KINDS
from sal_fast.ops.ssim import BORDERS

DTYPES = [torch.float32, *HALVES]
NAMES = ops.HeadStep._fields
TENSORS = ("features", "weight", "bias", "class_weight")


def example(
    size: tuple[int, int] = (7, 7),
    channels: int = 20,
    classes: int = 5,
    heads: int = 2,
    stored: int = 9,
    target: tuple[int, int] = (21, 17),
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of head_step: every fifth image has no map, one row repeats."""
    draws = torch.Generator().manual_seed(seed)
    return {
        "features": torch.rand(stored, *size, channels, generator=draws) - 0.2,
        "weight": torch.randn(heads, classes, channels, generator=draws),
        "bias": torch.randn(heads, classes, generator=draws),
        "labels": torch.randint(classes, (stored,), generator=draws),
        "target": torch.rand(stored, *target, generator=draws),
        "has_map": torch.arange(stored) % 5 != 1,
        "rows": torch.randint(stored, (7,), generator=draws),
        "alpha": [0.9, 0.1, 0.5, 0.0, 1.0][:heads],
    }


def at(given: dict[str, Any], place: torch.device, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The arguments on a device; with float64, in float64."""
    moved = {k: v.to(place) if isinstance(v, Tensor | ops.BitMask) else v for k, v in given.items()}
    if dtype == torch.float64:
        moved |= {name: moved[name].double() for name in TENSORS if moved.get(name) is not None}
    return moved


def plain(given: dict[str, Any], dtype: torch.dtype) -> reference.Results:
    """The reference in plain torch."""
    rows = given.get("rows")
    rows = torch.arange(len(given["features"])) if rows is None else rows

    def pick(value: Any, dtype: torch.dtype | None = None) -> Any:
        return None if value is None else value[rows].to(dtype)

    target = given["target"].unpack() if isinstance(given["target"], ops.BitMask) else given["target"]
    batch = reference.Batch(
        pick(given["features"], dtype), given["labels"][rows], pick(target, dtype), pick(given.get("has_map"))
    )
    size = tuple(given["features"].shape[1:3])
    weights = given.get("class_weight")
    options = reference.Options(
        given["alpha"], None if weights is None else weights.to(dtype), given.get("label_smoothing", 0.0),
        given.get("probe", "cam"), given.get("cam_class", "labelled"), size,
        given.get("window") or min(7, (min(size) - 1) // 2 * 2 + 1), given.get("border", "valid"),
        given.get("kind", "ssim_l1"),
    )  # fmt: skip
    return reference.head_step(batch, given["weight"].to(dtype), given["bias"].to(dtype), options)


def check(given: dict[str, Any], device: torch.device, dtype: torch.dtype = torch.float32) -> ops.HeadStep:
    """The kernel has at most twice the error of torch in float32."""
    given = given | {"features": given["features"].to(dtype)}
    got = ops.head_step(**at(given, device))
    exact, single = plain(given, torch.float64), plain(given, torch.float32)
    for name, mine, torchs, true in zip(NAMES, got, single, exact, strict=True):
        assert mine.dtype == torch.float32
        assert not mine.requires_grad
        try:
            assert_as_good_as_torch(mine, torchs, true, 2e-6)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    return got


# The definition --------------------------------------------------------------------------------------------


def normalised(m: np.ndarray) -> np.ndarray:
    return (m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else np.zeros_like(m)


def loss_by_hand(given: dict[str, Any], head: int, weight: np.ndarray, bias: np.ndarray) -> float:
    """Equation 1 of one head in numpy: CAM, border `valid`, a window of 3; a target of the CAM's size."""
    features, target = given["features"].double().numpy(), given["target"].double().numpy()
    alpha, smoothing, v = (
        given["alpha"][head],
        given["label_smoothing"],
        given["class_weight"].double().numpy(),
    )
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * 1.5**2))
    gauss = np.outer(taps, taps) / taps.sum() ** 2
    total = 0.0
    for row in given["rows"].tolist():
        label, f = int(given["labels"][row]), features[row]
        logits = weight @ f.mean((0, 1)) + bias
        log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        q = v * ((np.arange(len(v)) == label) * (1 - smoothing) + smoothing / len(v))
        total += alpha * -(q * log_p).sum()
        if not given["has_map"][row] or np.ptp(target[row]) == 0:
            continue
        x, y = normalised(f @ weight[label]), normalised(target[row])
        similarities = []
        for i, j in itertools.product(range(x.shape[0] - 2), range(x.shape[1] - 2)):
            a, b = x[i : i + 3, j : j + 3], y[i : i + 3, j : j + 3]
            mx, my = (gauss * a).sum(), (gauss * b).sum()
            sxx, syy = (gauss * a * a).sum() - mx * mx, (gauss * b * b).sum() - my * my
            sxy = (gauss * a * b).sum() - mx * my
            over = (2 * mx * my + 1e-4) * (2 * sxy + 9e-4)
            similarities.append(over / ((mx * mx + my * my + 1e-4) * (sxx + syy + 9e-4)))
        total += (1 - alpha) * (1 - np.mean(similarities) + np.abs(x - y).mean())
    return float(total / len(given["rows"]))


def test_by_hand_and_by_finite_differences(device: torch.device) -> None:
    given = example((4, 5), channels=3, classes=4, target=(4, 5))
    given |= {"label_smoothing": 0.2, "class_weight": torch.tensor([0.5, 1.0, 2.0, 1.5]), "window": 3}
    given["target"][int(given["rows"][0])] = 0.25
    exact = ops.head_step(**at(given, torch.device("cpu"), torch.float64))
    ours = ops.head_step(**at(given, device))
    for head in range(2):
        weight, bias = given["weight"][head].double().numpy(), given["bias"][head].double().numpy()
        loss = loss_by_hand(given, head, weight, bias)
        slopes = []
        for parameter in (weight, bias):
            slope = np.zeros_like(parameter)
            for place in np.ndindex(parameter.shape):
                before, values = parameter[place], []
                for step in (1e-6, -1e-6):
                    parameter[place] = before + step
                    values.append(loss_by_hand(given, head, weight, bias))
                parameter[place] = before
                slope[place] = (values[0] - values[1]) / 2e-6
            slopes.append(slope)
        for got, tight, loose in ((exact, 1e-9, 1e-7), (ours, 1e-5, 1e-4)):
            np.testing.assert_allclose(got.loss[head].item(), loss, rtol=tight)
            scale = np.abs(slopes[0]).max()
            np.testing.assert_allclose(got.grad_weight[head].cpu(), slopes[0], rtol=0, atol=loose * scale)
            np.testing.assert_allclose(got.grad_bias[head].cpu(), slopes[1], rtol=0, atol=loose * scale)


@pytest.mark.parametrize("cam_class", ops.CAM_CLASSES)
@pytest.mark.parametrize("probe", ops.PROBES)
def test_it_is_cam_head_and_cyborg_loss(
    probe: ops.Probe, cam_class: ops.CamClass, device: torch.device
) -> None:
    given = at(example(), device)
    step = ops.head_step(**given, probe=probe, cam_class=cam_class)
    rows, labels = given["rows"], given["labels"][given["rows"]]
    for head, alpha in enumerate(given["alpha"]):
        weight, bias = (given[name][head].clone().requires_grad_() for name in ("weight", "bias"))
        target = labels if cam_class == "labelled" else None
        seen = ops.cam_head(given["features"][rows], weight, bias, target, probe=probe, layout="nhwc")
        has_map = given["has_map"][rows]
        loss = ops.cyborg_loss(
            seen.logits, seen.cam, labels, given["target"][rows], alpha=alpha, has_map=has_map
        )
        loss.backward()
        assert weight.grad is not None
        assert bias.grad is not None
        for got, expected in zip(
            (x[head] for x in step), (loss, seen.logits, seen.cam, weight.grad, bias.grad), strict=True
        ):
            scale = float(expected.detach().abs().max())
            torch.testing.assert_close(got, expected.detach(), rtol=1e-5, atol=2e-6 * scale)


def test_cross_entropy_is_that_of_torch(device: torch.device) -> None:
    given = at(example() | {"alpha": (1.0, 1.0)}, device)
    weights = torch.rand(5, generator=torch.Generator().manual_seed(1)).to(device)
    labels = given["labels"][given["rows"]]
    for smoothing, weight in itertools.product((0.0, 0.3, 1.0), (None, weights)):
        step = ops.head_step(**given, class_weight=weight, label_smoothing=smoothing)
        for head in range(2):
            expected = torch.nn.functional.cross_entropy(
                step.logits[head], labels, weight, reduction="sum", label_smoothing=smoothing
            )
            torch.testing.assert_close(step.loss[head], expected / 7)


def test_steps_of_an_optimizer_lower_the_loss() -> None:
    given = example(heads=2, stored=40) | {"rows": None}
    weight, bias = (given.pop(name).requires_grad_() for name in ("weight", "bias"))
    optimizer = torch.optim.AdamW([weight, bias], lr=0.01)
    losses = []
    for _ in range(60):
        step = ops.head_step(**given, weight=weight, bias=bias)
        weight.grad, bias.grad = step.grad_weight, step.grad_bias
        optimizer.step()
        losses.append(step.loss.detach())
    assert (losses[-1] < losses[0]).all()


# Every configuration, at each precision --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    ("size", "channels", "classes"),
    [
        ((7, 7), 384, 10),
        ((1, 1), 1, 1),
        ((3, 4), 33, 7),
        ((14, 14), 65, 3),
        ((12, 11), 7, 130),
        ((1, 9), 40, 2),
        ((32, 32), 5, 4),
    ],
    ids=str,
)
def test_sizes(
    size: tuple[int, int], channels: int, classes: int, dtype: torch.dtype, device: torch.device
) -> None:
    check(example(size, channels, classes), device, dtype)


@pytest.mark.parametrize("heads", [1, 2, 3, 5])
def test_numbers_of_heads_and_of_images(heads: int, device: torch.device) -> None:
    for stored, rows in ((3, None), (600, None), (5, torch.arange(5).repeat(60))):
        check(example((3, 3), 6, heads=heads, stored=stored) | {"rows": rows}, device)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 1, 5])
def test_borders_kinds_and_windows(border: str, kind: str, window: int | None, device: torch.device) -> None:
    check(example() | {"border": border, "kind": kind, "window": window}, device)


@pytest.mark.parametrize("probe", ops.PROBES)
@pytest.mark.parametrize("cam_class", ops.CAM_CLASSES)
def test_probes_and_classes_of_the_map(probe: str, cam_class: str, device: torch.device) -> None:
    for heads in (1, 3):
        check(example(heads=heads) | {"probe": probe, "cam_class": cam_class}, device)


def test_class_weights_and_label_smoothing(device: torch.device) -> None:
    for classes, smoothing in itertools.product((1, 5, 40), (0.0, 0.1, 1.0)):
        weights = torch.rand(classes, generator=torch.Generator().manual_seed(2))
        given = example(classes=classes, heads=4) | {"label_smoothing": smoothing}
        check(given, device)
        check(given | {"class_weight": weights}, device)


@pytest.mark.parametrize("kind", ["bool", "bytes", "packed", "half", "strided", "own size"])
def test_kinds_of_targets(kind: str, device: torch.device) -> None:
    given = example(target=(40, 33))
    target = given["target"]
    given["target"] = {
        "bool": target > 0.6,
        "bytes": (255 * target).to(torch.uint8),
        "packed": ops.BitMask.pack(target > 0.6),
        "half": target.half(),
        "strided": target[:, ::2].transpose(1, 2),
        "own size": torch.nn.functional.adaptive_avg_pool2d(target, (7, 7)),
    }[kind]
    check(given, device)


def test_a_target_averaged_before_gives_the_same(device: torch.device) -> None:
    given = at(example(), device)
    small = torch.nn.functional.adaptive_avg_pool2d(given["target"], (7, 7))
    for got, expected in zip(ops.head_step(**given | {"target": small}), ops.head_step(**given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_images_without_a_map_flat_maps_and_flat_cams(device: torch.device) -> None:
    given = example()
    given["target"][int(given["rows"][1])] = 3
    given["features"][int(given["rows"][2])] = 0.5
    check(given, device)
    alone = ops.head_step(**at(given | {"target": None, "has_map": None}, device))
    none = ops.head_step(**at(given | {"has_map": torch.zeros(9, dtype=torch.bool)}, device))
    for got, expected in zip(alone, none, strict=True):
        assert torch.equal(got, expected)
    assert alone.grad_weight.abs().sum() > 0
    check(given | {"has_map": None}, device)


@pytest.mark.parametrize("probe", ["cam", "gradcam"])
def test_ties_of_the_extremes(probe: str, device: torch.device) -> None:
    """Plateaus, of one height or cut by the ReLU; powers of two, so that equal pixels stay equal."""
    given = example((8, 8), channels=4)
    given["features"] = (
        torch.randint(3, given["features"].shape, generator=torch.Generator().manual_seed(4)) / 2
    )
    given["weight"] = (
        torch.randint(-1, 2, given["weight"].shape, generator=torch.Generator().manual_seed(5)) / 2
    )
    check(given | {"probe": probe}, device)


def test_the_lowest_class_wins_a_tie(device: torch.device) -> None:
    given = example(heads=1)
    given["weight"][:] = given["weight"][:, :1].clone()
    given["bias"][:] = 0
    given |= {"cam_class": "predicted", "alpha": (0.0,)}
    step = check(given, device)
    assert step.grad_weight[0, 0].any()
    assert not step.grad_weight[0, 1:].any()


def test_large_values_in_half_precision(device: torch.device) -> None:
    given = example(channels=64)
    given["features"] *= 60_000
    given["weight"] *= 1e-3
    check(given, device, torch.float16)
    check(given | {"weight": 1e3 * given["weight"]}, device, torch.float16)


def test_a_nan_stays_in_its_image(device: torch.device) -> None:
    given = example() | {"rows": None}
    given["features"][2, 3, 3, 5] = torch.nan
    step = ops.head_step(**at(given, device))
    assert step.loss.isnan().all()
    assert step.logits.isnan().any(2).any(0).tolist() == [i == 2 for i in range(9)]
    assert step.cam.isnan().flatten(2).any(2).any(0).tolist() == [i == 2 for i in range(9)]


def test_empty_batch(device: torch.device) -> None:
    given = example()
    for change in ({"rows": given["rows"][:0]}, {"rows": given["rows"][:0], "map_size": 14}):
        step = ops.head_step(**at(given | change, device))
        assert step.logits.shape == (2, 0, 5)
        for result in (step.loss, step.grad_weight, step.grad_bias):
            assert torch.equal(result, torch.zeros_like(result))
    nothing = {name: given[name][:0] for name in ("features", "labels", "target", "has_map")}
    assert not ops.head_step(**at(given | nothing | {"rows": None}, device)).grad_weight.any()


@pytest.mark.parametrize("alpha", [(1.0, 0.0), (0.0, 1.0)])
def test_a_term_that_does_not_count_is_not_looked_at(alpha: tuple[float, ...], device: torch.device) -> None:
    given = example() | {"alpha": alpha, "rows": None, "has_map": None}
    whole = ops.head_step(**at(given, device))
    given["target"][:] = torch.nan
    blind = ops.head_step(**at(given, device))
    for head, value in enumerate(alpha):
        assert blind.loss[head].isnan() == (value == 0)
        for name in NAMES if value == 1 else ("logits", "cam"):
            assert torch.equal(getattr(blind, name)[head], getattr(whole, name)[head])
        if value == 0:
            assert not whole.grad_bias[head].any()


# What the kernel does not take -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"map_size": 14}, {"map_size": 14, "target": "packed", "cam_class": "predicted"}, {"size": (33, 32)}],
    ids=str,
)
def test_other_sizes_are_composed(change: dict[str, Any], device: torch.device) -> None:
    change = dict(change)
    given = example(change.pop("size", (7, 7)))
    if change.pop("target", None):
        change["target"] = ops.BitMask.pack(given["target"] > 0.6)
    given |= change
    for given_rows in (given, given | {"rows": None}):
        exact = ops.head_step(**at(given_rows, torch.device("cpu"), torch.float64))
        with torch.inference_mode():  # the features may have been made there
            got = ops.head_step(
                **at({k: v.clone() if isinstance(v, Tensor) else v for k, v in given_rows.items()}, device)
            )
        for mine, expected in zip(got, exact, strict=True):
            assert mine.dtype == torch.float32
            scale = float(expected.abs().max())
            torch.testing.assert_close(mine.cpu().double(), expected, rtol=1e-4, atol=1e-5 * scale)


def test_float64_is_the_reference(device: torch.device) -> None:
    given = example() | {"probe": "gradcam++", "label_smoothing": 0.1}
    got = ops.head_step(**at(given, device, torch.float64))
    for mine, expected in zip(got, plain(given, torch.float64), strict=True):
        torch.testing.assert_close(mine.cpu(), expected, rtol=1e-10, atol=1e-12)


# torch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_size", [None, 14])
def test_a_derivative_is_an_error_in_words(map_size: int | None, device: torch.device) -> None:
    given = at(example() | {"map_size": map_size}, device)
    given["weight"].requires_grad_()
    step = ops.head_step(**given)
    with pytest.raises(NotImplementedError, match="the gradients are made already; take grad_weight"):
        step.loss.sum().backward()
    assert not step.grad_weight.requires_grad
    with torch.no_grad():
        assert not ops.head_step(**given).loss.requires_grad


def test_features_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those in a file."""
    given = example() | {"features": example()["features"].half()}
    given["features"].numpy().tofile(tmp_path / "features")
    shape = given["features"].shape
    mapped = torch.from_file(str(tmp_path / "features"), size=shape.numel(), dtype=torch.float16).view(shape)
    addresses = []
    launch = _launch.launch

    def spy(name: str, device: torch.device, **fields: Any) -> None:
        addresses.append(fields["features"].data_ptr())
        launch(name, device, **fields)

    monkeypatch.setattr(_launch, "launch", spy)
    results = [ops.head_step(**given | {"features": features}) for features in (given["features"], mapped)]
    assert addresses == [given["features"].data_ptr(), mapped.data_ptr()]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_opcheck(device: torch.device) -> None:
    given = at(example(), device)
    tensors = [given[name] for name in ("features", "weight", "bias", "labels", "target", "rows", "has_map")]
    options = [None, [0.1, 0.9, 0.1], [17, 7, 7, 7], ["ssim_l1", "valid", "cam", "labelled"]]
    torch.library.opcheck(torch.ops.sal_fast.head_step, (*tensors, *options))


def test_compile(device: torch.device) -> None:
    given = at(example(), device)
    weight = given.pop("weight").requires_grad_()

    def step(weight: Tensor) -> ops.HeadStep:
        return ops.head_step(weight=2 * weight, **given)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(weight), step(weight), strict=True):
        torch.testing.assert_close(got, expected.detach())


def test_meta() -> None:
    step = ops.head_step(**at(example(), torch.device("meta")))
    assert [tuple(x.shape) for x in step] == [(2,), (2, 7, 5), (2, 7, 7, 7), (2, 5, 20), (2, 5)]


@on_gpu
def test_replayed_graph_on_a_side_stream() -> None:
    given = at(example(), torch.device("cuda"))
    assert_replays(
        lambda: list(ops.head_step(**given)), lambda: given["features"].copy_(example(seed=7)["features"])
    )


def test_kernels_are_what_is_tested() -> None:
    """Otherwise the tests above compare the reference with itself."""
    info = sal_fast.build_info()
    assert info.native, info.native_error
    given = example()
    arguments = [
        given[name] for name in ("features", "weight", "bias", "labels", "target", "rows", "has_map")
    ]
    assert registration._takes(*arguments, None, [0.0], [17, 7, 7, 7], [])


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield (1, 2, 5)
    torch.set_num_threads(before)


@pytest.mark.parametrize("cam_class", ops.CAM_CLASSES)
def test_thread_counts_give_the_same_bits(cam_class: str, thread_counts: tuple[int, ...]) -> None:
    given = example(channels=300, classes=40, stored=300) | {"rows": None, "cam_class": cam_class}
    results = []
    for threads in thread_counts:
        torch.set_num_threads(threads)
        results.append(ops.head_step(**given))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


_SAME_ANSWERS = """
import json, torch, sal_fast
from sal_fast import ops
out = {"capability": sal_fast.build_info().cpu_capability, "values": []}
for size, channels in (((7, 7), 70), ((1, 1), 3), ((9, 5), 16)):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for probe, cam_class in (("cam", "labelled"), ("gradcam++", "predicted")):
            g = torch.Generator().manual_seed(1)
            f = (torch.rand(20, *size, channels, generator=g) + 0.1).to(dtype)
            w, b = torch.randn(3, 6, channels, generator=g), torch.randn(3, 6, generator=g)
            labels, target = torch.randint(6, (20,), generator=g), torch.rand(20, 30, 30, generator=g)
            step = ops.head_step(f, w, b, labels, target, alpha=(0.9, 0.1, 0.5), probe=probe,
                                 cam_class=cam_class, label_smoothing=0.1)
            for tensor in step:
                out["values"] += tensor.flatten()[::3].tolist()
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
    environment = {"SAL_FAST_REQUIRE_NATIVE": "0"} | environment
    ours, other = (json.loads(run_python(_SAME_ANSWERS, **extra)) for extra in ({}, environment))
    if capability is not None and other["capability"] != capability:
        pytest.skip(f"this machine has no {capability}")
    assert other["capability"] == capability
    assert len(ours["values"]) > 1000
    np.testing.assert_allclose(ours["values"], other["values"], rtol=1e-3, atol=2e-5)


# Errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": (0.5,)}, ValueError, "a number for each of 2 heads"),
        ({"alpha": (0.5, 1.5)}, ValueError, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing must lie in \[0, 1\], got -0.1"),
        ({"rows": torch.tensor([0, 9])}, ValueError, r"rows must lie in 0\.\.8, got 0\.\.9"),
        ({"rows": torch.tensor([-1])}, ValueError, r"rows must lie in 0\.\.8, got -1\.\.-1"),
        ({"rows": torch.zeros(3)}, TypeError, "rows must be int64, got torch.float32"),
        ({"labels": torch.full((9,), 5)}, ValueError, r"labels must lie in 0\.\.4, got 5\.\.5"),
        ({"labels": torch.zeros(8).long()}, ValueError, r"labels must have shape \[9\]"),
        ({"features": torch.rand(9, 7, 20)}, ValueError, "features must have shape"),
        (
            {"features": torch.rand(9, 20, 7, 7).permute(0, 2, 3, 1)},
            ValueError,
            r"call \.contiguous\(\) once",
        ),
        (
            {"features": torch.rand(9, 7, 7, 20).double()},
            TypeError,
            "weight must be float64, got torch.float32",
        ),
        ({"features": torch.zeros(9, 7, 7, 20).long()}, TypeError, "features must be of a floating dtype"),
        ({"weight": torch.rand(2, 5, 20).half()}, TypeError, "weight must be float32, got torch.float16"),
        ({"weight": torch.rand(2, 5, 21)}, ValueError, r"weight must have shape \[\*, \*, 20\]"),
        ({"bias": torch.rand(5)}, ValueError, r"bias must have shape \[2, 5\]"),
        ({"class_weight": torch.rand(4)}, ValueError, r"class_weight must have shape \[5\]"),
        (
            {"class_weight": -torch.ones(5)},
            ValueError,
            "finite and not negative, got values from -1.0 to -1.0",
        ),
        ({"class_weight": torch.full((5,), torch.nan)}, ValueError, "finite and not negative"),
        ({"target": torch.zeros(9, 14, 14).long()}, TypeError, "head_step: target must be bool, uint8"),
        ({"target": torch.zeros(7, 14, 14)}, ValueError, r"head_step: target must have shape \[9, \*, \*\]"),
        ({"has_map": torch.ones(9)}, TypeError, "has_map must be bool"),
        ({"window": 4}, ValueError, "head_step: window"),
        ({"probe": "cams"}, ValueError, "probe must be one of"),
        ({"cam_class": "true"}, ValueError, "cam_class must be one of labelled, predicted"),
        ({"target": torch.rand(9, 14, 14, device="meta")}, ValueError, "target on meta"),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.head_step(**example() | change)
