"""In which of torch's modes an op is called, and so which way it may take."""

from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _has_storage, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_PLAIN = (Tensor, torch.nn.Parameter)


def plain(arguments: tuple[Any, ...]) -> bool:
    """True if nothing but the kernels needs to see a call with these arguments.

    It is the one condition of every way around torch's dispatcher, and of every look at values. A view with
    the negative bit is none of torch's plain memory: the dispatcher writes it out first.
    """
    if (
        is_compiling()
        or _are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or _len_torch_dispatch_stack()
    ):
        return False
    for argument in arguments:
        if type(argument) in _PLAIN:
            # a batch in torch's older vmap, which autograd uses, has no storage
            if argument.is_neg() or not (argument.is_cpu or argument.is_cuda) or not _has_storage(argument):
                return False
        elif isinstance(argument, Tensor):
            return False
    return True


def transformed() -> bool:
    """True inside `torch.func.grad`, `vmap`, `jvp` and the like, and in forward mode."""
    if is_compiling():
        return False
    active: bool = _are_functorch_transforms_active()
    return active or forward_ad._current_level >= 0
