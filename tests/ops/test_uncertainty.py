"""sal_fast.ops.uncertainty against scipy in float64, on every device that exists."""

import json

import numpy as np
import pytest
import torch
from precision import assert_replays, full, on_gpu, run_python
from scipy import special, stats
from torch import Tensor

import sal_fast
from sal_fast.ops.uncertainty import KINDS, reference, uncertainty

kinds = pytest.mark.parametrize("kind", KINDS)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
SHAPES = [(1, 1), (3, 2), (17, 3), (5, 31), (9, 33), (64, 129), (7, 1000), (3, 1025), (2, 4097), (2, 20_000)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def random_logits(shape: tuple[int, ...], dtype: torch.dtype, scale: float = 3.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def oracle(logits: Tensor, kind: str) -> np.ndarray:
    """Float64, by scipy."""
    x = logits.detach().cpu().double().numpy()
    p = np.exp(special.log_softmax(x, axis=1))
    if kind == "entropy":
        return stats.entropy(p, axis=1)
    top = -np.sort(-p, axis=1)
    if kind == "least-confidence" or x.shape[1] == 1:
        return 1 - top[:, 0]
    return 1 - (top[:, 0] - top[:, 1])


def eager(logits: Tensor, kind: str) -> Tensor:
    """What one writes without this package, in float32."""
    log_p = logits.float().log_softmax(1)
    p = log_p.exp()
    if kind == "entropy":
        return -torch.where(p > 0, p * log_p, 0).sum(1)
    top = p.topk(min(2, p.shape[1]), dim=1).values
    return 1 - top[:, 0] + (top[:, 1] if kind == "margin" and p.shape[1] > 1 else 0)


def assert_as_good_as_torch(got: Tensor, torchs: Tensor, exact: np.ndarray, eps: float) -> None:
    """The error is at most twice that of torch at the same precision."""
    assert got.shape == exact.shape
    error = np.abs(got.double().cpu().numpy() - exact).max(initial=0)
    allowed = 2 * np.abs(torchs.double().cpu().numpy() - exact).max(initial=0) + eps
    assert error <= allowed, f"error {error:.3g}, torch's {allowed / 2:.3g}"


# Values ----------------------------------------------------------------------------------------------------


@kinds
@shapes
def test_reference_against_scipy(kind: str, shape: tuple[int, int]) -> None:
    logits = random_logits(shape, torch.float64)
    got = uncertainty(logits, kind)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), oracle(logits, kind), atol=4e-15, rtol=1e-13)


