"""The labelling page in a real browser, at the real server: what a person does is what is kept."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, Browser, enlarged, from_runs, polygon, rectangle, stroke
from page_client import Page, serving, wait_for
from posed_pictures import pictures, pose, small_maps, waiting_run

from sal_fast.people.page import server

pytest.importorskip("selenium")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium, or no chromedriver"),
]
SIZE = (300, 200)
MAPS = small_maps(80)
ENTER, ESCAPE, BACKSPACE, CONTROL, SHIFT = "\ue007", "\ue00c", "\ue003", "\ue009", "\ue008"
LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"
NPM = shutil.which("npm")
MOST_BYTES = 100_000
# Text that its box hides, and whatever lies outside of the window, unless it can be scrolled to.
CUT = """
const cut = [], page = document.documentElement;
const words = "button, p, label, h1, h2, h3, summary, output, kbd, b, small, dt, dd, .class span";
for (const element of document.querySelectorAll(words)) {
  const box = element.getBoundingClientRect();
  if (!element.checkVisibility() || element.closest(".unseen") || !box.width) continue;
  const text = element.textContent.trim().slice(0, 40);
  const inline = getComputedStyle(element).display === "inline";
  if (element.scrollWidth > element.clientWidth + 1 && !inline) cut.push(text);
  if (box.left < -1 || box.right > innerWidth + 1) cut.push(`beside the window: ${text}`);
  const scrolls = element.closest(".scroll, .tools, .calm, dialog");
  if (!scrolls && (box.top < -1 || box.bottom > innerHeight + 1)) cut.push(`below the window: ${text}`);
}
if (page.scrollWidth > innerWidth || page.scrollHeight > innerHeight) cut.push("the page scrolls");
return cut;
"""


@pytest.fixture(scope="module")
def template(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for people."""
    root = tmp_path_factory.mktemp("template")
    return waiting_run(make_folder(root / "data", 8), root / "run")


