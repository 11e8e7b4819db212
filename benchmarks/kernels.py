"""What the compiler makes of every CUDA kernel: registers, stack, spills, shared memory. Needs nvcc, no GPU.

python -m benchmarks.kernels prints a table and writes results/kernels-<version>-nvcc<release>.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sal_fast
from benchmarks.run import RESULTS, commit, csrc_tree

CSRC = Path(__file__).parents[1] / "csrc"
ARCHITECTURES = (80, 90, 100)
_PTXAS = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def report(source: Path, architectures: tuple[int, ...] = ARCHITECTURES) -> Iterator[dict[str, Any]]:
    """A record for every kernel of a .cu file and architecture."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    includes = [f"-I{CSRC / folder}" for folder in ("include", "cuda")]
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", *targets, *includes]
        command += ["-c", str(source), "-o", f"{folder}/out.o"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    names = sorted({match["kernel"] for match in _PTXAS.finditer(text)})
    demangle = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True)
    readable = dict(zip(names, demangle.stdout.splitlines(), strict=True))
    for match in _PTXAS.finditer(text):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        yield {
            "source": source.name,
            "kernel": re.sub(r"sal_fast::|\(anonymous namespace\)::|^void ", "", readable[match["kernel"]]),
            "architecture": match["architecture"],
            **{f: int(match[f]) for f in ("registers", "stack", "spill_stores", "spill_loads")},
            "shared": int(shared[1]) if shared else 0,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", version)
    kernels = []
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        of_source = list(report(source, tuple(options.architectures)))
        kernels += of_source
        for architecture in sorted({kernel["architecture"] for kernel in of_source}):
            here = [kernel for kernel in of_source if kernel["architecture"] == architecture]
            most = {f: max(k[f] for k in here) for f in ("registers", "shared", "stack", "spill_stores")}
            print(
                f"{source.name:22}{architecture:8}{len(here):4} kernels, at most {most['registers']:3} "
                f"registers, {most['shared']:6} B shared, {most['stack']:3} B stack, "
                f"{most['spill_stores']:3} B spilled",
                flush=True,
            )
    name = f"kernels-{sal_fast.__version__}-nvcc{release[1] if release else 'unknown'}.json"
    document = {
        "schema": 1,
        "version": sal_fast.__version__,
        "commit": commit(),
        "csrc_tree": csrc_tree(),
        "compiler": version.strip().splitlines()[-1],
        "kernels": kernels,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / name).write_text(json.dumps(document, indent=1) + "\n")
    print(options.out / name)


if __name__ == "__main__":
    main()
