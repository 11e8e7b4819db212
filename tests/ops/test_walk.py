"""Random calls of the ops: any argument, dtype, order of memory, mode of torch and number of threads.

Each call has a seed, on which everything about it depends; a failure names it. `SAL_FAST_WALK=SEED pytest
tests/ops/test_walk.py` makes that one call again, and `SAL_FAST_WALK=FIRST-LAST` makes others.

The results are held to the rule of `precision.py`: an error against float64 of at most twice that of torch at
the same precision, and a rounding. For one call torch may have been lucky. So what a rounding of the inputs
changes in the result counts as an error of torch's, too. Equal inputs are rounded alike, so that ties stay
ties. Inputs in float64 are held to an oracle, where `op_cases.py` has one besides the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from op_cases import CASES, HALVES, TRANSFORMS, Case, Draw, Function
from precision import error, full, name_of
from torch import Tensor, nn

# torch itself warns when its own transforms are imported
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

QUICK, LONG, PARTS = 200, 10_000, 10


# Order of memory -------------------------------------------------------------------------------------------


def with_gaps(x: Tensor) -> Tensor:
    return torch.stack([x, torch.ones_like(x)], -1)[..., 0]


def overlapping(x: Tensor) -> Tensor:
    """Rows that are windows of one vector."""
    if x.ndim < 2 or not x.numel():
        return x
    row = x.flatten()[: x[0].numel() + len(x) - 1]
    row = torch.cat([row, row.new_zeros(x[0].numel() + len(x) - 1 - len(row))])
    return row.unfold(0, x[0].numel(), 1).unflatten(1, x.shape[1:])


def negative(x: Tensor) -> Tensor:
    """The imaginary part of a conjugate says `minus`; its memory has the other sign."""
    if x.dtype not in (torch.float32, torch.float64):
        return x
    return torch.complex(torch.zeros_like(x), -x).conj().imag


# Some change the values, as rows that overlap must. What they give is what the call is about.
ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.ndim > 1 else x,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x,
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "with gaps": with_gaps,
    "every other": lambda x: x.repeat_interleave(2, 0)[1::2],
    "with an offset": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[-x.numel() or None :].view(x.shape),
    "inside a larger one": lambda x: torch.nn.functional.pad(x, (1, 2))[..., 1:-2],
    "expanded": lambda x: x[:1].expand_as(x) if len(x) else x,
    "expanded last": lambda x: x[..., :1].expand_as(x) if x.ndim > 1 else x,
    "overlapping": overlapping,
    "negative": negative,
}  # fmt: skip


def arranged(draw: Draw, x: Tensor) -> Tensor:
    """The tensor in some order of memory."""
    order = draw.one("contiguous", "contiguous", *ORDERS)
    if x.ndim == 0 or (order.startswith(("expanded", "overlapping")) and not x.is_floating_point()):
        return x
    return ORDERS[order](x)


# One call --------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The results of a call, and the gradients of their weighted sum by some of the inputs."""

    results: tuple[Tensor, ...]
    grads: tuple[Tensor, ...] = ()


