"""What reaches the screen: results on stdout, log records on stderr, lines that fit."""

from __future__ import annotations

import io
import logging

import pytest

from sal_fast.cli import output

log = logging.getLogger("sal_fast.somewhere")


def test_records_reach_stderr_only_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with output.logs_shown():
        log.debug("too much")
        log.info("%d of %d images", 3, 9)
        log.warning("class %s is empty", "red")
        log.error("worker lost")
    log.info("nobody asked")
    assert capsys.readouterr() == (
        "",
        "3 of 9 images\nsal-fast: note: class red is empty\nsal-fast: error: worker lost\n",
    )


def test_lines_break_between_words_only(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a/very-long/path-with-hyphens/" + "x" * 90
    output.say(f"the report of the run and of all that belongs to it is here: {path} {'word ' * 30}\n\n  end")
    first, alone, *rest, empty, last = capsys.readouterr().out.splitlines()
    assert first == "the report of the run and of all that belongs to it is here:"
    assert alone == path
    assert all(len(line) <= 80 for line in rest)
    assert (empty, last) == ("", "  end")


def test_a_message_is_one_line_in_a_file_and_is_broken_on_a_terminal() -> None:
    message, file, terminal = "word " * 40, io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    output.tell(message, file)
    output.tell(message, terminal)
    assert file.getvalue() == message + "\n"
    assert max(map(len, terminal.getvalue().splitlines())) <= 80
