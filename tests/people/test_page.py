"""The page's server without a browser: who may come in, who gets what, and what is kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from experiment_runs import arguments
from page_client import Page, Person, Refused, serving
from PIL import Image
from posed_pictures import pictures, pose, small_maps, waiting_run

from sal_fast.cli import main
from sal_fast.data.readers.brush_code import encode
from sal_fast.errors import InputError
from sal_fast.people import label_studio
from sal_fast.people.answers import Answers, png_mask
from sal_fast.people.page import first, runs, server
from sal_fast.people.page.desk import LEASE, AskBack, Asked, Desk, Gone
from sal_fast.people.question import Answer, Question
from sal_fast.people.suggested import Suggested

SIZE = (60, 40)


# --- masks as runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_runs_of_a_mask(share: float) -> None:
    """They alternate, begin with background, and give the mask back."""
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 7), (5, 1), (13, 17)):
        mask = np.where(rng.random(shape) < share, np.uint8(255), np.uint8(0))
        lengths = runs.encode(mask)
        flat: list[int] = []
        for at, length in enumerate(lengths):
            flat += [255 * (at % 2)] * length
        assert flat == mask.ravel().tolist()
        assert all(lengths[1:])
        assert np.array_equal(runs.decode(lengths, (shape[1], shape[0])), mask)


@pytest.mark.parametrize("wrong", [[5], [7], [-1, 7], [2.0, 4], [True, 5], "6", None, {}])
def test_runs_that_do_not_fill_the_picture(wrong: Any) -> None:
    with pytest.raises(InputError, match="does not fill its picture"):
        runs.decode(wrong, (3, 2))


# --- the desk --------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures(tmp_path_factory.mktemp("desk") / "pictures", 6, SIZE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(images: list[Path], tmp_path: Path, clock: Clock) -> Callable[..., Desk]:
    """A desk with six pictures, `a/0` to `a/5`."""

    def make(each: int = 1, **fields: Any) -> Desk:
        ids = [f"a/{at}" for at in range(6)]
        classes = ["a", "b"]
        question = Question("run", 0, ids, images, **{"classes": classes, "maps": True, **fields})

        @contextmanager
        def opened() -> Iterator[Answers]:
            yield Answers(tmp_path)

        maps = Suggested(ids, np.tile([1, 0], (6, 1)), np.ones((6, 2), np.float32), small_maps(6))
        return Desk(Asked(question, tmp_path, opened, maps), tmp_path / "drafts", each=each, clock=clock)

    return make


def said(label: str | None = "a", mask: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    return {"label": label, "runs": None if mask is None else runs.encode(mask), "seconds": 2, **more}


def drawn() -> np.ndarray:
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[10:20, 5:30] = 255
    return mask


def keys(taken: list[dict[str, Any]]) -> list[str]:
    return [one["key"] for one in taken]


def test_two_people_get_different_pictures(desk: Callable[..., Desk]) -> None:
    there = desk()
    ann, bob = keys(there.take("Ann", 2)), keys(there.take("Bob", 2))
    assert len({*ann, *bob}) == 4
    assert keys(there.take(" ann ", 2)) == ann  # the same person, who still has them
    there.answer("Ann", ann[0], said(mask=drawn()))
    assert keys(there.take("Ann", 2, [ann[1]]))[0] == ann[1]
    assert there.counts("Bob")["held_by_others"] == 2


def test_a_person_who_is_gone_holds_nothing(desk: Callable[..., Desk], clock: Clock) -> None:
    there = desk()
    all_of_them = keys(there.take("Ann", 6))
    assert there.take("Bob", 1) == []
    clock.now = LEASE + 1
    assert keys(there.take("Bob", 6)) == all_of_them
    there.release("Bob", all_of_them[:1])
    assert keys(there.take("Cem", 6)) == all_of_them[:1]


def test_several_answers_for_each_picture(desk: Callable[..., Desk]) -> None:
    there = desk(each=2)
    for person in ("Ann", "Bob"):
        taken = keys(there.take(person, 6))
        assert len(taken) == 6
        assert there.take("Cem", 6) == [] if person == "Bob" else True
        for key in taken:
            assert not there.complete()
            there.answer(person, key, said("a" if person == "Ann" or key != taken[0] else "b"))
    assert there.complete()
    assert there.take("Cem", 1) == []


def test_a_tie_is_shown_and_settled(desk: Callable[..., Desk]) -> None:
    """The one who settles it keeps their own answer, and the class is theirs to say."""
    there = desk(each=2)
    key = keys(there.take("Ann", 1))[0]
    there.answer("Ann", key, said("a"))
    there.answer("Bob", key, said("b"))
    assert there.ties() == [{"key": key, "number": 1, "votes": {"a": 1, "b": 1}}]
    assert there.answers().verdicts()["a/0"].label == "a"  # what was said first, until it is settled
    there.answer("Ann", key, said("b", settles=True))
    assert there.ties() == []
    assert there.answers().verdicts()["a/0"].label == "b"
    assert [(one.annotator, one.label, one.settles) for one in there.answers().kept] == [
        ("Ann", "a", False), ("Bob", "b", False), ("Ann", "b", True),
    ]  # fmt: skip


def test_an_answer_is_changed_and_withdrawn(desk: Callable[..., Desk]) -> None:
    there = desk()
    key = keys(there.take("Ann", 1))[0]
    there.answer("Ann", key, said("a", drawn()))
    there.answer("ANN", key, said("b", 255 - drawn()))
    assert [one["label"] for one in there.mine("ann")] == ["b"]
    shown = there.picture("Ann", key)["answer"]
    assert np.array_equal(runs.decode(shown["runs"], SIZE), 255 - drawn())
    there.withdraw("ann", key)
    assert there.mine("Ann") == []
    assert there.counts("Ann")["answered"] == 0
    assert keys(there.take("Bob", 1)) == [key]


def test_a_draft_is_there_again_until_the_answer(desk: Callable[..., Desk]) -> None:
    there = desk()
    key = keys(there.take("Ann", 1))[0]
    draft = said(None, drawn(), kind="corrected", note="<b>", idle=3.0)
    there.draft("Ann", key, draft)
    again = desk().picture("ann", key)["draft"]  # of a server that was started again
    assert {name: again[name] for name in draft} == draft
    assert desk().picture("Bob", key)["draft"] is None
    there.answer("Ann", key, said("a", drawn()))
    assert desk().picture("Ann", key)["draft"] is None


def test_what_is_kept_of_an_answer(desk: Callable[..., Desk], tmp_path: Path) -> None:
    there = desk()
    one, other = keys(there.take("Ann", 2))
    times = {"seconds": 7.25, "idle": 40, "class_seconds": 1.5, "stroke_seconds": 3}
    there.answer("Ann", one, said("b", drawn(), kind="corrected", note=" see ", **times))
    there.answer("Ann", other, said("a", drawn(), skipped=True, reason="blurred"))
    first_one, second = Answers(tmp_path).kept
    assert vars(first_one) == {
        "id": "a/0", "label": "b", "annotator": "Ann", "skipped": False, "mask": "drawn/0/a/0.png",
        "kind": "corrected", "reason": "", "note": "see", "settles": False, **times,
    }  # fmt: skip
    assert np.array_equal(png_mask(tmp_path / "drawn/0/a/0.png"), drawn())
    assert (second.label, second.mask, second.kind, second.reason) == (None, None, None, "blurred")


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (said(None), "choose a class"),
        (said("c"), "'c' is none of the run's"),
        (said(mask=drawn(), kind="painted"), "unknown kind"),
        (said(seconds=-1), "seconds"),
        (said(seconds="2"), "seconds"),
        (said(note="x" * 6000), "note has at most"),
        ({"label": "a", "runs": [1, 2]}, "does not fill"),
    ],
)
def test_an_answer_that_cannot_be_used(desk: Callable[..., Desk], says: dict[str, Any], problem: str) -> None:
    there = desk()
    key = keys(there.take("Ann", 1))[0]
    with pytest.raises(InputError, match=problem):
        there.answer("Ann", key, says)
    assert there.mine("Ann") == []


def test_names_and_keys_that_cannot_be_used(desk: Callable[..., Desk]) -> None:
    there = desk()
    with pytest.raises(InputError, match="type your name"):
        there.take("  ", 1)
    with pytest.raises(InputError, match="at most 100"):
        there.take("x" * 101, 1)
    with pytest.raises(Gone, match="not in the query"):
        there.answer("Ann", "../../etc/passwd", said())


def test_odd_maps_are_asked_back(desk: Callable[..., Desk]) -> None:
    there = desk()
    key = keys(there.take("Ann", 1))[0]
    full = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    for mask, kind in ((full * 0, "empty"), (full, "full")):
        with pytest.raises(AskBack) as back:
            there.answer("Ann", key, said(mask=mask))
        assert back.value.kind == kind
        there.answer("Ann", key, said(mask=mask, sure=True))
        assert np.array_equal(runs.decode(there.picture("Ann", key)["answer"]["runs"], SIZE), mask)


def test_pictures_whose_map_is_known_want_none(desk: Callable[..., Desk]) -> None:
    there = desk(has_map=frozenset({"a/0"}), labels={"a/1": "b"})
    one, other = there.take("Ann", 2)
    assert (one["wants_map"], one["suggested"], one["given"]) == (False, None, None)
    assert (other["wants_map"], other["given"]) == (True, {"label": "b"})
    there.answer("Ann", one["key"], said("a", drawn()))
    assert there.answers().kept[0].mask is None


def test_nothing_tells_the_class(desk: Callable[..., Desk]) -> None:
    """Neither the id, whose folder is the class, nor the file's name reaches the page."""
    taken = desk().take("Ann", 6)
    for picture in taken:
        picture["suggested"].pop("values")  # numbers in letters
    assert "a/" not in json.dumps(taken)
    assert ".jpg" not in json.dumps(taken)