class Call(NamedTuple):
    """A call of an op, with the inputs whose gradients are wanted, and the weights of its results."""

    function: Function
    inputs: tuple[Tensor, ...]
    wanted: tuple[int, ...] = ()
    weights: int = 0  # a number that decides about the weights of the results

    def results(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.function(*inputs)
        return found if isinstance(found, tuple) else (found,)

    def loss(self, *inputs: Tensor) -> Tensor:
        """A number that depends on every floating result, each value of which has a weight of its own."""
        total = 0.0
        for result in self.results(*inputs):
            if result.is_floating_point():
                places = torch.arange(result.numel(), dtype=torch.float64).view(result.shape)
                total = total + (result * torch.cos(places + self.weights).to(result.dtype)).sum()
        return total  # type: ignore[return-value]

    def wanted_inputs(self) -> list[Tensor]:
        return [self.inputs[i] for i in self.wanted]

    def of_wanted(self, *given: Tensor) -> Tensor:
        """The loss as a function of the inputs whose gradients are wanted."""
        inputs = list(self.inputs)
        for i, value in zip(self.wanted, given, strict=True):
            inputs[i] = value
        return self.loss(*inputs)


def by_autograd(call: Call) -> Answer:
    if not call.wanted:
        return Answer(call.results(*call.inputs))
    inputs = [x.detach().requires_grad_(i in call.wanted) for i, x in enumerate(call.inputs)]
    results = call.results(*inputs)
    again = call._replace(function=lambda *_: results)
    grads = torch.autograd.grad(again.loss(), [inputs[i] for i in call.wanted])
    return Answer(tuple(x.detach() for x in results), grads)


def by_func(call: Call) -> Answer:
    wanted = call.wanted_inputs()
    results = call.results(*call.inputs)
    grads = torch.func.grad(call.of_wanted, argnums=tuple(range(len(wanted))))(*wanted) if wanted else ()
    return Answer(results, grads)


def by_forward_mode(call: Call) -> Answer:
    """The results, and then the tangents of those that are floating, in a direction made from the seed."""

    def floating(*given: Tensor) -> tuple[Tensor, ...]:
        inputs = list(call.inputs)
        for i, value in zip(call.wanted, given, strict=True):
            inputs[i] = value
        return tuple(x for x in call.results(*inputs) if x.is_floating_point())

    # torch itself refuses a dual number whose memory overlaps
    wanted = [x.clone(memory_format=torch.contiguous_format) for x in call.wanted_inputs()]
    draws = torch.Generator().manual_seed(call.weights)
    directions = [torch.randn(x.shape, generator=draws).to(x.dtype) for x in wanted]
    tangents = torch.func.jvp(floating, tuple(wanted), tuple(directions))[1] if wanted else ()
    results = call.results(*call.inputs)
    kept = [x.dtype for x in results if x.is_floating_point()]
    return Answer(results + tuple(x.to(dtype) for x, dtype in zip(tangents, kept, strict=False)))


def by_functional_call(call: Call) -> Answer:
    """The inputs are the buffers of a module, which another thread calls."""

    class Module(nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return call.function(*(getattr(self, f"x{i}") for i in range(len(call.inputs))))

    module = Module()
    for i, x in enumerate(call.inputs):
        module.register_buffer(f"x{i}", torch.zeros_like(x))

    def function(*inputs: Tensor) -> Any:
        return torch.func.functional_call(module, {f"x{i}": x for i, x in enumerate(inputs)}, ())

    return in_threads(call._replace(function=function), 1)[0]


def in_threads(call: Call, count: int) -> list[Answer]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(by_autograd, [call] * count))


def in_inference_mode(call: Call) -> Answer:
    with torch.inference_mode():
        return Answer(call.results(*call.inputs))


def of_inference_tensors(call: Call) -> Answer:
    with torch.inference_mode():
        inputs = [x.clone() for x in call.inputs]
    return Answer(call.results(*inputs))


def without_grad(call: Call) -> Answer:
    with torch.no_grad():
        inputs = [x.detach().requires_grad_(i in call.wanted) for i, x in enumerate(call.inputs)]
        return Answer(call.results(*inputs))


PLAIN_MODES: dict[str, Callable[[Call], Answer | list[Answer]]] = {
    "autograd": by_autograd,
    "autograd again": by_autograd,
    "no_grad": without_grad,
    "inference_mode": in_inference_mode,
    "inference tensors": of_inference_tensors,
    "functional_call in a thread": by_functional_call,
    "three threads": lambda call: in_threads(call, 3),
}


def by_vmap(draw: Draw, call: Call) -> list[tuple[Answer, Call]]:
    """Two calls as one batch, each beside the call that it is."""
    batched = [draw.maybe() or i == 0 for i in range(len(call.inputs))]
    places = [
        draw.one(0, -1) if is_batched and x.ndim else None
        for is_batched, x in zip(batched, call.inputs, strict=True)
    ]
    others = [x if place is None else x.flip(0) for place, x in zip(places, call.inputs, strict=True)]
    given = [
        x if place is None else torch.stack([x, other], place)
        for place, x, other in zip(places, call.inputs, others, strict=True)
    ]

    def one(*inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return by_func(call._replace(inputs=inputs))

    found = torch.func.vmap(one, in_dims=tuple(places))(*given)
    return [
        (Answer(*(tuple(x[i] for x in part) for part in found)), call._replace(inputs=tuple(inputs)))
        for i, inputs in enumerate((call.inputs, others))
    ]


# What it is held to ----------------------------------------------------------------------------------------


def in_precision(
    call: Call, function: Function, dtype: torch.dtype | None, by: Callable[[Call], Answer]
) -> Answer:
    """The call in float64, or (None) as torch computes it: halves as float32."""

    def cast(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x.to(dtype) if dtype else x.float() if x.dtype in HALVES else x

    def computed(*inputs: Tensor) -> Any:
        return function(*map(cast, inputs))

    # The gradients of a half type come out in it, so that torch rounds them as the op must. Float64 does not.
    inputs = call.inputs if dtype is None else tuple(map(cast, call.inputs))
    plain = tuple(x.detach().resolve_neg().clone(memory_format=torch.contiguous_format) for x in inputs)
    return by(call._replace(function=computed, inputs=plain))


def moved(call: Call, seed: int) -> Call:
    """The call of inputs that are off by a rounding of the arithmetic. Values that are equal stay equal."""

    def off(x: Tensor) -> Tensor:
        if not x.is_floating_point() or not x.numel():
            return x
        x = x if x.dtype == torch.float64 else x.float()
        size = x.abs().max().clamp(min=torch.finfo(x.dtype).tiny)
        return x * (1 + torch.finfo(x.dtype).eps * torch.sin(x / size * (1e6 + 1e5 * seed)).sign())

    return call._replace(inputs=tuple(map(off, call.inputs)))


def largest(x: Tensor) -> float:
    return float(x.double().abs().nan_to_num().max()) if x.numel() else 0.0


class Judge:
    """Holds answers to the rule. `by` makes the answers that the op's are compared with."""

    def __init__(self, case: Case, call: Call, by: Callable[[Call], Answer]) -> None:
        self.case, self.call, self.by = case, call, by
        self.exact_function = case.oracle or case.reference
        self.double = case.double and call.inputs[0].dtype == torch.float64
        self.exact = in_precision(call, self.exact_function, torch.float64, by)
        self.torchs = in_precision(call, case.reference, None, by)
        self.neighbours: list[tuple[Answer, Answer]] = []

    def near(self) -> list[tuple[Answer, Answer]]:
        """Exact and torch's answers for inputs that are off by a rounding. They are made if somebody asks."""
        if not self.neighbours:
            for seed in range(6):
                call = moved(self.call, seed)
                exact = in_precision(call, self.exact_function, torch.float64, self.by)
                self.neighbours.append((exact, in_precision(call, self.case.reference, None, self.by)))
        return self.neighbours

    def check(self, answer: Answer) -> None:
        dtype = self.case.dtype or (torch.float64 if self.double else torch.float32)
        assert len(answer.results) == len(self.exact.results)
        for i, result in enumerate(answer.results):
            if result.is_floating_point():
                assert result.dtype == dtype, f"result {i}: {result.dtype}, expected {dtype}"
            slope = self.case.slopes.get(i)
            rounding, size = self.case.rounding, self.case.size
            if slope is not None:
                rounding, size = self.case.of_gradient, self._slope(self.call.inputs[slope])
            self._hold(f"result {i}", result, lambda answer, i=i: answer.results[i], rounding, size)
        for i, grad in enumerate(answer.grads):
            given = self.call.inputs[self.call.wanted[i]]
            assert grad.dtype == given.dtype, f"gradient {i}: {grad.dtype}, expected {given.dtype}"
            rounding = torch.finfo(given.dtype).eps if given.dtype in HALVES else self.case.of_gradient
            size = self._slope(given)
            self._hold(f"gradient {i}", grad, lambda answer, i=i: answer.grads[i], rounding, size)

    def _slope(self, given: Tensor) -> float:
        """The size of a gradient that does not cancel. The rounding of one that does is that of its parts."""
        values = max(largest(given), self.case.unit)
        results = max(self.case.size, *map(largest, self.exact.results))
        return self.case.steep * results / values if values else 0.0

    def _hold(
        self, what: str, got: Tensor, part: Callable[[Answer], Tensor], rounding: float, size: float
    ) -> None:
        exact = part(self.exact)
        assert got.shape == exact.shape, f"{what}: shape {list(got.shape)}, expected {list(exact.shape)}"
        if not exact.is_floating_point():
            off = (got.long() - exact.long()).abs()
            # A rounding may break a tie, for torch as for the op.
            right = not off.numel() or int(off.max()) <= self.case.off_by or got.equal(part(self.torchs))
            assert right, f"{what}: {got}, expected {exact}"
            return
        limit = torch.finfo(got.dtype).max  # what is beyond a half type's range is infinite in it
        exact = exact.double().clamp(-limit, limit)

        def against(exact: Tensor, other: Tensor) -> float:
            return error(other.double().clamp(-limit, limit), exact.double().clamp(-limit, limit))

        assert torch.equal(got.isnan(), exact.isnan()), f"{what}: NaN in other places"
        rounding = (1e-10 if self.double else rounding) * max(1.0, size / max(largest(exact), 1e-30))
        most = 1e-6 if self.double else float("inf")  # in float64 the op may be torch itself
        ours, torchs = against(exact, got), min(most, against(exact, part(self.torchs)))
        if ours > 2 * torchs + rounding:
            for near_exact, near_torchs in self.near():
                torchs = max(torchs, min(most, against(part(near_exact), part(near_torchs))))
                torchs = max(torchs, against(exact, part(near_exact)))
        allowed = 2 * torchs + rounding
        assert ours <= allowed, f"{what}: error {ours:.3g}, allowed {allowed:.3g}"


# The walk --------------------------------------------------------------------------------------------------


@contextmanager
def untouched(inputs: Sequence[Tensor]) -> Iterator[None]:
    """An op leaves its inputs and torch's settings as they are."""

    def state() -> tuple[Any, ...]:
        return (
            torch.get_num_threads(), torch.is_grad_enabled(), torch.get_float32_matmul_precision(),
            torch.is_autocast_enabled("cpu"), torch.get_rng_state().sum(),
        )  # fmt: skip

    before, copies = state(), [x.clone() for x in inputs]
    yield
    assert state() == before, f"torch's state was {before}, is {state()}"
    for i, (x, copy) in enumerate(zip(inputs, copies, strict=True)):
        same = (
            torch.equal(x.nan_to_num(), copy.nan_to_num()) if x.is_floating_point() else torch.equal(x, copy)
        )
        assert same, f"input {i} was changed"


def answers(draw: Draw, case: Case, call: Call, mode: str) -> list[tuple[Answer, Judge]]:
    """Make the call in a mode. Each answer comes with its judge."""
    # Torch asks for a backward outside of autocast.
    call = call._replace(function=within(autocast(draw), call.function))
    with untouched(call.inputs):
        if mode == "vmap":
            batch = by_vmap(draw, call)
        elif mode == "forward":
            batch = [(by_forward_mode(call), call)]
        elif mode == "func":
            batch = [(by_func(call), call)]
        else:
            given = PLAIN_MODES[mode](call)
            batch = [(answer, call) for answer in (given if isinstance(given, list) else [given])]
    by = by_forward_mode if mode == "forward" else by_autograd
    judges = {id(of): Judge(case, of, by) for _, of in batch}
    return [(answer, judges[id(of)]) for answer, of in batch]


def walk(seed: int) -> None:
    """One call."""
    draw = Draw(seed)
    make = draw.one(*CASES)
    case = make(draw)
    inputs = case.inputs if case.refused else tuple(arranged(draw, x) for x in case.inputs)
    wanted = tuple(i for i in range(case.differentiable) if draw.maybe(0.7))
    call = Call(case.op, inputs, wanted, weights=seed)
    mode = draw.one(*PLAIN_MODES, *(["func", "vmap", "forward"] if TRANSFORMS in case.modes else []))
    threads, before = draw.one(1, 2, 3), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if not case.refused:
            for answer, judge in answers(draw, case, call, mode):
                judge.check(answer)
        elif mode in PLAIN_MODES:
            with pytest.raises(ValueError, match=case.refused):
                PLAIN_MODES[mode](call)
    except (Exception, pytest.fail.Exception) as problem:
        given = ", ".join(f"{name_of(x.dtype)}{list(x.shape)}" for x in inputs)
        where = f"{make.__name__}({given}) in mode {mode} with {threads} threads"
        raise AssertionError(f"SAL_FAST_WALK={seed}: {where}: {problem!r}") from problem
    finally:
        torch.set_num_threads(before)


def within(context: AbstractContextManager[Any], function: Function) -> Function:
    def run(*inputs: Tensor) -> Any:
        with context:
            return function(*inputs)

    return run


def autocast(draw: Draw) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", draw.one(torch.bfloat16, torch.float16), enabled=draw.maybe(0.2))


def asked_for() -> list[range]:
    """The seeds of each part of the walk."""
    first, _, last = os.environ.get("SAL_FAST_WALK", "").partition("-")
    if first:
        return [range(int(first), int(last or first) + 1)]
    return [range(QUICK), *(range(at, at + LONG // PARTS) for at in range(0, LONG, LONG // PARTS))]


@pytest.mark.parametrize("seeds", [asked_for()[0], *map(full, asked_for()[1:])], ids=str)
def test_walk(seeds: range) -> None:
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    problems = []
    for seed in seeds:
        try:
            walk(seed)
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, f"{len(problems)} of {len(seeds)} calls went wrong:\n" + "\n".join(problems[:20])
