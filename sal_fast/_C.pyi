from collections.abc import Callable
from typing import Any

version: str
compiler: str
cuda_status: str
cuda_toolkit: str
cuda_architectures: str

def cpu_capability() -> str: ...
def cuda_problem(device: int) -> str: ...

# For each launcher <op>_cpu(fields, threads), <op>_prepared(fields), <op>_cuda(fields, workspace, stream),
# and <op>_workspace(fields), or None where it needs no workspace. `fields` has those of
# csrc/include/sal_fast/launch by their names; see csrc/bindings/module.cpp.
def __getattr__(name: str) -> Callable[..., Any]: ...