# --- the server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for people."""
    root = tmp_path_factory.mktemp("template")
    return waiting_run(make_folder(root / "data", 8), root / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A copy of that run, which asks about four pictures; one class has a name of HTML."""
    images = pictures(tmp_path / "pictures", 4, SIZE)
    return pose(template, tmp_path / "run", images, ["<img src=x>", "b"], small_maps(4))


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[Page]:
    with serving(run, log=tmp_path / "log.txt") as served:
        yield served


@pytest.fixture(scope="module")
def still(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that no test changes."""
    root = tmp_path_factory.mktemp("still")
    run = pose(
        template, root / "run", pictures(root / "pictures", 4, SIZE), ["<img src=x>", "b"], small_maps(4)
    )
    with serving(run, log=root / "log.txt") as served:
        yield served


def test_an_answer_over_http_is_what_label_studio_would_give(page: Page, run: Path, tmp_path: Path) -> None:
    """The same map, painted in the page and with Label Studio's brush, is kept as the same pixels."""
    ann = page.person("Ann")
    assert ann.state()["stage"] == "ask"
    picture, *_ = ann.take(2)
    assert (picture["width"], picture["height"]) == SIZE
    rng = np.random.default_rng(0)
    mask = np.where(rng.random((SIZE[1], SIZE[0])) < 0.4, np.uint8(255), np.uint8(0))
    ann.answer(picture, "b", mask)
    kept = Answers(run / "start").kept[0]
    saved = png_mask(run / "start" / str(kept.mask))
    assert np.array_equal(saved, mask)
    question = json.loads((run / "start" / "question.json").read_text())
    brush = {"format": "rle", "rle": encode(mask), "brushlabels": ["salient"]}
    where = {"original_width": SIZE[0], "original_height": SIZE[1], "to_name": "image"}
    result = [
        {"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": ["b"]}},
        {"type": "brushlabels", "from_name": "map", "value": brush, **where},
    ]
    task = {"data": {"id": kept.id, "run": "run", "query": 0}, "annotations": [{"id": 1, "result": result}]}
    export = tmp_path / "export.json"
    export.write_text(json.dumps([task]))
    asked = Question("run", 0, question["ids"], [Path(one) for one in question["images"]], ["b"], True)
    assert np.array_equal(label_studio.read_answers(export, asked)[0].mask, saved)