@pytest.fixture(scope="module")
def page(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with 80 pictures, a model's maps, and all tools."""
    root = tmp_path_factory.mktemp("page")
    run = pose(template, root / "run", pictures(root / "pictures", 80, SIZE), maps=MAPS)
    with serving(run, "--ask", "mixed", log=root / "log.txt") as served:
        yield served


@pytest.fixture
def browsers(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """A way to start browsers, which are ended after the test."""
    there: list[Browser] = []

    def make(**options: Any) -> Browser:
        there.append(Browser(tmp_path / f"profile {len(there)}", **options))
        return there[-1]

    yield make
    for one in there:
        one.close()


@pytest.fixture
def who(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return str(request.node.name)[:80]


@pytest.fixture
def browser(browsers: Callable[..., Browser], page: Page, who: str) -> Iterator[Browser]:
    """A browser with a picture on the screen. At the end nothing may have gone wrong in it."""
    made = browsers()
    made.open(page.address, who)
    yield made
    assert made.complaints() == []


def kept(page: Page, who: str, key: str, query: int = 0) -> dict[str, Any]:
    """The server's words on a picture."""
    found: dict[str, Any] = page.person(who).get(f"/api/open/{key}", person=who, query=query)
    return found


def answer(page: Page, who: str, key: str) -> dict[str, Any]:
    """A person's answer as the server kept it, with its map as a mask."""
    picture = kept(page, who, key)
    saved: dict[str, Any] = picture["answer"]
    assert saved is not None
    size = (picture["width"], picture["height"])
    saved["mask"] = None if saved["runs"] is None else from_runs(saved["runs"], size)
    return saved


def suggested(picture: dict[str, Any], label: int = 0) -> np.ndarray:
    """The model's map of a picture."""
    return enlarged(MAPS[picture["number"] - 1, label], (picture["width"], picture["height"]))


def test_the_page_is_small() -> None:
    """All its files together."""
    sizes = {path.name: len(path.read_bytes()) for path in server.STATIC.iterdir() if path.is_file()}
    assert sum(sizes.values()) <= MOST_BYTES, sizes


def test_a_class_and_a_map_by_the_brush(browser: Browser, page: Page, who: str) -> None:
    """The pixels are those near the line that the pointer went, and the line is where the pointer was."""
    key = browser.key()
    browser.keys("2", "x")
    assert not browser.mask().any()
    way = browser.at((0.2, 0.3), (0.5, 0.35), (0.8, 0.8))
    browser.pointer("mouse", way)
    last = browser.last()
    ends = np.array([last["points"][0], last["points"][-1]])
    assert np.abs(ends - browser.in_picture([way[0], way[-1]])).max() < 0.51
    browser.keys(ENTER)
    browser.next(key)
    saved = answer(page, who, key)
    assert (saved["label"], saved["kind"], saved["skipped"]) == ("green", "drawn", False)
    assert np.array_equal(saved["mask"], stroke(last["points"], last["radius"], SIZE))
    assert 0 < saved["class_seconds"] <= saved["stroke_seconds"] <= saved["seconds"] < 1000


def test_the_model_s_map_is_corrected(browser: Browser, page: Page, who: str) -> None:
    """It is shown first, and a stroke of the eraser makes it a corrected one."""
    key = browser.key()
    browser.keys("1")
    before = suggested(kept(page, who, key))
    assert np.array_equal(browser.mask(), before)
    browser.keys("e")
    browser.pointer("mouse", browser.at((0.1, 0.5), (0.9, 0.5)))
    last = browser.last()
    browser.keys(ENTER)
    browser.next(key)
    saved = answer(page, who, key)
    assert saved["kind"] == "corrected"
    assert np.array_equal(saved["mask"], before & ~stroke(last["points"], last["radius"], SIZE))


def test_the_threshold_of_the_model_s_map(browser: Browser, page: Page, who: str) -> None:
    """The keys move it, and each class has a map of its own."""
    number = kept(page, who, browser.key())["number"]
    browser.keys("2", ">", ">", ">")
    assert np.array_equal(browser.mask(), enlarged(MAPS[number - 1, 1], SIZE, 56))
    browser.keys("<", "<", "<", "<", "<")
    assert np.array_equal(browser.mask(), enlarged(MAPS[number - 1, 1], SIZE, 46))
    browser.keys("3")
    assert not browser.mask().any()


def test_one_key_accepts_the_model_s_map(browser: Browser, page: Page, who: str) -> None:
    """Its class is for people to choose: the key asks for one first."""
    key = browser.key()
    before = suggested(kept(page, who, key))
    browser.keys("a")
    assert "Choose a class first" in browser.status()
    assert browser.key() == key
    browser.keys("1", "a")
    browser.next(key)
    saved = answer(page, who, key)
    assert (saved["label"], saved["kind"]) == ("blue", "accepted")
    assert np.array_equal(saved["mask"], before)


def test_polygon_rectangle_and_fill(browser: Browser, page: Page, who: str) -> None:
    """A polygon with a hole made by an erased rectangle, whose middle is drawn and whose ring is filled."""
    key = browser.key()
    browser.keys("1", "x", "p")
    browser.pointer(
        "mouse", browser.at((0.1, 0.1), (0.9, 0.2), (0.5, 0.6), (0.8, 0.9), (0.15, 0.8)), hold=False
    )
    browser.keys(ENTER)
    first = browser.last()
    mask = polygon(first["points"], SIZE)
    assert len(first["points"]) == 5
    assert np.array_equal(browser.mask(), mask)
    browser.keys("r", "e")
    browser.pointer("mouse", browser.at((0.2, 0.3), (0.42, 0.7)))
    second = browser.last()
    mask &= ~rectangle(second["points"], SIZE)
    assert np.array_equal(browser.mask(), mask)
    browser.keys("e", "f")
    browser.pointer("mouse", browser.at((0.3, 0.5)))
    assert np.array_equal(
        browser.mask(), mask | rectangle(second["points"], SIZE) & polygon(first["points"], SIZE)
    )
    browser.keys("e")
    browser.pointer("mouse", browser.at((0.3, 0.5)))
    assert not browser.mask().any()
    browser.chord(CONTROL, "z")
    browser.keys(ENTER)
    browser.next(key)
    saved = answer(page, who, key)
    assert np.array_equal(
        saved["mask"], mask | rectangle(second["points"], SIZE) & polygon(first["points"], SIZE)
    )


def test_undo_and_redo(browser: Browser) -> None:
    """Each step goes back and forth, also over the model's map, clear and invert."""
    browser.keys("1")
    seen = [browser.mask()]
    browser.pointer("mouse", browser.at((0.1, 0.1), (0.4, 0.2)))
    seen.append(browser.mask())
    browser.keys("i")
    seen.append(browser.mask())
    browser.keys("c")
    seen.append(browser.mask())
    browser.pointer("mouse", browser.at((0.5, 0.5), (0.6, 0.9)))
    seen.append(browser.mask())
    for before in seen[-2::-1]:
        browser.chord(CONTROL, "z")
        assert np.array_equal(browser.mask(), before)
    assert browser.js("return page.work.untouched")
    for after in seen[1:3]:
        browser.chord(CONTROL, "y")
        assert np.array_equal(browser.mask(), after)
    for after in seen[3:]:
        browser.chord(CONTROL, SHIFT, "z")
        assert np.array_equal(browser.mask(), after)
    assert np.array_equal(seen[1], ~seen[2])


def test_skip_with_a_reason(browser: Browser, page: Page, who: str) -> None:
    """A common reason by one key, and one in own words."""
    key = browser.key()
    browser.keys("s", "3", ENTER)
    later = browser.next(key)
    saved = answer(page, who, key)
    assert (saved["skipped"], saved["label"], saved["mask"]) == (True, None, None)
    assert saved["reason"] == "The picture is too unclear."
    browser.keys("s", "a thumb", ENTER)
    browser.next(later)
    assert answer(page, who, later)["reason"] == "a thumb"


def test_going_back_to_change_and_to_withdraw(browser: Browser, page: Page, who: str) -> None:
    """An answer is changed, another one withdrawn, and the picture in hand is as it was."""
    first = browser.key()
    browser.keys("m", "a note", ENTER, "1", "a")
    second = browser.next(first)
    browser.keys("1", "a")
    third = browser.next(second)
    browser.keys("3")
    browser.pointer("mouse", browser.at((0.4, 0.4), (0.5, 0.6)))
    drawn = browser.mask()
    browser.keys(BACKSPACE)
    browser.until("return page.work.key === arguments[0]", second)
    browser.keys(BACKSPACE)
    browser.until("return page.work.key === arguments[0]", first)
    before = answer(page, who, first)
    assert before["note"] == "a note"
    browser.keys("2", ENTER)
    browser.until("return page.work.key === arguments[0] && !page.talk.items.length", third)
    after = answer(page, who, first)
    assert (after["label"], after["note"], after["kind"]) == ("green", "a note", "accepted")
    assert after["seconds"] > before["seconds"]
    assert np.array_equal(browser.mask(), drawn)
    browser.keys("l")
    browser.until("return document.querySelectorAll('#list-items li').length === 2")
    browser.click("#list-items li:first-child button:first-child")
    browser.until("return page.work.key === arguments[0] || page.work.key === arguments[1]", first, second)
    opened = browser.key()
    browser.keys("w")
    browser.until("return page.work.key === arguments[0] && !page.talk.items.length", third)
    assert kept(page, who, opened)["answer"] is None
    assert browser.js("return page.state.counts.mine") == 1
    assert np.array_equal(browser.mask(), drawn)


def test_a_box_and_points_are_made_into_maps(browser: Browser, page: Page, who: str) -> None:
    """The rule `box` gives the box itself. Points reach the server, and a stroke corrects their map."""
    key = browser.key()
    browser.keys("1", "x", "o")
    browser.js("document.getElementById('rule').value = 'box'")
    browser.pointer("mouse", browser.at((0.2, 0.2), (0.6, 0.7)))
    browser.until("return page.work.state.origin === 'box'")
    box = browser.js("return page.work.state.box")
    corners = browser.in_picture(browser.at((0.2, 0.2), (0.6, 0.7))).ravel()
    assert np.abs(np.array(box) - corners).max() < 0.51
    browser.keys(ENTER)
    later = browser.next(key)
    saved = answer(page, who, key)
    assert saved["kind"] == "box"
    assert np.abs(saved["mask"] ^ rectangle([box[:2], box[2:]], SIZE)).sum() <= 2 * sum(SIZE)
    browser.keys("1", "t")
    browser.pointer("mouse", browser.at((0.45, 0.55)))
    browser.until("return page.work.state.origin === 'points' && page.work.state.points.length === 1")
    browser.pointer("mouse", browser.at((0.9, 0.1)), button=2)
    browser.until("return page.work.state.points.length === 2")
    points = browser.js("return page.work.state.points")
    assert [side for _, _, side in points] == [1, 0]
    assert (
        np.abs(np.array(points)[:, :2] - browser.in_picture(browser.at((0.45, 0.55), (0.9, 0.1)))).max()
        < 0.51
    )
    browser.keys("b")
    browser.pointer("mouse", browser.at((0.1, 0.9), (0.2, 0.9)))
    browser.keys(ENTER)
    browser.next(later)
    assert answer(page, who, later)["kind"] == "corrected"


def test_the_keyboard_alone(browser: Browser, page: Page, who: str) -> None:
    """From the class to Done: a stroke, a polygon and a rectangle by arrow keys and Space."""
    key = browser.key()
    browser.keys("1", "x")
    browser.keys(*[LEFT] * 30, " ", *[RIGHT] * 20, *[DOWN] * 10, " ")
    last = browser.last()
    mask = stroke(last["points"], last["radius"], SIZE)
    assert len(last["points"]) == 31
    assert np.array_equal(browser.mask(), mask)
    browser.keys("p", " ")
    browser.chord(SHIFT, UP)
    browser.chord(SHIFT, UP)
    browser.keys(" ")
    browser.chord(SHIFT, RIGHT)
    browser.chord(SHIFT, RIGHT)
    browser.keys(" ", ENTER)
    shape = browser.last()
    assert len(shape["points"]) == 3
    mask |= polygon(shape["points"], SIZE)
    browser.keys("r", " ")
    browser.chord(SHIFT, DOWN)
    browser.chord(SHIFT, RIGHT)
    browser.keys(" ")
    mask |= rectangle(browser.last()["points"], SIZE)
    assert np.array_equal(browser.mask(), mask)
    browser.keys(ENTER)
    browser.next(key)
    assert np.array_equal(answer(page, who, key)["mask"], mask)


def test_pen_and_finger(browser: Browser) -> None:
    """A finger draws until a pen was seen. Then the pen draws, a finger moves the picture, and two zoom."""
    browser.keys("1", "x")
    browser.pointer("touch", browser.at((0.2, 0.2), (0.4, 0.2)))
    last = browser.last()
    mask = stroke(last["points"], last["radius"], SIZE)
    assert np.array_equal(browser.mask(), mask)
    browser.pointer("pen", browser.at((0.6, 0.3), (0.8, 0.6)))
    last = browser.last()
    mask |= stroke(last["points"], last["radius"], SIZE)
    assert np.array_equal(browser.mask(), mask)
    before = browser.at((0, 0))[0]
    start = browser.at((0.5, 0.5))[0]
    browser.pointer("touch", [start, (start[0] + 40, start[1] + 25)])
    after = browser.at((0, 0))[0]
    assert (after[0] - before[0], after[1] - before[1]) == (40, 25)
    scale = browser.js("return page.view.scale")
    browser.pinch(start, 50, 100)
    assert browser.js("return page.view.scale") == pytest.approx(2 * scale, rel=0.05)
    assert np.array_equal(browser.mask(), mask)
    browser.keys("0")
    assert browser.js("return page.view.scale") == pytest.approx(scale)


def test_two_people_at_once_get_different_pictures(
    browser: Browser, browsers: Callable[..., Browser], page: Page, who: str
) -> None:
    """Also after each has answered."""
    other = browsers()
    other.open(page.address, f"not {who}")
    seen: list[set[str]] = [set(), set()]
    for _ in range(3):
        for one, own in zip((browser, other), seen, strict=True):
            own.add(key := one.key())
            one.keys("1", "a")
            one.next(key)
    assert len(seen[0]) == len(seen[1]) == 3
    assert not seen[0] & seen[1]


def test_a_browser_that_is_closed_in_a_stroke(browsers: Callable[..., Browser], page: Page, who: str) -> None:
    """What was finished before is there in another browser, with its class, note and seconds."""
    first = browsers()
    first.open(page.address, who)
    key = first.key()
    first.keys("2", "x", "m", "half done", ENTER)
    first.pointer("mouse", first.at((0.3, 0.3), (0.5, 0.5)))
    drawn = first.mask()
    wait_for(lambda: (kept(page, who, key)["draft"] or {}).get("runs"))
    seconds = kept(page, who, key)["draft"]["seconds"]
    first.pointer("mouse", first.at((0.7, 0.3), (0.8, 0.5)), up=False)
    first.kill()
    second = browsers()
    second.open(page.address, who)
    assert second.key() == key
    mask = second.mask()
    assert np.array_equal(mask & drawn, drawn)
    label, note, clock = second.js("return [page.work.label, page.work.note, page.work.clock.seconds]")
    assert (label, note) == ("green", "half done")
    assert clock >= seconds


def test_a_server_that_is_killed(template: Path, browsers: Callable[..., Browser], tmp_path: Path) -> None:
    """The page says so and goes on, answers wait in it through a reload, and all reach the next server."""
    images = pictures(tmp_path / "pictures", 12, SIZE)
    run = pose(template, tmp_path / "run", images, maps=small_maps(12))
    browser = browsers()
    with serving(run, log=tmp_path / "one.txt") as first:
        browser.open(first.address, "Anna")
        keys = [browser.key()]
        browser.keys("1", "a")
        keys.append(browser.next(keys[0]))
        browser.until("return page.ahead.length")
        first.kill()
    browser.pointer("mouse", browser.at((0.2, 0.2), (0.7, 0.4)))
    drawn = browser.mask()
    browser.keys("3", ENTER)
    browser.until("return !document.getElementById('away').hidden")
    browser.until("return page.work && page.work.key !== arguments[0]", keys[1])
    keys.append(browser.key())
    browser.pointer("mouse", browser.at((0.3, 0.8), (0.4, 0.8)))
    half = browser.mask()
    time.sleep(1.5)  # until the draft is in the queue
    with serving(run, "--port", first.port, log=tmp_path / "two.txt") as second:
        browser.driver.refresh()
        browser.until("return window.page && page.work && page.work.mask && !page.talk.items.length")
        assert browser.key() == keys[2]
        assert np.array_equal(browser.mask(), half)
        assert answer(second, "Anna", keys[0])["kind"] == "accepted"
        later = answer(second, "Anna", keys[1])
        assert later["label"] == "red"
        assert np.array_equal(later["mask"], drawn)
        assert browser.js("return document.getElementById('away').hidden")
        browser.keys("1", ENTER)
        browser.next(keys[2])
        assert np.array_equal(answer(second, "Anna", keys[2])["mask"], half)
    assert browser.complaints() == []


def test_an_odd_map_is_asked_about(browser: Browser, page: Page, who: str) -> None:
    """An empty map and one of the whole picture. The map can be inverted, kept, or changed."""
    key = browser.key()
    browser.keys("1", "c", ENTER)
    browser.until("return document.querySelector('#ask-sure[open]')")
    browser.keys(ESCAPE)
    assert browser.key() == key
    browser.pointer("mouse", browser.at((0.5, 0.5), (0.52, 0.5)))
    drawn = browser.mask()
    browser.keys("i", ENTER)
    browser.until("return document.querySelector('#ask-sure[open]')")
    assert "%" in browser.js("return document.getElementById('sure-text').textContent")
    browser.click("#sure-invert")
    later = browser.next(key)
    assert np.array_equal(answer(page, who, key)["mask"], drawn)
    browser.keys("1", "c", ENTER)
    browser.until("return document.querySelector('#ask-sure[open]')")
    browser.click("#sure-keep")
    third = browser.next(later)
    saved = answer(page, who, later)
    assert (saved["label"], saved["mask"], saved["kind"]) == ("blue", None, None)
    browser.keys("2", "c", "r")
    browser.pointer("mouse", browser.at((0.1, 0.1), (0.9, 0.9)))
    browser.keys("i", ENTER)
    browser.until("return document.querySelector('#ask-sure[open]')")
    assert browser.key() == third
    frame = browser.mask()
    assert frame[0, 0]
    assert not frame[100, 150]
    browser.click("#sure-keep")
    browser.next(third)
    assert np.array_equal(answer(page, who, third)["mask"], frame)


def test_yes_or_no_to_the_model_s_map(
    template: Path, browsers: Callable[..., Browser], tmp_path: Path
) -> None:
    """With `--ask accept` nothing is drawn. N keeps the class alone."""
    images = pictures(tmp_path / "pictures", 6, SIZE)
    run = pose(template, tmp_path / "run", images, maps=small_maps(6))
    browser = browsers()
    with serving(run, "--ask", "accept", log=tmp_path / "log.txt") as page:
        browser.open(page.address, "Anna")
        first = browser.key()
        browser.keys("b")
        assert browser.js("return page.tools.name") == "hand"
        browser.keys("1", "a")
        second = browser.next(first)
        browser.keys("2", "n")
        third = browser.next(second)
        assert answer(page, "Anna", first)["kind"] == "accepted"
        assert answer(page, "Anna", second)["label"] == "green"
        assert answer(page, "Anna", second)["mask"] is None
        browser.keys("3")
        said = browser.js("return document.getElementById('model-text').textContent")
        assert said == "The model has no map for this class. Only the class is asked."
        assert browser.key() == third
        assert browser.complaints() == []


def test_names_are_texts(template: Path, browsers: Callable[..., Browser], tmp_path: Path) -> None:
    """A class that is called like a tag is shown as it is called. Many classes can be searched."""
    tag = "<img src=x onerror=document.title='broken'>"
    classes = [tag, "b" * 90, *(f"kind {i} of beetle" for i in range(30))]
    run = pose(template, tmp_path / "run", pictures(tmp_path / "pictures", 6, SIZE), classes)
    browser = browsers()
    with serving(run, log=tmp_path / "log.txt") as page:
        browser.open(page.address, "Anna <b>")
        key = browser.key()
        assert browser.js("return document.querySelector('.class span').textContent") == tag
        assert browser.js("return document.querySelector('#classes img') === null")
        assert browser.js("return document.querySelector('.class:nth-child(2)').title") == f"{'b' * 90} (2)"
        browser.keys("1")
        assert tag in browser.status()
        browser.keys("/", "29 of", ENTER)
        assert browser.js("return page.work.label") == "kind 29 of beetle"
        browser.keys("/", "beetle", DOWN, DOWN, ENTER)
        assert browser.js("return page.work.label") == "kind 2 of beetle"
        assert browser.js("return document.title") != "broken"
        browser.pointer("mouse", browser.at((0.2, 0.2), (0.7, 0.4)))
        browser.keys(ENTER)
        browser.next(key)
        assert answer(page, "Anna <b>", key)["label"] == "kind 2 of beetle"
        assert browser.js(CUT) == []
        assert browser.complaints() == []


@pytest.mark.parametrize("size", [(1280, 800), (1024, 768), (800, 600)])
def test_nothing_is_cut(
    browsers: Callable[..., Browser], page: Page, who: str, size: tuple[int, int]
) -> None:
    """With the dialogs, with an earlier answer, and with everything folded out."""
    browser = browsers(size=size)
    browser.driver.get(page.address)
    browser.until("return document.querySelector('#ask-name[open]')")
    assert browser.js(CUT) == []
    browser.keys(who, ENTER)
    browser.until("return page.work")
    key = browser.key()
    assert browser.js(CUT) == []
    for name in "opbrftv":
        browser.keys(name)
        assert browser.js(CUT) == [], name
    for name in "s?jl":
        browser.js("document.activeElement.blur()")
        browser.keys(name)
        browser.until("return document.querySelector('dialog[open]')")
        assert browser.js(CUT) == [], name
        browser.keys(ESCAPE)
    browser.keys("1", "a")
    browser.next(key)
    browser.keys(BACKSPACE)
    browser.until("return page.work.reopened")
    assert browser.js(CUT) == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which finds what keeps people from using a page."""
    if NPM is None:
        pytest.skip("npm is not here to fetch axe-core")
    folder = tmp_path_factory.mktemp("axe")
    got = subprocess.run([NPM, "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, check=False)
    packed = list(folder.glob("*.tgz"))
    if not packed:
        pytest.skip(f"npm cannot fetch axe-core: {got.stderr[-200:]}")
    with tarfile.open(packed[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.parametrize("dark", [False, True])
def test_everybody_can_use_it(
    browsers: Callable[..., Browser], page: Page, who: str, axe: str, dark: bool
) -> None:
    """axe-core finds nothing in the light and in the dark, in the page and in its dialogs."""
    browser = browsers(dark=dark)
    browser.open(page.address, who)
    browser.driver.execute_script(axe)

    def found() -> list[Any]:
        said = browser.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(r => done(r.violations))"
        )
        return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in said]

    assert found() == []
    browser.keys("1", "v")
    assert found() == []
    for name in ("t", "p", "s", "?", "l", "j"):
        browser.js("document.activeElement.blur()")
        browser.keys(name)
        assert found() == [], name
        browser.keys(ESCAPE)
    key = browser.key()
    browser.keys("1", "a")
    browser.next(key)
    browser.keys(BACKSPACE)
    browser.until("return page.work.reopened")
    assert found() == []
    unnamed = browser.js(
        "return [...document.querySelectorAll('header button, main :is(button, input, select, textarea)')]"
        ".filter(e => e.checkVisibility() && !e.getAttribute('aria-keyshortcuts')).map(e => e.outerHTML)"
    )
    assert unnamed == [] or all('class="class"' in one for one in unnamed)


def test_two_hundred_pictures_in_a_row(
    template: Path, browsers: Callable[..., Browser], tmp_path: Path
) -> None:
    """The memory of the page's script does not grow with the pictures."""
    images = pictures(tmp_path / "pictures", 210, (640, 480))
    run = pose(template, tmp_path / "run", images, maps=small_maps(210))
    browser = browsers()
    heap = []
    begin = time.monotonic()
    with serving(run, log=tmp_path / "log.txt") as page:
        browser.open(page.address, "Anna")
        print(f"\na picture can be drawn on {time.monotonic() - begin:.1f} s after the command")
        browser.driver.execute_cdp_cmd("HeapProfiler.enable", {})
        for i in range(200):
            browser.until("return page.ahead.length")
            key = browser.key()
            if i % 10 == 0:
                browser.pointer("mouse", browser.at((0.2, 0.2), (0.7, 0.4)))
                browser.keys("1", ENTER)
            else:
                browser.keys("1", "a")
            browser.next(key)
            if i % 50 == 19:
                browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
                usage = browser.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})
                heap.append(usage["usedSize"] + usage.get("backingStorageSize", 0))
        times = browser.js("return page.times.next")
        held = browser.js("return page.ahead.length")
    print(f"heap after 20, 70, 120, 170 pictures: {[round(size / 1e6, 1) for size in heap]} MB")
    print(f"next picture: {statistics.median(times):.0f} ms in the median")
    assert len(times) == 200
    assert held <= 2
    assert heap[-1] < heap[0] + 8e6


# Remember which pictures the page asks for, and what each move of a stroke paints: the number of pixels of
# the screen, and the points of the picture that the stroke went through.
WATCH = """
window.seen = {asked: [], strokes: [], painted: 0};
const ask = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...more) {
  seen.asked.push(message.key);
  return ask.call(this, message, ...more);
};
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (image, x, y, left, top, width, height) {
  seen.painted += (width ?? image.width) * (height ?? image.height);
  return put.apply(this, arguments);
};
const {tools} = page, follow = tools.follow;
tools.follow = function (...words) {
  const before = tools.gesture?.stroke ? tools.last.points.length : 0;
  seen.painted = 0;
  follow.apply(this, words);
  if (before) seen.strokes.push([seen.painted, tools.last.points.slice(before - 1)]);
};
"""
# Press Enter, and say whether the picture that was ready is on the screen when the key's handler returns.
NEXT_AT_ONCE = """
const ready = page.ahead[0], {width} = ready.levels[0].bitmap;
seen.asked = [];
page.view.layer.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true}));
return [width, page.work === ready && page.view.levels === ready.levels, ready.key];
"""


def test_pictures_of_24_megapixels(template: Path, browsers: Callable[..., Browser], tmp_path: Path) -> None:
    """A stroke paints only what lies about it, and the next picture was decoded before the key.

    These two make the page quick with large pictures. How quick it is on this machine is printed.
    """
    size = (6000, 4000)
    maps = small_maps(6)
    images = pictures(tmp_path / "pictures", 6, size, different=3)
    run = pose(template, tmp_path / "run", images, maps=maps)
    browser = browsers()
    few = [(0.2, 0.2), (0.7, 0.4), (0.3, 0.8), (0.9, 0.9)]
    many = [(0.1 + 0.02 * j, 0.5 + 0.3 * np.sin(0.4 * j)) for j in range(40)]
    with serving(run, log=tmp_path / "log.txt") as page:
        browser.open(page.address, "Anna")
        browser.js(WATCH)
        for i in range(3):
            browser.until("return page.ahead.length")
            key = browser.key()
            browser.keys("1", *"]" * 3)
            browser.js("seen.strokes = []")
            browser.pointer("mouse", browser.at(*(few if i == 0 else many)))
            last, scale = browser.last(), browser.js("return page.view.scale")
            strokes = browser.js("return seen.strokes")
            assert strokes
            for painted, points in strokes:
                room = np.ptp(np.array(points), axis=0) + 2 * last["radius"]
                assert 0 < painted <= np.prod(room * scale + 10)
            if i == 0:
                before = enlarged(maps[browser.js("return page.work.number") - 1, 0], size)
                drawn = before | stroke(last["points"], last["radius"], size)
                assert np.array_equal(browser.mask(), drawn)
            width, at_once, shown = browser.js(NEXT_AT_ONCE)
            assert (width, at_once) == (size[0], True)
            assert browser.next(key) == shown
            assert shown not in browser.js("return seen.asked")
            if i == 0:
                assert np.array_equal(answer(page, "Anna", key)["mask"], drawn)
        browser.until("return page.times.next.length === 3")
        handlers, nexts = browser.js("return [page.times.stroke, page.times.next]")
        assert browser.complaints() == []
    median, most = statistics.median(handlers), max(handlers)
    print(f"\nhandler of a stroke: {median:.1f} ms in the median, {most:.1f} at most, of {len(handlers)}")
    print(f"next picture: {', '.join(f'{ms:.0f}' for ms in nexts)} ms from the key to the frame with it")
