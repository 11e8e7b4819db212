"""A real Label Studio, started here: what `export` wrote goes in, what people answered comes out.

Needs the command `label-studio` on the PATH (pip install label-studio, in an environment of its own).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

import numpy as np
import pytest
from PIL import Image

from sal_fast.data.readers.brush_code import decode
from sal_fast.errors import InputError
from sal_fast.people import label_studio
from sal_fast.people.question import Question
from sal_fast.people.suggested import Suggested, first_map

COMMAND = shutil.which("label-studio")
PASSWORD = "a-long-password"
START = 600  # seconds at most; the first start makes the database

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(COMMAND is None, reason="label-studio is not installed on this machine"),
]


class Person:
    """Someone with an account, signed in as a browser is."""

    def __init__(self, server: str, email: str, path: str) -> None:
        self.server, self.cookies = server, CookieJar()
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.cookies))
        self.send(path)
        fields = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": self.token()}
        self.send(path, urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def token(self) -> str:
        return next(str(cookie.value) for cookie in self.cookies if cookie.name == "csrftoken")

    def send(self, path: str, data: bytes | None = None, kind: str = "") -> bytes:
        request = Request(self.server + path, data)
        if data is not None:
            request.add_header("Content-Type", kind)
            request.add_header("X-CSRFToken", self.token())
            request.add_header("Referer", self.server)
        try:
            with self.opener.open(request, timeout=60) as reply:
                return bytes(reply.read())
        except HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from None

    def post(self, path: str, value: object) -> Any:
        return json.loads(self.send(path, json.dumps(value).encode(), "application/json"))

    def get(self, path: str) -> Any:
        return json.loads(self.send(path))

    def upload(self, path: str, file: Path) -> Any:
        edge = "edge-of-a-part"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
        head += "Content-Type: application/json\r\n\r\n"
        data = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        return json.loads(self.send(path, data, f"multipart/form-data; boundary={edge}"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [str(COMMAND), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    account = ["--username", "ada@example.org", "--password", PASSWORD]
    address = f"http://127.0.0.1:{port}"
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen([*command, *account], stdout=log, stderr=log, env=environment)
    try:
        for _ in range(START):
            assert process.poll() is None, (folder / "log.txt").read_text()[-2000:]
            try:
                build_opener(ProxyHandler({})).open(address + "/health", timeout=5).close()
                break
            except (URLError, OSError):
                time.sleep(1)
        else:
            pytest.fail((folder / "log.txt").read_text()[-2000:])
        yield address
    finally:
        process.terminate()
        process.wait(30)


def their_code(masks: list[np.ndarray]) -> list[list[int]]:
    """The masks as Label Studio's own library encodes them."""
    script = (
        "import json, sys, numpy as np; from label_studio_sdk.converter.brush import mask2rle; "
        "print(json.dumps([mask2rle(np.array(m, dtype=np.uint8)) for m in json.load(sys.stdin)]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(Path(str(COMMAND)).with_name("python")), "-c", script],
        input=json.dumps([mask.tolist() for mask in masks]),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout)


def result(label: str, rle: list[int], mask: np.ndarray, origin: str = "manual") -> list[dict[str, Any]]:
    """One brush region, which began in some way, and a class, as the interface sends them."""
    height, width = mask.shape
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    brush = {"format": "rle", "rle": rle, "brushlabels": ["salient"]}
    region = {"id": "a", "from_name": "map", "to_name": "image", "origin": origin}
    names = {"to_name": "image", "origin": "manual"}
    return [
        {**region, "type": "brushlabels", "value": brush, **size},
        {"id": "b", "from_name": "label", "type": "choices", "value": {"choices": [label]}, **names},
    ]


