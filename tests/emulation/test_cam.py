"""csrc/cuda/cam.cu, executed on the host, against the float64 reference."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from precision import full
from torch import Tensor

from sal_fast.ops import PROBES
from sal_fast.ops.cam import reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PROBE_CODES = ("cam", "gradcam", "gradcam++", "hirescam")
CLASSES = 6


@dataclasses.dataclass(frozen=True)
class Case:
    probe: str
    channels: int
    pixels: int
    nhwc: bool = False
    dtype: torch.dtype = torch.float32
    head: torch.dtype = torch.float32
    target: tuple[int, ...] = (4, 1, 4)
    gap: int = 0  # elements between rows
    image_gap: int = 0
    offset: int = 0  # elements past a 64-byte boundary
    seed: int = 0
    most_blocks: int = 1 << 20

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The storage of the features, the features [B, C, P, 1] in it, and the weight."""
        batch = len(self.target)
        rows, columns = (self.pixels, self.channels) if self.nhwc else (self.channels, self.pixels)
        strides = (rows * (columns + self.gap) + self.image_gap, columns + self.gap, 1)
        size = (batch - 1) * strides[0] + (rows - 1) * strides[1] + columns if batch else 0
        draws = torch.Generator().manual_seed(self.channels + self.pixels)
        storage = (torch.rand(size, generator=draws) - 0.2).to(self.dtype)
        features = storage.as_strided((batch, rows, columns), strides)
        features = features.transpose(1, 2) if self.nhwc else features
        weight = torch.randn(CLASSES, self.channels, generator=draws).to(self.head)
        return storage, features[..., None], weight

    def fields(self, storage: Tensor, weight: Tensor) -> dict[str, Any]:
        rows, columns = (self.pixels, self.channels) if self.nhwc else (self.channels, self.pixels)
        row_stride = columns + self.gap
        return {
            "features": storage, "dtype": DTYPES.index(self.dtype), "images": len(self.target),
            "channels": self.channels, "pixels": self.pixels, "layout": int(self.nhwc),
            "image_stride": rows * row_stride + self.image_gap, "row_stride": row_stride, "weight": weight,
            "weight_dtype": DTYPES.index(self.head), "classes": CLASSES,
            "target": torch.tensor(self.target, dtype=torch.int64), "probe": PROBE_CODES.index(self.probe),
        }  # fmt: skip

    def options(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "most_blocks": self.most_blocks,
            "offset": self.offset * self.dtype.itemsize,
        }


def forward(emulation: Emulation, case: Case, pool: bool = True, maps: bool = True) -> tuple[Tensor, Tensor]:
    """Pooled features and maps; what is not asked for stays NaN."""
    storage, features, weight = case.inputs()
    pooled = torch.full((len(case.target), case.channels), torch.nan)
    cam = torch.full((len(case.target), case.pixels), torch.nan)
    known = None if pool else features.double().mean((2, 3)).float().contiguous()
    fields = case.fields(storage, weight)
    if not maps:  # nothing of the class is looked at
        fields |= {"weight": None, "target": None}
    results = {"known_pooled": known, "pooled": pooled if pool else None, "cam": cam if maps else None}
    emulation.launch("cam", **fields, **results, **case.options())
    return pooled, cam


