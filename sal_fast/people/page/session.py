"""The way from query to query: people answer one, the run goes on by itself, and asks the next."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sal_fast._util.files import read_json, whole_file
from sal_fast._util.locks import InUse
from sal_fast.errors import InputError
from sal_fast.experiment import growing
from sal_fast.experiment.answers import people
from sal_fast.experiment.options import spelling
from sal_fast.experiment.record import PEOPLE, RunFolder
from sal_fast.people.answers import Answers
from sal_fast.people.page import first
from sal_fast.people.page.desk import Ask, Asked, Desk, Gone, Says
from sal_fast.people.page.program import Program
from sal_fast.people.question import Question
from sal_fast.people.suggested import Suggested

log = logging.getLogger(__name__)

EVERY = 0.3  # seconds between two looks at the program
Stage = Literal["classes", "ask", "learn", "done", "failed"]


@dataclass(frozen=True)
class Settings:
    """The options of the page.

    ask: the way in which people make maps. rules: the rules for boxes and points, the preferred one first.
    each: the number of people who answer each picture. classes: the classes, if the data has none.
    """

    ask: Ask = "brush"
    rules: tuple[str, ...] = ("grabcut", "box", "model")
    each: int = 1
    classes: tuple[str, ...] = ()


class Session:
    """The state of the page, and the changes that it can ask for. Threads may share it.

    run: the run's folder, which may not exist yet. options: the options of `sal-fast run` that make it; None
    if it is there already. growth: further options with which a run that is there goes on, and grows.
    """

    def __init__(
        self,
        run: Path,
        settings: Settings,
        options: Mapping[str, Any] | None = None,
        growth: Sequence[str] = (),
    ) -> None:
        self.run, self.settings, self.options = run, settings, options
        self.growth: list[str] = list(growth)
        self.record, self.folder = RunFolder(run), run / PEOPLE
        self.program = Program(self.folder)
        self.desk: Desk | None = None
        self.stage: Stage = "learn"
        self.text = ""
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def begin(self) -> None:
        """Ask what waits for an answer, or start the run; from now on go from query to query."""
        with self._lock:
            self._go_on()
        self._thread.start()

    def close(self) -> None:
        """End the program that runs, and stop watching. What is finished is kept."""
        self._over.set()
        with self._lock:
            self.program.close()
        if self._thread.is_alive():
            self._thread.join()

    # --- what the page asks for --------------------------------------------------------------------------

    def state(self, person: str) -> dict[str, Any]:
        """All that the page shows besides pictures, as JSON: the stage, the classes, counts and progress.

        person: the name of the one who looks; it decides `mine`, `held_by_others` and `seconds_each`.
        """
        with self._lock:
            desk, stage = self.desk, self.stage
            question = desk.question if desk is not None else None
            busy = stage == "learn"
            return {
                "run": self.run.resolve().name,
                "query": question.query_index if question else None,
                "stage": stage,
                "text": self.text,
                "log": self.program.lines() if stage in ("learn", "failed") else [],
                "step": self.program.progress() if busy else None,
                "purpose": desk.asked.purpose if desk else "round",
                "classes": list(question.classes if question else self.settings.classes),
                "new_classes": stage == "classes" or self._new_classes(),
                "maps": question.maps if question else False,
                "ask": self.settings.ask,
                "rules": list(self.settings.rules),
                "counts": desk.counts(person) if desk else None,
                "rounds": self._rounds(),
                "seconds_each": desk.seconds_each(person) if desk else None,
                "instructions": (self.folder / "instructions.md").exists(),
            }

    def asking(self, query: object) -> Desk:
        """The desk of the query that is asked. Raises Gone if `query` is another one."""
        with self._lock:
            if self.desk is None or self.desk.question.query_index != query:
                raise Gone("the run has gone on meanwhile, so this answer can be changed no more")
            return self.desk

    def answer(self, query: object, person: str, key: str, says: Says) -> dict[str, int]:
        """Keep an answer (`Desk.answer`), and return the counts."""
        return self._changed(query, person, lambda desk: desk.answer(person, key, says))

    def withdraw(self, query: object, person: str, key: str) -> dict[str, int]:
        """Take an answer back (`Desk.withdraw`), and return the counts."""
        return self._changed(query, person, lambda desk: desk.withdraw(person, key))

    def add_classes(self, names: Sequence[str]) -> list[str]:
        """Add classes to those that people can choose, as long as no network is trained for them."""
        with self._lock:
            if self.stage != "classes" and not self._new_classes():
                raise InputError("the classes are fixed now: the network has one output for each")
            there = first.add_classes(self.folder, self.settings.classes, names)
            if self.stage == "classes" and len(there) > 1:
                self._go_on()
            elif self.desk is not None:
                self._ask_first()
            return there

    # --- from query to query -----------------------------------------------------------------------------

    def _changed(self, query: object, person: str, change: Any) -> dict[str, int]:
        """Change answers. A round that has begun with the answers as they were is begun again.

        Until the round is finished its answers can be changed, because nothing of it has been kept yet.
        """
        with self._lock:
            desk = self.asking(query)
            if self.program.running:
                self.program.stop()
                if self._finished_meanwhile(desk):
                    self._go_on()
                    raise Gone("the round has just been finished, so its answers can be changed no more")
                self.stage, self.text = "ask", ""
            change(desk)
            counts = desk.counts(person)
            if desk.complete():
                self._go_on()
            return counts

    def _finished_meanwhile(self, desk: Desk) -> bool:
        if desk.asked.purpose != "round":
            state = first.state(self.folder)
            return state == "ready" or first.asked(self.folder) != desk.question.query_index
        return len(self.record.rounds(mend=False)) != desk.question.query_index

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            with self._lock:
                self._look()

    def _look(self) -> None:
        """See whether the program has ended, or whether others have answered by an import."""
        status = self.program.ended()
        waits = self.stage == "learn" and not self.program.running
        try:
            answered = self.stage == "ask" and self.desk is not None and self.desk.complete()
            if status not in (None, 0, people.WAITING):
                self.stage = "failed"
                self.text = _stopped(status)
            elif status is not None or answered or waits:
                self._go_on()
        except Exception as error:  # such as a full disk; without this thread the page would never go on
            if not isinstance(error, InputError | OSError):
                log.exception("the page cannot go on")
            self.stage, self.text = "failed", f"{error}\nMend this, and start the page again to go on."

    def _go_on(self) -> None:
        """Do the next thing: ask a question that waits, or let the program compute."""
        if self.growth:
            self._learn()
            return
        if self.options is not None and not self.record.run_json.exists() and self._ask_first():
            return
        if self.record.run_json.exists() and self.record.finished():
            self.stage, self.desk = "done", None
            self.text = "The run is finished. The report shows how well its model looks and decides."
            return
        asked = self._waiting()
        if asked is not None:
            self.desk = self._desk(asked)
            if not self.desk.complete():
                self.stage, self.text = "ask", ""
                return
        self._learn()

    def _waiting(self) -> Asked | None:
        """The question of the run that waits for an answer, as far as the run has written it down."""
        if not self.record.run_json.exists():
            return None
        query_index = len(self.record.rounds(mend=False))
        folder = self.record.asked(query_index)
        question = people.posed(folder, self.run.resolve().name)
        if question is None or question.query_index != query_index:
            return None
        return Asked(question, folder, lambda: self._opened(question), Suggested.read(folder))

    @contextmanager
    def _opened(self, question: Question) -> Iterator[Answers]:
        with self.record.lock():
            yield people.reopen(self.record, question)

    def _learn(self) -> None:
        """Start the program, unless another process computes already."""
        self.stage = "learn"
        self.text = "The model learns from the answers. The page goes on by itself with the next question."
        if self.program.running:
            return
        try:
            with self.record.lock():
                pass
        except InUse:
            self.text = "Another program works on this run. The page goes on when that has ended."
            return
        if self.record.run_json.exists():
            self.program.start("sal_fast", ["run", "--resume", str(self.run), *self.growth])
            self.growth = []
            return
        assert self.options is not None
        self.text = "The images are read, and the run is prepared."
        data = first.data(self.folder)
        options = dict(self.options)
        if data is not None:
            options = {name: one for name, one in options.items() if name not in first.READING}
            options["data"] = str(data)
        words = [word for name, value in options.items() for word in (spelling(name), str(value))]
        self.program.start("sal_fast", ["run", *words])

    def _ask_first(self) -> bool:
        """Ask for the classes of the images that the run is tested on, if the data has no classes.

        Returns False once the run can be made.
        """
        state = first.state(self.folder)
        if state == "ready":
            return False
        if state == "unknown":
            self._step("The images are read.")
            return True
        classes = first.classes(self.folder, self.settings.classes)
        if len(classes) < 2:
            self.stage, self.text, self.desk = "classes", "Name the classes that the images show.", None
            return True
        question, folder = first.question(self.folder, self.run.resolve().name, classes)
        purpose = "maps of test images" if question.maps else "classes first"
        held = self.desk
        if held is None or held.question != question:
            asked = Asked(question, folder, lambda: first.opened(folder), None, purpose)
            self.desk = self._desk(asked)
        assert self.desk is not None
        self.stage, self.text = "ask", ""
        if self.desk.complete():
            self._step("The answers are read.")
        return True

    def _step(self, text: str) -> None:
        """Let a program take the next step of the first questions."""
        self.stage, self.text = "learn", text
        if not self.program.running:
            given = (dict(self.options or {}), self.settings.classes)
            words = [str(self.folder), *map(json.dumps, given)]
            self.program.start("sal_fast.people.page.first", words)

    def _desk(self, asked: Asked) -> Desk:
        held = self.desk
        if held is not None and held.question == asked.question and held.folder == asked.folder:
            return held  # it knows who has which picture
        made = Desk(asked, self.folder / "drafts", self.settings.ask, self.settings.each)
        if held is not None and held.folder == asked.folder:
            made.take_over(held)
        return made

    def _new_classes(self) -> bool:
        return self.desk is not None and self.desk.asked.purpose == "classes first"

    def _rounds(self) -> dict[str, Any]:
        if not self.record.run_json.exists():
            return {"done": 0, "total": None, "accuracy": None, "dice": None}
        lines = self.record.rounds(mend=False)
        last = lines[-1] if lines else {}
        plan = growing.plan_of(self.record.config(), self.record.run())
        return {
            "done": len(lines),
            "total": plan.rounds,
            "accuracy": last.get("accuracy"),
            "dice": last.get("dice"),
        }


def token(folder: Path) -> str:
    """The secret in the page's address. It stays the same when the page is started again."""
    file = folder / "page.json"
    if file.exists():
        kept = read_json(file).get("token")
        if not isinstance(kept, str) or not kept:
            raise InputError(f"{file}: no secret in it; remove the file, and a new one is made")
        return kept
    made = secrets.token_urlsafe(18)
    with whole_file(file) as aside:
        aside.touch(mode=0o600)  # before anything is in it
        aside.write_text(json.dumps({"token": made}) + "\n")
    return made


def _stopped(status: int) -> str:
    """Say why a program has stopped that ended with this exit status, or by a signal if that is negative."""
    if status >= 0:
        return "The program has stopped; its last lines say why. Start the page again to go on."
    said = "The program was ended by force"
    if -status == signal.SIGKILL:
        said += ", perhaps because the machine's memory was full"
    return (
        f"{said} ({signal.strsignal(-status)}). Start the page again to go on from the last finished round."
    )
