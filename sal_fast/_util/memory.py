"""Free memory, and tensors that are put where there is room."""

from __future__ import annotations

import math
import os
import resource
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
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        most = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        with open(_CGROUP / "memory.stat", encoding="ascii") as file:
            cache = next(int(line.split()[1]) for line in file if line.startswith("inactive_file "))
        return min(free, max(0, most - used + cache))
    except (OSError, ValueError, StopIteration):  # there is no limit, or it cannot be read
        return free


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


def resident_memory() -> int:
    """The bytes of memory that this process occupies."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # without /proc: the most that it has occupied so far, in kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