def test_a_server_that_is_killed_has_lost_nothing(run: Path, tmp_path: Path) -> None:
    with serving(run, log=tmp_path / "log.txt") as page:
        ann = page.person("Ann")
        ann.state()
        one, other = ann.take(2)
        ann.answer(one, "b", drawn())
        ann.post(f"/api/draft/{other['key']}", **said(None, drawn()))
        page.kill()
    with serving(run, "--port", page.port, log=tmp_path / "log.txt") as again:
        assert again.token == page.token
        ann.state()  # the same cookie still opens the door
        assert [one["key"] for one in ann.get("/api/mine", person="Ann", query=0)["answers"]] == [one["key"]]
        shown = ann.take(1)[0]
        assert shown["key"] == other["key"]
        assert np.array_equal(runs.decode(shown["draft"]["runs"], SIZE), drawn())


def test_two_servers_on_one_run_are_refused(
    page: Page, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(run), "--port", "0", "--browser", "False"]) == 2
    assert "another page serves" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Cookie": ""}, 403),
        ("GET", "/static/page.js", {"Cookie": ""}, 403),
        ("GET", "/?token=wrong", {"Cookie": ""}, 403),
        ("GET", "/api/state?person=a", {"Cookie": "sal_fast_1=x"}, 403),
        ("GET", "/api/state?person=a", {"Host": "evil.example"}, 421),
        ("GET", "/api/state?person=a", {"Host": "127.0.0.1.evil.example"}, 421),
        ("POST", "/api/take", {"Origin": "http://evil.example"}, 403),
        ("POST", "/api/take", {"Origin": ""}, 403),
        ("POST", "/api/take", {"Origin": "null"}, 403),
        ("GET", "/static/../server.py", {}, 404),
        ("GET", "/static/..%2fserver.py", {}, 404),
        ("GET", "/picture/..%2f..%2frun.json", {}, 404),
        ("GET", "/picture/run.json", {}, 410),
        ("GET", "/report/..%2frun.json", {}, 404),
        ("GET", "/report/%2fetc%2fpasswd", {}, 404),
        ("GET", "/instructions/..%2f..%2frun.json", {}, 404),
        ("GET", "/instructions/page.json", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/", {"Host": "127.0.0.1:99999"}, 421),
        ("GET", "/", {"Host": "localhost:none"}, 421),
        ("GET", "/", {"Host": "[::1"}, 421),
        ("POST", "/api/take", {"Origin": "http://["}, 403),
        ("POST", "/api/take", {"Origin": "127.0.0.1"}, 403),
        ("HEAD", "/api/take", {}, 405),
        ("PUT", "/api/take", {"Origin": ""}, 403),
        ("GET", "/report/a%00.png", {}, 404),
        ("GET", f"/report/{'a' * 300}.png", {}, 404),
        ("GET", "/instructions/%00.png", {}, 404),
        ("GET", f"/static/{'a' * 300}.js", {}, 404),
        ("GET", "/static/%00.js", {}, 404),
        ("GET", f"/api/mine?person=Ann&query={'9' * 5000}", {}, 410),
    ],
)
def test_the_door(still: Page, method: str, path: str, headers: dict[str, str], status: int) -> None:
    """Without the secret nobody comes in, other sites cannot post, and no path leads out of the run."""
    ann = still.person("Ann")
    response, data = ann.send(method, path, {} if method == "POST" else None, **headers)
    assert response.status == status
    assert b"format" not in data


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_by_its_names(still: Page, name: str) -> None:
    """Each name has the page; a cookie belongs to the port alone."""
    ann = still.person("Ann")
    assert ann.send("GET", "/", Host=f"{name}:{still.port}")[0].status == 200


