"""Check a wheel that is installed, as cibuildwheel does: `python installed_wheel.py WHEEL`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import sal_fast
from sal_fast import ops

MOST_BYTES = 60 * 10**6
# Every wheel has machine code for these GPUs, given as the major numbers of their compute capability.
GENERATIONS = {"7", "8", "9", "10", "12"}


def check_build(wheel: Path) -> None:
    """The wheel is small, and holds the native core with the CUDA kernels of all generations."""
    assert wheel.stat().st_size <= MOST_BYTES, f"{wheel.stat().st_size / 1e6:.1f} MB"
    assert Path(__file__).parents[2] not in Path(sal_fast.__file__).parents, (
        "this is the source, not the wheel"
    )
    info = sal_fast.build_info()
    assert info.native, info.native_error
    assert info.cuda, info.cuda_reason
    numbers = [architecture.removesuffix("-real") for architecture in info.cuda_architectures]
    assert {number[:-1] for number in numbers} >= GENERATIONS, info
    assert numbers[-1] in info.cuda_architectures, f"newer GPUs have no PTX: {info}"


def check_ops() -> None:
    """The ops agree with torch, and a loss has a gradient."""
    torch.manual_seed(0)
    logits = torch.randn(64, 10)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(ops.uncertainty(logits, "entropy"), entropy)
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(ops.ssim(images, images), torch.tensor(1.0))
    maps = torch.rand(4, 7, 7, requires_grad=True)
    ops.saliency_loss(maps, torch.rand(4, 224, 224) > 0.5).sum().backward()
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())
    assert bool(maps.grad.any())


if __name__ == "__main__":
    check_build(Path(sys.argv[1]))
    check_ops()
    print(f"{sys.argv[1]} works: {sal_fast.build_info()}")
