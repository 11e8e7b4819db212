"""Requests that no browser makes, people at the same moment, and files that are damaged meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from page_client import Page, Refused, serving, wait_for
from patience import PATIENCE
from PIL import Image
from posed_pictures import pictures, pose, waiting_run

from sal_fast._util.locks import locked
from sal_fast.cli import main
from sal_fast.data import load_table
from sal_fast.data.table import UNLABELLED, names_a_file
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.people.answers import Answers, png_mask
from sal_fast.people.page import first, program, runs
from sal_fast.people.page.desk import Asked, Desk, Gone
from sal_fast.people.page.session import Session, Settings, token
from sal_fast.people.question import Answer, Question, picture

SIZE = (60, 40)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures(tmp_path_factory.mktemp("desk") / "pictures", 6, SIZE)


@pytest.fixture
def desk(images: list[Path], tmp_path: Path) -> Callable[..., Desk]:
    """A desk with six pictures, `a/0` to `a/5`, of a run with a name."""

    def make(run: str = "run", **more: Any) -> Desk:
        question = Question(run, 0, [f"a/{at}" for at in range(6)], images, ["a", "b"], True)

        @contextmanager
        def opened() -> Iterator[Answers]:
            yield Answers(tmp_path)

        return Desk(Asked(question, tmp_path, opened), tmp_path / "drafts", **more)

    return make


def said(label: str | None = "a", **more: Any) -> dict[str, Any]:
    return {"label": label, "runs": None, "seconds": 2, **more}


def test_a_decision_takes_nobodys_place(desk: Callable[..., Desk]) -> None:
    """Whoever settles a tie has not answered. When an answer is taken back, another person can give one."""
    there = desk(each=2)
    key = there.question.key("a/0")
    there.answer("Ann", key, said("a"))
    there.answer("Bob", key, said("b"))
    there.answer("Cem", key, said("b", settles=True))
    there.answer("Bob", key, said("b", settles=True))
    assert there.counts("Bob")["mine"] == len(there.mine("Bob")) == 1
    there.answer("Cem", key, said("a", settles=True))
    assert [one["key"] for one in there.mine("Cem")] == [key]  # where it can be taken back
    there.withdraw("Bob", key)
    for person in ("Cem", "Dan"):
        assert there.take(person, 1)[0]["key"] == key
        there.release(person, [key])


def test_a_draft_outlives_the_name_of_the_run(desk: Callable[..., Desk]) -> None:
    before, after = desk("run"), desk("renamed")
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[3:9, 4:8] = 255
    before.draft("Ann", before.question.key("a/2"), said(None) | {"runs": runs.encode(mask)})
    shown = after.picture("Ann", after.question.key("a/2"))["draft"]
    assert np.array_equal(runs.decode(shown["runs"], SIZE), mask)


def test_a_draft_is_kept_in_the_form_of_an_answer(desk: Callable[..., Desk]) -> None:
    """What is no part of one, such as an infinite number, would make the picture unreadable."""
    there = desk()
    key = there.question.key("a/0")
    there.draft("Ann", key, said("a", reason=float("inf"), kind=None, skipped=float("nan"), more=1))
    shown = there.picture("Ann", key)["draft"]
    assert json.loads(json.dumps(shown, allow_nan=False))["label"] == "a"
    assert "more" not in shown


# --- requests --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for people."""
    root = tmp_path_factory.mktemp("template")
    return waiting_run(make_folder(root / "data", 8), root / "run")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return pose(template, tmp_path / "run", pictures(tmp_path / "pictures", 4, SIZE), ["a", "b"])


