"""In which of torch's modes an op is called, and so which way it may take."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def plain(arguments: tuple[Any, ...]) -> bool:
    """True if nothing but the kernels needs to see a call with these arguments.

    It is the one condition of every way around torch's dispatcher, and of every look at values. A view with
    the negative bit is none of torch's plain memory: the dispatcher writes it out first.
    """
    if torch.compiler.is_compiling() or transformed() or torch._C._len_torch_dispatch_stack():
        return False
    for argument in arguments:
        if isinstance(argument, Tensor) and (
            type(argument) not in (Tensor, torch.nn.Parameter)
            or not (argument.is_cpu or argument.is_cuda)
            or argument.is_neg()
            or not torch._C._has_storage(argument)  # a batch in torch's older vmap, which autograd uses
        ):
            return False
    return True


def transformed() -> bool:
    """True inside `torch.func.grad`, `vmap`, `jvp` and the like, and in forward mode."""
    if torch.compiler.is_compiling():
        return False
    active: bool = torch._C._are_functorch_transforms_active()
    return active or forward_ad._current_level >= 0
