"""People at the page without a browser: a server in its own process, and the requests that the page makes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from patience import PATIENCE

from sal_fast.people.page import runs


class Page:
    """A server that was started as a user starts it, with its address and its secret."""

    def __init__(self, process: subprocess.Popen[str], address: str, log: Path) -> None:
        parts = urlsplit(address)
        self.process, self.address, self.log = process, address, log
        self.host, self.port = str(parts.hostname), int(parts.port or 0)
        self.token = parts.query.removeprefix("token=")

    def person(self, name: str) -> Person:
        """Somebody who opens the page."""
        return Person(self, name)

    def kill(self) -> None:
        """End the server without a warning, as a machine that loses its power."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End the server as Ctrl+C does, and return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(*words: object, log: Path) -> Iterator[Page]:
    """Serve a page with `sal-fast label WORDS` on a free port, unless the words name one."""
    words = tuple(map(str, words))
    port = () if "--port" in words else ("--port", "0")
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sal_fast", "label", *words, "--browser", "False", *port],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
    try:
        found = wait_for(lambda: re.search(r"http://\S+", log.read_text()), process, log)
        yield Page(process, found[0], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


def wait_for(
    look: Callable[[], Any], process: subprocess.Popen[str] | None = None, log: Path | None = None
) -> Any:
    """Look until there is something, for a long time at most."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(log.read_text() if log else "the server has ended")
        time.sleep(0.02)
    raise AssertionError(log.read_text() if log else "nothing happened")


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, says: Any) -> None:
        super().__init__(f"{status}: {says}")
        self.status, self.says = status, says


class Person:
    """A person with a browser of their own, who answers as the page does."""

    def __init__(self, page: Page, name: str) -> None:
        self.page, self.name, self.cookie = page, name, ""
        response, _ = self.send("GET", f"/?token={page.token}")
        self.cookie = str(response.getheader("set-cookie")).partition(";")[0]
        self.query: int | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        """One request. Headers that are given replace those that a browser sends."""
        place = f"{self.page.host}:{self.page.port}"
        sent = {"Host": place, "Cookie": self.cookie, "Content-Type": "application/json"}
        sent |= {"Origin": f"http://{place}"} if method == "POST" else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection(self.page.host, self.page.port, timeout=PATIENCE)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {name: value for name, value in sent.items() if value})
        response = connection.getresponse()
        read = response.read()
        connection.close()
        return response, read

    def get(self, path: str, **query: object) -> Any:
        """The object that an address answers. Raises Refused."""
        words = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
        return self._object(*self.send("GET", f"{path}?{words}"))

    def post(self, path: str, **says: Any) -> Any:
        """Send an object in this person's name for the query that they see. Raises Refused."""
        return self._object(*self.send("POST", path, {"person": self.name, "query": self.query, **says}))

    def state(self) -> dict[str, Any]:
        """The state of the page; the person then sees its query."""
        said: dict[str, Any] = self.get("/api/state", person=self.name)
        self.query = said["query"]
        return said

    def until(self, stage: str, query: int | None = None) -> dict[str, Any]:
        """Wait until the page is in a stage (and asks a query), and return its state."""

        def look() -> dict[str, Any] | None:
            said = self.state()
            assert said["stage"] != "failed" or stage == "failed", "\n".join([said["text"], *said["log"]])
            return said if said["stage"] == stage and query in (None, said["query"]) else None

        found: dict[str, Any] = wait_for(look, self.page.process, self.page.log)
        return found

    def take(self, count: int = 1) -> list[dict[str, Any]]:
        """The pictures that this person has now."""
        found: list[dict[str, Any]] = self.post("/api/take", count=count)["pictures"]
        return found

    def answer(
        self, picture: dict[str, Any], label: str | None, mask: np.ndarray | None = None, **says: Any
    ) -> Any:
        """Answer a picture."""
        made = {"label": label, "runs": None if mask is None else runs.encode(mask), "seconds": 1.0, **says}
        return self.post(f"/api/answer/{picture['key']}", **made)

    def picture(self, picture: dict[str, Any]) -> bytes:
        """The bytes of a picture."""
        response, data = self.send("GET", f"/picture/{picture['key']}")
        assert response.status == 200
        return data

    @staticmethod
    def _object(response: HTTPResponse, data: bytes) -> Any:
        try:
            says = json.loads(data)
        except ValueError:
            says = data.decode(errors="replace")
        if response.status != 200:
            raise Refused(response.status, says)
        return says