@pytest.fixture(scope="module")
def still(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that no test changes."""
    root = tmp_path_factory.mktemp("still")
    asks = pose(template, root / "run", pictures(root / "pictures", 4, SIZE), ["a", "b"])
    with serving(asks, log=root / "log.txt") as served:
        yield served


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("take", {"count": "x"}),
        ("take", {"count": None}),
        ("take", {"count": 1e400}),
        ("take", {"held": 5}),
        ("take", {"held": [[1]]}),
        ("take", {"person": "\ud800"}),
        ("take", {"person": float("nan")}),
        ("release", {"keys": 5}),
        ("classes", {"names": "abc"}),
        ("draft/KEY", {"note": "\ud800"}),
        ("answer/KEY", {"label": [], "note": "x"}),
        ("answer/KEY", {"label": "a", "idle": float("nan")}),
        ("answer/KEY", {"label": "a", "seconds": True}),
        ("answer/KEY", {"label": "a", "runs": [10**30, -(10**30), 2400]}),
    ],
)
def test_odd_objects_are_refused(still: Page, path: str, says: dict[str, Any]) -> None:
    ann = still.person("Ann")
    ann.state()
    key = ann.take(1)[0]["key"]
    with pytest.raises(Refused) as refused:
        ann.post(f"/api/{path.replace('KEY', key)}", **says)
    assert refused.value.status == 400
    assert ann.take(1)[0]["draft"] is None


def test_a_very_deep_object_is_refused(still: Page) -> None:
    ann = still.person("Ann")
    connection = HTTPConnection(still.host, still.port)
    place = f"{still.host}:{still.port}"
    headers = {"Host": place, "Cookie": ann.cookie, "Origin": f"http://{place}"}
    connection.request("POST", "/api/take", b"[" * 200_000, headers)
    assert connection.getresponse().status == 400
    connection.close()


def test_instructions_in_another_encoding_are_shown(run: Path, tmp_path: Path) -> None:
    (run / "people").mkdir(exist_ok=True)
    (run / "people" / "instructions.md").write_bytes("# Größe\n".encode("latin-1"))
    with serving(run, log=tmp_path / "log.txt") as page:
        response, data = page.person("Ann").send("GET", "/instructions")
        assert response.status == 200
        assert b"<h1>Gr" in data


def test_an_answer_during_an_import_is_to_be_sent_again(run: Path, tmp_path: Path) -> None:
    """The browser keeps an answer that gets 503, and sends it later; any other refusal ends it."""
    with serving(run, log=tmp_path / "log.txt") as page:
        ann = page.person("Ann")
        ann.state()
        first_one = ann.take(1)[0]
        with locked(run / ".lock"), pytest.raises(Refused, match="in use") as refused:
            ann.answer(first_one, "a")
        assert refused.value.status == 503
        assert ann.answer(first_one, "a")["counts"]["answered"] == 1


def test_a_disk_error_says_why_and_keeps_the_earlier_answer(run: Path, tmp_path: Path) -> None:
    with serving(run, log=tmp_path / "log.txt") as page:
        ann = page.person("Ann")
        ann.state()
        first_one = ann.take(1)[0]
        ann.answer(first_one, "a")
        (run / "start" / "answers.json.part").mkdir()  # so that the file cannot be written
        with pytest.raises(Refused, match=r"answers\.json\.part") as refused:
            ann.answer(first_one, "b")
        assert refused.value.status == 500
        (run / "start" / "answers.json.part").rmdir()
        assert ann.get("/api/open/" + first_one["key"], person="Ann", query=0)["answer"]["label"] == "a"
        ann.answer(first_one, "b")
    assert [one.label for one in Answers(run / "start").kept] == ["b"]


# --- from query to query ---------------------------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let programs do nothing until they are ended; the list has the words of each."""
    began: list[list[str]] = []
    real = subprocess.Popen

    def popen(words: list[str], **more: Any) -> Any:
        began.append(words[2:])
        return real([sys.executable, "-c", "import time; time.sleep(600)"], **more)

    monkeypatch.setattr(program.subprocess, "Popen", popen)
    return began


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*words: Any, **more: Any) -> Session:
        made.append(Session(*words, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def answer_all(there: Session, label: str = "a", person: str = "Ann") -> list[str]:
    asked = there.desk
    assert asked is not None
    keys = [asked.question.key(name) for name in asked.question.ids]
    for key in keys:
        there.answer(asked.question.query_index, person, key, said(label, sure=True))
    return keys


def test_damaged_answers_stop_the_page_with_a_reason(run: Path, session: Callable[..., Session]) -> None:
    """A file that cannot be read for a moment does not end the thread that looks after the run."""
    there = session(run, Settings())
    there.begin()
    (run / "start" / "answers.json").write_text("{")
    wait_for(lambda: there.stage == "failed")
    assert "answers.json cannot be read" in there.text
    assert there._thread.is_alive()


def test_nothing_is_started_after_the_end(
    run: Path, session: Callable[..., Session], idle: list[list[str]]
) -> None:
    """Not even by a request that was still waiting when the page was closed."""
    there = session(run, Settings())
    there.begin()
    there.close()
    answer_all(there)
    assert idle == []
    assert not there.program.running


def photographs(folder: Path, count: int = 44) -> Path:
    folder.mkdir()
    for at in range(count):
        pixels = np.random.default_rng(at).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{at:02d}.png")
    return folder


def options(data: Path) -> dict[str, Any]:
    return {"data": str(data), "arch": "resnet18", "weights": "none", "image_size": 32, "output_stride": 8}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_program_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    """A system that shuts down, or a terminal that is closed, ends the page and its program."""
    data = photographs(tmp_path / "data")
    with serving(data, "--out", tmp_path / "run", log=tmp_path / "log.txt") as page:
        server = psutil.Process(page.process.pid)
        children = wait_for(lambda: server.children(recursive=True), page.process, page.log)
        page.process.send_signal(number)
        assert page.process.wait(PATIENCE) == 0
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
        assert "The page is closed." in page.log.read_text()


def step(run: Path, data: Path, *names: str, **more: Any) -> int:
    return first.main([str(run / "people"), json.dumps(options(data) | more), json.dumps(names)])


def test_a_new_class_takes_no_picture_out_of_a_hand(tmp_path: Path, session: Callable[..., Session]) -> None:
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    there = session(run, Settings(classes=("a", "b")), options(data))
    there.begin()
    assert there.desk is not None
    anns = [one["key"] for one in there.desk.take("Ann", 2)]
    assert there.add_classes(["c"]) == ["a", "b", "c"]
    assert there.desk.question.classes == ["a", "b", "c"]
    assert not {one["key"] for one in there.desk.take("Bob", 4)} & set(anns)


def test_a_first_answer_cannot_be_changed_once_maps_are_asked(
    tmp_path: Path, session: Callable[..., Session], idle: list[list[str]]
) -> None:
    """The images whose maps people draw were chosen by the classes as they were."""
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    there = session(run, Settings(classes=("a", "b")), options(data))
    there.begin()
    assert there.desk is not None
    keys = [there.desk.question.key(name) for name in there.desk.question.ids]
    for at, key in enumerate(keys):
        there.answer(-1, "Ann", key, said("ab"[at % 2]))
    assert len(idle) == 1
    there.answer(-1, "Ann", keys[0], said("b"))  # nothing came of the program yet, so it is begun again
    assert len(idle) == 2
    assert step(run, data, "a", "b") == 0  # what the program does
    before = (run / "people/first/classes/answers.json").read_text()
    with pytest.raises(Gone, match="changed no more"):
        there.answer(-1, "Ann", keys[0], said("a"))
    assert (run / "people/first/classes/answers.json").read_text() == before
    assert there.desk.asked.purpose == "maps of test images"


def test_a_step_that_is_repeated_asks_nothing_more(tmp_path: Path) -> None:
    """A page that is started again may repeat a step, because the one before was killed."""
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    before = (run / "people/first/classes/question.json").read_text()
    assert step(run, data, "a", "b") == 0
    assert (run / "people/first/classes/question.json").read_text() == before


def test_a_page_waits_for_the_program_of_one_that_was_killed(
    tmp_path: Path, session: Callable[..., Session], idle: list[list[str]]
) -> None:
    """The program that prepares a run holds its folder before there is a run.json."""
    data, run = tmp_path / "data", tmp_path / "run"
    (run / "people" / "first").mkdir(parents=True)
    (run / "people" / "first" / "ready.json").write_text('{"data": null}')
    there = session(run, Settings(), options(data))
    with locked(run / ".lock"):
        there.begin()
        assert there.stage == "learn"
        assert "Another program works on this run" in there.text
        assert idle == []
    wait_for(lambda: idle)
    assert idle[0][:2] == ["sal_fast", "run"]


def say(run: Path, *labels: str) -> int:
    """Answer the question about classes with these, in turn; returns how many images it has."""
    asked, place = first.question(run / "people", "run", sorted({*labels}))
    spoken = {name: labels[at % len(labels)] for at, name in enumerate(asked.ids)}
    Answers(place).add(Answer(name, one, None, "ann", 1.0, False) for name, one in spoken.items())
    return len(asked.ids)


def test_a_class_that_was_typed_by_mistake_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without --classes each class has to be found; --classes leaves out what was typed and never used."""
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data) == 0
    first.add_classes(run / "people", [], ["a", "b", "bb"])
    say(run, "a", "b")
    assert step(run, data) == 0
    say(run, "a", "b")
    assert step(run, data) == 2
    assert "'bb' was found fewer than 2 times among 22 images" in caplog.text
    assert step(run, data, "a", "b") == 0
    assert first.asked(run / "people") == first.MAPS


def test_images_that_are_added_for_a_rare_class_are_asked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They come next, and copies of images that are there already are no new ones."""
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    for _ in range(2):
        assert step(run, data, "a", "b") == 0
        asked = say(run, "a")
    assert step(run, data, "a", "b") == 2
    assert "add images and start the page again" in caplog.text
    for at in range(6):
        pixels = np.random.default_rng(100 + at).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(data / f"{at:02d}-new.png")
    for at in range(44):
        (data / f"{at:02d}-copy.png").write_bytes((data / f"{at:02d}.png").read_bytes())
    assert step(run, data, "a", "b") == 0
    more, _ = first.question(run / "people", "run", ["a", "b"])
    assert len(more.ids) == 25
    assert {one[3:] for one in more.ids[asked:]} == {"new"}


def test_an_image_that_is_gone_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    say(run, "a", "b")
    asked, _ = first.question(run / "people", "run", ["a", "b"])
    other = next(path for path in sorted(data.iterdir()) if path.stem not in asked.ids)
    other.unlink()
    assert step(run, data, "a", "b") == 2
    assert f"image {other.stem!r} is gone" in caplog.text


def test_a_class_whose_test_images_were_all_skipped_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run could not be tested on that class. Once one of them is answered, it goes on."""
    data, run = photographs(tmp_path / "data"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    say(run, "a", "b")
    assert step(run, data, "a", "b") == 0
    asked, place = first.question(run / "people", "run", ["a", "b"])
    assert asked.maps
    there = Answers(place)
    for name, label in asked.labels.items():
        skips = label == "a"
        there.add([Answer(name, None if skips else label, None, "ann", 1.0, skips)])
    assert step(run, data, "a", "b") == 2
    assert "no test image of 'a' is left" in caplog.text
    one = next(name for name, label in asked.labels.items() if label == "a")
    there.add([Answer(one, "a", None, "ann", 1.0, False)])
    assert step(run, data, "a", "b") == 0
    assert first.state(run / "people") == "ready"


def manifest(folder: Path, *values: np.ndarray) -> Path:
    """A table of photographs without a class, which all have a mask; all these masks are alike."""
    photographs(folder / "data")
    for number, one in enumerate(values):
        Image.fromarray(one).save(folder / f"mask-{number}.png")
    lines = [f"data/{at:02d}.png,,mask-0.png" for at in range(44)]
    (folder / "table.csv").write_text("\n".join(["image,label,mask", *lines]) + "\n")
    return folder / "table.csv"


def made_masks(run: Path, data: Path, **more: Any) -> list[np.ndarray]:
    """The masks of the run's own table, after people gave the classes."""
    assert step(run, data, "a", "b", **more) == 0
    say(run, "a", "b")
    assert step(run, data, "a", "b", **more) == 0
    assert first.state(run / "people") == "ready"
    table = load_table(str(run / "people" / "first" / "data.csv"))
    assert len(table) == 44
    return [png_mask(Path(str(file))) for file in table.masks]


def test_masks_that_an_option_explains_are_written_anew(tmp_path: Path) -> None:
    """The table of the run holds people's maps as well, which are read without that option."""
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 8:30], mask[:3] = 1, 2
    for found in made_masks(tmp_path / "run", manifest(tmp_path, mask), foreground="1"):
        assert np.array_equal(found, np.uint8(255) * (mask == 1))


def test_masks_of_several_objects_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.zeros((2, 64, 64), np.uint8)
    left[20:40, 8:19], right[20:40, 19:30] = 255, 255
    data = manifest(tmp_path, left, right)
    files = tuple(tmp_path / f"mask-{number}.png" for number in (0, 1))
    table = replace(load_table(str(data)), masks=[files] * 44)
    monkeypatch.setattr(first, "_table", lambda config: table)
    for found in made_masks(tmp_path / "run", data):
        assert np.array_equal(found, left | right)


def test_masks_that_are_there_already_stay(tmp_path: Path) -> None:
    """Images without a class may have masks: only the maps of test images without one are drawn."""
    run = photographs(tmp_path / "data").parent / "run"
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 8:30] = 255
    lines = ["image,label,mask"]
    for at in range(44):
        Image.fromarray(mask).save(tmp_path / f"mask-{at:02d}.png")
        lines.append(f"data/{at:02d}.png,," + (f"mask-{at:02d}.png" if at % 2 else ""))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    assert step(run, table, "a", "b") == 0
    say(run, "a", "b")
    assert step(run, table, "a", "b") == 0
    asked, place = first.question(run / "people", "run", ["a", "b"])
    assert asked.maps
    assert {int(name[-2:]) % 2 for name in asked.ids} == {0}
    drawn = 255 - mask
    Answers(place).add(Answer(name, asked.labels[name], drawn, "ann", 1.0, False) for name in asked.ids)
    assert step(run, table, "a", "b") == 0
    made = load_table(str(run / "people" / "first" / "data.csv"))
    for name, file in zip(made.ids, made.masks, strict=True):
        if name in asked.ids:
            assert np.array_equal(png_mask(Path(str(file))), drawn)
        elif int(name[-2:]) % 2:
            assert file == tmp_path / f"mask-{name[-2:]}.png"
        else:
            assert file is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--port", "99999"], "--port 99999: bind"),
        (["--port", "-1"], "--port -1: bind"),
        (["--host", "a" * 70], "--host aaa"),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    words: list[str], problem: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(run), "--browser", "False", *words]) == 2
    assert problem in capsys.readouterr().err


