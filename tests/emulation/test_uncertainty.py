"""csrc/cuda/uncertainty.cu, executed on the host, against the float64 reference."""

import dataclasses
import itertools
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sal_fast.ops.uncertainty import KINDS, reference

from .conftest import CSRC, HERE, Compile

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

    def request(self, storage: Tensor) -> bytes:
        fields = dataclasses.asdict(self)
        fields["kind"] = KINDS.index(self.kind)
        fields["dtype"] = DTYPES.index(self.dtype)
        header = struct.pack("10q", *map(int, fields.values()))
        upstream = self.upstream().numpy().tobytes() if self.backward else b""
        return header + storage.view(torch.uint8).numpy().tobytes() + upstream

    def expected(self, storage: Tensor) -> Tensor:
        """Float64."""
        logits = storage.double().as_strided((self.rows, self.columns), (self.row_stride, 1))
        if not self.backward:
            return reference.uncertainty(logits, self.kind)
        upstream = self.upstream().double().as_strided((self.rows,), (self.upstream_stride,))
        return reference.uncertainty_backward(upstream, logits, self.kind)

    def tolerance(self) -> float:
        return 2e-6 if not self.backward or self.dtype == torch.float32 else 2 * torch.finfo(self.dtype).eps


@pytest.fixture(scope="session")
def program(emulated: Compile) -> Path:
    return emulated("uncertainty", CSRC / "cuda/uncertainty.cu", HERE / "run_uncertainty.cpp")


def run(program: Path, cases: list[tuple[Case, Tensor]]) -> list[Tensor]:
    """All cases in one process; each result is [rows] float32 or [rows, columns] of the logits' type."""
    request = b"".join(case.request(storage) for case, storage in cases)
    result = subprocess.run([str(program)], input=request, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    outputs, at = [], 0
    for case, _ in cases:
        dtype = case.dtype if case.backward else torch.float32
        shape = (case.rows, case.columns) if case.backward else (case.rows,)
        count = int(np.prod(shape))
        chunk = bytearray(result.stdout[at : at + count * dtype.itemsize])
        at += len(chunk)
        outputs.append((torch.frombuffer(chunk, dtype=dtype) if count else torch.empty(0)).reshape(shape))
    assert at == len(result.stdout)
    return outputs


def check(program: Path, cases: list[Case]) -> None:
    inputs = [(case, case.storage()) for case in cases]
    for (case, storage), got in zip(inputs, run(program, inputs), strict=True):
        expected = case.expected(storage)
        torch.testing.assert_close(
            got.double(),
            expected,
            rtol=case.tolerance(),
            atol=1e-6,
            msg=lambda text, case=case: f"{case}: {text}",
        )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_sizes(program: Path, backward: bool) -> None:
    sizes = [(70, 1), (33, 2), (5, 3), (9, 31), (9, 33), (3, 129), (3, 1000), (2, 1025), (2, 4097), (0, 7)]
    cases = [
        Case(backward, kind, dtype, rows, columns, columns, 0)
        for (rows, columns), kind, dtype in itertools.product(sizes, KINDS, DTYPES)
    ]
    check(program, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_block_a_row(program: Path, backward: bool) -> None:
    cases = [Case(backward, kind, dtype, 2, 8195, 8199, 1) for kind in KINDS for dtype in DTYPES]
    check(program, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_unaligned_strided_rows(program: Path, backward: bool) -> None:
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
    check(program, cases)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_block_takes_several_rows(program: Path, backward: bool) -> None:
    check(
        program,
        [
            Case(backward, kind, torch.float32, rows, columns, columns, 0, seed=seed, most_blocks=2)
            for rows, columns in [(150, 10), (37, 200), (5, 8193)]
            for kind in KINDS
            for seed in range(3)
        ],
    )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_any_order_of_threads_gives_the_same_bits(program: Path, backward: bool) -> None:
    for columns in (40, 1000, 8200):
        cases = [
            (case := Case(backward, kind, torch.float32, 3, columns, columns, 0, seed=seed), case.storage())
            for kind in KINDS
            for seed in range(4)
        ]
        outputs = run(program, cases)
        for i in range(0, len(outputs), 4):
            assert all(torch.equal(outputs[i], other) for other in outputs[i + 1 : i + 4])


@pytest.mark.parametrize("columns", [5, 300, 8200])
def test_ties_minus_infinity_and_bad_rows(program: Path, columns: int) -> None:
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
        for (case, flat), got in zip(cases, run(program, cases), strict=True):
            torch.testing.assert_close(
                got.double(), case.expected(flat), rtol=2e-6, atol=1e-6, equal_nan=True
            )
        value, grad = run(program, cases)
        assert value.isnan().tolist() == [False, False, False, True, True, True]
        assert value[2] == 0
        assert grad.isnan().any(1).tolist() == [False, False, False, True, True, True]
