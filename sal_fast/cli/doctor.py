"""sal-fast doctor: what is here and what is missing, with the command that mends it."""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import sal_fast
from sal_fast.cli.output import columns, say, wrapped

IMPORTS = {"pillow": "PIL", "markdown-it-py": "markdown_it"}  # the others are imported by their own names
EXTRAS = (  # package, what needs it, extra of sal-fast
    ("ray", "sal-fast sweep", "ray"),
    ("timm", "--arch of timm's networks", "timm"),
    ("segment_anything", "--segmenter-weights", "segmenter"),
    ("starlette", "sal-fast label", "label"),
    ("uvicorn", "sal-fast label", "label"),
    ("onnx", "sal-fast export --to onnx", "export"),
    ("onnxruntime", "sal-fast export --to onnx", "export"),
    ("onnxscript", "sal-fast export --to onnx", "export"),
    ("tensorboard", "--tracker tensorboard", "tensorboard"),
    ("wandb", "--tracker wandb", "wandb"),
    ("mlflow", "--tracker mlflow", "mlflow"),
)


def main(arguments: list[str]) -> int:
    """Print what is here and what is missing; return 2 if a run cannot start."""
    if arguments:
        say("usage: sal-fast doctor\n\nShow the machine, the build and the versions, and what is missing.")
        return 0 if arguments[0] in ("-h", "--help") else 2
    missing: list[str] = []
    _machine()
    _build(missing)
    broken = _packages(missing)
    if not broken:
        _decoder(missing)
        _extras()
        _devices(missing)
    say("\n".join(["\nmissing:" if missing else "\nnothing is missing", *(f"  {line}" for line in missing)]))
    return 2 if broken else 0


def _row(name: str, value: object) -> None:
    say(wrapped(str(value), columns(), initial_indent=f"  {name:16} ", subsequent_indent=" " * 19))