@kinds
@dtypes
@shapes
def test_forward(kind: str, dtype: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
    logits = random_logits(shape, dtype).to(device)
    got = uncertainty(logits, kind)
    assert got.dtype == torch.float32
    assert got.device == logits.device
    assert_as_good_as_torch(got, eager(logits, kind), oracle(logits, kind), eps=2e-7)


@kinds
@dtypes
@shapes
def test_backward(kind: str, dtype: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
    logits = random_logits(shape, dtype).to(device).requires_grad_()
    upstream = random_logits(shape[:1], torch.float32, seed=1).to(device)
    uncertainty(logits, kind).backward(upstream)
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    exact = reference.uncertainty_backward(upstream.double(), logits.detach().double(), kind).cpu().numpy()
    torchs = torch.autograd.grad(eager(logits, kind), logits, upstream)[0]
    eps = 2e-7 if dtype == torch.float32 else torch.finfo(dtype).eps * np.abs(exact).max() / 2
    assert_as_good_as_torch(logits.grad, torchs, exact, eps)


@kinds
@pytest.mark.parametrize("classes", [1, 2, 7, 40])
def test_gradcheck(kind: str, classes: int) -> None:
    logits = random_logits((5, classes), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: uncertainty(x, kind), (logits,))


@kinds
def test_strided_rows(kind: str, device: torch.device) -> None:
    wide = random_logits((13, 203), torch.float32).to(device)
    for view in (wide[:, 3:104], wide[::2, 1:], wide[:, ::2], wide.T, wide[4:5].expand(6, -1)):
        strided = view.detach().requires_grad_()
        packed = view.clone(memory_format=torch.contiguous_format).requires_grad_()
        for logits in (strided, packed):
            uncertainty(logits, kind).sum().backward()
        # To rounding only: a GPU splits a row at its 16-byte boundaries.
        torch.testing.assert_close(
            uncertainty(strided, kind), uncertainty(packed, kind), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(strided.grad, packed.grad, rtol=1e-5, atol=1e-6)


@kinds
def test_no_rows(kind: str, device: torch.device) -> None:
    logits = torch.empty(0, 5, device=device, requires_grad=True)
    result = uncertainty(logits, kind)
    result.sum().backward()
    assert result.shape == (0,)
    assert logits.grad is not None
    assert logits.grad.shape == (0, 5)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 33, 1000])
def test_flat_rows(classes: int, dtype: torch.dtype, device: torch.device) -> None:
    logits = torch.full((3, classes), 0.7, dtype=dtype, device=device)
    expected = {"margin": 1.0, "least-confidence": 1 - 1 / classes, "entropy": float(np.log(classes))}
    for kind in KINDS:
        np.testing.assert_allclose(uncertainty(logits, kind).cpu().numpy(), expected[kind], rtol=1e-6)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_ties_give_the_gradient_to_the_lowest_class(dtype: torch.dtype, device: torch.device) -> None:
    for classes in (6, 50, 700):
        logits = torch.zeros(1, classes, dtype=dtype)
        logits[0, [2, 4, classes - 1]] = 3
        p = logits.double().softmax(1)[0]
        first, second = p[2], p[4]
        margin = (first - second) * p
        margin[2] -= first
        margin[4] += second
        least = first * p
        least[2] -= first
        for kind, expected in (("margin", margin), ("least-confidence", least)):
            x = logits.clone().to(device).requires_grad_()
            uncertainty(x, kind).sum().backward()
            assert x.grad is not None
            tolerance = max(torch.finfo(dtype).eps, 1e-6)
            torch.testing.assert_close(
                x.grad.cpu().double()[0], expected, rtol=tolerance, atol=tolerance * 1e-3
            )

        logits[0, 1] = 4  # a unique largest, a tied second
        x = logits.clone().to(device).requires_grad_()
        uncertainty(x, "margin").sum().backward()
        assert x.grad is not None
        assert x.grad[0, 2] > 0 > x.grad[0, 1]
        assert (x.grad[0, 3:] >= 0).all()
        assert x.grad[0, 4] < x.grad[0, 2]


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    logits = torch.tensor(
        [[1e30, -1e30, 0.0], [3e38, -3e38, 1.0], [-1e30, -1e30, -1e30], [1e30, 1e30, -3e38]],
        dtype=dtype,
        device=device,
    ).requires_grad_()
    result = uncertainty(logits, kind)
    result.sum().backward()
    flat = {"margin": 1, "least-confidence": 2 / 3, "entropy": np.log(3)}[kind]
    pair = {"margin": 1, "least-confidence": 1 / 2, "entropy": np.log(2)}[kind]
    np.testing.assert_allclose(result.detach().cpu().numpy(), [0, 0, flat, pair], rtol=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@kinds
@dtypes
def test_minus_infinity_is_probability_zero(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    for classes in (3, 40, 1000):
        short = random_logits((4, classes), dtype).to(device)
        padded = torch.full((4, 2 * classes + 70), -torch.inf, dtype=dtype, device=device)
        padded[:, 70 : 70 + classes] = short
        short.requires_grad_(), padded.requires_grad_()
        a, b = uncertainty(short, kind), uncertainty(padded, kind)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        (a.sum() + b.sum()).backward()
        assert padded.grad is not None
        torch.testing.assert_close(
            padded.grad[:, 70 : 70 + classes],
            short.grad,
            rtol=2e-2 if dtype != torch.float32 else 1e-4,
            atol=1e-6,
        )
        assert (padded.grad[:, :70] == 0).all()
    alone = torch.full((1, 100), -torch.inf, dtype=dtype, device=device)
    alone[0, 41] = 1
    assert uncertainty(alone, kind).item() == 0


@kinds
def test_confident_rows_keep_their_order(kind: str, device: torch.device) -> None:
    """1 - p1 in float32 is 0 for each of these."""
    logits = torch.zeros(5, 10, device=device)
    logits[:, 3] = torch.tensor([20.0, 25.0, 30.0, 35.0, 60.0])
    result = uncertainty(logits, kind)
    assert (result[:-1] > result[1:]).all()
    np.testing.assert_allclose(
        result.cpu().numpy(), uncertainty(logits.double(), kind).cpu().numpy(), rtol=1e-5
    )


# Bad input -------------------------------------------------------------------------------------------------

BAD_ROWS = {"nan": [1.0, torch.nan, 2.0], "inf": [torch.inf, 0.0, 1.0], "empty": [-torch.inf] * 3}


@kinds
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("classes", [3, 40, 1025])
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_bad_rows(kind: str, bad: str, classes: int, dtype: torch.dtype, device: torch.device) -> None:
    logits = random_logits((8, classes), dtype)
    logits[5] = -torch.inf if bad == "empty" else logits[5]
    logits[5, -3:] = torch.tensor(BAD_ROWS[bad])
    logits = logits.to(device)
    if device.type == "cpu":
        with pytest.raises(ValueError, match=r"neither NaN nor \+inf.* got another in row 5$"):
            uncertainty(logits, kind)
    else:
        assert uncertainty(logits, kind).isnan().nonzero().flatten().tolist() == [5]
    grad = torch.ops.sal_fast.uncertainty_backward(torch.ones(8, device=device), logits, kind)
    assert grad.isnan().any(1).nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize(
    ("logits", "kind", "error", "message"),
    [
        ([[1.0]], "margin", TypeError, "must be a tensor, got list"),
        (torch.zeros(2, 3, dtype=torch.int64), "margin", TypeError, "floating dtype, got torch.int64"),
        (torch.zeros(2, 3).to(torch.float8_e5m2), "margin", TypeError, "float32.*got torch.float8_e5m2"),
        (torch.zeros(3), "margin", ValueError, r"shape \[\*, \*\], got \[3\]"),
        (torch.zeros(2, 3, 4), "margin", ValueError, r"shape \[\*, \*\], got \[2, 3, 4\]"),
        (torch.zeros(2, 0), "margin", ValueError, r"at least one class, got \[2, 0\]"),
        (torch.zeros(2, 3), "least_confidence", ValueError, "least-confidence.*got 'least_confidence'"),
    ],
)
def test_errors(logits: Tensor, kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        uncertainty(logits, kind)


def test_second_derivative_is_refused(device: torch.device) -> None:
    logits = torch.randn(3, 4, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(uncertainty(logits).sum(), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="only first derivatives"):
        grad.sum().backward()


# As a torch operator ---------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, *map(full, (*DTYPES[1:], torch.float64))])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_opcheck(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    for shape in ((5, 33), (0, 3)):
        logits = random_logits(shape, dtype).to(device)
        torch.library.opcheck(torch.ops.sal_fast.uncertainty, (logits.requires_grad_(), kind))
        upstream = torch.ones(shape[0], device=device)
        torch.library.opcheck(torch.ops.sal_fast.uncertainty_backward, (upstream, logits.detach(), kind))


@pytest.mark.parametrize("kind", ["entropy", full("margin"), full("least-confidence")])
def test_compile(kind: str, device: torch.device) -> None:
    def loss(x: Tensor) -> Tensor:
        return (2 * uncertainty(x + 1, kind)).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, y = (random_logits((6, 19), torch.float32).to(device).requires_grad_() for _ in range(2))
    loss(x).backward()
    compiled(y).backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(loss(x), compiled(y))
    if device.type == "cpu":
        with pytest.raises(ValueError, match="got another in row 0 and 5 more"):
            compiled(torch.full((6, 19), torch.nan))


@pytest.mark.full
def test_compile_with_inductor() -> None:
    """In a process of its own: the compiler's warnings are not ours."""
    run_python(
        """
import torch
from sal_fast.ops import uncertainty
f = torch.compile(lambda x: uncertainty(x * 2, "entropy").sum(), fullgraph=True)
x = torch.randn(6, 19, requires_grad=True)
y = x.detach().clone().requires_grad_()
f(x).backward()
uncertainty(y * 2, "entropy").sum().backward()
torch.testing.assert_close(x.grad, y.grad)
"""
    )


@kinds
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_meta(kind: str, dtype: torch.dtype) -> None:
    logits = torch.empty(7, 4, dtype=dtype, device="meta", requires_grad=True)
    result = uncertainty(logits, kind)
    assert result.shape == (7,)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    result.sum().backward()
    assert logits.grad is not None
    assert (logits.grad.shape, logits.grad.dtype) == ((7, 4), dtype)


def test_autocast(device: torch.device) -> None:
    logits = random_logits((6, 50), torch.bfloat16).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = uncertainty(logits)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, uncertainty(logits))


@on_gpu
@kinds
def test_replayed_graph_on_a_side_stream(kind: str) -> None:
    logits = random_logits((300, 1000), torch.float32).cuda().requires_grad_()

    def step() -> list[Tensor]:
        result = uncertainty(logits, kind)
        return [result, *torch.autograd.grad(result.sum(), logits)]

    assert_replays(step, lambda: logits.copy_(random_logits((300, 1000), torch.float32, seed=5)))


# The native core -------------------------------------------------------------------------------------------


def test_the_native_core_is_what_is_tested() -> None:
    """Otherwise the tests above compare the reference with itself."""
    info = sal_fast.build_info()
    assert info.native, info.native_error
    assert info.version == sal_fast.__version__
    if torch.cuda.is_available():
        assert info.cuda, info.cuda_reason


@kinds
@dtypes
@pytest.mark.parametrize("shape", [(1000, 3), (100, 1000), (501, 77)])
def test_thread_counts_give_the_same_bits(kind: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    logits = random_logits(shape, dtype).requires_grad_()
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            result = uncertainty(logits, kind)
            results.append((result.detach(), *torch.autograd.grad(result.sum(), logits)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][1], other[1])


_SAME_ANSWERS = """
import json, torch, sal_fast
from sal_fast.ops import uncertainty
out = {"capability": sal_fast.build_info().cpu_capability, "values": []}
for classes in (1, 2, 31, 1000):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = 3 * torch.randn(23, classes, generator=torch.Generator().manual_seed(1))
        x = x.to(dtype, copy=True).requires_grad_()
        for kind in ("margin", "least-confidence", "entropy"):
            u = uncertainty(x, kind)
            (g,) = torch.autograd.grad((u * torch.arange(23)).sum(), x)
            out["values"] += u.tolist() + g.flatten()[::7].tolist()
try:
    uncertainty(torch.full((2, 3), torch.nan))
except ValueError as error:
    out["error"] = str(error)
print(json.dumps(out))
"""


@pytest.mark.parametrize(
    ("environment", "capability"),
    [
        ({"SAL_FAST_NATIVE": "0"}, None),
        ({"SAL_FAST_CPU_CAPABILITY": "generic"}, "generic"),
        ({"SAL_FAST_CPU_CAPABILITY": "avx2"}, "avx2"),
    ],
    ids=["without the core", "generic", "avx2"],
)
def test_other_paths_give_the_same_answers(environment: dict[str, str], capability: str | None) -> None:
    here = json.loads(run_python(_SAME_ANSWERS))
    there = json.loads(run_python(_SAME_ANSWERS, **environment))
    if capability == "avx2" and here["capability"] == "generic":
        pytest.skip("this machine has no AVX2")
    assert there["capability"] == capability
    assert there["error"] == here["error"]
    np.testing.assert_allclose(there["values"], here["values"], rtol=1e-2, atol=2e-6)


def test_forked_children_and_concurrent_callers() -> None:
    run_python(
        """
import os, threading, torch
from sal_fast.ops import uncertainty
torch.set_num_threads(2)
x = torch.randn(4096, 100)
expected = uncertainty(x)
def check():
    for _ in range(50):
        assert torch.equal(uncertainty(x), expected)
threads = [threading.Thread(target=check) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
if (child := os.fork()) == 0:
    import sal_fast._C as core  # the kernel alone: torch's own operators hang after a fork
    out = torch.empty(4096)
    fields = dict(logits=x, dtype=0, rows=4096, columns=100, row_stride=100, kind=0, out=out)
    core.uncertainty_cpu(fields, 2)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )


def test_setting_native_to_nonsense() -> None:
    run_python(
        """
import sal_fast
try:
    sal_fast.build_info()
except ValueError as error:
    assert "0, 1 or unset, got 'yes'" in str(error)
else:
    raise SystemExit("no error")
""",
        SAL_FAST_NATIVE="yes",
    )
