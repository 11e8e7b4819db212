"""The form of a result file. A file that does not have it is not written."""

from __future__ import annotations

from typing import Any

from sal_fast.bench.schema import NUMBER, check_fields

HEAD: dict[str, Any] = {
    "schema": int,
    "version": str,
    "commit": str,
    "csrc_tree": str,
    "device": str,  # "cpu", or what the driver calls the GPU
    "machine": str,
    "driver": (str, type(None)),
    "torch": str,
    "threads": int,
    "cpu_capability": (str, type(None)),
    "load": list,  # 1-minute load average before and after
    "copy_gb_s": NUMBER,
    "read_gb_s": NUMBER,
    "results": list,
}
RESULT: dict[str, Any] = {
    "op": str,
    "case": str,
    "variant": str,
    "shape": list,
    "dtype": str,
    "ms": NUMBER,  # median
    "ms_p10": NUMBER,
    "ms_p90": NUMBER,
    "rounds": int,
    "graph_replay": bool,
    "bytes": int,  # the least that must move
    "share_of_copy": NUMBER,  # of the bandwidth of a copy, the floor
    "share_of_read": NUMBER,  # of the bandwidth of a read
    "speedup": NUMBER,  # of ours over this variant, below 1 where ours loses
    "launches": (int, type(None)),
    "peak_bytes": (int, type(None)),
}


def check(document: dict[str, Any]) -> None:
    """Raises ValueError unless the document has the form above."""
    check_fields(document, HEAD, "result file")
    for i, result in enumerate(document["results"]):
        check_fields(result, RESULT, f"results[{i}]")