def _machine() -> None:
    say("machine")
    _row("system", platform.platform())
    _row("python", platform.python_version())
    _row("cores", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    _row("disk free here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB")


def _build(missing: list[str]) -> None:
    say("sal-fast")
    _row("version", sal_fast.__version__)
    try:
        info = sal_fast.build_info()
    except (ValueError, RuntimeError) as error:  # SAL_FAST_NATIVE is misspelt, or asks for what is not there
        _row("native core", "cannot be loaded")
        missing.append(f"native core: {error}")
        return
    if info.native:
        _row("native core", f"yes, {info.compiler}; this processor runs its {info.cpu_capability} kernels")
    else:
        _row("native core", "no: the ops run their PyTorch reference")
        missing.append(f"native core: {info.native_error}")
    if info.cuda:
        numbers = ", ".join(map(_number, info.cuda_architectures))
        _row("cuda kernels", f"yes, toolkit {info.cuda_toolkit}, for compute capability {numbers}")
    else:
        _row("cuda kernels", f"no: {info.cuda_reason}")
        if shutil.which("nvidia-smi"):
            missing.append(
                "cuda kernels: put nvcc on the PATH, then SAL_FAST_CUDA=ON pip install --no-deps ."
            )


def _packages(missing: list[str]) -> bool:
    """Import all packages that sal-fast requires; return True if one is broken."""
    say("packages")
    broken = False
    required = importlib.metadata.requires("sal-fast") or []
    names = [re.split(r"[^\w-]", line)[0] for line in required if ";" not in line]  # those for all machines
    for name in names:
        try:
            importlib.import_module(IMPORTS.get(name, name.replace("-", "_")))
            _row(name, importlib.metadata.version(name))
        except Exception as error:
            broken = True
            _row(name, f"does not import: {str(error).splitlines()[0]}")
            missing.append(f"{name}: pip install --force-reinstall {name}")
    return broken


def _decoder(missing: list[str]) -> None:
    from sal_fast.data import decode

    try:
        import nvidia.dali

        _row("dali", nvidia.dali.__version__)
    except Exception as error:
        _row("dali", f"no ({str(error).splitlines()[0]}): images are decoded by torchvision")
        if shutil.which("nvidia-smi"):  # without a GPU torchvision is faster
            missing.append(f"dali: pip install {decode.dali_package()} (Linux)")


def _extras() -> None:
    for name, needs, extra in EXTRAS:
        try:
            _row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            _row(name, f"no; {needs} needs it: pip install 'sal-fast[{extra}]'")


def _devices(missing: list[str]) -> None:
    import torch

    say("devices")
    _row("threads", torch.get_num_threads())
    driver = _driver()
    if driver is None:
        _row("gpu", "none: everything runs on the CPU")
        return
    _row("driver", f"{driver.version}, for CUDA up to {driver.cuda}")
    _row("cuda of torch", torch.version.cuda or "none: this is torch for CPUs")
    if not torch.cuda.is_available():
        missing.append(
            f"torch {torch.__version__} does not see the GPU: pip install --force-reinstall torch torchvision"
        )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        size, chip = properties.total_memory / 2**30, f"{properties.major}.{properties.minor}"
        _row(f"cuda:{index}", f"{properties.name}, compute capability {chip}, {size:.0f} GiB")
        missing += _unfit(index, chip)
        if sal_fast.build_info().cuda:
            _row("its kernels", _kernels_for(index, chip))
    missing += _for_another_cuda(driver, torch.version.cuda, _installed_dali())


def _unfit(gpu: int, chip: str) -> list[str]:
    """What to do if the CUDA kernels of this build do not run on a GPU."""
    problem = sal_fast.build_info().cuda_problem(gpu)
    if not problem:
        return []
    return [
        f"cuda kernels: they do not run on cuda:{gpu} ({problem}); update the driver, or compile them with "
        f"this machine's nvcc: CUDAARCHS={chip.replace('.', '')} SAL_FAST_CUDA=ON pip install "
        f"--force-reinstall --no-deps ."
    ]


_ARCHITECTURE = re.compile(r"(\d+)(\d)([af]?)(-real|-virtual|)")


def _number(architecture: str) -> str:
    """An architecture of CMake's as NVIDIA counts it: 9.0 for 90-real, and "9.0 with PTX" for 90."""
    found = _ARCHITECTURE.fullmatch(architecture)
    # CMake also knows words, such as all-major.
    if found is None:
        return architecture
    kind = {"-real": "", "-virtual": " as PTX", "": " with PTX"}[found[4]]
    return f"{found[1]}.{found[2]}{found[3]}{kind}"


def _kernels_for(gpu: int, chip: str) -> str:
    """Name those of the compiled kernels that a GPU takes.

    It runs machine code of its own major version and at most its own minor version. It has any PTX compiled
    that is no newer than itself.
    """
    info = sal_fast.build_info()
    if info.cuda_problem(gpu):
        return "none that it can run"
    own = tuple(map(int, chip.split(".")))
    found = filter(None, map(_ARCHITECTURE.fullmatch, info.cuda_architectures))
    code = sorted(((int(one[1]), int(one[2])), one[4]) for one in found if not one[3])
    machine = [
        number for number, kind in code if kind != "-virtual" and number[0] == own[0] and number <= own
    ]
    if machine:
        return "machine code for {}.{}".format(*machine[-1])
    ptx = [number for number, kind in code if kind != "-real" and number <= own]
    if ptx:
        return "PTX for {}.{}, which the driver compiles at the first use".format(*ptx[-1])
    return "they run on it"


class Driver(NamedTuple):
    """The driver of the GPUs, and the latest CUDA that it knows."""

    version: str
    cuda: str


def _driver() -> Driver | None:
    """Ask nvidia-smi for the driver; None if there is no GPU."""
    try:
        found = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"Driver Version:\s*([\d.]+)", found)
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", found)
    return Driver(version[1] if version else "unknown", cuda[1] if cuda else "unknown")


def _installed_dali() -> list[str]:
    """The packages of DALI that are installed. Each is for one major version of CUDA."""
    names = (found.metadata["Name"] for found in importlib.metadata.distributions())
    return sorted({name for name in names if name and name.startswith("nvidia-dali-cuda")})


def _for_another_cuda(driver: Driver, of_torch: str | None, dali: list[str]) -> list[str]:
    """What to install instead of packages that are for another CUDA than the driver's."""
    known = _major(driver.cuda)
    advice = []
    if of_torch and known and _major(of_torch) > known:
        advice.append(
            f"torch is for CUDA {of_torch}, the driver knows CUDA up to {driver.cuda}: update the driver, "
            f"or pip install --force-reinstall torch torchvision --index-url "
            f"https://download.pytorch.org/whl/cu{known}6"
        )
    wanted = f"nvidia-dali-cuda{min(_major(of_torch or driver.cuda), known) or 13}0"
    others = [name for name in dali if name != wanted]
    return advice + [f"dali: pip uninstall {name}; pip install {wanted}" for name in others]


def _major(version: str) -> int:
    """The first number of a version; 0 if it is unknown."""
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0
