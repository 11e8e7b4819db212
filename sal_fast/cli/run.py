"""sal-fast run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from sal_fast import distributed, experiment, report
from sal_fast.cli import parsing
from sal_fast.errors import InputError

WAITING = 75  # EX_TEMPFAIL: try again later


def main(arguments: list[str]) -> int:
    try:
        folder = experiment.run(parse(arguments))
    except experiment.Waiting as waiting:
        if not distributed.is_first():
            return 0  # torchrun would end the first at once
        print(
            f"\n{waiting}\n"
            f"  sal-fast query export {waiting.folder} --to labelstudio (or folder)\n"
            f"  sal-fast query import {waiting.folder} FILE\n"
            f"then repeat this command"
        )
        return WAITING
    if not distributed.is_first():
        return 0
    finished, page = folder / "summary.json", folder / "report" / "index.html"
    if not page.exists() or page.stat().st_mtime < finished.stat().st_mtime:
        report.write([folder], page.parent)
    summary = json.loads(finished.read_text(encoding="utf-8"))

    def shown(name: str) -> str:
        return "-" if summary[name] is None else f"{summary[name]:.3f}"

    print(
        f"\naccuracy {shown('accuracy')}, Dice {shown('dice')} (a random map: {shown('dice_floor')}), "
        f"{summary['human_maps']} human and {summary['generated_maps']} generated maps\n"
        f"AULC: accuracy {shown('aulc_accuracy')}, Dice {shown('aulc_dice')}\n"
        f"report: {page}"
    )
    return 0


def parse(arguments: list[str]) -> experiment.Config:
    """Defaults < preset < --config < command line, all through one dataclass."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.exit_on_error = False
    # what decides defaults, and names that may be misspelt
    for name in ("data", "config", *experiment.CHOICES):
        first.add_argument(f"--{name.replace('_', '-')}", dest=name)
    try:
        early, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    named = {name: value for name, value in vars(early).items() if value is not None}
    files = [Path(os.path.expanduser(named["config"]))] if "config" in named else []
    defaults = experiment.resolve(named, files)
    config = parsing.one_line(experiment.Config, arguments, "sal-fast run", default=defaults)
    return dataclasses.replace(config, preset=defaults.preset)
