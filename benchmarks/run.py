"""Times the ops against eager torch and writes results/*.json: python -m benchmarks.run. See README.md."""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch

import sal_fast
from benchmarks import registry, schema, timing
from sal_fast.bench.timing import machine

RESULTS = Path(__file__).parent / "results"
_CACHE_BYTES = 256 << 20  # beyond the last-level cache of any machine we know: what inputs rotate through


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def commit() -> str:
    return os.environ.get("COMMIT") or _git("rev-parse", "HEAD")


def csrc_tree() -> str:
    """The git tree of csrc/: which kernels these are."""
    return os.environ.get("CSRC_TREE") or _git("rev-parse", "HEAD:csrc")


def _driver(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def bandwidth(device: torch.device) -> tuple[float, float]:
    """(copy, read) in bytes a second: medians of 9 on buffers past the caches, copies counted both ways."""
    source = torch.ones(_CACHE_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copies = timing.Timer([lambda: target.copy_(source)], device)
    reads = timing.Timer([source.sum], device)
    size = source.nbytes
    copy = statistics.median(copies(i) for i in range(9))
    read = statistics.median(reads(i) for i in range(9))
    return 2 * size / copy, size / read


def measure(
    case: registry.Case, device: torch.device, rounds: int
) -> dict[str, tuple[timing.Timer, list[float]]]:
    """Seconds of each variant, a round after the other, every variant once a round."""
    first = case.inputs(device, 0)
    case.verify(*first)  # no speed of a wrong result
    size = sum(tensor.nbytes for tensor in first)
    inputs = [first] + [
        case.inputs(device, seed) for seed in range(1, min(16, 1 + math.ceil(_CACHE_BYTES / size)))
    ]
    timers = {
        name: timing.Timer([functools.partial(function, *args) for args in inputs], device)
        for name, function in case.variants.items()
    }
    times: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer(turn))
    return {name: (timers[name], times[name]) for name in timers}


def record(
    case: registry.Case, device: torch.device, rounds: int, floor: tuple[float, float]
) -> list[dict[str, Any]]:
    measured = measure(case, device, rounds)
    ours = statistics.median(next(iter(measured.values()))[1])
    results = []
    for name, (timer, times) in measured.items():
        median = statistics.median(times)
        deciles = statistics.quantiles(times, n=10) if len(times) > 1 else [median] * 9
        rate = case.bytes_moved / median
        milliseconds = [1e3 * seconds for seconds in (median, deciles[0], deciles[-1])]
        results.append(
            {
                "op": case.op,
                "case": case.name,
                "variant": name,
                "shape": list(case.shape),
                "dtype": case.dtype,
                "ms": milliseconds[0],
                "ms_p10": milliseconds[1],
                "ms_p90": milliseconds[2],
                "rounds": rounds,
                "graph_replay": timer.graph is not None,
                "bytes": case.bytes_moved,
                "share_of_copy": rate / floor[0],
                "share_of_read": rate / floor[1],
                "speedup": median / ours,
                "launches": timing.launches(timer.calls[0], device),
                "peak_bytes": timing.peak_bytes(timer.calls[0], device),
            }
        )
        line = f"{case.name:34}{name:10}{milliseconds[0]:10.3f} ms"
        spread = f"[{milliseconds[1]:.3f}, {milliseconds[2]:.3f}]"
        print(f"{line} {spread:24}{median / ours:6.2f}x{100 * rate / floor[1]:8.1f}% of read", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("op", choices=registry.OPS, nargs="?", default=registry.OPS[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--size", nargs="*", default=[], metavar="NAME=N", help="of the inputs, see its SIZES"
    )
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    sizes = registry.sizes(options.op)
    for name, _, value in (size.partition("=") for size in options.size):
        if name not in sizes:
            parser.error(f"--size: {options.op} has {', '.join(sizes)}, not {name!r}")
        sizes[name] = int(value)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    load = [os.getloadavg()[0]]
    floor = bandwidth(device)
    print(
        f"floor: copy {floor[0] / 1e9:.1f} GB/s, read {floor[1] / 1e9:.1f} GB/s; load {load[0]:.2f}",
        flush=True,
    )
    results = []
    for case in registry.cases(options.op, getattr(torch, options.dtype), **sizes):
        if options.only in case.name:
            results += record(case, device, options.rounds, floor)
    document = {
        "schema": 1,
        "version": sal_fast.__version__,
        "commit": commit(),
        "csrc_tree": csrc_tree(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "machine": machine(),
        "driver": _driver(device),
        "torch": torch.__version__,
        "threads": options.threads,
        "cpu_capability": sal_fast.build_info().cpu_capability,
        "load": [*load, os.getloadavg()[0]],
        "copy_gb_s": floor[0] / 1e9,
        "read_gb_s": floor[1] / 1e9,
        "results": results,
    }
    schema.check(document)
    options.out.mkdir(parents=True, exist_ok=True)
    shape = "x".join(str(size) for size in sizes.values()) + f"-{options.dtype}"
    shape += f"-{options.only.strip('-')}" if options.only else ""
    device_name = document["device"].replace(" ", "-").lower()
    name = f"{options.op}-{shape}-{sal_fast.__version__}-{device_name}.json"
    (options.out / name).write_text(json.dumps(document, indent=1) + "\n")
    print(options.out / name)


if __name__ == "__main__":
    main()
