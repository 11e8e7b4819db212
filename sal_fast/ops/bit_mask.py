"""Binary masks at one bit a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast.ops import _checks
from sal_fast.ops._modes import plain

_WORD = 32


@dataclass(frozen=True)
class BitMask:
    """Masks [B, H, W] packed 32 pixels a word, which takes an eighth of the bytes of a bool tensor.

    Pixel (b, y, x) is bit `x % 32` of `words[b, y, x // 32]`. This is a type of its own, so that an integer
    tensor always means values.

    Args:
        words: int32 [B, H, ceil(W / 32)]. The bits past W are zero.
        width: W.

    Raises:
        TypeError, ValueError: a dtype or shape that does not fit.
    """

    words: Tensor
    width: int

    def __post_init__(self) -> None:
        _checks.tensor("BitMask", torch.int32, words=self.words)
        _checks.shape("BitMask", "words", self.words, None, None, -(-self.width // _WORD))

    @classmethod
    def pack(cls, mask: Tensor) -> BitMask:
        """Pack a bool tensor [B, H, W]. The result is on the same device."""
        _checks.tensor("BitMask.pack", torch.bool, mask=mask)
        _checks.shape("BitMask.pack", "mask", mask, None, None, None)
        width = mask.shape[2]
        padded = F.pad(mask, (0, -width % _WORD))
        if mask.device.type == "cpu" and plain((mask,)):
            # numpy keeps the order of memory, but a word needs its four octets side by side
            octets = np.ascontiguousarray(np.packbits(padded.numpy(), axis=2, bitorder="little"))
            return cls(torch.from_numpy(octets.view(np.int32)), width)
        # A view of another dtype would copy less, but vmap has no rule for it in torch 2.11.
        bits = padded.to(torch.uint8).unflatten(2, (-1, _WORD // 8, 8))
        octets = bits[..., 0].clone(memory_format=torch.contiguous_format)
        for bit in range(1, 8):
            octets |= bits[..., bit] << bit
        places = torch.arange(0, _WORD, 8, dtype=torch.int32, device=mask.device)
        return cls((octets.to(torch.int32) << places).sum(-1, dtype=torch.int32), width)

    def unpack(self) -> Tensor:
        """The masks as a bool tensor [B, H, W]."""
        shifts = torch.arange(_WORD, dtype=torch.int32, device=self.words.device)
        return ((self.words[..., None] >> shifts) & 1).bool().flatten(2)[..., : self.width]

    @property
    def shape(self) -> torch.Size:
        """[B, H, W]."""
        return torch.Size((*self.words.shape[:2], self.width))

    @property
    def device(self) -> torch.device:
        return self.words.device

    def __len__(self) -> int:
        return self.words.shape[0]

    def __getitem__(self, images: Tensor | slice) -> BitMask:
        """The masks of some images, chosen by an index tensor, a bool tensor or a slice."""
        return BitMask(self.words[images], self.width)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BitMask:
        return BitMask(self.words.to(device, non_blocking=non_blocking), self.width)
