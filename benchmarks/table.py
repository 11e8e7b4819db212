"""Result files as Markdown, for docs/ops.md: python -m benchmarks.table benchmarks/results/ssim-*.json"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def table(document: dict[str, Any]) -> str:
    """A row a case: our median, the share of the measured read bandwidth, how many times it others take."""
    results = document["results"]
    cases = list(dict.fromkeys(result["case"] for result in results))
    variants = list(dict.fromkeys(result["variant"] for result in results))
    lines = [
        f"| case | {variants[0]} | of read bandwidth | {' | '.join(variants[1:])} |",
        "|---" * (len(variants) + 2) + "|",
    ]
    for case in cases:
        of = {result["variant"]: result for result in results if result["case"] == case}
        ours = of[variants[0]]
        others = (f"{of[name]['speedup']:.3g}x" if name in of else "" for name in variants[1:])
        share = f"{100 * ours['share_of_read']:.2g} %"
        lines.append(f"| {case} | {milliseconds(ours['ms'])} | {share} | {' | '.join(others)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    for file in parser.parse_args().files:
        document = json.loads(file.read_text())
        first = document["results"][0]
        print(
            f"\n{first['op']}, {first['shape']}, {first['dtype']}, {document['device']}, "
            f"{document['threads']} threads, read {document['read_gb_s']:.1f} GB/s, load {document['load']}\n"
        )
        print(table(document))


if __name__ == "__main__":
    main()