def test_from_export_to_answers(server: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    classes = ["Sparrow", "$price", "<b>&\"'", " spaced", "Möwe", *(f"class {i}" for i in range(914))]
    ids = [f"birds/{i}" for i in range(18)] + ["Vögel/<i>ß & co", "a'b\"c"]
    paths = []
    for index in range(len(ids)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (20 + index, 33, 3)).astype(np.uint8)).save(paths[-1])
    question = Question("pool-sal-margin-s0", 2, ids, paths, classes, maps=True)
    assert question.secret
    begun = ids[7:10]  # a model has maps of them
    grades = rng.integers(0, 256, (3, 1, 4, 4)).astype(np.uint8)
    suggested = Suggested(begun, np.zeros((3, 1), np.int64), np.ones((3, 1), np.float32), grades)
    firsts = [first_map(question, name, suggested) for name in begun]
    (tasks_file,) = label_studio.export(question, tmp_path / "out", suggested)

    ada = Person(server, "ada@example.org", "/user/login/")
    ben = Person(server, "ben@example.org", "/user/signup/?&next=/projects/")
    config = (tmp_path / "out" / "config.xml").read_text(encoding="utf-8")
    project = ada.post("/api/projects", {"title": "query 2", "label_config": config})["id"]
    assert ada.upload(f"/api/projects/{project}/import", tasks_file)["task_count"] == len(ids)
    tasks = ada.get(f"/api/tasks?project={project}&page_size=100")["tasks"]
    number = {question.meant(task["data"]["id"]): task["id"] for task in tasks}
    assert set(number) == set(ids)
    assert {task["data"]["id"] for task in tasks} == set(map(question.key, ids))
    # it shows the predictions of this model to people, and a prediction has what we wrote
    assert ada.get(f"/api/projects/{project}")["model_version"] == label_studio.MODEL
    for name, first in zip(begun, firsts, strict=True):
        (prediction,) = ada.get(f"/api/tasks/{number[name]}")["predictions"]
        assert prediction["model_version"] == label_studio.MODEL
        (region,) = prediction["result"]
        assert first is not None
        np.testing.assert_array_equal(decode(region["value"]["rle"], first.shape[::-1]), first)
        ours = region["value"]["rle"]
        assert their_code([first])[0] in (ours, [*ours, 0])
    shown = ada.get(f"/api/tasks/{number['birds/3']}")["data"]["image"]
    kind, _, code = shown.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(code))) as theirs, Image.open(paths[3]) as ours:
        np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))

    masks = [(rng.random((20 + index, 33)) < 0.3).astype(np.uint8) * 255 for index in range(len(ids))]
    masks[7] = firsts[0]  # taken over; the two others are changed, and drawn anew
    origins = {7: "prediction", 8: "prediction-changed"}
    codes = their_code(masks)
    labels = [classes[index % 7] for index in range(len(ids))]
    for index, name in enumerate(ids[:-1]):  # the last stays unanswered
        value: dict[str, Any] = {
            "result": result(labels[index], codes[index], masks[index], origins.get(index, "manual"))
        }
        value["lead_time"] = index + 0.5
        if index == 4:
            value = {"result": [], "was_cancelled": True, "lead_time": 1}
        ada.post(f"/api/tasks/{number[name]}/annotations", value)
    second = {"result": result("Möwe", codes[0], masks[0]), "lead_time": 9.0}
    ben.post(f"/api/tasks/{number[ids[0]]}/annotations", second)
    ben.post(f"/api/tasks/{number[ids[-1]]}/drafts", {"result": second["result"], "lead_time": 1})

    file = tmp_path / "export.json"
    file.write_bytes(ada.send(f"/api/projects/{project}/export?exportType=JSON"))
    answers = label_studio.read_answers(file, question, suggested)
    assert [answer.id for answer in answers] == [ids[0], *ids[:-1]]
    first, again, *rest = sorted(answers[:2], key=lambda answer: answer.label == "Möwe") + answers[2:]
    assert (again.label, again.seconds) == ("Möwe", 9.0)
    assert again.annotator != first.annotator
    np.testing.assert_array_equal(again.mask, masks[0])
    for index, answer in enumerate([first, *rest]):
        assert answer.annotator == first.annotator
        assert answer.skipped == (index == 4)
        if index != 4:
            assert (answer.label, answer.seconds) == (labels[index], index + 0.5)
            np.testing.assert_array_equal(answer.mask, masks[index])
            assert answer.kind == {7: "accepted", 8: "corrected"}.get(index, "drawn")

    for other in ("JSON_MIN", "CSV"):
        file.write_bytes(ada.send(f"/api/projects/{project}/export?exportType={other}"))
        with pytest.raises(InputError, match="expected Label Studio's export in the format JSON"):
            label_studio.read_answers(file, question)