def backward(
    emulation: Emulation, case: Case, *, map_gradient: bool = True, pool: bool = True, features: bool = True,
    weight: bool = True,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:  # fmt: skip
    """Gradients to features [B, C, P] and weight, and float64's. What is not asked for stays as it is."""
    storage, f, w = case.inputs()
    batch = len(case.target)
    exact_f, exact_w = f.double().requires_grad_(), w.double().requires_grad_()
    target = torch.tensor(case.target, dtype=torch.int64)
    _, exact_cam, exact_pooled, _ = reference.cam_head(exact_f, exact_w, None, target, case.probe)
    exact_cam = exact_cam[..., 0]
    draws = torch.Generator().manual_seed(3)
    grad_cam = torch.randn(batch, case.pixels, generator=draws)
    grad_pooled = torch.randn(batch, case.channels, generator=draws)
    loss = (exact_cam * grad_cam).sum() * map_gradient + (exact_pooled * grad_pooled).sum() * pool
    exact = torch.autograd.grad(loss, (exact_f, exact_w), allow_unused=True, materialize_grads=True)

    rows, columns = (case.pixels, case.channels) if case.nhwc else (case.channels, case.pixels)
    grad_features = torch.full((batch, rows, columns), torch.nan, dtype=case.dtype)
    grad_weight = torch.ones(CLASSES, case.channels)  # it is added to
    emulation.launch(
        "cam_backward",
        **case.fields(storage, w),
        pooled=exact_pooled.detach().float(),
        cam=exact_cam.detach().float(),
        grad_cam=grad_cam if map_gradient else None,
        grad_pooled=grad_pooled if pool else None,
        grad_features=grad_features if features else None,
        grad_weight=grad_weight if weight else None,
        **case.options(),
    )
    if case.nhwc:
        grad_features = grad_features.transpose(1, 2)
    return (grad_features, grad_weight - 1), (exact[0][..., 0], exact[1])


def close(got: Tensor, exact: Tensor, dtype: torch.dtype, case: Case) -> None:
    eps = max(4e-6, torch.finfo(dtype).eps)
    atol = eps * float(exact.abs().max()) if exact.numel() else 0.0
    torch.testing.assert_close(
        got.double(), exact, rtol=eps, atol=atol, equal_nan=True, msg=lambda text: f"{case}: {text}"
    )


def check(emulation: Emulation, case: Case) -> None:
    _, features, weight = case.inputs()
    target = torch.tensor(case.target, dtype=torch.int64)
    exact = reference.cam_head(features.double(), weight.double(), None, target, case.probe)
    pooled, cam = forward(emulation, case)
    close(pooled, exact[2], torch.float32, case)
    close(cam, exact[1][..., 0], torch.float32, case)
    alone, nothing = forward(emulation, case, maps=False)
    assert torch.equal(alone, pooled)
    assert nothing.isnan().all()
    nothing, alone = forward(emulation, case, pool=False)
    close(alone, exact[1][..., 0], torch.float32, case)
    assert nothing.isnan().all()
    (grad_features, grad_weight), exact_grads = backward(emulation, case)
    close(grad_features, exact_grads[0], case.dtype, case)
    close(grad_weight, exact_grads[1], torch.float32, case)


# Every layout, and the two probes that differ most: the one with a read more, and the plain one.
QUICK = [
    case if case in (("cam", True), ("gradcam++", False)) else full(*case)
    for case in itertools.product(PROBES, (False, True))
]

# Channels and pixels: rows and columns of every path, whole tiles and parts of them.
SIZES = [
    (1, 1),
    (3, 1),
    (64, 1),
    (3, 49),
    (2049, 49),
    (16, 49),
    (1, 1023),
    (5, 50),
    (24, 128),
    (130, 64),
    (20, 300),
]


@pytest.mark.parametrize(("probe", "nhwc"), QUICK)
def test_sizes(emulation: Emulation, probe: str, nhwc: bool) -> None:
    for channels, pixels in SIZES:
        check(emulation, Case(probe, channels, pixels, nhwc))


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "head"),
    [
        pair if pair[1] == DTYPES[DTYPES.index(pair[0]) - 1] else full(*pair)
        for pair in itertools.product(DTYPES, DTYPES)
    ],
    ids=str,
)
def test_every_pair_of_dtypes(
    emulation: Emulation, dtype: torch.dtype, head: torch.dtype, nhwc: bool
) -> None:
    for probe, (channels, pixels) in itertools.product(("cam", "gradcam++"), [(16, 49), (136, 9), (9, 136)]):
        check(emulation, Case(probe, channels, pixels, nhwc, dtype, head))


@pytest.mark.parametrize(
    ("dtype", "nhwc"),
    [
        case if case in ((torch.float32, False), (torch.bfloat16, True)) else full(*case)
        for case in itertools.product(DTYPES, (False, True))
    ],
)
def test_strided_and_unaligned_features(emulation: Emulation, dtype: torch.dtype, nhwc: bool) -> None:
    for channels, pixels, gap, image_gap, offset in (
        (16, 49, 3, 5, 1),
        (136, 136, 8, 16, 0),
        (136, 136, 0, 0, 1),
        (136, 136, 0, 1, 0),
    ):
        case = Case("gradcam", channels, pixels, nhwc, dtype, gap=gap, image_gap=image_gap, offset=offset)
        check(emulation, case)


@pytest.mark.parametrize("probe", ["gradcam++", *map(full, ("cam", "gradcam", "hirescam"))])
def test_batches_and_repeated_classes(emulation: Emulation, probe: str) -> None:
    many = tuple(int(i) for i in torch.randint(CLASSES, (40,), generator=torch.Generator().manual_seed(0)))
    for target in ((), (3,), many):
        check(emulation, Case(probe, 9, 6, target=target))
        check(emulation, Case(probe, 9, 6, nhwc=True, target=target))


