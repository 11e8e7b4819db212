"""The device that a user names."""

import torch

from sal_fast.errors import InputError


def torch_device(name: str) -> torch.device:
    """The device that --device names; auto is a GPU if there is one. Raises InputError if it is not there."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("expected auto, cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device
