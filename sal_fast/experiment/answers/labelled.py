"""The labelled set: images, their maps, and who drew them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sal_fast import ops
from sal_fast.data.masks import Masks

NOBODY, PEOPLE, MACHINE = 0, 1, 2


@dataclass(frozen=True)
class Labelled:
    """The labelled images, in the order in which they were labelled.

    rows: int64 [L], rows of the store.
    maps: L maps in the frame.
    drawn_by: int8 [L], NOBODY, PEOPLE, or MACHINE (a model, a generator or a segmenter).
    says_where: bool [L], true if the image has a map that is not flat at the loss's resolution. Other images
        are trained without a map.
    """

    rows: Tensor
    maps: Masks
    drawn_by: Tensor
    says_where: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, answer: Labelled) -> Labelled:
        """The labelled images of this set, followed by those of an answered query."""
        return Labelled(
            torch.cat((self.rows, answer.rows)),
            Masks.cat((self.maps, answer.maps)),
            torch.cat((self.drawn_by, answer.drawn_by)),
            torch.cat((self.says_where, answer.says_where)),
        )

    def counts(self) -> dict[str, int]:
        """The numbers of labelled images, of maps in use by origin, and of empty maps."""
        used = self.says_where
        return {
            "labelled": len(self),
            "human_maps": int((used & (self.drawn_by == PEOPLE)).sum()),
            "generated_maps": int((used & (self.drawn_by == MACHINE)).sum()),
            "empty_maps": int((~used & (self.drawn_by != NOBODY)).sum()),
        }


def answered(rows: Tensor, maps: Masks, has_map: Tensor, by: int, loss_size: tuple[int, int]) -> Labelled:
    """Make an answered query from k images.

    rows: int64 [k]. maps: k maps in the frame. has_map: bool [k], true if the image got a map at all. by: the
    one who drew the maps. loss_size: the resolution at which maps are compared.
    """
    drawn_by = torch.where(has_map, by, NOBODY).to(torch.int8)
    parts = torch.arange(len(maps), device=rows.device).split(1024)
    says_where = torch.cat([ops.says_where(maps.batch(part), loss_size) for part in parts] or [has_map])
    return Labelled(rows, maps, drawn_by, has_map & says_where)