def test_headers_keep_other_sites_out(still: Page) -> None:
    response, _ = still.person("Ann").send("GET", "/")
    policy = str(response.getheader("content-security-policy"))
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    response, _ = still.person("Ann").send("GET", f"/?token={still.token}")
    assert response.status == 303
    cookie = str(response.getheader("set-cookie")).lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_an_instruction_s_html_is_text(page: Page, run: Path) -> None:
    (run / "people" / "instructions.md").write_text("# Look\n<script>alert(1)</script>\n![x](example.png)\n")
    Image.new("RGB", (3, 2)).save(run / "people" / "example.png")
    ann = page.person("Ann")
    assert ann.state()["instructions"]
    _, data = ann.send("GET", "/instructions")
    assert "<h1>Look</h1>" in data.decode()
    assert "<script" not in data.decode()
    found = re.search(r'<img src="([^"]+)"', data.decode())
    assert found is not None
    response, _ = ann.send("GET", urljoin("/", found[1]))  # as a browser on the page asks for it
    assert (response.status, response.getheader("content-type")) == (200, "image/png")


def test_too_much_is_refused(still: Page) -> None:
    """Whatever the request says of its length."""
    ann = still.person("Ann")
    assert ann.send("POST", "/api/take", {"note": "x" * server.MOST_BYTES})[0].status == 413


