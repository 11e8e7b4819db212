"""A segmenter that answers boxes and points, in a process of its own, because it needs torch.

`sal_fast.annotate.prompted` is that process, and describes the messages. Nothing here imports torch.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from sal_fast.errors import InputError
from sal_fast.people.rules import Box, Point

CHILD = "sal_fast.annotate.prompted"
START, ANSWER = 600.0, 300.0  # seconds that loading the weights, and an answer, may take


class Segmenter:
    """Segment Anything in a process that starts with the first question, and stays until `close`.

    A process that has ended, or that took too long and was ended, is started again for the next question.
    Several threads may ask; they are answered one after the other.

    checkpoint: the file of the weights. start, answer: the seconds that loading and an answer may take.
    """

    def __init__(self, checkpoint: str | Path, *, start: float = START, answer: float = ANSWER) -> None:
        self.checkpoint, self.start, self.answer = str(checkpoint), start, answer
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None  # what the process writes to its standard error
        self._lock = threading.Lock()

    def mask(self, picture: np.ndarray, box: Box | None = None, points: Sequence[Point] = ()) -> np.ndarray:
        """The mask for a box or for points in pixels of a picture: uint8 [H, W] of 0 and 255.

        picture: uint8 [H, W, 3]. The segmenter keeps what it worked out of the last few pictures, so that
        another question about one of them is answered at once.

        Raises InputError if the process cannot start, ends, or takes too long.
        """
        pixels = np.ascontiguousarray(picture)
        height, width = pixels.shape[:2]
        data = pixels.tobytes()
        request = {
            "picture": hashlib.blake2b(data, digest_size=16).hexdigest() + f" {width}x{height}",
            "height": height,
            "width": width,
            "box": None if box is None else [float(value) for value in box],
            "points": [[float(x), float(y), int(inside)] for x, y, inside in points],
        }
        with self._lock:
            self._begin()
            message, bits = self._asked(request, b"")
            if message.get("unknown"):
                message, bits = self._asked(request, data)
        if "error" in message:
            raise InputError(message["error"])
        marked = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=height * width)
        return np.where(marked.reshape(height, width) > 0, np.uint8(255), np.uint8(0))

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the process; the caller holds the lock ------------------------------------------------------------

    def _begin(self) -> None:
        """Start the process if none is running, and wait until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD, self.checkpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        message, _ = self._exchange(b"", self.start, "loading the segmenter")
        if "error" in message:
            self._end()
            raise InputError(message["error"])

    def _asked(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        line = json.dumps({**request, "bytes": len(data)}).encode() + b"\n"
        return self._exchange(line + data, self.answer, "the segmenter's answer")

    def _exchange(self, sent: bytes, seconds: float, what: str) -> tuple[dict[str, Any], bytes]:
        """Send bytes, and receive a message. After `seconds` the process is killed, which ends the wait."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(sent)
            process.stdin.flush()
            message: dict[str, Any] = json.loads(process.stdout.readline())
            data = process.stdout.read(message.get("bytes", 0))
            if len(data) != message.get("bytes", 0):
                raise EOFError
        except (OSError, ValueError, EOFError):
            said = self._last_words()
            self._end()
            if late.is_set():
                raise InputError(f"{what} took more than {seconds:g} seconds; try again") from None
            raise InputError(f"the segmenter has ended{said}; try again") from None
        finally:
            timer.cancel()
        return message, data

    def _last_words(self) -> str:
        """The last line that the process wrote to its standard error, as a part of a sentence."""
        assert self._process is not None
        assert self._said is not None
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # it still holds bytes for a process that is gone
                    pipe.close()
        if self._said is not None:
            self._said.close()
            self._said = None
