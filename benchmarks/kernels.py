"""Report the registers, stack, spills and shared memory of every compiled CUDA kernel.

`python benchmarks/kernels.py [FOLDER]` needs nvcc and no GPU. It writes
kernels-<version>-nvcc<release>.json to the folder, by default benchmarks/results.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sal_fast._util.files import write_json
from sal_fast.bench.result import surroundings

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
ARCHITECTURES = (80, 90, 100)
_PTXAS = re.compile(
    r"Compiling entry function '(?P<kernel>[^']+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def report(source: Path) -> Iterator[dict[str, Any]]:
    """Yield a record for every kernel of a .cu file and every architecture."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    includes = [f"-I{CSRC / folder}" for folder in ("include", "cuda")]
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", *targets, *includes]
        command += ["-c", str(source), "-o", f"{folder}/out.o"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    readable = subprocess.run(["c++filt", "-p"], input=text, capture_output=True, text=True, check=True)
    for match in _PTXAS.finditer(readable.stdout):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        yield {
            "source": source.name,
            "kernel": re.sub(r"sal_fast::|\(anonymous namespace\)::|^void ", "", match["kernel"]),
            "architecture": match["architecture"],
            **{f: int(match[f]) for f in ("registers", "stack", "spill_stores", "spill_loads")},
            "shared": int(shared[1]) if shared else 0,
        }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results"
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", version)
    kernels: list[dict[str, Any]] = []
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        kernels += report(source)
        spilled = sum(kernel["spill_stores"] > 0 for kernel in kernels)
        print(f"{source.name}: {len(kernels)} kernels so far, {spilled} with spills", flush=True)
    here = surroundings(torch.device("cpu"))
    document = {
        "schema": 1,
        **{field: here[field] for field in ("version", "commit", "csrc_tree")},
        "compiler": version.strip().splitlines()[-1],
        "kernels": kernels,
    }
    path = folder / f"kernels-{here['version']}-nvcc{release[1] if release else 'unknown'}.json"
    write_json(path, document)
    print(path)


if __name__ == "__main__":
    main()
