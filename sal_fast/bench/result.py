"""The form of a result. A document that does not have this form is neither written nor read."""

import functools
import os
import re
import shlex
from pathlib import Path
from typing import Any

import torch
from torch.utils import collect_env

import sal_fast
from sal_fast._util.files import read_json
from sal_fast.errors import InputError

NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
VERSION = 3
HEAD: dict[str, Any] = {
    "schema": int,
    "bench": str,  # one of suite.NAMES
    "version": str,  # of sal-fast
    "commit": str,  # "unknown" if sal-fast is installed without its repository
    "csrc_tree": str,  # the git tree of csrc/, which says which kernels were measured
    "device": str,  # "cpu", or the driver's name of the GPU
    "machine": str,
    "driver": (str, type(None)),  # of the GPU
    "torch": str,
    "threads": int,
    "cpu_capability": (str, type(None)),  # which of our CPU kernels ran
    "load": list,  # the 1-minute load average before and after
    "copy_gb_s": OPTIONAL,  # measured bandwidth of a copy, both directions counted
    "read_gb_s": OPTIONAL,
    "rounds": int,
    "options": dict,  # the benchmark's own options
    "unit": str,  # what `items` counts
    "results": list,
    "ratios": list,
    "figures": dict,  # other numbers by name
}
RESULT: dict[str, Any] = {
    "case": str,
    "variant": str,
    "items": NUMBER,  # how many units one call processes
    "ms": NUMBER,  # the time of a call: the median of the rounds
    "ms_p10": OPTIONAL,
    "ms_p90": OPTIONAL,
    "per_second": NUMBER,  # items / the median
    "host_ms": OPTIONAL,  # on a GPU: the time until the call returns
    "graph_replay": bool,  # whether the call was timed as a part of a CUDA graph
    "bytes": OPTIONAL,  # the floor: the least that must cross the memory bus
    "share_of_copy": OPTIONAL,  # bytes / time, as a share of the bandwidth of a copy
    "share_of_read": OPTIONAL,
    "launches": OPTIONAL,  # kernels and copies on a GPU
    "peak_bytes": OPTIONAL,  # GPU memory that the call allocates
}
RATIO: dict[str, Any] = {
    "case": str,
    "name": str,  # "a / b": the time of a over the time of b
    "value": NUMBER,  # the median of the rounds' ratios: a and b of one round met the same load
    "p10": OPTIONAL,  # null if `value` is a ratio of medians, as it was before version 3
    "p90": OPTIONAL,
    "at_most": OPTIONAL,  # the limit that is asked for, if there is one
    "at_least": OPTIONAL,
}


def check(document: dict[str, Any]) -> None:
    """Raise ValueError unless the document has the form above."""
    _fields(document, HEAD, "document")
    if document["schema"] != VERSION:
        raise ValueError(f"document: schema must be {VERSION}, got {document['schema']}")
    for name, form in (("results", RESULT), ("ratios", RATIO)):
        for i, record in enumerate(document[name]):
            _fields(record, form, f"{name}[{i}]")
    _fields(document["figures"], dict.fromkeys(document["figures"], NUMBER), "figures")


def _fields(record: dict[str, Any], form: dict[str, Any], where: str) -> None:
    if record.keys() != form.keys():
        raise ValueError(f"{where}: expected the fields {sorted(form)}, got {sorted(record)}")
    for field, types in form.items():
        if not isinstance(record[field], types):
            raise ValueError(f"{where}: {field} must be {types}, got {record[field]!r}")


def read(path: Path) -> dict[str, Any]:
    """Read a result file; InputError if it is not one."""
    document = read_json(path.expanduser())
    try:
        check(document)
    except ValueError as error:
        raise InputError(f"{path}: not a result of `sal-fast bench`: {error}") from None
    return document


def held(ratio: dict[str, Any]) -> bool | None:
    """Return whether a ratio keeps its limit; None if it has no limit."""
    if ratio["at_most"] is not None:
        return bool(ratio["value"] <= ratio["at_most"])
    return None if ratio["at_least"] is None else bool(ratio["value"] >= ratio["at_least"])


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return the fields of HEAD that say with which code and on which machine a result was measured."""
    gpu = device.type == "cuda"
    processor = re.search(r"Model name:\s*(.+)", collect_env.get_cpu_info(collect_env.run) or "")
    return {
        "version": sal_fast.__version__,
        "commit": os.environ.get("COMMIT") or _git("HEAD"),
        "csrc_tree": os.environ.get("CSRC_TREE") or _git("HEAD:csrc"),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "machine": f"{processor[1] if processor else 'unknown'}, {os.cpu_count()} CPUs, {os.uname().machine}",
        "driver": collect_env.get_nvidia_driver_version(collect_env.run) if gpu else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": sal_fast.build_info().cpu_capability,
    }


@functools.cache
def _git(revision: str) -> str:
    """Return the hash of a revision of the repository that holds this package, or "unknown"."""
    root = Path(sal_fast.__file__).parents[1]
    if not (root / "csrc").is_dir():  # an installed package may lie in somebody else's repository
        return "unknown"
    status, found, _ = collect_env.run(f"git -C {shlex.quote(str(root))} rev-parse {revision}")
    return "unknown" if status else found
