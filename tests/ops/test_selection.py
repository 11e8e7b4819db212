"""k-center and BADGE against materialised, one-line-at-a-time versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from precision import full, on_gpu
from scipy.stats import chisquare, ks_2samp, kstest

from sal_fast import ops
from sal_fast.ops import _rows
from sal_fast.ops.badge import METHODS, Method, blocks, draws


def kcenter_by_hand(x: np.ndarray, k: int, centers: np.ndarray | None) -> list[int]:
    picks: list[int] = []
    while len(picks) < min(k, len(x)):
        known = list(centers) if centers is not None else []
        known += [x[i] for i in picks]
        best, best_distance = -1, -1.0
        for i in range(len(x)):
            if i in picks:
                continue
            distance = min((np.linalg.norm(x[i] - c) for c in known), default=np.linalg.norm(x[i]))
            if distance > best_distance:
                best, best_distance = i, distance
        picks.append(best)
    return picks


@pytest.mark.parametrize("given", [0, 1, 5])
def test_kcenter(given: int) -> None:
    rng = np.random.default_rng(given)
    x, centers = rng.normal(size=(40, 6)), rng.normal(size=(given, 6)) if given else None
    got = ops.kcenter(torch.from_numpy(x), 15, centers=None if centers is None else torch.from_numpy(centers))
    assert got.tolist() == kcenter_by_hand(x, 15, centers)


def one_at_a_time(x: np.ndarray, k: int, centers: np.ndarray) -> list[int]:
    """In float64, by differences."""
    nearest = np.full(len(x), np.inf)
    for center in centers:
        nearest = np.minimum(nearest, ((x - center) ** 2).sum(1))
    picks: list[int] = []
    while len(picks) < k:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((x - x[picks[-1]]) ** 2).sum(1))
        nearest[picks] = -1
    return picks


def pools() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    lattice = rng.integers(0, 4, size=(2000, 6)).astype(float)  # full of exact ties, and of equal rows
    return {
        "normal": rng.normal(size=(3000, 24)),
        "lattice": lattice,
        "near-ties": lattice + rng.integers(0, 3, size=(2000, 6)) * 2.0**-20,
        "offset": 1e6 + rng.integers(0, 64, size=(2000, 8)) / 16,  # in float32 |x|^2 knows nothing of these
        "far-clusters": rng.normal(size=(2000, 8)) * 2.0**-6 + rng.integers(0, 2, size=(2000, 1)) * 1e4,
        "one-far": np.concatenate([rng.normal(size=(1500, 8)), np.full((1, 8), 1e9)]),
        "large": rng.normal(size=(600, 5)) * 1e25,  # whose squares float32 does not hold
        "small": rng.normal(size=(600, 5)) * 1e-25,
        "relu": np.maximum(rng.normal(size=(2000, 64)), 0),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [0, 300])
@pytest.mark.parametrize("name", list(pools()))
def test_kcenter_picks_what_one_at_a_time_picks(name: str, given: int, dtype: torch.dtype) -> None:
    whole = torch.from_numpy(pools()[name]).to(dtype)
    x, centers = whole[given:], whole[:given]
    k = min(500, len(x))
    exact = x.double().numpy()
    if given:
        expected = one_at_a_time(exact, k, centers.double().numpy())
    else:
        first = int((exact**2).sum(1).argmax())
        rest = one_at_a_time(np.delete(exact, first, 0), k - 1, exact[first : first + 1])
        expected = [first, *(i + (i >= first) for i in rest)]
    before = x.clone()
    assert ops.kcenter(x, k, centers=centers).tolist() == expected
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kcenter_of_halves(dtype: torch.dtype) -> None:
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(ops.kcenter(x, 400), ops.kcenter(x.double(), 400))


def test_kcenter_of_few_distinct_rows() -> None:
    """Most distances are zero, and no bound in float32 or float64 says so."""
    few = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    x = few.repeat(1000, 1)
    picks = ops.kcenter(x, 600).tolist()
    assert sorted(picks[:5]) == [0, 1, 2, 3, 4]
    assert picks[5:] == list(range(5, 600))


def test_the_callers_precision_does_not_matter() -> None:
    x = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
    expected = ops.kcenter(x, 300)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(ops.kcenter(x, 300), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_kcenter_ends_cleanly_when_all_is_covered() -> None:
    x = torch.ones(6, 3)
    assert ops.kcenter(x, 10).tolist() == [0, 1, 2, 3, 4, 5]
    assert ops.kcenter(x, 3, centers=torch.ones(2, 3)).tolist() == [0, 1, 2]
    assert ops.kcenter(torch.empty(0, 3), 4).tolist() == []
    assert ops.kcenter(torch.tensor([[1.0], [2.0]]), 2, centers=torch.empty(0, 1)).tolist() == [1, 0]
    wide = torch.tensor([[6e4], [-6e4], [0.0]], dtype=torch.float16)  # their difference overflows in fp16
    assert ops.kcenter(wide, 3, centers=wide[:1]).tolist() == [1, 2, 0]
    far = torch.tensor([[1e6, 1e6], [1e6, 1e6], [1e6 + 1, 1e6]])  # nothing cancels
    assert ops.kcenter(far, 3).tolist() == [2, 0, 1]


def badge_by_hand(p: np.ndarray, e: np.ndarray, k: int, seed: int) -> list[int]:
    residual = p - np.eye(p.shape[1])[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).reshape(len(p), -1)  # the vectors that ours never forms
    picks = [int((g**2).sum(1).argmax())]
    while len(picks) < k:
        word = int(np.random.Philox(key=seed, counter=len(picks)).random_raw())
        d2 = np.min([((g - g[i]) ** 2).sum(1) for i in picks], axis=0)
        d2[picks] = 0
        target = (word >> 11) / 2**53 * d2.sum()
        picks.append(int(np.searchsorted(np.cumsum(d2), target, side="right")))
    return picks


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", [*range(4), 2**64 - 1])
def test_badge_one_by_one(seed: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    p, e = (
        torch.from_numpy(x).to(dtype) for x in (rng.dirichlet(np.ones(5), 2100), rng.normal(size=(2100, 7)))
    )
    got = ops.badge(p, e, 60, seed=seed, method="sequential")
    assert got.tolist() == badge_by_hand(p.double().numpy(), e.double().numpy(), 60, seed)


def test_pools_with_the_negative_bit() -> None:
    """The imaginary part of a conjugate says another sign than its memory."""
    draws = torch.Generator().manual_seed(0)
    probs, features = torch.rand(50, 4, generator=draws), torch.randn(50, 6, generator=draws)
    views = [torch.complex(torch.zeros_like(x), -x).conj().imag for x in (probs, features)]
    assert all(view.is_neg() for view in views)
    for method in ("blocked", "sequential"):
        expected = ops.badge(probs, features, 10, seed=3, method=method)
        assert torch.equal(ops.badge(*views, 10, seed=3, method=method), expected)
    assert torch.equal(ops.kcenter(views[1], 10), ops.kcenter(features, 10))


def exact_law(p: np.ndarray, e: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The first pick, the chances of the second, and those of the third whatever the second was."""
    residual = p - np.eye(p.shape[1])[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).reshape(len(p), -1)
    between = ((g[:, None] - g) ** 2).sum(-1)
    first = int((g**2).sum(1).argmax())
    second = between[first] / between[first].sum()
    left = np.minimum(between[first], between)
    left[first] = 1  # as second, it has no chance
    return first, second, (second[:, None] * left / left.sum(1, keepdims=True)).sum(0)


