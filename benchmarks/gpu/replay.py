"""Ask the GPU what the emulation was asked, and compare the answers.

`replay.py FOLDER [-- TOOL ...]` feeds the requests of FOLDER to the program FOLDER/replay, under a tool if
one is named, such as compute-sanitizer, and compares what comes back with FOLDER/results.bin. Neither torch
nor the package is needed.

A GPU contracts products and sums in other places, and its reciprocal is approximate. So a value may be off by
TOLERANCE of the largest of its tensor, and one in RARE may be further off: a value at a threshold, such as a
pixel of a mask. The output tells how far the worst launch of each launcher is off.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE, RARE = 1e-3, 200
KINDS = {"float32": np.float32, "float16": np.float16, "int64": np.int64, "int32": np.int32}


def numbers(content: bytes, dtype: str) -> np.ndarray:
    """Return the values of a tensor as float64."""
    if dtype == "bfloat16":
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(float)
    return np.frombuffer(content, KINDS.get(dtype, np.uint8)).astype(float)


def off(got: bytes, expected: bytes, dtype: str) -> np.ndarray:
    """Return how far values are off, in shares of the largest expected one. A lone NaN is infinitely far."""
    a, b = numbers(got, dtype), numbers(expected, dtype)
    scale = np.abs(b[np.isfinite(b)]).max(initial=0) or 1
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b) / scale
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))


def compare(launches: list[dict[str, Any]], got: bytes, expected: bytes) -> dict[str, dict[str, Any]]:
    """Return, for each launcher, the number of launches, the worst distance and the tests that differ."""
    found: dict[str, dict[str, Any]] = {}
    at = there = 0
    widths = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "int64": 8, "float64": 8}
    for launch in launches:
        of = found.setdefault(launch["launcher"], {"launches": 0, "worst": 0.0, "differ": []})
        of["launches"] += 1
        for path, dtype, count in launch["tensors"]:
            size = count * widths.get(dtype, 1)
            mine, at = got[at : at + size], at + size
            if path not in launch["results"]:
                continue
            if len(mine) < size:  # the program has ended
                of["differ"].append(f"{launch['test']}: {path}, no answer")
                continue
            distance = off(mine, expected[there : there + size], dtype)
            there += size
            of["worst"] = max(of["worst"], float(distance.max(initial=0)))
            if (distance > TOLERANCE).sum() * RARE > max(count, RARE):
                of["differ"].append(f"{launch['test']}: {path}")
    return found


def requests(folder: Path) -> bytes:
    """Read the recorded requests, which `prepare.py` packs."""
    return gzip.decompress((folder / "requests.bin.gz").read_bytes())


def main() -> int:
    folder, *tool = Path(sys.argv[1]), *sys.argv[3:]
    launches = [json.loads(line) for line in (folder / "launches.jsonl").read_text().splitlines()]
    command = [*tool, str(folder / "replay")]
    done = subprocess.run(command, input=requests(folder), stdout=subprocess.PIPE, check=False)
    found = compare(launches, done.stdout, (folder / "results.bin").read_bytes())
    differ = sum(len(of["differ"]) for of in found.values())
    print(json.dumps({"exit_status": done.returncode, "differ": differ, "launchers": found}, indent=1))
    return int(bool(done.returncode or differ))


if __name__ == "__main__":
    sys.exit(main())
