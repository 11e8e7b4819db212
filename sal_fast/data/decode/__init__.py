"""From encoded files to uint8 pixels: by DALI if there is a GPU, by torchvision if there is none.

On the CPU both give Pillow's pixels bit by bit, on a GPU within a few grey levels (docs/data.md).
"""

from __future__ import annotations

import importlib.util
import logging

import torch
from torch import version

from sal_fast._util.words import DecoderName
from sal_fast.data.decode.base import Decoder
from sal_fast.data.decode.torch import TorchDecoder
from sal_fast.errors import InputError

log = logging.getLogger(__name__)


def choose(name: DecoderName, device: torch.device) -> Decoder:
    """Make the decoder of that name; `auto` is DALI on a GPU if it is installed and works, else torch.

    On a CPU torch is a little faster than DALI, and Pillow is the slowest (docs/data.md).

    Raises InputError if DALI is asked for, and is not installed or does not work.
    """
    if name == "pillow":
        return Decoder(device)
    if name == "torch" or (name == "auto" and not (device.type == "cuda" and has_dali())):
        return TorchDecoder(device)
    if not has_dali():
        raise InputError(
            f"--decoder dali: NVIDIA DALI is not installed; pip install {dali_package()}, "
            f"or use --decoder torch"
        )
    try:
        from sal_fast.data.decode.dali import DaliDecoder

        return DaliDecoder(device)
    except (ImportError, OSError, RuntimeError) as error:  # it is made for another CUDA than the driver's
        problem = f"NVIDIA DALI does not work here ({str(error).splitlines()[0]}); see `sal-fast doctor`"
    if name == "auto":
        log.warning("%s. Images are decoded by torchvision.", problem)
        return TorchDecoder(device)
    raise InputError(f"--decoder dali: {problem}, or use --decoder torch")


def dali_package() -> str:
    """The package of DALI for the CUDA version of this torch."""
    return "nvidia-dali-cuda120" if (version.cuda or "13").startswith("12.") else "nvidia-dali-cuda130"


def has_dali() -> bool:
    """True if NVIDIA DALI is installed."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False
