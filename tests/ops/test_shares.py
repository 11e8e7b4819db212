"""k-center and BADGE by the ranks of a group: the picks, and every bound, of one process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shares
import torch
from patience import PATIENCE
from torch import distributed

from sal_fast import ops
from sal_fast.ops import _rows

Found = tuple[dict[Any, torch.Tensor], dict[str, str]]


def alone(device: str) -> Found:
    threads, before = torch.get_num_threads(), shares.shrink()
    torch.set_num_threads(1)
    try:
        return shares.results(None, torch.device(device)), shares.refusals(None, 0)
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            setattr(_rows, name, value)


def together(folder: Path, size: int, backend: str, device: str) -> dict[int, list[Found]]:
    """What each of so many ranks found, and each of the first two in a group of their own."""
    running = [
        subprocess.Popen(
            [sys.executable, shares.__file__, str(folder), str(rank), str(size), backend, device],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    return {
        members: [torch.load(folder / f"{members}-{rank}.pt") for rank in range(members)]
        for members in {2, size}
    }


@pytest.fixture(scope="module")
def one() -> Found:
    return alone("cpu")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Found]]:
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    return together(tmp_path_factory.mktemp("shares"), 3, "gloo", "cpu")


def assert_same(found: dict[Any, torch.Tensor], expected: dict[Any, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for what, value in expected.items():
        assert torch.equal(found[what], value), what  # to the last bit


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_find_what_one_process_finds(size: int, one: Found, ranks: dict[int, list[Found]]) -> None:
    for found, _ in ranks[size]:
        assert_same(found, one[0])


@pytest.mark.gpu
@pytest.mark.parametrize(("backend", "devices"), [("gloo", 1), ("nccl", 2)])
def test_ranks_on_gpus(backend: str, devices: int, tmp_path: Path) -> None:
    if torch.cuda.device_count() < devices:
        pytest.skip(f"{devices} CUDA devices are needed")
    expected, _ = alone("cuda")
    for found, _ in together(tmp_path, 2, backend, "cuda")[2]:
        assert_same(found, expected)


@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_refuse(size: int, one: Found, ranks: dict[int, list[Found]]) -> None:
    for what, message in one[1].items():
        assert "Error: " in message, what
        for _, said in ranks[size]:
            assert said[what] == message, what


def share(size: int, rank: int) -> _rows.Share:
    made = _rows.Share("test", torch.device("cpu"), None)
    made.size, made.rank = size, rank
    return made


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 640, 641, 5000, 40_000])
def test_blocks_do_not_depend_on_who_walks_them(count: int) -> None:
    """Each is one rank's, and so is each part; every row is written by one."""
    whole = list(share(1, 0).walk(count, 64))
    assert sorted({row for _, at in whole for row in range(at.start, at.stop)}) == list(range(count))
    assert {at.stop - at.start for _, at in whole} <= {min(64, count)}
    for size in (2, 3, 5, 8):
        walks = [list(share(size, rank).walk(count, 64)) for rank in range(size)]
        assert list(itertools.chain(*walks)) == whole
        assert max(map(len, walks)) - min(map(len, walks)) <= max(1, count // 64 // _rows.PARTS + 1)
        parts = [{part for part, _ in walk} for walk in walks]
        assert sum(map(len, parts)) == _rows.Share.parts(count, 64)


@pytest.mark.parametrize("count", [1, 65, 641, 5000])
def test_where_blocks_overlap_the_later_is_kept(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows.Share, "total", lambda *_: None)
    sums = []
    for size in (1, 2, 3, 5):
        sums.append(torch.zeros(count))
        for rank in range(size):
            values = torch.full((count,), -1.0)
            for _, at in share(size, rank).walk(count, 64):
                values[at] = at.start + 1.0
            share(size, rank).whole(values, 64)
            sums[-1] += values
    for other in sums[1:]:
        assert torch.equal(other, sums[0])


def test_a_stranger_is_refused() -> None:
    """`new_group` gives this to those who are not in it."""
    stranger = distributed.GroupMember.NON_GROUP_MEMBER
    with pytest.raises(ValueError, match="kcenter: this process is not in the group"):
        ops.kcenter(torch.rand(3, 2), 1, group=stranger)
