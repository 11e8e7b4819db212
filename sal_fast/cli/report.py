"""sal-fast report."""

from pathlib import Path
from typing import Annotated

import tyro

from sal_fast import report
from sal_fast.cli import parsing


def main(arguments: list[str]) -> int:
    return parsing.one_line(_report, arguments, "sal-fast report")


def _report(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], /, out: Path = Path("report")) -> int:
    """Draw figures, tables (CSV) and one self-contained page, index.html, from run folders.

    Args:
        runs: Run folders, or folders of run folders. Whatever holds no finished round is left out.
        out: The folder to write to.
    """
    print(report.write(runs, out))
    return 0
