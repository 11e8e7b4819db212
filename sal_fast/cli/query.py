"""sal-fast query: the questions of a run to people, and their answers."""

import dataclasses
import itertools
import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.experiment.answers import people
from sal_fast.experiment.record import RunFolder
from sal_fast.people import folder, label_studio
from sal_fast.people.answers import Answers, tally
from sal_fast.people.question import Answer, Question

TOOLS = {"labelstudio": label_studio, "folder": folder}
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
_log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    about = "The questions of a run to people, and their answers. docs/people.md tells the whole way."
    return parsing.one_of({"export": _export, "import": _import}, arguments, "sal-fast query", about)


def _export(run: Run, /, to: Literal["labelstudio", "folder"], out: Path | None = None) -> int:
    """Write what a run asks of people, for Label Studio or as a plain folder.

    These are the images, with what an annotator or a tool needs to answer.

    Args:
        run: the run's folder.
        to: labelstudio writes tasks and an interface for Label Studio. folder writes the images with a table
            and masks to fill.
        out: a new folder. Without it the folder is RUN/query-NNN-TO, or RUN/query-NNN-TO-2 and so on if that
            exists.
    """
    held = RunFolder(run)
    question = people.asked(held)
    waiting = Answers(held.asked(question.query_index)).open(question.ids)
    if not waiting:
        say(f"query {question.query_index} is answered; repeat the run's command to go on")
        return 0
    image = dict(zip(question.ids, question.images, strict=True))
    left = dataclasses.replace(question, ids=waiting, images=[image[name] for name in waiting])
    default = held.path / f"query-{question.query_index:03d}-{to}"
    target = out or _free(default)
    TOOLS[to].export(left, target)
    say(
        f"query {question.query_index}: {len(waiting)} images that want {_wanted(left)} are in\n"
        f"  {target}\n"
        f"README.txt there says how to answer them. Then:\n"
        f"  sal-fast query import {run} {target if to == 'folder' else 'FILE'}"
    )
    return 0


def _wanted(question: Question) -> str:
    """The things that a question's images want, in words."""
    drawn, spared = len(question.want_map), len(question.spared)
    if drawn and spared:
        return f"a class, and {drawn} of them a map (the other {spared} have masks, which are used),"
    if spared:
        return "a class, no map (they have masks, which are used),"
    return "a class and a map" if drawn else "a class, no map"


def _free(path: Path) -> Path:
    """That folder, or the first numbered one that does not exist."""
    numbered = (path.with_name(f"{path.name}-{count}") for count in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def _import(
    run: Run,
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    /,
    skip_rest: bool = False,
) -> int:
    """Take in what people answered.

    The whole file is read before any answer is kept, and earlier imports stay. A new answer by the same
    person for the same image replaces the earlier one. If only a part of the images is answered, the answers
    are kept and the run waits for the others.

    Args:
        run: the run's folder.
        file: Label Studio's JSON export, or the folder that was filled (or its answers.csv).
        skip_rest: skip all images that have no answer, so that the run does not ask for them again.
    """
    held = RunFolder(run)
    question = people.asked(held)
    tool = folder if file.is_dir() or file.suffix.lower() == ".csv" else label_studio
    found = tool.read_answers(file, question)
    with held.lock():
        there = people.reopen(held, question)
        there.add(found)
        if skip_rest:
            there.add([Answer(name, None, None, "", None, True) for name in there.open(question.ids)])
    flat = [one.id for one in found if one.mask is not None and one.mask.min() == one.mask.max()]
    if flat:
        _log.warning(
            f"maps that mark all of the picture or none of it: {len(flat)}, the first is that of {flat[0]!r}"
        )
    say(_summary(question, there, len(found)))
    return 0


def _summary(question: Question, there: Answers, read: int) -> str:
    """The state of a query after an import, and what to do next."""
    verdicts = there.verdicts()
    count, waiting = tally([there]), there.open(question.ids)
    said = f"query {question.query_index}: {read} answers read; {count['labelled']} of {len(question.ids)} "
    said += "images have a class"
    if question.maps:
        said += f", {count['maps']} a map"
        own = [name for name in question.spared if name not in verdicts or not verdicts[name].masks]
        if own:
            said += f" (beside {len(own)} whose own masks are used)"
        bare = [
            name
            for name, one in verdicts.items()
            if one.label is not None and not one.masks and question.wants_map(name)
        ]
        if bare:
            said += f" (without: {len(bare)}, the first is {bare[0]!r})"
    if count["skipped"]:
        said += f", skipped: {count['skipped']}"
    if waiting:
        return f"{said}\nstill open: {len(waiting)}, the first is {waiting[0]!r}; import their answers next"
    return f"{said}\nthe query is answered; repeat the run's command to go on"