@pytest.mark.parametrize("probe", ["cam", "gradcam++", full("gradcam"), full("hirescam")])
@pytest.mark.parametrize("bad", [-1, full(CLASSES), full(2**40)])
def test_a_class_out_of_range_is_nan_for_its_image(emulation: Emulation, probe: str, bad: int) -> None:
    for nhwc in (False, True):
        case = Case(probe, 40, 49, nhwc, target=(2, bad, 2))
        pooled, cam = forward(emulation, case)
        assert pooled.isfinite().all()
        assert cam.isnan().all(1).tolist() == [False, True, False]
        assert cam.isnan().any(1).tolist() == [False, True, False]
        (grad_features, grad_weight), exact = backward(emulation, case)
        assert grad_features.isnan().all((1, 2)).tolist() == [False, True, False]
        good = Case(probe, 40, 49, nhwc, target=(2, 0, 2))
        _, exact = backward(emulation, good)
        close(grad_features[::2], exact[0][::2], torch.float32, case)
        close(grad_weight[2], exact[1][2], torch.float32, case)
        others = [0, 1, 3, 4, 5]
        assert torch.equal(grad_weight[others], torch.zeros_like(grad_weight[others]))


@pytest.mark.parametrize(("probe", "nhwc"), QUICK)
def test_only_some_gradients_are_wanted(emulation: Emulation, probe: str, nhwc: bool) -> None:
    case = Case(probe, 24, 49, nhwc)
    for flags in itertools.product((False, True), repeat=4):
        map_gradient, pool, features, weight = flags
        if not (features or weight):
            continue
        (grad_features, grad_weight), exact = backward(
            emulation, case, map_gradient=map_gradient, pool=pool, features=features, weight=weight
        )
        if features:
            close(grad_features, exact[0], torch.float32, case)
        else:
            assert grad_features.isnan().all()
        close(grad_weight, exact[1] if weight else torch.zeros_like(exact[1]), torch.float32, case)


@pytest.mark.parametrize(("probe", "nhwc"), QUICK)
def test_any_order_of_threads_and_few_blocks_give_the_same_bits(
    emulation: Emulation, probe: str, nhwc: bool
) -> None:
    for channels, pixels in ((300, 49), (70, 136)):
        results = []
        for seed, most_blocks in ((0, 1 << 20), (1, 1 << 20), (2, 3), (3, 1)):
            case = Case(
                probe, channels, pixels, nhwc, seed=seed, most_blocks=most_blocks, target=(4, 1, 4, 4)
            )
            results.append((*forward(emulation, case), *backward(emulation, case)[0]))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("mean", [-2.0, -2.0005, -1.9995])
def test_gradcampp_denominator_at_zero(emulation: Emulation, mean: float) -> None:
    """As the reference holds it: at 1e-3 from zero, and constant."""
    features = torch.full((1, 1, 4), mean)
    weight, target = torch.ones(1, 1), torch.tensor([0])
    exact_f, exact_w = features.double()[..., None].requires_grad_(), weight.double().requires_grad_()
    exact = reference.cam(exact_f, exact_w, target, "gradcam++")
    grads = torch.autograd.grad(exact.sum(), (exact_f, exact_w))
    fields = {
        "features": features, "dtype": 0, "images": 1, "channels": 1, "pixels": 4, "layout": 0,
        "image_stride": 4, "row_stride": 4, "weight": weight, "weight_dtype": 0, "classes": 1,
        "target": target, "probe": PROBE_CODES.index("gradcam++"),
    }  # fmt: skip
    pooled, cam = torch.full((1, 1), torch.nan), torch.full((1, 4), torch.nan)
    emulation.launch("cam", **fields, known_pooled=None, pooled=pooled, cam=cam)
    grad_features, grad_weight = torch.full((1, 1, 4), torch.nan), torch.zeros(1, 1)
    emulation.launch(
        "cam_backward",
        **fields,
        pooled=pooled,
        cam=cam,
        grad_cam=torch.ones(1, 4),
        grad_pooled=None,
        grad_features=grad_features,
        grad_weight=grad_weight,
    )
    torch.testing.assert_close(cam.double(), exact.detach()[..., 0])
    torch.testing.assert_close(grad_features.double(), grads[0][..., 0])
    torch.testing.assert_close(grad_weight.double(), grads[1])
