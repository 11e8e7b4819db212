"""Memory that can be had."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on the device, caches included: torch's on a GPU, files' on the host.

    A limit on the process's group (a container's) counts.
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
    except (OSError, ValueError, StopIteration):  # no limit, or none that can be read
        return free


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # the most that it has had, in kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
