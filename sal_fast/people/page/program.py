"""A program that computes beside the page, in a process of its own, with its last lines and its progress."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sal_fast._util import progress
from sal_fast._util.files import read_json
from sal_fast.errors import InputError

LINES = 30  # of the log that the page shows
PATIENCE = 20.0  # seconds that a program has to end by itself before it is killed


class Program:
    """Runs modules of this package as `python -m MODULE WORDS`, one at a time.

    folder: the folder for its log and its progress.
    """

    def __init__(self, folder: Path) -> None:
        self.log, self.step = folder / "log.txt", folder / "step.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """True until the program has ended and `ended` has told it."""
        return self._process is not None

    def start(self, module: str, words: Sequence[str]) -> None:
        """Start a module, such as `sal_fast`, with its arguments. Nothing may be running.

        After `close` nothing is started any more.
        """
        assert self._process is None
        if self._closed:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.step.unlink(missing_ok=True)
        environment = {**os.environ, progress.FILE: str(self.step.absolute())}
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl+C reaches the page alone, which then ends the program
            )

    def ended(self) -> int | None:
        """The exit status, once, when the program has ended; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        status, self._process = self._process.returncode, None
        return status

    def stop(self) -> None:
        """End the program. A run goes on from its last finished round when it is started again."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """End the program, and start none again, whoever still asks for one."""
        self._closed = True
        self.stop()

    def lines(self) -> list[str]:
        """The last lines of the log."""
        if not self.log.exists():
            return []
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return [line.rstrip() for line in deque(file, LINES)]

    def progress(self) -> dict[str, Any] | None:
        """The step that is being done: name, done, total and seconds_left; None if none is known."""
        try:
            return read_json(self.step) if self.step.exists() else None
        except InputError:  # it was renamed or removed at this moment
            return None
