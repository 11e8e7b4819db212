"""sal-fast query: the questions of a run to people, and their answers."""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.cli.query_status import status_lines, voted
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.answers.collect import collect
from sal_fast.experiment.record import RunFolder
from sal_fast.people import folder, label_studio
from sal_fast.people.answers import Answers, tally
from sal_fast.people.question import Answer, Question, one_person
from sal_fast.people.suggested import Suggested

TOOLS = {"labelstudio": label_studio, "folder": folder}
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
_log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    about = "The questions of a run to people, and their answers. docs/people.md tells the whole way."
    commands: dict[str, Callable[..., int]] = {
        "export": _export,
        "import": _import,
        "status": _status,
        "settle": _settle,
        "withdraw": _withdraw,
        "collect": _collect,
    }
    return parsing.one_of(commands, arguments, "sal-fast query", about)


def _export(
    run: Run, /, to: Literal["labelstudio", "folder"], out: Path | None = None, suggest: bool = True
) -> int:
    """Write what a run asks of people, for Label Studio or as a plain folder.

    These are the images, with what an annotator or a tool needs to answer.

    Args:
        run: the run's folder.
        to: labelstudio writes tasks and an interface for Label Studio. folder writes the images with a table
            and masks to fill.
        out: a new folder. Without it the folder is RUN/query-NNN-TO, or RUN/query-NNN-TO-2 and so on if that
            exists.
        suggest: give people the model's maps to begin from, if the run has made some for this query.
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
    TOOLS[to].export(left, target, _suggested(held, question) if suggest else None)
    say(
        f"query {question.query_index}: {len(waiting)} images that want {_wanted(left)} are in\n"
        f"  {target}\n"
        f"README.txt there says how to answer them. Then:\n"
        f"  sal-fast query import {run} {target if to == 'folder' else 'FILE'}"
    )
    return 0


def _suggested(held: RunFolder, question: Question) -> Suggested | None:
    return Suggested.read(held.asked(question.query_index)) if question.maps else None


def _wanted(question: Question) -> str:
    """Say in words whether the images of a question want a class alone, or a map, too."""
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
    keep_odd_maps: bool = False,
) -> int:
    """Take in what people answered.

    The whole file is read before any answer is kept, and earlier imports stay. A new answer by the same
    person for the same image replaces the earlier one. If only a part of the images is answered, the answers
    are kept and the run waits for the others.

    Args:
        run: the run's folder.
        file: Label Studio's JSON export, or the folder that was filled (or its answers.csv).
        skip_rest: skip all images that have no answer, so that the run does not ask for them again.
        keep_odd_maps: take maps that mark nearly all of the picture, or its border and not its middle.
            Without it they are refused, because they are most likely slips.
    """
    held = RunFolder(run)
    question = people.asked(held)
    tool = folder if file.is_dir() or file.suffix.lower() == ".csv" else label_studio
    found = tool.read_answers(file, question, _suggested(held, question), keep_odd_maps)
    with held.lock():
        there = people.reopen(held, question)
        there.add(found)
        if skip_rest:
            there.add([Answer(name, None, None, "", None, True) for name in there.open(question.ids)])
    empty = [one.id for one in found if one.mask is not None and not one.mask.any()]
    if empty:
        _log.warning(
            f"maps that mark nothing, from which nobody learns where to look: {len(empty)}, the first is "
            f"that of {empty[0]!r}"
        )
    say(_summary(question, there, f"{len(found)} answers read"))
    return 0


def _status(run: Run, /) -> int:
    """Tell what is answered, by whom, and where answers disagree.

    Args:
        run: the run's folder.
    """
    say("\n".join(status_lines(run, people.queries(RunFolder(run)))))
    return 0


def _settle(run: Run, /, image: str, label: str, annotator: str = "") -> int:
    """Decide the class of an image to which people gave several classes equally often.

    Only images of the query that waits can be settled. If the annotator has answered for the image, that
    answer stays beside the decision, with its class and its map. A later decision replaces an earlier one.

    Args:
        run: the run's folder.
        image: the image's id, or the name under which annotators see it.
        label: its class.
        annotator: the name of the person who decides.
    """
    held = RunFolder(run)
    question = people.asked(held)
    name = question.meant(image)
    if name not in question.row_of:
        raise InputError(question.id_problem(image))
    if label not in question.classes:
        raise InputError(question.class_problem(label))
    with held.lock():
        there = people.reopen(held, question)
        votes = there.votes(name)
        tied = name in there.verdicts() and there.verdicts()[name].tie
        if not tied and not any(one.settles for one in there.kept if one.id == name):
            raise InputError(f"{name!r} is no tie ({voted(votes)}); `sal-fast query status {run}` lists ties")
        there.settle(name, label, annotator)
    say(_summary(question, there, f"{name!r} is settled as {label!r}"))
    return 0


def _withdraw(run: Run, /, annotator: str, image: str | None = None) -> int:
    """Take a person's answers back, with their maps. Their images are open again.

    Only answers to the query that waits can be taken back.

    Args:
        run: the run's folder.
        annotator: the person's name, in any case.
        image: one image's id, or the name under which annotators see it. Without it all of the person's
            answers to the query are taken back.
    """
    held = RunFolder(run)
    question = people.asked(held)
    name = None if image is None else question.meant(image)
    if image is not None and name not in question.row_of:
        raise InputError(question.id_problem(image))
    who = one_person(annotator)
    with held.lock():
        there = people.reopen(held, question)
        names = list(dict.fromkeys(one.annotator for one in there.kept if one.annotator))
        gone = there.withdraw(lambda one: one_person(one.annotator) == who and name in (None, one.id))
    if not gone:
        place = f"query {question.query_index}" if name is None else f"{name!r}"
        known = f"; those who answered the query are {', '.join(names)}" if names else ""
        raise InputError(f"{place} has no answer by {annotator!r}{known}")
    say(_summary(question, there, f"withdrawn answers by {gone[0].annotator!r}: {len(gone)}"))
    return 0


def _collect(run: Run, /, out: Path) -> int:
    """Write all answers to the run's queries so far as a data set, which `sal-fast run --data` reads.

    Images are copied with their classes and maps, and answers.csv lists every answer.

    Args:
        run: the run's folder.
        out: a new folder.
    """
    found = collect(RunFolder(run), out)
    said = f"{out}: {found.images} images with a class, {found.maps} of them with a map"
    if found.skipped:
        said += (
            f"\nskipped by everyone, so only listed in answers.csv: {len(found.skipped)}, the first is "
            f"{found.skipped[0]!r}"
        )
    say(f"{said}\nNext:\n  sal-fast data check {out}")
    return 0


def _summary(question: Question, there: Answers, what: str) -> str:
    """Say what was done, how the query stands after it, and what to do next."""
    verdicts = there.verdicts()
    count, waiting = tally([there]), there.open(question.ids)
    said = f"query {question.query_index}: {what}; {count['labelled']} of {len(question.ids)} "
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
    ties = [name for name, one in verdicts.items() if one.tie]
    if ties:
        said += f"\nties: {len(ties)}, the first is {ties[0]!r}; `sal-fast query settle` decides them"
    if waiting:
        return f"{said}\nstill open: {len(waiting)}, the first is {waiting[0]!r}; import their answers next"
    return f"{said}\nthe query is answered; repeat the run's command to go on"
