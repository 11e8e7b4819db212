"""sal-fast doctor."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import sal_fast

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "scipy",
    "safetensors",
    "polars",
    "tyro",
    "rich",
    "matplotlib",
    "jinja2",
)
IMPORTS = {"pillow": "PIL"}


def main(arguments: list[str]) -> int:
    """Print what is here and what is missing, with the command that mends it; 2 if a run cannot start."""
    if arguments:
        print("usage: sal-fast doctor\n\nThe machine, the build, the versions, and what is missing.")
        return 0 if arguments[0] in ("-h", "--help") else 2
    missing: list[str] = []
    _machine()
    _build(missing)
    broken = _packages(missing)
    if not broken:
        _decoder(missing)
        _extras()
        _devices(missing)
    print("\nmissing:" if missing else "\nnothing is missing")
    for line in missing:
        print(f"  {line}")
    return 2 if broken else 0


def _row(name: str, value: object) -> None:
    print(f"  {name:16} {value}")


def _machine() -> None:
    print("machine")
    _row("system", platform.platform())
    _row("python", platform.python_version())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    _row("cores", usable)
    _row("disk free here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB")


def _build(missing: list[str]) -> None:
    print("sal-fast")
    _row("version", sal_fast.__version__)
    try:
        info = sal_fast.build_info()
    except (ValueError, RuntimeError) as error:  # SAL_FAST_NATIVE misspelt, or asked for and not there
        _row("native core", "cannot be loaded")
        missing.append(f"native core: {error}")
        return
    if info.native:
        _row("native core", f"yes, {info.compiler}; this processor runs its {info.cpu_capability} kernels")
    else:
        _row("native core", "no: the ops run their PyTorch reference")
        missing.append(f"native core: {info.native_error}")
    if info.cuda:
        _row("cuda kernels", f"yes, toolkit {info.cuda_toolkit}, for {', '.join(info.cuda_architectures)}")
    else:
        _row("cuda kernels", f"no: {info.cuda_reason}")
        if shutil.which("nvidia-smi"):
            missing.append(
                "cuda kernels: put nvcc on the PATH, then SAL_FAST_CUDA=ON pip install --no-deps ."
            )


def _packages(missing: list[str]) -> bool:
    print("packages")
    broken = False
    for name in PACKAGES:
        try:
            importlib.import_module(IMPORTS.get(name, name))
            _row(name, importlib.metadata.version(name))
        except Exception as error:
            broken = True
            _row(name, f"does not import: {str(error).splitlines()[0]}")
            missing.append(f"{name}: pip install --force-reinstall {name}")
    return broken


def _decoder(missing: list[str]) -> None:
    try:
        import nvidia.dali

        _row("dali", nvidia.dali.__version__)
    except Exception as error:
        _row("dali", f"no ({str(error).splitlines()[0]}): images are decoded by torchvision")
        missing.append("dali: pip install nvidia-dali-cuda130 (Linux)")


def _extras() -> None:
    for name, needs, extra in (
        ("ray", "sal-fast sweep", "ray"),
        ("timm", "--arch xception", "xception"),
        ("segment_anything", "--segmenter-weights", "segmenter"),
    ):
        try:
            _row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            _row(name, f"no; {needs} needs it: pip install 'sal-fast[{extra}]'")


def _devices(missing: list[str]) -> None:
    import torch

    print("devices")
    _row("threads", torch.get_num_threads())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            _row(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        return
    if shutil.which("nvidia-smi"):
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip():
            _row("gpu", found.stdout.splitlines()[0])
            missing.append(
                f"torch {torch.__version__} does not see the GPU: "
                "pip install --force-reinstall torch torchvision"
            )
            return
    _row("gpu", "none: everything runs on the CPU")
