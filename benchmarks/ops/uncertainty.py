"""uncertainty: ours, what is usually written (eager), the best one would write (lean), torch.compile."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.registry import Case, Variant, name_of, with_gradient
from sal_fast.bench import usual
from sal_fast.ops import uncertainty
from sal_fast.ops.uncertainty import KINDS, Kind, reference


def lean(logits: Tensor, kind: str) -> Tensor:
    """No matrix of probabilities, but for entropy."""
    if kind == "entropy":
        return torch.special.entr(logits.softmax(1)).sum(1)
    if kind == "least-confidence":
        return 1 - (logits.amax(1) - logits.logsumexp(1)).exp()
    p = (logits.topk(2, dim=1).values - logits.logsumexp(1, keepdim=True)).exp()
    return 1 - (p[:, 0] - p[:, 1])


def _verify(backward: bool, kind: Kind, logits: Tensor) -> None:
    part = logits[:512]
    exact = part.double()
    ones = torch.ones(len(part), dtype=torch.float64, device=part.device)
    if backward:
        (got,) = with_gradient(lambda x: uncertainty(x, kind))(part)
        torch.testing.assert_close(
            got.double(), reference.uncertainty_backward(ones, exact, kind), rtol=1e-2, atol=1e-6
        )
    else:
        torch.testing.assert_close(
            uncertainty(part, kind).double(), reference.uncertainty(exact, kind), rtol=1e-5, atol=1e-6
        )


SIZES = {"rows": 65_536, "columns": 1000}


def cases(dtype: torch.dtype, rows: int, columns: int) -> list[Case]:
    def inputs(device: torch.device, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(seed)
        return ((3 * torch.randn(rows, columns, generator=generator, device=device)).to(dtype),)

    result = []
    matrix = rows * columns * dtype.itemsize
    for backward in (False, True):
        for kind in KINDS:
            variants: dict[str, Variant] = {
                "sal_fast": functools.partial(uncertainty, kind=kind),
                "eager": functools.partial(usual.uncertainty, kind=kind),
                "lean": functools.partial(lean, kind=kind),
                "compile": torch.compile(functools.partial(usual.uncertainty, kind=kind), dynamic=False),
            }
            if backward:
                variants = {name: with_gradient(function) for name, function in variants.items()}
            result.append(
                Case(
                    op="uncertainty",
                    name=f"{kind}-{'forward-backward' if backward else 'forward'}",
                    inputs=inputs,
                    variants=variants,
                    verify=functools.partial(_verify, backward, kind),
                    # Backward reads the logits again and writes the gradient.
                    bytes_moved=(3 if backward else 1) * matrix + 4 * rows,
                    shape=(rows, columns),
                    dtype=name_of(dtype),
                )
            )
    return result
