"""Progress where there is no terminal: lines in the log, without a test that waits for them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sal_fast._util import progress


@contextmanager
def first_line() -> Iterator[threading.Event]:
    """Is set once the log has a line that the heartbeat wrote."""
    written = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: written.set()  # type: ignore[method-assign]
    logger = logging.getLogger(progress.__name__)
    logger.addHandler(handler)
    try:
        yield written
    finally:
        logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.001)
    caplog.set_level(logging.INFO, "sal_fast")


def test_a_step_that_takes_long(caplog: pytest.LogCaptureFixture) -> None:
    """The line comes while the step is under way, and one bar is shown at a time."""
    with progress.bar("reading", 8) as advance, progress.bar("inner", 3) as inner:
        advance(2)
        inner()
        with first_line() as written:
            assert written.wait(60)
    said = [record.message for record in caplog.records]
    assert said[-1].startswith("reading: 8 in ")
    assert any(line.startswith("reading: 2 of 8, about ") for line in said)
    assert not any("inner" in line for line in said)


def test_work_without_a_bar(caplog: pytest.LogCaptureFixture) -> None:
    threads = threading.enumerate()
    with progress.heartbeat(), first_line() as written:
        assert written.wait(60)
    assert caplog.records[0].message == "still running after 0 s"
    assert threading.enumerate() == threads


def test_no_line_at_the_end_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY", 1e6)
    with progress.bar("epochs", 2, log=False):
        pass
    assert not caplog.records


def test_another_process_shows_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with progress.hidden(), progress.heartbeat(), progress.bar("epochs", 2) as advance:
        advance()
        logging.getLogger("sal_fast.data").info("a line")
        logging.getLogger("sal_fast.data").warning("a note")
    assert [record.message for record in caplog.records] == ["a note"]


def test_the_estimate() -> None:
    bar = progress._Bar("decoding", 40)
    assert bar.line(5) == "decoding: 0 of 40"
    bar.done = 10
    assert bar.line(60) == "decoding: 10 of 40, about 3 min 0 s left"


def test_the_state_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another program reads it, also before anything is done. A folder that is gone stops no work."""
    monkeypatch.setattr(progress, "OFTEN", 0.0)
    file = tmp_path / "step.json"
    monkeypatch.setenv(progress.FILE, str(file))
    with progress.bar("reading", 8) as advance:
        advance(0)
        assert json.loads(file.read_text()) == {
            "name": "reading", "done": 0, "total": 8, "seconds_left": None
        }  # fmt: skip
        advance(8)
        assert json.loads(file.read_text())["seconds_left"] == 0
    assert not file.exists()
    monkeypatch.setenv(progress.FILE, str(tmp_path / "gone" / "step.json"))
    with progress.bar("reading", 8) as advance:
        advance()