def test_a_folder_of_other_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The usual folder of a run is named after the last part of its data alone."""
    data, run = photographs(tmp_path / "photographs"), tmp_path / "run"
    assert step(run, data, "a", "b") == 0
    (tmp_path / "other").mkdir()
    other = photographs(tmp_path / "other" / "photographs")
    assert main(["label", str(other), "--out", str(run)]) == 2
    assert f"was made from {data}" in capsys.readouterr().err


def test_a_run_that_waits_is_not_shown_for_other_images(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = photographs(tmp_path / "data")
    assert main(["label", str(other), "--out", str(template)]) == 2
    assert "was made from" in capsys.readouterr().err


def test_a_table_in_the_run_moves_with_it(template: Path, tmp_path: Path) -> None:
    """A run from images without any class has such a table as its data."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    table = before / "people" / "first" / "data.csv"
    table.parent.mkdir(parents=True)
    table.write_text("image,label\n")
    there = json.loads((template / "run.json").read_text())
    there["config"]["data"] = str(table)
    (before / "run.json").write_text(json.dumps(there))
    assert RunFolder(before).config().data == str(table)
    before.rename(after)
    assert RunFolder(after).config().data == str(after / "people" / "first" / "data.csv")


def test_the_table_of_ours_is_read_as_ours(
    tmp_path: Path, session: Callable[..., Session], idle: list[list[str]]
) -> None:
    """What the user says of the columns of another table does not hold for the one that the page makes."""
    run = tmp_path / "run"
    (run / "people" / "first").mkdir(parents=True)
    (run / "people" / "first" / "ready.json").write_text('{"data": "data.csv"}')
    table = {**options(tmp_path / "t.csv"), "columns": "image=filename", "format": "manifest"}
    session(run, Settings(), table).begin()
    assert idle[0][idle[0].index("--data") + 1] == str(run / "people" / "first" / "data.csv")
    assert not {"--columns", "--format"} & {*idle[0]}


