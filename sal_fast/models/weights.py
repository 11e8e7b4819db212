"""Weights: read without running code, and written so that the network's own library reads them too."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sal_fast.errors import InputError
from sal_fast.models.backbone import Backbone, Spec, network


def load_into(net: nn.Module, backbone: Backbone, weights: str) -> None:
    """Load weights, by name or from a file, into a network. A head of another size is left as it is.

    Raises InputError that names the first entry that is missing, unknown or of another shape.
    """
    state = read(Path(os.path.expanduser(weights))) if is_file(weights) else _named(backbone, weights)
    own = net.state_dict()
    head = f"{backbone.head}."
    shapes = [key for key in state if key in own and own[key].shape != state[key].shape]
    state = {key: value for key, value in state.items() if key not in shapes or not key.startswith(head)}
    reasons = [
        f"{key!r} has shape {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in shapes
        if key in state
    ]
    needed = (key for key in own if not key.startswith(head) and "num_batches" not in key)
    reasons += [f"{key!r} is missing" for key in needed if key not in state]
    reasons += [f"{key!r} is not in the network" for key in state if key not in own]
    if reasons:
        raise InputError(f"weights {weights!r} do not fit {backbone.name}: {reasons[0]}")
    net.load_state_dict(state, strict=False)


def read(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pth or .pt file with `weights_only`."""
    if not path.is_file():
        raise InputError(f"weights file not found: {path}")
    try:
        if path.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"weights file {path} cannot be read: {str(error).splitlines()[0]}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights file {path}: expected a state dict of tensors, got {type(state).__name__}")
    return {str(key).removeprefix("module.").removeprefix("net."): value for key, value in state.items()}


def to_bytes(model: nn.Module) -> bytes:
    """A state dict as safetensors. (Its `save_file` hides the errno of a full disk.)"""
    return safetensors.torch.save(
        {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    )


def is_file(weights: str) -> bool:
    """True if `--weights` names a file, not weights that are downloaded by name."""
    return Path(weights).suffix in (".safetensors", ".pth", ".pt")


def urls(arch: Spec) -> dict[str, str]:
    """The weights that can be had by name, and where they are downloaded from."""
    return {name: found.url for name, found in network(arch).weights().items()}


def _named(backbone: Backbone, name: str) -> dict[str, Tensor]:
    known = backbone.weights()
    if name not in known:
        named = f"one of {backbone.library}'s for {backbone.name} ({', '.join(known)}), " if known else ""
        raise InputError(f"weights {name!r}: expected none, {named}or a .safetensors, .pth or .pt file")
    try:
        return dict(known[name].read())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights {name!r} cannot be downloaded from {known[name].url}: {error}; "
            f"fetch that file elsewhere and give its path to --weights"
        ) from None
