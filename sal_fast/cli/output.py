"""The output of the commands: plain lines on stdout, progress and notes on stderr.

A command prints its result with `say`. Everything else in the package uses `logging`, and `logs_shown` brings
the records of the logger `sal_fast` to the screen.
"""

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO

PREFIX = {logging.WARNING: "sal-fast: note: ", logging.ERROR: "sal-fast: error: "}


# Break a line between words so that it fits a width; a word that is longer gets a line of its own.
wrapped = partial(textwrap.fill, break_long_words=False, break_on_hyphens=False)


def columns() -> int:
    """The width of the terminal, or 80 where there is none."""
    return shutil.get_terminal_size().columns


def fitted(text: str) -> str:
    """Text whose long lines are broken to fit the screen; an indented line, such as a command, is not."""
    return "\n".join(line if line.startswith(" ") else wrapped(line, columns()) for line in text.split("\n"))


def say(text: str) -> None:
    """Print a command's result on stdout. Its lines fit the screen (`fitted`)."""
    print(fitted(text), flush=True)


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print one message, on stderr by default. Outside a terminal its lines stay whole, for grep."""
    stream = stream or sys.stderr
    print(fitted(text) if stream.isatty() else text, file=stream, flush=True)


class _Screen(logging.Handler):
    """Writes to what sys.stderr is now: a progress bar puts itself in its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tell(PREFIX.get(record.levelno, "") + self.format(record))
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)


@contextmanager
def logs_shown() -> Iterator[None]:
    """Show the records of the logger `sal_fast` on stderr.

    INFO is a plain line, WARNING is `sal-fast: note: ...` and ERROR is `sal-fast: error: ...`.
    """
    logger, handler = logging.getLogger("sal_fast"), _Screen()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
