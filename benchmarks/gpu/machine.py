"""Print what machine this is, as JSON: the GPU, the driver, the libraries, the compiler."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

LIBRARIES = ("torch", "torchvision", "numpy", "polars", "tyro", "nvidia-dali-cuda130", "pybind11", "pytest")
FIELDS = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"


def output(*command: str) -> str | None:
    """Return what a command prints; None if there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return None


def library(name: str) -> str | None:
    """Return the version of a library; None if it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: library(name) for name in LIBRARIES},
        "cuda_of_torch": torch.version.cuda,
        "gpu": output("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader"),
        "nvcc": (output("nvcc", "--version") or "").rpartition("\n")[2] or None,
    }
    print(json.dumps(found, indent=1))
    if sys.argv[1] == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")


if __name__ == "__main__":
    main()
