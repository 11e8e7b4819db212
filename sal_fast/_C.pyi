from collections.abc import Callable

version: str
compiler: str
cuda_status: str
cuda_toolkit: str
cuda_architectures: str

def cpu_capability() -> str: ...

# <op>_cpu(*fields, threads) and <op>_cuda(*fields, stream) for each launcher: the fields of its struct in
# csrc/include/sal_fast/launch, in their order; addresses, codes and streams as integers.
def __getattr__(name: str) -> Callable[..., None]: ...
