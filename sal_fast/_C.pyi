# Addresses and streams are integers. Sizes and strides count elements; dtype and kind: the codes of launch.h.

version: str
compiler: str
cuda_status: str
cuda_toolkit: str
cuda_architectures: str

def cpu_capability() -> str: ...
def uncertainty_forward_cpu(
    logits: int, dtype: int, rows: int, columns: int, row_stride: int, kind: int, out: int, threads: int, /
) -> None: ...
def uncertainty_backward_cpu(
    logits: int,
    dtype: int,
    rows: int,
    columns: int,
    row_stride: int,
    kind: int,
    upstream: int,
    upstream_stride: int,
    grad: int,
    threads: int,
    /,
) -> None: ...
def uncertainty_forward_cuda(
    logits: int, dtype: int, rows: int, columns: int, row_stride: int, kind: int, out: int, stream: int, /
) -> None: ...
def uncertainty_backward_cuda(
    logits: int,
    dtype: int,
    rows: int,
    columns: int,
    row_stride: int,
    kind: int,
    upstream: int,
    upstream_stride: int,
    grad: int,
    stream: int,
    /,
) -> None: ...
