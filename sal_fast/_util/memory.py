"""Free memory, and tensors that are put where there is room."""

import math
import os
import tempfile
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """The bytes that can be allocated on the device.

    Memory that caches can give back counts as free: torch's cache on a GPU, cached files on the host. If the
    process is in a control group with a limit, as in a container, that limit is respected.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = _available()
    try:  # psutil knows nothing of groups
        most = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return min(free, max(0, most - used + int(stat["inactive_file"])))
    except (OSError, ValueError, KeyError):  # there is no limit, or none that can be read
        return free


def _available() -> int:
    try:
        import psutil  # here, because sal_fast.ops needs torch and numpy alone
    except ImportError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # all that the machine has
    return int(psutil.virtual_memory().available)


def resident_memory() -> int:
    """The bytes of memory that this process occupies."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def roomy(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An uninitialised tensor, on the device if it takes at most half of the memory that is free there.

    Otherwise it lies in pinned memory of the host, if the device is a GPU and half of the host's free memory
    is enough, or else in a file without a name, which is deleted with the tensor.
    """
    needed = math.prod(shape) * dtype.itemsize
    if needed <= free_memory(device) // 2:
        return torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cuda" and needed <= free_memory(torch.device("cpu")) // 2:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    with tempfile.TemporaryDirectory() as folder:  # the mapping stays valid after the file is deleted
        return torch.from_file(
            os.path.join(folder, "rows"), shared=True, size=math.prod(shape), dtype=dtype
        ).view(shape)
