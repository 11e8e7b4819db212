"""sal_fast.ops.BitMask: one bit a pixel, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sal_fast.ops import BitMask


@pytest.mark.parametrize("shape", [(2, 3, 32), (3, 5, 1), (1, 4, 31), (2, 2, 33), (4, 7, 224), (0, 5, 9)])
def test_there_and_back(shape: tuple[int, int, int], device: torch.device) -> None:
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).to(device)
    packed = BitMask.pack(mask)
    assert packed.shape == mask.shape
    assert len(packed) == len(mask)
    assert packed.device.type == device.type
    assert packed.words.nbytes == 4 * shape[0] * shape[1] * (-(-shape[2] // 32))
    assert torch.equal(packed.unpack(), mask)


def test_the_layout_is_numpys_little_endian(device: torch.device) -> None:
    mask = torch.rand(2, 3, 70, generator=torch.Generator().manual_seed(1)) > 0.5
    padded = np.zeros((2, 3, 96), dtype=bool)
    padded[..., :70] = mask
    expected = np.packbits(padded, axis=2, bitorder="little").view("<i4")
    np.testing.assert_array_equal(BitMask.pack(mask.to(device)).words.cpu(), expected)


def test_parts_and_copies(device: torch.device) -> None:
    mask = torch.rand(5, 6, 40, generator=torch.Generator().manual_seed(2)) > 0.5
    packed = BitMask.pack(mask).to(device)
    for part in (slice(1, 3), torch.tensor([4, 0, 4]), torch.tensor([True, False, True, False, False])):
        index = part.to(device) if isinstance(part, torch.Tensor) else part
        assert torch.equal(packed[index].unpack().cpu(), mask[part])
    assert torch.equal(packed.to("cpu").unpack(), mask)
    wide = torch.zeros(5, 6, 80, dtype=torch.bool)
    wide[..., ::2] = mask
    assert torch.equal(BitMask.pack(wide[..., ::2]).words, BitMask.pack(mask).words)


def test_refused() -> None:
    with pytest.raises(TypeError, match=r"words must be int32, got torch.int64"):
        BitMask(torch.zeros(1, 2, 1).long(), 5)
    with pytest.raises(ValueError, match=r"words must have shape \[\*, \*, 2\], got \[1, 2, 1\]"):
        BitMask(torch.zeros(1, 2, 1, dtype=torch.int32), 33)
    with pytest.raises(TypeError, match=r"mask must be bool, got torch.uint8"):
        BitMask.pack(torch.zeros(1, 2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"mask must have shape \[\*, \*, \*\], got \[2, 3\]"):
        BitMask.pack(torch.zeros(2, 3, dtype=torch.bool))


def test_a_single_mask_of_any_order_of_memory() -> None:
    mask = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5
    for view in (mask.transpose(1, 2), mask.movedim(0, -1).contiguous().movedim(-1, 0), mask[:, :, ::2]):
        assert torch.equal(BitMask.pack(view).unpack(), view)
