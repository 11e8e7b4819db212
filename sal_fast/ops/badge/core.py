"""The native core's part of BADGE on a CPU: the survey of the pool, and batches of candidates.

A batch is drawn, compared with all picks and accepted in one call, without a step in Python for each
candidate. The rows of the pool are read where they are. Picks are packed when they are taken.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sal_fast.ops import _launch, _rows
from sal_fast.ops._rows import Rows
from sal_fast.ops.badge.reference import ROUNDING

# The codes of FloatType in csrc/include/sal_fast/launch/badge.h.
_TYPES = _launch.DTYPES | {torch.float64: 3}
# Float32 holds the sum of two squared norms below this, and twice their product.
_MOST_NORM = 1e37
_CPU = torch.device("cpu")


def fields_of(probs: Rows, features: Rows) -> dict[str, Any] | None:
    """The launchers' fields of the pool. None where its rows are not in the memory of a CPU with a core."""
    # A view with the negative bit says another sign than its memory.
    p, e = probs.values.resolve_neg(), features.values.resolve_neg()
    takes = p.dtype in _TYPES and e.dtype in _TYPES and _launch.has_core(_CPU)
    if not takes or {probs.device.type, p.device.type, e.device.type} != {"cpu"}:
        return None
    return {
        "probs": p, "probs_type": _TYPES[p.dtype], "probs_row_stride": p.stride(0),
        "probs_column_stride": p.stride(1), "classes": probs.width,
        "features": e, "features_type": _TYPES[e.dtype], "features_row_stride": e.stride(0),
        "features_column_stride": e.stride(1), "width": features.width,
    }  # fmt: skip


def survey(fields: dict[str, Any], at: slice, tops: Tensor, norms: Tensor, largest: Tensor) -> None:
    """Write the likeliest classes and the squared norms of some rows, and raise the largest magnitudes."""
    _launch.launch(
        "badge_survey", _CPU, **fields, begin=at.start, end=at.stop, tops=tops, norms=norms, largest=largest
    )


class Batches:
    """Batches of candidates for one call of `badge` that makes k picks."""

    def __init__(
        self,
        fields: dict[str, Any],
        tops: Tensor,
        norms: Tensor,
        k: int,
        dtype: torch.dtype,
        vanishing: float,
    ) -> None:
        """`dtype` is that of products, and `vanishing` the error of float32 products that are tiny."""
        if len(norms) and float(norms.max()) > _MOST_NORM:
            dtype = torch.float64
        classes, width = fields["classes"], fields["width"]
        self._packed, self._picks = 0, torch.empty(k, dtype=torch.int64)
        self._accepted = torch.empty(1, dtype=torch.int64)
        self._fields = fields | {
            "tops": tops, "norms": norms, "most": k, "picks": self._picks, "accepted": self._accepted,
            "wide": dtype == torch.float64, "rests": torch.empty(k, dtype=torch.float64),
            "taken": torch.empty(k, packed_length(classes, width), dtype=dtype),
            "error": _rows.product_error(classes + width, dtype) + ROUNDING,
            "vanishing": vanishing / torch.finfo(torch.float32).tiny * torch.finfo(dtype).tiny,
        }  # fmt: skip

    def __call__(
        self, weights: Tensor, sums: Tensor, numbers: np.ndarray, picks: list[int]
    ) -> list[int] | None:
        """Draw a batch and accept candidates, with new weights for it. None if all weights are zero."""
        start, self._packed = self._packed, len(picks)
        self._picks[start : len(picks)] = torch.tensor(picks[start:])
        _launch.launch(
            "badge_block", _CPU, **self._fields, weights=weights, sums=sums, chunks=len(sums),
            numbers=torch.from_numpy(numbers), packed=start, picked=len(picks),
        )  # fmt: skip
        accepted = int(self._accepted)
        if accepted < 0:
            return None
        self._packed += accepted
        return self._picks[len(picks) : self._packed].tolist()


def packed_length(classes: int, width: int) -> int:
    """The numbers of a packed row: `packed_part` of the launcher's header, for either part."""
    return (classes // 16 + width // 16 + 2) * 16
