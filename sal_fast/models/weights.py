"""Weights: read without running code, and written so that the network's own library reads them too."""

import functools
import json
import logging
import os
import pickle
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sal_fast._util.suggest import nearest
from sal_fast.errors import InputError
from sal_fast.models.backbone import Backbone, Spec, Weights
from sal_fast.models.libraries import network

log = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
DEFAULT = "DEFAULT"  # the name that every library gives to its best weights
FILE = "a .safetensors, .pth, .pt, .ckpt or .bin file"
# The entries of a checkpoint under which its state dict may lie. Averaged weights come first.
PLACES = ("state_dict_ema", "ema", "model_ema", "model_state_dict", "state_dict", "model", "params")
# What wrappers put before the names of a network's entries, in any nesting: torch.compile,
# DistributedDataParallel, Lightning, and networks with a part of such a name.
PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.", "net.", "encoder.")
METADATA = "sal_fast"  # the key of what a run says about its weights, in the header of a .safetensors file


def load_into(net: nn.Module, backbone: Backbone, weights: str) -> None:
    """Load weights, by name or from a file, into a network. A head of another size is left as it is.

    Wrappers' prefixes are taken off (`unwrapped`). Raises InputError that names the first entry that is
    missing, unknown or of another shape.
    """
    own = net.state_dict()
    if is_file(weights):
        state = unwrapped(read(Path(os.path.expanduser(weights))), own)
    else:
        found = _named(backbone, weights)
        state = {key: value for key, value in found.items() if key in own}  # not those of auxiliary heads
    state, head = fitting(net, backbone, state, weights), f"{backbone.head_name(net)}."
    if any(key.startswith(head) and key not in state for key in own):
        _tell_once(f"weights {weights}: they have no head for these classes; it begins at random")
    net.load_state_dict(state, strict=False)


def fitting(
    net: nn.Module, backbone: Backbone, state: Mapping[str, Tensor], weights: str
) -> dict[str, Tensor]:
    """The entries of a state dict that fit a network: all of them, but for a head of another size.

    Raises InputError that names the first entry that is missing, unknown or of another shape. It calls
    the state dict `weights`.
    """
    own, head = net.state_dict(), f"{backbone.head_name(net)}."
    shapes = [key for key in state if key in own and own[key].shape != state[key].shape]
    reasons = [
        f"{key!r} has shape {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in shapes
        if not key.startswith(head)
    ]
    state = {key: value for key, value in state.items() if key not in shapes}
    needed = [key for key in own if not key.startswith(head) and "num_batches" not in key]
    missing = [key for key in needed if key not in (*state, *shapes)]
    unknown = [key for key in state if key not in own]
    reasons += [f"{key!r} is missing{_similar(key, unknown)}" for key in missing]
    reasons += [f"{key!r} is not in the network{_similar(key, missing)}" for key in unknown]
    if reasons:
        raise InputError(f"weights {weights!r} do not fit {backbone.name}: {reasons[0]}")
    return state


@functools.cache
def _tell_once(note: str) -> None:
    """Log a note. Every round makes its networks anew, and the note need not come again."""
    log.info(note)


def _similar(key: str, known: Iterable[str]) -> str:
    close = nearest(key, known)
    return f" (similar: {close!r})" if close else ""


def unwrapped(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The entries of a state dict under the names that a network has for them.

    Of all sequences of `PREFIXES` that entries begin with, that one is taken off with which most names are
    the network's `own`; the shortest of several. Entries that do not begin with it belong to something else,
    such as a loss, and are left out.
    """
    found = {""}
    for key in state:
        start = ""
        while prefix := next((one for one in PREFIXES if key.startswith(one, len(start))), ""):
            start += prefix
            found.add(start)
    best = max(
        sorted(found, key=len),
        key=lambda start: sum(key.startswith(start) and key[len(start) :] in own for key in state),
    )
    return {key[len(best) :]: value for key, value in state.items() if key.startswith(best)}


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, with its entries as they are called there.

    Files other than .safetensors are read with `weights_only`, so no code in them runs. Of a checkpoint the
    state dict is taken, wherever it lies (`PLACES`).
    """
    if not path.is_file():
        raise InputError(f"weights file not found: {path}")
    try:
        if path.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"weights file {path} cannot be read: {_said(error)}") from None
    while isinstance(state, Mapping) and (
        place := next((one for one in PLACES if isinstance(state.get(one), Mapping)), None)
    ):
        state = state[place]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights file {path}: expected a state dict of tensors, got {type(state).__name__}")
    return {str(key): value for key, value in state.items()}


