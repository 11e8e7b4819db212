"""Weights: read without running code, written so that torchvision (for Xception: timm) reads them too."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from sal_fast.errors import InputError

HEADS = ("fc.", "head.")
XCEPTION = "legacy_xception"  # timm's name for it


def load_into(net: nn.Module, arch: str, weights: str) -> None:
    """Load a weights name or file into a network; a head of another size stays as it is.

    Raises InputError that names the first entry that is missing, foreign or of another shape.
    """
    state = read(Path(os.path.expanduser(weights))) if is_file(weights) else _named(arch, weights)
    own = net.state_dict()
    for key in [key for key in state if key.startswith(HEADS)]:
        if key in own and own[key].shape != state[key].shape:
            del state[key]
    absent = [
        key for key in own if key not in state and not key.startswith(HEADS) and "num_batches" not in key
    ]
    foreign = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and own[key].shape != state[key].shape]
    if absent or foreign or shapes:
        reason = (
            f"{shapes[0]!r} has shape {list(state[shapes[0]].shape)}, expected {list(own[shapes[0]].shape)}"
            if shapes
            else f"{absent[0]!r} is missing"
            if absent
            else f"{foreign[0]!r} is not in the network"
        )
        raise InputError(f"weights {weights!r} do not fit {arch}: {reason}")
    net.load_state_dict(state, strict=False)


def read(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pth/.pt file with `weights_only`."""
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
    """Whether `--weights` names a file, not one of torchvision's or timm's."""
    return Path(weights).suffix in (".safetensors", ".pth", ".pt")


def urls(arch: str) -> dict[str, str]:
    """The weights that can be had by name, and where they are downloaded from."""
    if arch != "xception":
        entries = torchvision.models.get_model_weights(arch).__members__
        return {name: entry.url for name, entry in entries.items()}
    import timm

    tags = {
        name.partition(".")[2]: timm.get_pretrained_cfg(name).url
        for name in (XCEPTION, *timm.list_pretrained(XCEPTION))
    }
    return {tag or "DEFAULT": url for tag, url in tags.items()}


def _named(arch: str, name: str) -> dict[str, Tensor]:
    known = urls(arch)
    if name not in known:
        library = "timm" if arch == "xception" else "torchvision"
        raise InputError(
            f"weights {name!r}: expected none, one of {library}'s for {arch} ({', '.join(known)}), "
            f"or a .safetensors, .pth or .pt file"
        )
    try:
        if arch != "xception":
            entry = torchvision.models.get_model_weights(arch)[name]
            return dict(entry.get_state_dict(progress=True, check_hash=True))
        import timm

        with torch.random.fork_rng(devices=[]):  # it makes a network first
            tagged = XCEPTION if name == "DEFAULT" else f"{XCEPTION}.{name}"
            return dict(timm.create_model(tagged, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights {name!r} cannot be downloaded from {known[name]}: {error}; "
            f"fetch that file elsewhere and give its path to --weights"
        ) from None
