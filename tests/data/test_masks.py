"""Maps packed a bit a pixel where they are binary, kept whole where they are graded."""

from __future__ import annotations

import pytest
import torch

from sal_fast import ops
from sal_fast.data.masks import Masks


def maps(count: int, size: int, graded: list[int]) -> torch.Tensor:
    draws = torch.Generator().manual_seed(count + size)
    out = (torch.rand(count, size, size, generator=draws) < 0.3).to(torch.uint8) * 255
    for row in graded:
        out[row] = torch.randint(0, 256, (size, size), generator=draws, dtype=torch.uint8)
    return out


@pytest.mark.parametrize("size", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("graded", [[], [0], [1, 4], [0, 1, 2, 3, 4]])
def test_packed_and_back(size: int, graded: list[int]) -> None:
    whole = maps(5, size, graded)
    packed = Masks.pack(whole)
    assert len(packed) == 5
    assert packed.size == size
    assert torch.equal(packed.unpack(torch.arange(5)), whole)
    for rows in ([4, 0, 0, 2], [], [3]):
        at = torch.tensor(rows, dtype=torch.int64)
        assert torch.equal(packed.unpack(at), whole[at])
        assert torch.equal(packed[at].unpack(torch.arange(len(at))), whole[at])
    joined = Masks.cat([packed, packed[torch.tensor([4, 1])], packed])
    expected = torch.cat([whole, whole[[4, 1]], whole])
    assert torch.equal(joined.unpack(torch.arange(12)), expected)


def test_binary_maps_stay_packed() -> None:
    packed = Masks.pack(maps(6, 40, []))
    assert isinstance(packed.batch(torch.arange(3)), ops.BitMask)
    assert packed.binary.words.nbytes == 6 * 40 * 2 * 4
    box = torch.tensor([[0, 0, 1, 1]] * 3, dtype=torch.float32)
    cropped = packed.batch(torch.arange(3), box)
    assert torch.equal(cropped, packed.binary.unpack()[:3])
    assert Masks.pack(maps(6, 40, [2])).batch(torch.arange(3)).dtype == torch.uint8


def test_crops_of_graded_and_binary_maps_together() -> None:
    whole = maps(4, 20, [1, 3])
    rows = torch.tensor([3, 0, 1, 2])
    box = torch.tensor([[0.5, 0, 1, 0.5], [1, 0, 0, 1], [1, 0.25, 0.5, 0.75], [0, 0, 1, 1]])
    cropped = Masks.pack(whole).batch(rows, box)
    assert isinstance(cropped, torch.Tensor)
    assert torch.equal(cropped[1], whole[0].flip(1))
    assert torch.equal(cropped[3], whole[2])
    assert torch.equal(cropped[0], whole[3][:10, 10:].repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(
        cropped[2], whole[1][5:15, 10:].flip(1).repeat_interleave(2, 0).repeat_interleave(2, 1)
    )


def test_no_maps() -> None:
    none = Masks.empty(3, 33, torch.device("cpu"))
    assert len(none) == 3
    assert not none.unpack(torch.arange(3)).any()
    assert none.digest() == Masks.pack(torch.zeros(3, 33, 33, dtype=torch.uint8)).digest()
    assert none.digest() != Masks.pack(maps(3, 33, [])).digest()


def test_which_maps_have_a_foreground() -> None:
    maps = torch.zeros(5, 40, 40, dtype=torch.uint8)
    maps[1, 39, 39] = 255
    maps[2, 3, 3] = 1
    packed = Masks.pack(maps)
    assert packed.drawn().tolist() == [False, True, True, False, False]
    assert packed[torch.tensor([2, 0, 1])].drawn().tolist() == [True, False, True]
    assert Masks.pack(maps[:2]).drawn().tolist() == [False, True]
    assert Masks.empty(2, 8, torch.device("cpu")).drawn().tolist() == [False, False]
