"""Saliency maps in the frame: one bit per pixel if they are binary, one byte if they are graded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data.augment import rotated


@dataclass(frozen=True)
class Masks:
    """N maps of F x F pixels, by row. The pixels of a binary map count as 0 and 255.

    binary: BitMask [N, F, F]; a row with a graded map is zero here.
    graded: uint8 [G, F, F], 0..255.
    place: int64 [N], the place of a row's map in `graded`, or -1 for a binary one.
    """

    binary: ops.BitMask
    graded: Tensor
    place: Tensor

    @classmethod
    def pack(cls, maps: Tensor) -> Masks:
        """Pack uint8 [N, F, F] on its device; a map is binary if every pixel is 0 or 255."""
        pixels = maps.cpu().numpy()  # numpy compares bytes many times faster than torch
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
        """An empty map in each of `count` rows."""
        words = torch.zeros(count, size, -(-size // 32), dtype=torch.int32, device=device)
        return cls(
            ops.BitMask(words, size),
            torch.zeros(0, size, size, dtype=torch.uint8, device=device),
            torch.full((count,), -1, device=device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Masks]) -> Masks:
        """Join parts, of which there must be at least one: their rows follow each other."""
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
        """The maps of some rows (int64), in that order."""
        place = self.place[rows]
        used = place[place >= 0]
        renumbered = torch.where(place < 0, -1, (place >= 0).cumsum(0) - 1)
        return Masks(self.binary[rows], self.graded[used], renumbered)

    @property
    def size(self) -> int:
        """The frame: pixels a side."""
        return self.binary.width

    def drawn(self) -> Tensor:
        """True for each map that has a foreground, bool [N]."""
        used = self.place.clamp(min=0)
        found = (self.binary.words != 0).flatten(1).any(dim=1)
        if len(self.graded):
            found |= (self.place >= 0) & (self.graded != 0).flatten(1).any(dim=1)[used]
        return found

    def digest(self) -> str:
        """SHA-256 of the maps, in hexadecimal."""
        parts = (self.binary.words, self.graded, self.place)
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()

    def to(self, device: torch.device) -> Masks:
        """The same maps on another device."""
        return Masks(self.binary.to(device), self.graded.to(device), self.place.to(device))

    def batch(
        self, rows: Tensor, box: Tensor | None = None, angle: Tensor | None = None
    ) -> Tensor | ops.BitMask:
        """The maps of some rows, cropped by `box` (see `ops.crop_masks`) and then rotated by `angle`.

        They are as compact as possible: if no map at all is graded, a BitMask (of whole maps) or bool
        [B, F, F], else uint8 [B, F, F].
        """
        maps = self._cropped(rows, box)
        if angle is None:
            return maps
        pixels = maps.unpack() if isinstance(maps, ops.BitMask) else maps
        return rotated(pixels[:, None], angle, "nearest")[:, 0]

    def _cropped(self, rows: Tensor, box: Tensor | None) -> Tensor | ops.BitMask:
        if not len(self.graded):
            return (
                self.binary[rows] if box is None else ops.crop_masks(self.binary, rows, box, size=self.size)
            )
        binary = ops.crop_masks(self.binary, rows, box, size=self.size).to(torch.uint8) * 255
        place = self.place[rows]
        graded = ops.crop_masks(self.graded, place.clamp(min=0), box, size=self.size)
        return torch.where((place < 0)[:, None, None], binary, graded)

    def unpack(self, rows: Tensor) -> Tensor:
        """The maps of some rows, uint8 [B, F, F]; binary ones are 0 and 255."""
        maps = self.batch(rows)
        if isinstance(maps, ops.BitMask):
            return maps.unpack().to(torch.uint8) * 255
        return maps
