"""The loader of the native core `sal_fast._C`. It imports neither torch nor numpy.

The environment variable `SAL_FAST_NATIVE` decides: `0` hides the core, `1` makes it an error if the core is
missing. If it is unset, the core is used where there is one.
"""

import functools
import importlib
import os
import sysconfig
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

_REBUILD = "SAL_FAST_REQUIRE_NATIVE=1 pip install -v --force-reinstall --no-deps ."
_SETTINGS = ("", "0", "1")


@dataclass(frozen=True)
class BuildInfo:
    """The abilities of this installation of sal_fast. `sal-fast doctor` prints them."""

    version: str
    native: bool  # True if the native core is in use
    native_error: str | None  # otherwise the cause, what was found, and the next command
    compiler: str | None
    cpu_capability: str | None  # avx512, avx2 or generic, as chosen on this machine
    cuda: bool  # True if CUDA kernels are compiled in, whether there is a GPU or not
    cuda_reason: str | None  # otherwise why not
    cuda_toolkit: str | None
    cuda_architectures: tuple[str, ...]

    def cuda_problem(self, gpu: int) -> str:
        """Why the CUDA kernels do not run on the GPU of that number; "" if they do, or if there are none."""
        module = cuda_core()
        return module.cuda_problem(gpu) if module is not None else ""


def _missing(error: ImportError | None) -> str:
    """The loader's report: the cause, what was found, and the next command."""
    folder = Path(__file__).parent
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    found = ", ".join(sorted(path.name for path in folder.glob("_C.*") if path.suffix != ".pyi")) or "nothing"
    if error is None or error.name == "sal_fast._C":
        cause = "sal_fast was built without it (no working C++ compiler), or for another Python"
    else:
        cause = f"{type(error).__name__}: {error}"
    return (
        "The native core of sal_fast could not be loaded; the ops run their PyTorch reference.\n"
        f"  cause:    {cause}\n"
        f"  expected: _C{suffix} in {folder}\n"
        f"  found:    {found}\n"
        f"  next:     in a checkout of sal-fast, {_REBUILD}"
    )


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    setting = os.environ.get("SAL_FAST_NATIVE", "")
    if setting not in _SETTINGS:
        raise ValueError(f"SAL_FAST_NATIVE must be 0, 1 or unset, got {setting!r}")
    if setting == "0":
        return None, "hidden by SAL_FAST_NATIVE=0"
    try:
        return importlib.import_module("sal_fast._C"), None
    except ImportError as error:
        report = _missing(error)
        if setting == "1":
            raise RuntimeError(report) from error
        if not isinstance(error, ModuleNotFoundError):  # it is there but does not load
            warnings.warn(report, RuntimeWarning, stacklevel=2)
        return None, report


def core() -> ModuleType | None:
    """The native core, or None if the reference runs instead."""
    return _load()[0]


def cuda_core() -> ModuleType | None:
    """The native core if it has CUDA kernels."""
    module = core()
    return module if module is not None and module.cuda_status == "compiled" else None


@functools.cache
def runs_on(gpu: int) -> bool:
    """True if the kernels of this build run on the GPU of that number. If they do not, a warning says why.

    A kernel needs a driver that knows this build's CUDA, and code for the GPU's architecture.
    """
    module = cuda_core()
    if module is None:
        return False
    problem = module.cuda_problem(gpu)
    if problem:
        warnings.warn(
            f"sal-fast's CUDA kernels cannot run on cuda:{gpu}: {problem} (they are built by CUDA "
            f"{module.cuda_toolkit} for {module.cuda_architectures}). The ops run in torch there. "
            f"`sal-fast doctor` says what to install.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not problem


def build_info() -> BuildInfo:
    """The build: what was compiled, with which tools, and why something was left out."""
    module, error = _load()
    if module is None:
        return BuildInfo(
            version("sal-fast"), False, error, None, None, False, "there is no native core", None, ()
        )
    cuda = module.cuda_status == "compiled"
    return BuildInfo(
        version=module.version,
        native=True,
        native_error=None,
        compiler=module.compiler,
        cpu_capability=module.cpu_capability(),
        cuda=cuda,
        cuda_reason=None if cuda else module.cuda_status,
        cuda_toolkit=module.cuda_toolkit or None,
        cuda_architectures=tuple(module.cuda_architectures.split()),
    )
