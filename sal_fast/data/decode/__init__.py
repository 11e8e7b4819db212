"""From encoded files to uint8 pixels: by DALI if there is a GPU, by torchvision if there is none.

On the CPU both give Pillow's pixels bit by bit, on a GPU within a few grey levels (docs/data.md).
"""

from __future__ import annotations

import importlib.util

import torch

from sal_fast._util.words import DecoderName
from sal_fast.data.decode.base import Decoder
from sal_fast.data.decode.torch import TorchDecoder
from sal_fast.errors import InputError


def choose(name: DecoderName, device: torch.device) -> Decoder:
    """Make the decoder of that name; `auto` is DALI on a GPU if it is installed, else torch.

    On a CPU torch is a little faster than DALI, and Pillow is the slowest (docs/data.md).

    Raises InputError if DALI is asked for and not installed.
    """
    if name == "auto":
        name = "dali" if device.type == "cuda" and has_dali() else "torch"
    if name == "pillow":
        return Decoder(device)
    if name == "torch":
        return TorchDecoder(device)
    if not has_dali():
        raise InputError(
            "--decoder dali: NVIDIA DALI is not installed; pip install nvidia-dali-cuda130, "
            "or use --decoder torch"
        )
    from sal_fast.data.decode.dali import DaliDecoder

    return DaliDecoder(device)


def has_dali() -> bool:
    """True if NVIDIA DALI is installed."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False