def test_what_is_no_object_is_refused(still: Page) -> None:
    ann = still.person("Ann")
    ann.state()
    for body in ([], "x", 3, None):
        assert ann.send("POST", "/api/take", body)[0].status == 400
    with pytest.raises(Refused, match="410"):
        ann.post("/api/take", query=7)


def test_the_page_asks_for_what_the_run_asks(still: Page) -> None:
    ann = still.person("Ann")
    state = ann.state()
    assert state["classes"] == ["<img src=x>", "b"]
    assert (state["query"], state["maps"], state["purpose"]) == (0, True, "round")
    picture = ann.take(1)[0]
    assert Image.open(BytesIO(ann.picture(picture))).size == SIZE
    assert [len(one) for one in picture["suggested"]["values"]] == [68, 68]


def test_the_server_imports_no_torch() -> None:
    """A page is there at once; torch alone would take longer."""
    code = (
        "import sys, uvicorn, sal_fast.cli.label, sal_fast.people.page.server; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nowhere"], "does not exist"),
        (["RUN", "--epochs", "3"], "--epochs goes with a folder of images"),
        (["RUN", "--rule", "magic"], "--rule magic"),
        (["RUN", "--rule", "segmenter"], "needs --segmenter-weights"),
        (["RUN", "--answers-each", "0"], "--answers-each 0"),
        (["RUN", "--ask", "magic"], "--ask"),
        (["RUN", "--host", "203.0.113.1"], "--host 203.0.113.1"),
    ],
)
def test_what_the_command_refuses(
    words: list[str], problem: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", *(str(run) if word == "RUN" else word for word in words)]) == 2
    assert problem in capsys.readouterr().err


def test_a_folder_whose_run_is_there_goes_on(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command shows the question that waits. Options that the run does not have are refused."""
    data, out = template.parent / "data", shutil.copytree(template, tmp_path / "run")
    words = arguments(data=data, out=out, start_fraction=0.5, allow_leaks=True)
    place = words.index("--data")
    del words[place : place + 2]
    with serving(data, *words, log=tmp_path / "log.txt") as page:
        assert page.person("Ann").state()["stage"] == "ask"
    words[words.index("--start-fraction") + 1] = "0.4"
    assert main(["label", str(data), *words]) == 2
    assert "start_fraction 0.5 there, 0.4 asked" in capsys.readouterr().err


def test_a_run_that_asks_nobody_is_refused(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (template / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"annotator": "people"', '"annotator": "data"'))
    assert main(["label", str(tmp_path)]) == 2
    assert "asks nobody" in capsys.readouterr().err


# --- images without a class ------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "expected"), [(40, 20), (60, 20), (100, 30), (1000, 200), (100_000, 200)])
def test_how_many_images_get_a_class_first(images: int, expected: int) -> None:
    assert first.wanted(images) == expected


def answered(person: Person, query: int | None, truth: Callable[[bytes], tuple[str, np.ndarray]]) -> int:
    """Answer a whole query with the truth; returns the number of pictures."""
    state = person.until("ask", query=query)
    while (taken := person.take(2)) and person.query == state["query"]:
        for picture in taken:
            label, mask = truth(person.picture(picture))
            person.answer(picture, label, mask if picture["wants_map"] else None)
        if person.state()["stage"] != "ask":
            break
    return int(state["counts"]["images"])


def test_a_class_that_is_not_found_is_looked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each class of `--classes` has to be found, in any spelling. Half of the images are shown at most."""
    folder, images = tmp_path / "people", tmp_path / "images"
    images.mkdir()
    for at in range(60):
        pixels = np.random.default_rng(at).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(images / f"{at}.png")
    options = {
        "data": str(images),
        "arch": "resnet18",
        "offline": True,
        "image_size": 32,
        "output_stride": 8,
    }

    def step(*names: str) -> int:
        return first.main([str(folder), json.dumps(options), json.dumps(names)])

    def say(*labels: str) -> int:
        question, place = first.question(folder, "run", labels)
        spoken = {name: labels[at % len(labels)] for at, name in enumerate(question.ids)}
        Answers(place).add(Answer(name, one, None, "ann", 1.0, False) for name, one in spoken.items())
        return len(question.ids)

    assert step("red", "blue") == 0
    assert say("red") == 20
    assert step("red", "blue") == 0
    assert say("red") == 30
    assert step("red", "blue") == 2
    assert "'blue' was found fewer than 2 times among 30 images" in caplog.text
    assert say("red", "BLUE") == 30
    assert step("red", "blue") == 0
    question, _ = first.question(folder, "run", ["red", "blue"])
    assert question.maps
    assert sorted(question.labels.values()) == ["blue"] * 7 + ["red"] * 7


@pytest.mark.full
def test_from_a_folder_of_photographs_to_a_model(tmp_path: Path) -> None:
    """One command: classes of some images, maps of test images, and then the rounds of a run."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    y, x = np.mgrid[:48, :64]
    for at in range(44):
        pixels = rng.integers(0, 90, (48, 64, 3)).astype(np.uint8)
        middle = rng.integers(12, 36), rng.integers(12, 52)
        inside = (abs(y - middle[0]) < 8) & (abs(x - middle[1]) < 8)
        pixels[inside] = ((220, 40, 40), (40, 40, 220))[at % 2]
        pixels[: 4 + at // 8, : 3 + at % 8] = (at * 5, 255 - at * 5, 128)  # no two look the same
        Image.fromarray(pixels).save(folder / f"{at:02d}.png")

    def truth(data: bytes) -> tuple[str, np.ndarray]:
        pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
        red, blue = pixels == (220, 40, 40), pixels == (40, 40, 220)
        marked = red.all(-1) | blue.all(-1)
        return ("red" if red.all(-1).any() else "blue"), (marked * 255).astype(np.uint8)

    options = ("--arch", "resnet18", "--image-size", "32", "--output-stride", "8", "--weights", "none")
    more = ("--epochs", "1", "--query-fraction", "0.3", "--human-budget", "0.8")
    out = tmp_path / "run"
    with serving(folder, "--out", out, *options, *more, log=tmp_path / "log.txt") as page:
        ann = page.person("Ann")
        assert ann.until("classes")["new_classes"]
        assert ann.post("/api/classes", names=["red", " Blue "])["classes"] == ["red", "Blue"]
        with pytest.raises(Refused, match="none of the run"):
            answered(ann, -1, truth)
    # the same command again, with classes that are given; they are spelt as they are given first
    with serving(
        folder, "--out", out, "--classes", "red,blue", *options, *more, log=tmp_path / "log.txt"
    ) as page:
        ann = page.person("Ann")
        count = answered(ann, -1, truth)
        assert count >= 20
        tested = answered(ann, -2, truth)
        assert tested == pytest.approx(count / 2, abs=1)
        while ann.until("ask", "done")["stage"] == "ask":
            answered(ann, None, truth)
    collected = tmp_path / "collected"
    assert main(["query", "collect", str(out), "--out", str(collected)]) == 0
    assert len(list(collected.glob("images/*/*.png"))) == 44
    assert len(list(collected.glob("masks/*/*.png"))) >= tested
    table = json.loads((out / "run.json").read_text())
    assert table["data"]["classes"] == ["blue", "red"]
    assert len(table["splits"]["test"]) == tested
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert lines[-1]["labelled"] == 44 - count
    assert lines[-1]["people"]["by_kind"].keys() >= {"drawn"}
    assert (out / "report" / "index.html").exists()
