"""Saliency maps in the frame: a bit a pixel where they are binary, a byte where they are graded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops


@dataclass(frozen=True)
class Masks:
    """N maps of F x F pixels, by row.

    binary: BitMask [N, F, F], zeros in the rows of graded maps. graded: uint8 [G, F, F], 0..255. place: int64
    [N], where in `graded` a row's map is, -1 for a binary one. A binary map's pixels count as 0 and 255.
    """

    binary: ops.BitMask
    graded: Tensor
    place: Tensor

    @classmethod
    def pack(cls, maps: Tensor) -> Masks:
        """From uint8 [N, F, F]: binary where every pixel is 0 or 255; on its device."""
        pixels = maps.cpu().numpy()  # numpy compares bytes many times as fast as torch
        white = pixels == 255
        binary = (white | (pixels == 0)).all(axis=(1, 2))
        white[~binary] = False
        place = np.where(binary, -1, np.cumsum(~binary) - 1)
        packed = cls(
            ops.BitMask.pack(torch.from_numpy(white)),
            torch.from_numpy(pixels[~binary]),
            torch.from_numpy(place),
        )
        return packed.to(maps.device)

    @classmethod
    def empty(cls, count: int, size: int, device: torch.device) -> Masks:
        """No maps in any row."""
        words = torch.zeros(count, size, -(-size // 32), dtype=torch.int32, device=device)
        return cls(
            ops.BitMask(words, size),
            torch.zeros(0, size, size, dtype=torch.uint8, device=device),
            torch.full((count,), -1, device=device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Masks]) -> Masks:
        """All rows of the first, then of the next, and so on; at least one part."""
        offset, places = 0, []
        for part in parts:
            places.append(torch.where(part.place < 0, -1, part.place + offset))
            offset += len(part.graded)
        words = torch.cat([part.binary.words for part in parts])
        return cls(
            ops.BitMask(words, parts[0].binary.width),
            torch.cat([part.graded for part in parts]),
            torch.cat(places),
        )

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: Tensor) -> Masks:
        """Some rows (int64), in that order."""
        place = self.place[rows]
        used = place[place >= 0]
        renumbered = torch.where(place < 0, -1, (place >= 0).cumsum(0) - 1)
        return Masks(self.binary[rows], self.graded[used], renumbered)

    @property
    def size(self) -> int:
        return self.binary.width

    def digest(self) -> str:
        """SHA-256 of the maps."""
        parts = (self.binary.words, self.graded, self.place)
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()

    def to(self, device: torch.device) -> Masks:
        return Masks(self.binary.to(device), self.graded.to(device), self.place.to(device))

    def batch(self, rows: Tensor, box: Tensor | None = None) -> Tensor | ops.BitMask:
        """Maps for some rows, cropped and mirrored by `box` (see `ops.crop_masks`); as compact as they are.

        A BitMask or bool [B, F, F] where no map is graded, else uint8 [B, F, F].
        """
        if not len(self.graded):
            return (
                self.binary[rows] if box is None else ops.crop_masks(self.binary, rows, box, size=self.size)
            )
        binary = ops.crop_masks(self.binary, rows, box, size=self.size).to(torch.uint8) * 255
        place = self.place[rows]
        graded = ops.crop_masks(self.graded, place.clamp(min=0), box, size=self.size)
        return torch.where((place < 0)[:, None, None], binary, graded)

    def unpack(self, rows: Tensor) -> Tensor:
        """uint8 [B, F, F], 0 and 255 where binary."""
        maps = self.batch(rows)
        if isinstance(maps, ops.BitMask):
            return maps.unpack().to(torch.uint8) * 255
        return maps
