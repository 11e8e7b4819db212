"""sal-fast run."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import tyro

from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.errors import InputError
from sal_fast.experiment.config import OPTIONS, TYPES, Config, read_toml
from sal_fast.experiment.options import UNSET, helps_of, spelling

if TYPE_CHECKING:
    from sal_fast.experiment.loading import Run

ALONE = {"--baseline": "b1", "--add-data": "True"}  # options that may be given without a value
RESUME = "Continue the run in this folder with its own options; nothing else has to be given."


def main(arguments: list[str]) -> int:
    config = parse(arguments)
    # torch is imported from here on, so that --help and a misspelt option answer at once
    from sal_fast import distributed, report
    from sal_fast.experiment.answers.people import WAITING, Waiting
    from sal_fast.experiment.run import run
    from sal_fast.report import gained

    try:
        done = run(config)
    except Waiting as waiting:
        if not distributed.is_first():
            return 0  # torchrun would end the first at once
        say(
            f"\n{waiting}\n"
            f"  sal-fast label {waiting.folder} (a page in the browser)\n"
            f"or with other tools:\n"
            f"  sal-fast query export {waiting.folder} --to labelstudio (or folder)\n"
            f"  sal-fast query import {waiting.folder} FILE\n"
            f"then repeat this command, or:\n"
            f"  sal-fast run --resume {waiting.folder}"
        )
        return WAITING
    if distributed.is_first():
        # a baseline writes the summary again, so the page is then made anew
        finished, page = done.path / "summary.json", done.path / "report" / "index.html"
        if not page.exists() or page.stat().st_mtime < finished.stat().st_mtime:
            report.write([done.path], page.parent)
        say(ending(done, page))
        opening = gained.opening(done)
        if opening is not None:
            say("\n".join(["", opening.sentence, opening.basis, *opening.notes]))
    return 0


def ending(run: Run, page: Path) -> str:
    """The last lines of a finished run."""
    summary = run.summary or {}

    def shown(name: str) -> str:
        return "-" if summary[name] is None else f"{summary[name]:.3f}"

    return (
        f"\naccuracy {shown('accuracy')}, Dice {shown('dice')} (a random map: {shown('dice_floor')})\n"
        f"{summary['human_maps']} human and {summary['generated_maps']} generated maps\n"
        f"AULC: accuracy {shown('aulc_accuracy')}, Dice {shown('aulc_dice')}\n"
        f"report:\n"
        f"  {page}"
    )


def parse(arguments: list[str]) -> Config:
    """The configuration of a command line, whose values override --config, which overrides a preset."""
    arguments = with_values(arguments)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.exit_on_error = False
    for name in ("resume", *OPTIONS):
        first.add_argument(*dict.fromkeys((spelling(name), "--" + name)), dest=name, default=UNSET)
    try:
        early, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    named = {name: value for name, value in vars(early).items() if value is not UNSET}
    start = _started(Path(named.pop("resume"))) if "resume" in named else {}
    start |= read_toml(Path(named["config"])) if "config" in named else {}
    # the texts among them say what is misspelt, and which preset the help shows
    words = {name: value for name, value in named.items() if OPTIONS[name].words}
    defaults = Config.of({**start, **words})
    typed = parsing.one_line(_fields(defaults), arguments, "sal-fast run")
    return Config.of({**start, **{name: getattr(typed, name) for name in named}})


def with_values(arguments: list[str]) -> list[str]:
    """The arguments with the value of each option of `ALONE` that was given without one."""
    whole = []
    for word, following in itertools.pairwise([*arguments, "--"]):
        whole += [word, ALONE[word]] if word in ALONE and following.startswith("--") else [word]
    return whole


def _started(folder: Path) -> dict[str, Any]:
    """The options of the run in a folder; the run goes on there, wherever the folder is now."""
    from sal_fast.experiment.record import RunFolder

    there = RunFolder(folder.expanduser())
    if not there.run_json.exists():
        raise InputError(f"--resume {folder}: no run.json in it; name the folder of a run that was started")
    return there.run()["config"] | {"out": str(there.path)}


def _fields(defaults: Config) -> type:
    """A dataclass for the parser: every option with its help, and its value if nobody gives one."""
    fields: list[Any] = [
        ("resume", Annotated[str | None, tyro.conf.arg(help=RESUME)], dataclasses.field(default=None))
    ]
    helps = helps_of(Config)
    for name, one in OPTIONS.items():
        words = () if one.any_text else one.words
        kind = (Optional[str] if one.default is None else str) if words else TYPES[name]  # noqa: UP045
        metavar = {"metavar": "{" + ",".join(words) + "}"} if words else {}
        note = Annotated[kind, tyro.conf.arg(help=helps[name], **metavar)]  # type: ignore[valid-type]
        fields.append((name, note, dataclasses.field(default=getattr(defaults, name))))
    made = dataclasses.make_dataclass("Options", fields)
    made.__doc__ = """Run the paper's experiment (SAL, Algorithm 1) on a pool of images.

    Without an option it takes the built-in data set, on whatever the machine has. The same command continues
    a run that was interrupted.
    """
    return made
