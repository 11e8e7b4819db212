"""csrc/cuda/uncertainty.cu, executed on the host, against the float64 reference."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from sal_fast.ops.uncertainty import KINDS, reference

from .conftest import Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Case:
    backward: bool
    kind: str
    dtype: torch.dtype
    rows: int
    columns: int
    row_stride: int
    offset: int  # elements past a 16-byte boundary
    upstream_stride: int = 1
    seed: int = 0
    most_blocks: int = 1 << 20

    def storage(self) -> Tensor:
        used = (self.rows - 1) * self.row_stride + self.columns if self.rows else 0
        return (3 * torch.randn(used, generator=torch.Generator().manual_seed(self.columns))).to(self.dtype)

    def upstream(self) -> Tensor:
        return torch.linspace(-1, 2, (self.rows - 1) * self.upstream_stride + 1 if self.rows else 0)

    def expected(self, storage: Tensor) -> Tensor:
        """Float64."""
        logits = storage.double().as_strided((self.rows, self.columns), (self.row_stride, 1))
        if not self.backward:
            return reference.uncertainty(logits, self.kind)
        upstream = self.upstream().double().as_strided((self.rows,), (self.upstream_stride,))
        return reference.uncertainty_backward(upstream, logits, self.kind)

    def tolerance(self) -> float:
        return 2e-6 if not self.backward or self.dtype == torch.float32 else 2 * torch.finfo(self.dtype).eps


def run(emulation: Emulation, cases: list[tuple[Case, Tensor]]) -> list[Tensor]:
    """Each result is [rows] float32 or [rows, columns] of the logits' type."""
    outputs = []
    for case, storage in cases:
        dtype, kind = DTYPES.index(case.dtype), KINDS.index(case.kind)
        fields = {
            "logits": storage, "dtype": dtype, "rows": case.rows, "columns": case.columns,
            "row_stride": case.row_stride, "kind": kind, "seed": case.seed,
            "most_blocks": case.most_blocks, "offset": case.offset * storage.itemsize,
        }  # fmt: skip
        if case.backward:
            out = torch.full((case.rows, case.columns), torch.nan, dtype=case.dtype)
            upstream = {"upstream": case.upstream(), "upstream_stride": case.upstream_stride}
            emulation.launch("uncertainty_backward", **fields, **upstream, grad=out)
        else:
            out = torch.full((case.rows,), torch.nan)
            emulation.launch("uncertainty", **fields, out=out)
        outputs.append(out)
    return outputs


def check(emulation: Emulation, cases: list[Case]) -> None:
    inputs = [(case, case.storage()) for case in cases]
    for (case, storage), got in zip(inputs, run(emulation, inputs), strict=True):
        expected = case.expected(storage)
        torch.testing.assert_close(
            got.double(),
            expected,
            rtol=case.tolerance(),
            atol=1e-6,
            msg=lambda text, case=case: f"{case}: {text}",
        )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_sizes(emulation: Emulation, backward: bool) -> None:
    sizes = [(70, 1), (33, 2), (5, 3), (9, 31), (9, 33), (3, 129), (3, 1000), (2, 1025), (2, 4097), (0, 7)]
    cases = [
        Case(backward, kind, dtype, rows, columns, columns, 0)
        for (rows, columns), kind, dtype in itertools.product(sizes, KINDS, DTYPES)
    ]
    check(emulation, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_block_a_row(emulation: Emulation, backward: bool) -> None:
    cases = [Case(backward, kind, dtype, 2, 8195, 8199, 1) for kind in KINDS for dtype in DTYPES]
    check(emulation, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_unaligned_strided_rows(emulation: Emulation, backward: bool) -> None:
    cases = [
        Case(backward, kind, dtype, 5, columns, columns + gap, offset, upstream_stride)
        for kind, dtype in itertools.product(KINDS, DTYPES)
        for columns, gap, offset, upstream_stride in [
            (3, 2, 1, 0),
            (37, 3, 3, 1),
            (200, 5, 2, 2),
            (203, 8, 1, 1),
        ]
    ]
    check(emulation, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_block_takes_several_rows(emulation: Emulation, backward: bool) -> None:
    check(
        emulation,
        [
            Case(backward, kind, torch.float32, rows, columns, columns, 0, seed=seed, most_blocks=2)
            for rows, columns in [(150, 10), (37, 200), (5, 8193)]
            for kind in KINDS
            for seed in range(3)
        ],
    )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_any_order_of_threads_gives_the_same_bits(emulation: Emulation, backward: bool) -> None:
    for columns in (40, 1000, 8200):
        cases = [
            (case := Case(backward, kind, torch.float32, 3, columns, columns, 0, seed=seed), case.storage())
            for kind in KINDS
            for seed in range(4)
        ]
        outputs = run(emulation, cases)
        for i in range(0, len(outputs), 4):
            assert all(torch.equal(outputs[i], other) for other in outputs[i + 1 : i + 4])


@pytest.mark.parametrize("columns", [5, 300, 8200])
def test_ties_minus_infinity_and_bad_rows(emulation: Emulation, columns: int) -> None:
    storage = torch.full((6, columns), -torch.inf)
    storage[0] = 0.5  # all tied
    storage[1, [1, 3, columns - 1]] = 2  # three largest, the others of probability 0
    storage[2, columns - 2] = 1  # one finite logit
    storage[3, :3] = torch.tensor([0, torch.nan, 1])
    storage[4, 2] = torch.inf  # and row 5 is all -inf
    for kind in KINDS:
        forward = Case(False, kind, torch.float32, 6, columns, columns, 0)
        backward = dataclasses.replace(forward, backward=True, upstream_stride=0)
        cases = [(forward, storage.flatten()), (backward, storage.flatten())]
        for (case, flat), got in zip(cases, run(emulation, cases), strict=True):
            torch.testing.assert_close(
                got.double(), case.expected(flat), rtol=2e-6, atol=1e-6, equal_nan=True
            )
        value, grad = run(emulation, cases)
        assert value.isnan().tolist() == [False, False, False, True, True, True]
        assert value[2] == 0
        assert grad.isnan().any(1).tolist() == [False, False, False, True, True, True]