def test_grey_that_the_file_calls_transparent_is_shown(tmp_path: Path) -> None:
    """The run's network sees it, so people see it, too."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=3)
    data, _ = picture(tmp_path / "a.png")
    shown = Image.open(BytesIO(data))
    assert "transparency" not in shown.info
    assert np.array_equal(np.asarray(shown.convert("L")), pixels)


def test_a_map_is_written_over_no_other(tmp_path: Path) -> None:
    """The earlier answer holds with its own map until the new one is kept as a whole."""
    maps = [np.full((4, 5), value, np.uint8) for value in (0, 255, 0, 255)]
    for at, mask in enumerate(maps):
        Answers(tmp_path).add([Answer("x", "ab"[at % 2], mask, "Ann", 1.0, False)])
        (tmp_path / "answers.json.part").mkdir()  # so that the file cannot be written
        with pytest.raises(OSError, match="answers"):
            Answers(tmp_path).add([Answer("x", "a", 255 - mask, "Ann", 1.0, False)])
        (tmp_path / "answers.json.part").rmdir()
        (kept,) = Answers(tmp_path).kept
        assert kept.label == "ab"[at % 2]
        assert np.array_equal(png_mask(tmp_path / str(kept.mask)), mask)
    Answers(tmp_path).add([Answer("y", "a", maps[0], "Bob", 1.0, False)])
    Answers(tmp_path).add([Answer("x", "a", None, "Ann", 1.0, False)])
    assert {one.mask for one in Answers(tmp_path).kept} == {None, "drawn/1/y.png"}
    assert not (tmp_path / str(kept.mask)).exists()


def test_maps_of_images_with_long_names(tmp_path: Path) -> None:
    name = "ü" * 125
    assert names_a_file(name)
    mask = np.full((4, 5), 255, np.uint8)
    Answers(tmp_path).add([Answer(name, "a", mask, "Ann", 1.0, False)])
    (kept,) = Answers(tmp_path).kept
    assert np.array_equal(png_mask(tmp_path / str(kept.mask)), mask)


def test_a_picture_that_is_another_one_now_is_fetched_again(run: Path, tmp_path: Path) -> None:
    """Another run of this name may have the same addresses, so the browser asks each time."""
    with serving(run, log=tmp_path / "log.txt") as page:
        ann = page.person("Ann")
        ann.state()
        first_one = ann.take(1)[0]
        address = f"/picture/{first_one['key']}"
        response, before = ann.send("GET", address)
        mark = str(response.getheader("etag"))
        assert "max-age" not in str(response.getheader("cache-control"))
        response, data = ann.send("GET", address, If_None_Match=mark)
        assert (response.status, data) == (304, b"")
        for file in (tmp_path / "pictures").iterdir():
            file.unlink()
            Image.new("RGB", (9, 9)).save(file)
        response, after = ann.send("GET", address, If_None_Match=mark)
        assert response.status == 200
        assert after != before


def test_a_program_that_was_killed_is_told(
    run: Path, session: Callable[..., Session], idle: list[list[str]]
) -> None:
    """It could say nothing itself. The answers are kept, and starting again works."""
    there = session(run, Settings())
    there.begin()
    answer_all(there)
    assert there.stage == "learn"
    there.program._process.kill()
    wait_for(lambda: there.stage == "failed")
    assert "ended by force, perhaps because the machine's memory was full (Killed)" in there.text
    again = session(run, Settings())
    again.begin()
    assert (again.stage, len(idle)) == ("learn", 2)


def test_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = token(tmp_path)
    assert (tmp_path / "page.json").stat().st_mode & 0o777 == 0o600
    assert token(tmp_path) == made
    (tmp_path / "page.json").write_text("{}")
    with pytest.raises(InputError, match="no secret in it"):
        token(tmp_path)


def test_pictures_beside_folders_are_not_left_out(tmp_path: Path) -> None:
    """A folder of photographs may hold others; then it looks like one whose folders stand for classes."""
    data = photographs(tmp_path / "data", 8)
    (data / "2024").mkdir()
    for name in ("05", "06", "07"):
        (data / f"{name}.png").rename(data / "2024" / f"{name}.png")
    with pytest.raises(InputError, match=r"folders 2024 are read as classes, and 5 pictures .*'00\.png'"):
        first._table(Config.of(options(data)))


def test_a_pool_alone_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pool = photographs(tmp_path / "data" / "pool", 8)
    (pool / "2024").mkdir()
    (pool / "07.png").rename(pool / "2024" / "07.png")
    table = first._table(Config.of(options(tmp_path / "data")))
    assert len(table) == 8
    assert {*table.labels} == {UNLABELLED}
