"""Records of what made a run: the machine, its libraries, and digests of the files beside the data."""

import dataclasses
import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import sal_fast
from sal_fast import plugins
from sal_fast.data import decode
from sal_fast.data.masks import Masks
from sal_fast.experiment.config import OPTIONS, Config
from sal_fast.experiment.networks import teacher_arch
from sal_fast.models import network, resolved, weights

MASKS = "segmenter_masks"
# Digests of inputs that may differ between runs sharing their first rounds, because they only say who draws.
OWN = tuple(name for name, one in OPTIONS.items() if "maps" in one.affects and name != MASKS)


def digests(config: Config, segmented: Masks | None) -> dict[str, str]:
    """Digests of the files beside the data that decide the result, by option.

    A run refuses to go on with other files. `segmented`: the segmenter's masks, if the run uses any.
    """
    found = {name: _digest_of(config, name) for name in OPTIONS}
    if segmented is not None:
        found[MASKS] = segmented.digest()
    return {name: digest for name, digest in found.items() if digest is not None}


def own_digests(config: Config) -> dict[str, str]:
    """The digests of the inputs that `OWN` lists."""
    return {name: digest for name, digest in digests(config, None).items() if name in OWN}


def _digest_of(config: Config, name: str) -> str | None:
    """The digest of the file that an option names; None if it names no file, or the run does not read it."""
    one, value = OPTIONS[name], getattr(config, name)
    if not one.affects or not one.matters_to(config.regime) or value is None:
        return None
    if name == "generator" and config.its_regime.uses_a_segmenter:
        return None  # the masks that it made are digested themselves
    if one.path == "by suffix":
        return _sha256(value) if weights.is_file(value) else None
    if one.path == "digest":
        return None if value in one.words else _sha256(value)
    return plugins.digest(value, one.plugin) if one.plugin else None


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(os.path.expanduser(path)).read_bytes()).hexdigest()


def environment(config: Config, device: torch.device, decoder: decode.Decoder) -> dict[str, Any]:
    """The versions and the machine, as run.json keeps them."""
    networks = sorted({config.arch, *([teacher_arch(config)] if config.its_regime.has_teacher else [])})
    libraries = {network(arch).library for arch in networks} - {None, "torchvision"}
    return {
        "sal_fast": sal_fast.__version__,
        "native": dataclasses.asdict(sal_fast.build_info()),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **{name: version(name) for name in sorted(map(str, libraries))},
        "numpy": np.__version__,
        "pillow": version("pillow"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "decoder": decoder.name,
        "precision": resolved(config.precision, device),
        "normalisation": {arch: [list(part) for part in network(arch).normalisation] for arch in networks},
    }
