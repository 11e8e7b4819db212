"""The form of a result file. A file that does not have it is not written."""

from __future__ import annotations

from typing import Any

_NUMBER = (int, float)
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
    "copy_gb_s": _NUMBER,
    "read_gb_s": _NUMBER,
    "results": list,
}
RESULT: dict[str, Any] = {
    "op": str,
    "case": str,
    "variant": str,
    "shape": list,
    "dtype": str,
    "ms": _NUMBER,  # median
    "ms_p10": _NUMBER,
    "ms_p90": _NUMBER,
    "rounds": int,
    "graph_replay": bool,
    "bytes": int,  # the least that must move
    "share_of_copy": _NUMBER,  # of the bandwidth of a copy, the floor
    "share_of_read": _NUMBER,  # of the bandwidth of a read
    "speedup": _NUMBER,  # of ours over this variant, below 1 where ours loses
    "launches": (int, type(None)),
    "peak_bytes": (int, type(None)),
}


def _check(record: dict[str, Any], form: dict[str, Any], where: str) -> None:
    if record.keys() != form.keys():
        raise ValueError(f"{where}: expected the fields {sorted(form)}, got {sorted(record)}")
    for field, types in form.items():
        if not isinstance(record[field], types):
            raise ValueError(f"{where}: {field} must be {types}, got {record[field]!r}")


def check(document: dict[str, Any]) -> None:
    """Raises ValueError unless the document has the form above."""
    _check(document, HEAD, "result file")
    for i, result in enumerate(document["results"]):
        _check(result, RESULT, f"results[{i}]")
