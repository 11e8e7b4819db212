"""From tensors to launchers: fields go by their names, and memory lives until the launcher returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sal_fast import _native
from sal_fast.ops import _launch
from sal_fast.ops.saliency_loss import registration as saliency_loss
from sal_fast.ops.ssim import registration as ssim

FLOATS = 1000
core = _native.core()


class Allocator:
    """Gives a block that nobody holds any longer to the next who asks, as torch's caching allocator does."""

    def __init__(self) -> None:
        self.unused: list[int] = []
        self.made = 0

    def empty(self, *size: int, **_: Any) -> Block:
        if not self.unused:
            self.made += 1
            self.unused.append(4096 * self.made)
        return Block(self, self.unused.pop())


class Block:
    def __init__(self, allocator: Allocator, address: int) -> None:
        self.allocator, self.address = allocator, address

    def data_ptr(self) -> int:
        return self.address

    def __del__(self) -> None:
        self.allocator.unused.append(self.address)


class FakeCore:
    """A core for a device, whose launchers let another thread allocate before they use their workspace."""

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        self.addresses: list[tuple[int, int]] = []  # of the workspace, and of the other's block

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return (lambda fields: FLOATS) if name.endswith("_workspace") else self.launch

    def launch(self, fields: dict[str, Any], workspace: Block, stream: int) -> None:
        other = self.allocator.empty(FLOATS)
        self.addresses.append((workspace.data_ptr(), other.data_ptr()))


@pytest.mark.parametrize("op", ["ssim", "saliency_loss"])
def test_nobody_gets_the_workspace_before_the_launch_returns(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator = Allocator()
    fake = FakeCore(allocator)
    monkeypatch.setitem(_launch._CORES, "meta", fake)
    cuda = SimpleNamespace(
        device=lambda device: contextlib.nullcontext(),
        current_stream=lambda: SimpleNamespace(cuda_stream=0),
    )
    a_gpu = SimpleNamespace(empty=allocator.empty, float32=torch.float32, cuda=cuda)
    monkeypatch.setattr(_launch, "torch", a_gpu)
    x = torch.empty(2, 3, 20, 20, device="meta")
    if op == "ssim":
        arguments = (x, x, None, 11, 1.5, "valid", 1.0, False, False, False, False)
        ssim._fill(ssim._empty(*arguments), *arguments)
    else:
        how = ("ssim_l1", "valid", "none")
        arguments = (x[:, 0], x[:, 1], None, (20, 20, 20, 7), how, False)
        saliency_loss._fill(saliency_loss._empty(*arguments), *arguments)
    ((workspace, other),) = fake.addresses
    assert workspace != other
    assert len(allocator.unused) == allocator.made == 2  # and it is free again afterwards


needs_core = pytest.mark.skipif(core is None, reason="there is no native core")


def dice_fields() -> dict[str, Any]:
    mask = {
        "data": torch.ones(1, 2, 3, dtype=torch.bool), "type": 0, "height": 2, "width": 3, "image_stride": 6,
        "row_stride": 3, "column_stride": 1,
    }  # fmt: skip
    return {"images": 1, "first": mask, "second": dict(mask), "empty": 0.0, "dice": torch.zeros(1)}


@needs_core
def test_the_order_of_fields_does_not_matter() -> None:
    fields = dice_fields()
    _launch.launch("dice", torch.device("cpu"), **dict(reversed(fields.items())))
    assert fields["dice"].item() == 1


@needs_core
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("empty"), "the field empty is missing"),
        (lambda fields: fields["second"].pop("row_stride"), "the field row_stride is missing"),
        (lambda fields: fields.update(rows=3), "fields that the launcher does not have"),
        (lambda fields: fields["first"].update(rows=3), "fields that the launcher does not have"),
        (lambda fields: fields.update(first=None), "the field data is missing"),
        (lambda fields: fields.update(images=1.5), "the field images is of another type"),
        (lambda fields: fields.update(empty="none"), "the field empty is of another type"),
        (lambda fields: fields["first"].update(type=torch.bool), "the field type is of another type"),
    ],
)
def test_a_wrong_field_is_an_error(change: Callable[[dict[str, Any]], object], message: str) -> None:
    fields = dice_fields()
    change(fields)
    with pytest.raises(TypeError, match=message):
        _launch.launch("dice", torch.device("cpu"), **fields)


@needs_core
def test_a_pointer_is_an_object_with_an_address() -> None:
    fields = dice_fields() | {"dice": 17}
    with pytest.raises(AttributeError, match="data_ptr"):
        _launch.launch("dice", torch.device("cpu"), **fields)


@needs_core
def test_a_prepared_launcher_takes_pointers_in_their_order() -> None:
    fields = dice_fields()
    first, second, dice = fields["first"]["data"], fields["second"]["data"], fields["dice"]
    fields["first"]["data"] = fields["second"]["data"] = fields["dice"] = None
    launcher = _launch.prepared("dice", **fields)
    launcher(1, first, second, dice)
    assert dice.item() == 1
    launcher(1, torch.zeros_like(first), second, dice)
    assert dice.item() == 0
    with pytest.raises(TypeError, match="the pointer dice is missing"):
        launcher(1, first, second)
    with pytest.raises(TypeError, match="so many pointers"):
        launcher(1, first, second, dice, None)
    with pytest.raises(AttributeError, match="data_ptr"):
        launcher(1, first, second, 17)
    with pytest.raises(TypeError, match="the field empty is missing"):
        _launch.prepared("dice", **{name: value for name, value in fields.items() if name != "empty"})


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A build with CUDA kernels on a machine whose driver is too old for them."""
    problem = "CUDA driver version is too old for this CUDA runtime"
    build = SimpleNamespace(cuda_problem=lambda gpu: problem, cuda_toolkit="13.0", cuda_architectures="80 90")
    monkeypatch.setattr(_native, "cuda_core", lambda: build)
    monkeypatch.setitem(_launch._CORES, "cuda", build)
    _native.runs_on.cache_clear()
    yield
    _native.runs_on.cache_clear()


def test_kernels_that_a_gpu_cannot_run_are_left_out_with_one_warning(old_driver: None) -> None:
    gpu = torch.device("cuda", 0)
    with pytest.warns(RuntimeWarning, match="cannot run on cuda:0: CUDA driver version is too old") as said:
        found = [_launch.has_core(gpu) for _ in range(2)]
    assert found == [False, False]
    assert len(said) == 1
    assert "The ops run in torch there" in str(said[0].message)


@needs_core
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_core_tells_that_there_is_no_gpu() -> None:
    assert core is not None
    assert core.cuda_problem(0)