@pytest.mark.parametrize(
    ("case", "calls"), [("float32", 1000), full("float64", 3000), full("float32", 3000), full("loose", 3000)]
)
def test_badge_in_blocks_follows_the_law(case: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second and third picks of 120 rows by their exact chances; loose: the float32 bounds say little."""
    rng = np.random.default_rng(5)
    p, e = rng.dirichlet(np.ones(4), 120), rng.normal(size=(120, 6)) * rng.uniform(0.2, 3, size=(120, 1))
    if case == "loose":  # D^2 is some 1e-5 of the norms
        p, e = rng.dirichlet(np.ones(4)) + 1e-3 * rng.normal(size=(120, 4)), 1 + 3e-3 * e
        monkeypatch.setattr(blocks, "SCARCE", 0)  # no float64 weights
    dtype = torch.float64 if case == "float64" else torch.float32
    probs, features = torch.from_numpy(p).to(dtype), torch.from_numpy(e).to(dtype)
    first, second, third = exact_law(probs.double().numpy(), features.double().numpy())
    counts = np.zeros((2, 120))
    for seed in range(calls):
        picks = ops.badge(probs, features, 3, seed=seed).tolist()
        assert picks[0] == first
        assert len(set(picks)) == 3
        counts[0, picks[1]] += 1
        counts[1, picks[2]] += 1
    others = np.arange(120) != first
    assert chisquare(counts[0, others], second[others] * calls).pvalue > 1e-4
    assert chisquare(counts[1, others], third[others] / third[others].sum() * calls).pvalue > 1e-4


@pytest.mark.parametrize(("cost", "calls"), [(blocks.DRAW, 60), full(0, 300), full(blocks.DRAW, 300)])
def test_badge_in_blocks_follows_the_law_far_on(
    cost: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 40th pick of blocks, given the 39 before: against one at a time, by how far the pool is left.

    Where draws cost nothing, all 40 come from the weights of the first pass.
    """
    monkeypatch.setattr(blocks, "DRAW", cost)
    monkeypatch.setattr(blocks, "EXACT", min(cost, blocks.EXACT))
    rng = np.random.default_rng(6)
    p = torch.from_numpy(rng.dirichlet(np.ones(4), 300)).float()
    e = torch.from_numpy(rng.normal(size=(300, 6)) * rng.exponential(size=(300, 1))).float()
    residual = p - torch.eye(4)[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).flatten(1).double()
    left = {
        method: [
            float(torch.cdist(g, g[ops.badge(p, e, 40, seed=seed, method=method)]).amin(1).square().sum())
            for seed in range(calls)
        ]
        for method in METHODS
    }
    assert ks_2samp(*left.values()).pvalue > 1e-4


@pytest.mark.parametrize("calls", [800, full(4000)])
def test_badge_draws_by_squared_distance(calls: int) -> None:
    rng = np.random.default_rng(9)
    p, e = rng.dirichlet(np.ones(3), 20), rng.normal(size=(20, 4))
    residual = p - np.eye(3)[p.argmax(1)]
    g = (residual[:, :, None] * e[:, None, :]).reshape(20, -1)
    first = int((g**2).sum(1).argmax())
    law = ((g - g[first]) ** 2).sum(1)
    counts = np.zeros(20)
    for seed in range(calls):
        picks = ops.badge(torch.from_numpy(p), torch.from_numpy(e), 2, seed=seed).tolist()
        assert picks[0] == first
        counts[picks[1]] += 1
    assert counts[first] == 0
    others = np.arange(20) != first
    assert chisquare(counts[others], law[others] / law.sum() * calls).pvalue > 1e-4


def test_badge_ends_cleanly_when_all_distances_are_zero() -> None:
    same = torch.ones(5, 3) / 3
    assert ops.badge(same, torch.ones(5, 2), 9, seed=0).tolist() == [0, 1, 2, 3, 4]
    sure = torch.eye(3)  # every gradient is zero
    assert ops.badge(sure, torch.rand(3, 2), 3, seed=0).tolist() == [0, 1, 2]
    assert ops.badge(torch.empty(0, 3), torch.empty(0, 2), 3, seed=0).tolist() == []
    for seed in range(20):  # equal rows of any values: rounding must not tell them apart
        rng = np.random.default_rng(seed)
        p, e = (torch.from_numpy(x).expand(9, -1) for x in (rng.dirichlet(np.ones(50)), rng.normal(size=700)))
        assert ops.badge(p, e, 9, seed=seed).tolist() == list(range(9))


def test_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ops.kcenter(torch.full((3, 2), float("nan")), 1)
    with pytest.raises(ValueError, match="NaN"):
        ops.badge(torch.full((3, 2), float("nan")), torch.rand(3, 2), 1, seed=0)
    with pytest.raises(ValueError, match="centers contain NaN"):
        ops.kcenter(torch.rand(3, 2), 1, centers=torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="at least 0"):
        ops.kcenter(torch.rand(3, 2), -1)
    with pytest.raises(ValueError, match="one of blocked, sequential"):
        ops.badge(torch.rand(3, 2), torch.rand(3, 2), 1, seed=0, method="greedy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must lie in"):
        ops.badge(torch.rand(3, 2), torch.rand(3, 2), 1, seed=-1)
    with pytest.raises(ValueError, match="squares overflow"):
        ops.kcenter(torch.full((3, 2), 1e200, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="expected tensors on one device"):
        ops.badge(torch.rand(3, 2), torch.rand(3, 2, device="meta"), 1, seed=0)


def test_memory_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "free_memory", lambda device: 1000)
    for run in (lambda x: ops.kcenter(x, 3), lambda x: ops.badge(x, x, 3, seed=0)):
        with pytest.raises(MemoryError, match=r"GB are needed on cpu .* 0\.00 GB are free; free some"):
            run(torch.rand(100, 5))


@pytest.mark.parametrize("method", METHODS)
def test_no_row_twice_to_the_last(method: Method) -> None:
    """Every row of the pool is asked for; half of the rows are another's copy."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(400, 6, generator=generator), torch.randn(400, 9, generator=generator)
    p, e = half[0].repeat(2, 1).softmax(1), half[1].repeat(2, 1)
    picks = ops.badge(p, e, 900, seed=1, method=method).tolist()
    assert sorted(picks) == list(range(800))
    assert sorted(i % 400 for i in picks[:400]) == list(range(400))
    assert picks[400:] == sorted(picks[400:])


def test_inputs_are_left_alone() -> None:
    for dtype in (torch.float32, torch.float64):
        p, e = torch.rand(50, 4, dtype=dtype), torch.rand(50, 3, dtype=dtype)
        before = p.clone(), e.clone()
        for method in METHODS:
            ops.badge(p, e, 20, seed=0, method=method)
        ops.kcenter(e, 20, centers=e[:3])
        assert torch.equal(p, before[0])
        assert torch.equal(e, before[1])


def test_mapped_files(tmp_path: Path, device: torch.device) -> None:
    """From the disk to where the arithmetic is; the picks come back to where the inputs are."""
    generator = torch.Generator().manual_seed(0)
    p, e = torch.rand(5000, 6, generator=generator).softmax(1), torch.randn(5000, 40, generator=generator)
    e.numpy().tofile(tmp_path / "features")
    mapped = torch.from_file(str(tmp_path / "features"), size=e.numel()).view_as(e)
    assert torch.equal(ops.kcenter(mapped, 50, device=device), ops.kcenter(e, 50))
    picks = ops.badge(p, mapped, 50, seed=3, device=device)
    assert picks.device.type == "cpu"
    assert torch.equal(picks, ops.badge(p, e, 50, seed=3))


def test_progress() -> None:
    said: list[tuple[int, int]] = []
    x = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0))
    ops.kcenter(x, 500, progress=lambda *at: said.append(at))
    assert said[-1] == (500, 500)
    ops.badge(x.softmax(1), x, 200, seed=0, progress=lambda *at: said.append(at))
    assert said[-1] == (200, 200)


def test_draws_depend_on_seed_and_number_alone() -> None:
    whole = draws.uniform(9, 0, 100)
    assert np.array_equal(draws.uniform(9, 37, 5), whole[37:42])
    assert not np.array_equal(draws.uniform(10, 0, 100), whole)
    assert (
        kstest(np.concatenate([draws.uniform(s, 0, 500).ravel() for s in range(20)]), "uniform").pvalue > 1e-4
    )


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 5000])
def test_rows_are_drawn_by_their_weights(count: int) -> None:
    rng = np.random.default_rng(count)
    given = rng.exponential(size=count) * (rng.random(count) < 0.6)
    given[count // 2] = 1
    weights = draws.padded(count, torch.device("cpu"))
    weights[:count] = torch.from_numpy(given)
    numbers = np.concatenate([rng.random(200), [0.0, 1 - 2.0**-53, 1.0]])
    got = draws.pick(weights, draws.sums(weights), numbers)
    assert got is not None
    last = int(given.nonzero()[0][-1])
    expected = np.minimum(np.searchsorted(given.cumsum(), numbers * given.sum(), side="right"), last)
    assert got.tolist() == expected.tolist()
    nothing = torch.zeros_like(weights)
    assert draws.pick(nothing, draws.sums(nothing), numbers) is None


PEAK = """
import sys, torch
from sal_fast import ops
torch.set_num_threads(2)
def peak():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) * 1024
draws = torch.Generator().manual_seed(0)
def run(n, c, d, k, labelled):
    features = torch.randn(n, d, generator=draws)
    if sys.argv[1] == "badge":
        probs = torch.randn(n, c, generator=draws).mul_(3)
        for block in probs.split(500):
            block.copy_(block.softmax(1))
        given, call = [probs, features], lambda: ops.badge(probs, features, k, seed=0)
    else:
        centers = torch.randn(labelled, d, generator=draws)
        given, call = [features, centers], lambda: ops.kcenter(features, k, centers=centers)
    before = peak()
    call()
    return (peak() - before) / sum(x.nbytes for x in given)
