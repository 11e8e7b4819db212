"""csrc/cuda/head_step.cu, executed on the host, against the float64 reference."""

import dataclasses
from typing import Any

import pytest
import torch
from precision import full
from torch import Tensor

from sal_fast.ops import CAM_CLASSES, PROBES
from sal_fast.ops.head_step import reference
from sal_fast.ops.saliency_loss import KINDS
from sal_fast.ops.saliency_loss.reference import SIGMA
from sal_fast.ops.ssim import BORDERS

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BYTES = 3


@dataclasses.dataclass(frozen=True)
class Case:
    size: tuple[int, int] = (7, 7)
    channels: int = 24
    classes: int = 5
    alpha: tuple[float, ...] = (0.9, 0.1)
    rows: tuple[int, ...] | None = (4, 0, 2, 4, 1)
    stored: int = 5
    target: tuple[int, int] = (21, 17)
    dtype: torch.dtype = torch.float32
    probe: str = "cam"
    cam_class: str = "labelled"
    window: int = 3
    border: str = "valid"
    kind: str = "ssim_l1"
    smoothing: float = 0.0
    weighted: bool = False
    offset: int = 0  # elements of the features past a 64-byte boundary
    seed: int = 0
    most_blocks: int = 1 << 20

    def inputs(self) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(self.channels + self.classes)
        heads = len(self.alpha)
        shape = (self.stored, *self.size, self.channels)
        return {
            "features": (torch.rand(shape, generator=draws) - 0.2).to(self.dtype),
            "weight": torch.randn(heads, self.classes, self.channels, generator=draws),
            "bias": torch.randn(heads, self.classes, generator=draws),
            "labels": torch.randint(self.classes, (self.stored,), generator=draws),
            "target": torch.randint(256, (self.stored, *self.target), generator=draws, dtype=torch.uint8),
            "has_map": torch.arange(self.stored) % 5 != 1,
            "class_weight": 0.5 + torch.rand(self.classes, generator=draws),
        }

    @property
    def images(self) -> int:
        return self.stored if self.rows is None else len(self.rows)


def run(emulation: Emulation, case: Case, given: dict[str, Any]) -> tuple[Tensor, ...]:
    """The results, NaN before: loss, logits, maps and the gradients to weight and bias."""
    heads, classes, channels = given["weight"].shape
    height, width = case.size
    target = given["target"]
    results = {
        "loss": torch.full((heads,), torch.nan),
        "logits": torch.full((heads, case.images, classes), torch.nan),
        "cam": torch.full((heads, case.images, height, width), torch.nan),
        "grad_weight": torch.full((heads, classes, channels), torch.nan),
        "grad_bias": torch.full((heads, classes), torch.nan),
    }
    floating = target is not None and target.is_floating_point()
    emulation.launch(
        "head_step", features=given["features"], dtype=DTYPES.index(case.dtype), stored=case.stored,
        channels=channels, labels=given["labels"], target=target,
        target_type=DTYPES.index(target.dtype) if floating else BYTES, target_height=case.target[0],
        target_width=case.target[1], target_image_stride=case.target[0] * case.target[1],
        target_row_stride=case.target[1], target_column_stride=1, has_map=given["has_map"], height=height,
        width=width, window=case.window, sigma=SIGMA, border=BORDERS.index(case.border),
        kind=KINDS.index(case.kind), rows=None if case.rows is None else torch.tensor(case.rows).long(),
        images=case.images, weight=given["weight"], bias=given["bias"], heads=heads, classes=classes,
        alpha=torch.tensor(case.alpha), class_weight=given["class_weight"] if case.weighted else None,
        label_smoothing=case.smoothing, probe=PROBES.index(case.probe),
        cam_class=CAM_CLASSES.index(case.cam_class), **results, seed=case.seed, most_blocks=case.most_blocks,
        offset=case.offset * case.dtype.itemsize,
    )  # fmt: skip
    return tuple(results.values())


def expected(case: Case, given: dict[str, Any], dtype: torch.dtype = torch.float64) -> reference.Results:
    rows = torch.arange(case.stored) if case.rows is None else torch.tensor(case.rows).long()
    target = None if given["target"] is None else given["target"][rows].to(dtype)
    has_map = None if given["has_map"] is None else given["has_map"][rows]
    batch = reference.Batch(given["features"][rows].to(dtype), given["labels"][rows], target, has_map)
    class_weight = given["class_weight"].to(dtype) if case.weighted else None
    options = reference.Options(
        case.alpha, class_weight, case.smoothing, case.probe, case.cam_class, case.size, case.window,
        case.border, case.kind,
    )  # fmt: skip
    return reference.head_step(batch, given["weight"].to(dtype), given["bias"].to(dtype), options)


def check(emulation: Emulation, case: Case, given: dict[str, Any] | None = None) -> None:
    """An error of at most twice that of the reference in float32, plus rounding."""
    given = given or case.inputs()
    got, exact, single = run(emulation, case, given), expected(case, given), None
    single = expected(case, given, torch.float32)
    for name, mine, true, torchs in zip(
        ("loss", "logits", "cam", "grad_weight", "grad_bias"), got, exact, single, strict=True
    ):
        scale = float(true.abs().max()) if true.numel() else 0
        allowed = 2 * float((torchs - true).abs().max()) + 4e-6 * max(scale, 1e-3) if true.numel() else 0
        torch.testing.assert_close(
            mine.double(), true, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name} of {case}: {text}"
        )


# Channels: packs and not, one tile and several. Pixels: one, odd, not square, the most.
SIZES = [
    ((1, 1), 1),
    ((7, 7), 64),
    ((3, 5), 33),
    ((4, 9), 280),
    full((32, 32), 8),
    full((1, 40), 130),
    full((2, 3), 520),
]


