"""The native core's part of BADGE: what torch picks, whatever the instruction set and the threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sal_fast import _native, ops
from sal_fast.ops import _rows
from sal_fast.ops.badge import blocks, core, draws

pytestmark = pytest.mark.skipif(_native.core() is None, reason="without the native core torch does it all")


def pools() -> dict[str, tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(4)
    normal = torch.randn(1500, 40, generator=draw)
    probs = (2 * torch.randn(1500, 7, generator=draw)).softmax(1)
    sure = (60 * torch.randn(1500, 7, generator=draw)).softmax(1)  # residuals that are nearly zero
    lattice = torch.randint(0, 3, (1500, 4), generator=draw).float()
    clusters = 1 + 2.0**-7 * normal
    clusters[::2] += 1e4
    return {
        "float32": (probs, normal),
        "float64": (probs.double(), normal.double()),
        "halves": (probs.half(), normal.bfloat16()),
        "mixed": (probs.double(), normal.half()),
        "columns": (probs.T.contiguous().T, normal.T.contiguous().T),
        "steps": (probs[:, ::2], normal[:, ::3]),
        "expanded": (probs[:1].expand(1500, -1), normal),
        "equal rows": (probs[:300].repeat(5, 1), normal[:300].repeat(5, 1)),
        "lattice": (lattice.softmax(1), lattice),
        "sure": (sure, normal),
        "clusters": (probs, clusters),
        "large": (probs, 1e25 * normal),
        "long": (probs, 1e17 * normal),  # taken in float64
        "small": (probs, 1e-25 * normal),
        "one class": (probs[:, :1], normal),
        "no class": (probs[:, :0], normal),
        "wide": (torch.randn(200, 130, generator=draw).softmax(1), torch.randn(200, 700, generator=draw)),
        "few": (probs[:5], normal[:5]),
        "none": (probs[:0], normal[:0]),
    }


@pytest.mark.parametrize("name", list(pools()))
def test_the_core_picks_what_torch_picks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probs, features = pools()[name]
    picks = ops.badge(probs, features, 200, seed=5)
    monkeypatch.setattr(core, "fields_of", lambda *_: None)
    assert torch.equal(ops.badge(probs, features, 200, seed=5), picks)


@pytest.mark.parametrize("name", list(pools()))
def test_survey(name: str) -> None:
    probs, features = pools()[name]
    pool = pool_of(probs, features)
    p, e = probs.double(), features.double()
    if probs.shape[1] and len(probs):
        assert torch.equal(pool.tops.long(), p.argmax(1))
        p = p - torch.eye(probs.shape[1], dtype=torch.float64)[p.argmax(1)]
    expected = p.square().sum(1) * e.square().sum(1)
    torch.testing.assert_close(pool.norms, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_survey_finds_the_largest_magnitudes(dtype: torch.dtype) -> None:
    probs, features = torch.rand(9, 3, dtype=dtype), torch.rand(9, 20, dtype=dtype)
    for value, found in ((-5.0, 5.0), (float("nan"), float("inf")), (-float("inf"), float("inf"))):
        features[7, 19] = value
        fields = core.fields_of(*(_rows.Rows(x, torch.device("cpu")) for x in (probs, features)))
        assert fields is not None
        tops, norms = torch.empty(9, dtype=torch.int32), torch.empty(9, dtype=torch.float64)
        largest = torch.zeros(2, dtype=torch.float64)
        core.survey(fields, slice(0, 9), tops, norms, largest)
        assert largest.tolist() == [float(probs.max()), found]


def pool_of(probs: Tensor, features: Tensor) -> blocks._Pool:
    cpu = torch.device("cpu")
    rows = _rows.Rows(probs, cpu), _rows.Rows(features, cpu)
    return blocks._Pool(*rows, _rows.Share("test", cpu, None))


@pytest.mark.parametrize("name", ["float32", "float64", "lattice", "clusters"])
def test_distances_are_those_of_gradients(name: str) -> None:
    """The weights that a batch leaves, and what it accepts, by the gradients that ours never forms."""
    probs, features = pools()[name]
    pool = pool_of(probs, features)
    picks = [pool.longest()]
    pool.cover(picks)
    before = pool.weights.clone()
    numbers = next(draws.batches(3, blocks.BATCH))
    drawn = draws.pick(before, pool.sums, numbers[:, 0])
    assert drawn is not None
    accepted = pool.batches(50)(pool.weights, pool.sums, numbers, picks)
    assert accepted is not None
    p, e = probs.double(), features.double()
    q = p - torch.eye(p.shape[1], dtype=torch.float64)[p.argmax(1)]
    g = (q[:, :, None] * e[:, None, :]).flatten(1)
    expected: list[int] = []
    for row, number in zip(drawn.tolist(), numbers[:, 1], strict=True):
        distance = float((g[picks + expected] - g[row]).square().sum(1).min())
        if len(expected) < 49 and number * float(before[row]) < distance * (1 - 1e-12):
            expected.append(row)
    assert accepted == expected
    left = (g[drawn, None] - g[picks + accepted]).square().sum(2).amin(1).minimum(before[drawn])
    torch.testing.assert_close(pool.weights[drawn], left, rtol=1e-9, atol=1e-12 * float(pool.norms.max()))
    torch.testing.assert_close(pool.sums, draws.sums(pool.weights), rtol=1e-14, atol=0)


def test_threads_change_no_bit() -> None:
    probs, features = pools()["wide"]
    pool, threads = pool_of(probs, features), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            weights = draws.padded(len(probs), torch.device("cpu"))
            weights[: len(probs)] = 4 * pool.norms
            sums, picks, numbers = draws.sums(weights), [pool.longest()], draws.batches(1, blocks.BATCH)
            batch = pool.batches(150)
            for _ in range(12):
                picks += batch(weights, sums, next(numbers), picks) or []
            found.append((picks, weights, sums))
    finally:
        torch.set_num_threads(threads)
    for picks, weights, sums in found[1:]:
        assert len(picks) > 40
        assert picks == found[0][0]
        assert torch.equal(weights, found[0][1])
        assert torch.equal(sums, found[0][2])


PICKS = """
import sys, torch
from sal_fast import _native, ops
from sal_fast.ops.badge import blocks, draws
sys.path.insert(0, sys.argv[1])
from test_badge_core import pool_of, pools
torch.set_num_threads(1)
print(_native.core().cpu_capability())
for name, (probs, features) in pools().items():
    pool = pool_of(probs, features)
    print(name, pool.norms.numpy().tobytes().hex())
    print(ops.badge(probs, features, 200, seed=1).tolist())
    weights = draws.padded(len(probs), torch.device("cpu"))
    weights[: len(probs)] = 4 * pool.norms
    sums = draws.sums(weights)
    if len(probs):
        batch = pool.batches(30)
        print(batch(weights, sums, next(draws.batches(1, blocks.BATCH)), [pool.longest()]))
    print(weights.numpy().tobytes().hex(), sums.numpy().tobytes().hex())
"""


@pytest.mark.full
def test_instruction_sets_change_no_bit() -> None:
    said = {}
    for capability in ("generic", "avx2", "avx512"):
        environment = {**os.environ, "SAL_FAST_CPU_CAPABILITY": capability}
        done = subprocess.run(
            [sys.executable, "-P", "-c", PICKS, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        used, rest = done.stdout.split("\n", 1)
        said[used] = rest  # one that this machine lacks has run as another
    assert len(set(said.values())) == 1


def test_batches_have_the_numbers_of_single_draws() -> None:
    numbers = draws.batches(9, 8)
    first = np.concatenate([next(numbers) for _ in range(40)])
    assert np.array_equal(first, draws.uniform(9, 0, 320))
