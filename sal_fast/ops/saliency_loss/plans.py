"""Plans: a call on the CPU leaves out the work that an earlier call with the same signature has done.

A call of the core takes 5 us for 64 maps of 7 x 7. The checks, the fields of the launcher and the way through
the operator took some 30 us.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, empty_like, get_num_threads, is_grad_enabled

from sal_fast.ops import _launch
from sal_fast.ops._modes import plain
from sal_fast.ops.saliency_loss import registration
from sal_fast.ops.saliency_loss.registration import gradient_of

# Batches come in a few sizes. A program whose sizes change all the time starts again at this many.
_MOST = 64
_plans: dict[Hashable, "Plan"] = {}


class Plan:
    """The calls with one signature: their arguments are right, and their launcher has read its fields."""

    def __init__(
        self, cam: Tensor, target: Tensor, has_map: Tensor | None, sizes: Sequence[int], how: Sequence[str]
    ) -> None:
        images, cam_height, cam_width = cam.shape
        kind, border, reduction = how
        self.each = reduction == "none"
        # torch makes a tensor like another in less time than one of a given shape
        self.result = cam.new_empty((images,) if self.each else ())
        self.with_grad = cam.requires_grad and is_grad_enabled()
        self.launch = _launch.prepared(
            "saliency_loss", cam=None, dtype=_launch.DTYPES[cam.dtype], images=images, cam_height=cam_height,
            cam_width=cam_width, weight=1 / images if reduction == "mean" else 1.0, values=None, total=None,
            grad=None, **registration.target_fields(target, has_map, sizes, border, kind),
        )  # fmt: skip

    def __call__(self, cam: Tensor, target: Tensor, has_map: Tensor | None) -> Tensor:
        """The reduced loss."""
        if not self.with_grad:
            return self.run(cam, target, has_map)[0]
        loss: Tensor = _Planned.apply(cam, (self, target, has_map))
        return loss

    def run(self, cam: Tensor, target: Tensor, has_map: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The reduced loss and its gradient."""
        loss = empty_like(self.result)
        grad = empty_like(cam) if self.with_grad else None
        values, total = (loss, None) if self.each else (None, loss)
        self.launch(get_num_threads(), cam, target, has_map, values, total, grad)
        return loss, grad


class _Planned(torch.autograd.Function):
    # Torch need not see the other tensors, which have no gradient. The gradient is neither an argument nor a
    # result, so that it may stay with the node; saved as torch saves tensors, it would take 2 us more.
    @staticmethod
    def forward(ctx: Any, cam: Tensor, planned: tuple[Plan, Tensor, Tensor | None]) -> Tensor:
        plan, target, has_map = planned
        loss, grad = plan.run(cam, target, has_map)
        ctx.made = cam, grad
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        cam, gradient = ctx.made
        return gradient_of(cam, gradient, upstream), None


def find(
    cam: Any, target: Any, has_map: Any, map_size: Any, window: Any, *how: Any
) -> tuple[Hashable, Plan | None]:
    """The signature of a call, and the plan for it if there is one.

    The signature is all that the checks, the fields and the way of a call depend on. It is None if no plan
    may serve the call: a mode of torch has to see it, or the checks refuse the type of an argument.
    """
    if not plain((cam, target, has_map)):
        return None, None
    try:
        signature = (
            cam.is_cpu and target.is_cpu and cam.is_contiguous() and target.is_contiguous(),
            cam.requires_grad and is_grad_enabled(), target.requires_grad, cam.dtype, cam.shape,
            target.dtype, target.shape, map_size, type(map_size), window, type(window), *how,
            has_map is None or (has_map.dtype, has_map.shape, has_map.is_cpu, has_map.is_contiguous()),
        )  # fmt: skip
        return signature, _plans.get(signature)
    except (AttributeError, TypeError):  # no tensor, or nothing that a dict may look up
        return None, None


def add(
    signature: Hashable, cam: Tensor, target: Tensor, has_map: Tensor | None, sizes: Sequence[int],
    how: Sequence[str],
) -> None:  # fmt: skip
    """Make a plan for the calls with this signature if the core takes their arguments as they are.

    The arguments have been checked.
    """
    if (
        signature is None
        or not (cam.is_cpu and cam.dtype == torch.float32)
        or not (cam.is_contiguous() and target.is_contiguous())
        or not (has_map is None or has_map.is_contiguous())
        or target.requires_grad
        or target.dtype not in registration.TARGET_CODES
        or not cam.shape[0]
        or not registration.takes(cam, target, has_map, sizes)
    ):
        return
    if len(_plans) >= _MOST:
        _plans.clear()
    _plans[signature] = Plan(cam, target, has_map, sizes, how)