@pytest.mark.parametrize(("size", "channels"), SIZES)
def test_sizes(emulation: Emulation, size: tuple[int, int], channels: int) -> None:
    window = min(7, (min(size) - 1) // 2 * 2 + 1)
    check(emulation, Case(size, channels, window=window))
    check(emulation, Case(size, channels, window=window, dtype=torch.float16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_features_that_are_not_aligned(emulation: Emulation, dtype: torch.dtype) -> None:
    for offset in (0, 1):
        check(emulation, Case(dtype=dtype, offset=offset))


@pytest.mark.parametrize("cam_class", CAM_CLASSES)
@pytest.mark.parametrize("probe", ["cam", "gradcam++", full("gradcam"), full("hirescam")])
def test_probes_and_classes(emulation: Emulation, probe: str, cam_class: str) -> None:
    check(emulation, Case(probe=probe, cam_class=cam_class))
    check(emulation, Case(probe=probe, cam_class=cam_class, channels=300, classes=40))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_borders_and_kinds(emulation: Emulation, border: str, kind: str) -> None:
    check(emulation, Case(border=border, kind=kind, window=5))


def test_class_weights_and_label_smoothing(emulation: Emulation) -> None:
    for classes in (1, 3, 40):
        check(emulation, Case(classes=classes, smoothing=0.2))
        check(emulation, Case(classes=classes, smoothing=0.2, weighted=True))
        check(emulation, Case(classes=classes, weighted=True))


@pytest.mark.parametrize("alpha", [(1.0,), (0.0,), (0.3, 1.0, 0.0), (0.5, 0.5, 0.2, 0.9)])
def test_any_number_of_heads_with_any_alpha(emulation: Emulation, alpha: tuple[float, ...]) -> None:
    check(emulation, Case(alpha=alpha))


def test_batches_of_all_of_none_and_of_many(emulation: Emulation) -> None:
    check(emulation, Case(rows=None))
    check(emulation, Case(rows=()))
    many = torch.randint(5, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    check(emulation, Case(rows=tuple(many), size=(3, 3), channels=9))


def test_maps_that_are_missing_flat_or_at_the_size_of_the_loss(emulation: Emulation) -> None:
    case = Case()
    given = case.inputs()
    check(emulation, case, given | {"target": None})
    check(emulation, case, given | {"has_map": None})
    check(emulation, case, given | {"has_map": torch.zeros(5, dtype=torch.bool)})
    given["target"][4] = 7
    check(emulation, case, given)
    small = torch.rand(5, 7, 7, generator=torch.Generator().manual_seed(1))
    check(emulation, dataclasses.replace(case, target=(7, 7)), given | {"target": small})


def test_a_flat_cam_and_ties_of_its_extremes(emulation: Emulation) -> None:
    case = Case(probe="gradcam")
    given = case.inputs()
    given["features"][4] = 0.5
    given["features"][0, :3] = 0.5
    given["weight"][0] = -given["weight"][0].abs()  # ReLU leaves nothing of these maps
    check(emulation, case, given)


def test_the_lowest_class_wins_a_tie(emulation: Emulation) -> None:
    case = Case(cam_class="predicted", classes=70)
    given = case.inputs()
    given["weight"][:] = given["weight"][:, :1]
    given["bias"][:] = 0
    given["labels"][:] = 3
    _, logits, _, grad_weight, _ = run(emulation, case, given)
    assert (logits == logits[..., :1]).all()
    check(emulation, case, given)
    # Only class 0 gets a gradient through the map: the others but the label's have one gradient in common.
    assert not torch.equal(grad_weight[:, 0], grad_weight[:, 1])
    torch.testing.assert_close(grad_weight[:, 1], grad_weight[:, 69])


@pytest.mark.parametrize("cam_class", CAM_CLASSES)
@pytest.mark.parametrize("what", ["a row", "a label"])
def test_what_is_out_of_range_is_nan(emulation: Emulation, what: str, cam_class: str) -> None:
    for bad in (-1, 5, 2**40):
        case = Case(cam_class=cam_class)
        given = case.inputs()
        if what == "a row":
            case = dataclasses.replace(case, rows=(4, bad, 2))
        else:
            case = dataclasses.replace(case, rows=(4, 3, 2))
            given["labels"][3] = bad
        loss, logits, cam, grad_weight, grad_bias = run(emulation, case, given)
        good = Case(cam_class=cam_class, rows=(4, 0, 2))
        _, good_logits, good_cam, _, _ = run(emulation, good, good.inputs())
        assert loss.isnan().all()
        assert grad_weight.isnan().all()
        assert grad_bias.isnan().all()
        assert cam[:, 1].isnan().all()
        assert logits[:, 1].isnan().all() == (what == "a row")
        assert torch.equal(logits[:, ::2], good_logits[:, ::2])
        assert torch.equal(cam[:, ::2], good_cam[:, ::2])


@pytest.mark.parametrize("cam_class", CAM_CLASSES)
def test_any_order_of_threads_and_few_blocks_give_the_same_bits(emulation: Emulation, cam_class: str) -> None:
    case = Case(channels=280, classes=9, alpha=(0.9, 1.0, 0.1), cam_class=cam_class)
    given = case.inputs()
    results = [
        run(emulation, dataclasses.replace(case, seed=seed, most_blocks=blocks), given)
        for seed, blocks in ((0, 1 << 20), (1, 1 << 20), (2, 2), (3, 1))
    ]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_features_of_too_many_pixels_are_refused(emulation_program: Any) -> None:
    case = Case(size=(33, 32), channels=1)
    with Emulation(emulation_program) as emulation, pytest.raises(AssertionError, match="invalid argument"):
        run(emulation, case, case.inputs())