run(1000, 100, 512, 100, 100)  # libraries, threads, their buffers
open("/proc/self/clear_refs", "w").write("5")
print(run(20_000, 100, 512, 400, 1000))
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("op", ["badge", "kcenter"])
def test_peak_memory(op: str) -> None:
    """Beside the inputs at most a fifth of them."""
    # else the C library keeps some MB of what is freed, and inputs move in there
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, op], capture_output=True, text=True, check=True, env=environment
    )
    assert float(done.stdout) < 0.2


@pytest.mark.full
def test_more_rows_than_multinomial_takes() -> None:
    """2^24 + 1 of them, and the last matters."""
    count = 2**24 + 1
    features = torch.zeros(count, 1)
    features[-1], features[5], features[7] = 3.0, 1.0, 2.0  # once 0 is picked, 5 and 7 are as far
    assert ops.kcenter(features, 4).tolist() == [count - 1, 0, 5, 7]
    probs = torch.full((count, 2), 0.5)
    for method in METHODS:
        assert ops.badge(probs, features, 5, seed=0, method=method).tolist()[:1] == [count - 1]
    features = torch.ones(count, 1)
    features[-1] = 1000.0  # nearly all of the weight, once another is picked
    features[0] = 2000.0
    assert ops.badge(probs, features, 2, seed=0).tolist()[0] == 0
    features.uniform_(0.5, 1, generator=torch.Generator().manual_seed(0))
    picks = ops.badge(probs, features, 300, seed=0)
    assert len(set(picks.tolist())) == 300
    assert int(picks.max()) > count * 0.9


@on_gpu
def test_badge_in_deterministic_mode() -> None:
    """torch refuses running sums of floats there: their order is not fixed."""
    draw = torch.Generator().manual_seed(0)
    probs, features = torch.rand(5000, 4, generator=draw).softmax(1), torch.rand(5000, 8, generator=draw)
    torch.use_deterministic_algorithms(True)
    try:
        picks = [ops.badge(probs.cuda(), features.cuda(), 50, seed=1).cpu() for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*picks)
    assert torch.equal(picks[0], ops.badge(probs, features, 50, seed=1))


def test_running_sums_are_made_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where torch refuses them in deterministic mode: a tensor that says where it is summed."""
    devices = []

    class Elsewhere(torch.Tensor):
        def cpu(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

        def cumsum(self, dim: int) -> torch.Tensor:
            devices.append("elsewhere")
            return super().cumsum(dim)

    weights = draws.padded(3000, torch.device("cpu"))
    weights[:3000] = 1
    there = weights.as_subclass(Elsewhere)
    found = draws.pick(there, draws.sums(weights).as_subclass(Elsewhere), np.array([0.1, 0.9]))
    assert found is not None
    assert found.as_subclass(torch.Tensor).tolist() == [300, 2700]
    assert devices == []