def _said(error: Exception) -> str:
    """The first line of an error, without the escape codes that torch puts into it.

    What torch says of objects that it does not load is advice for programmers. We name the objects.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    unknown = re.search(r"Unsupported global: GLOBAL (\S+)", text)
    if unknown:
        return (
            f"it holds objects of Python, such as {unknown[1]}, which could run code; where you trust it, "
            f"save its state dict alone: "
            f"torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'state.pth')"
        )
    return text.splitlines()[0]


def to_bytes(model: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> bytes:
    """The state dict of a network, or one that is given, as safetensors.

    `metadata` is written into the header, as JSON. (`save_file` of safetensors hides the errno of a full
    disk.)
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    # with a second entry the library would write the header in a random order
    said = None if metadata is None else {METADATA: json.dumps(metadata, ensure_ascii=False)}
    return safetensors.torch.save({key: value.contiguous().cpu() for key, value in state.items()}, said)


def metadata(path: Path) -> dict[str, Any] | None:
    """Read what a run said about its weights in the header of a .safetensors file; None for any other file.

    Raises InputError if the file cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    if not path.is_file():
        raise InputError(f"weights file not found: {path}")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
        found = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights file {path} cannot be read: {_said(error)}") from None
    if found is not None and not isinstance(found, dict):
        raise InputError(f"weights file {path}: its metadata are {type(found).__name__}, expected an object")
    return found


def is_file(weights: str) -> bool:
    """True if `--weights` names a file, not weights that are downloaded by name."""
    return Path(weights).suffix in SUFFIXES


def urls(arch: Spec) -> dict[str, str]:
    """The weights that can be had by name, and where they are downloaded from."""
    return {name: found.url for name, found in network(arch).weights().items()}


def check_kept(arch: Spec, weights: str) -> None:
    """Raise InputError for a name whose weights no earlier download left on this machine."""
    if weights == "none" or is_file(weights):
        return
    known = _known(network(arch), weights)
    if known.kept() is None:
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"weights {weights!r} of {network(arch).name} are not on this machine: fetch {known.url} and "
            f"give that file to --weights, or put it into {place}"
        )


def default(arch: Spec, image_size: int, *, offline: bool) -> tuple[str, str]:
    """`DEFAULT` if a network has such weights and they can be had, else `none`; and the reason for `none`.

    They are downloaded if they are not on this machine, but not with `offline`.
    """
    backbone = network(arch).at(image_size)
    if DEFAULT not in backbone.weights():
        return "none", f"{backbone.name} has no pretrained weights of its own; --weights takes a file"
    try:
        if offline:
            check_kept(arch, DEFAULT)
        with _patience():
            _named(backbone, DEFAULT)
    except InputError as error:
        return "none", str(error)
    return DEFAULT, ""


@contextmanager
def _patience(seconds: float = 15.0) -> Iterator[None]:
    """Give up on an address that does not answer for so long; without a limit a closed network may hang."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _known(backbone: Backbone, name: str) -> Weights:
    known = backbone.weights()
    if name not in known:
        named = f"one of {backbone.library}'s for {backbone.name} ({', '.join(known)}), " if known else ""
        raise InputError(f"weights {name!r}: expected none, {named}or {FILE}")
    return known[name]


def _named(backbone: Backbone, name: str) -> dict[str, Tensor]:
    known = _known(backbone, name)
    try:
        return dict(known.read())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights {name!r} cannot be downloaded from {known.url}: {error}; "
            f"fetch that file elsewhere and give its path to --weights"
        ) from None
