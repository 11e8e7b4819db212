"""A person at the labelling page with a browser of their own, who uses mouse, pen, finger and keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from patience import PATIENCE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
# Where the picture lies in the window, measured without the page's own arithmetic.
PLACE = """
const {view, work} = page, box = document.getElementById("stage").getBoundingClientRect();
return [box.left + view.x / devicePixelRatio, box.top + view.y / devicePixelRatio,
        view.scale / devicePixelRatio, work.width, work.height];
"""

Point = tuple[float, float]


class Browser:
    """Chromium without a window, driven by W3C actions as a person's hands would.

    profile: a folder for its own data. size: the page's width and height. dark: the person prefers it.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800), dark: bool = False) -> None:
        webdriver = pytest.importorskip("selenium.webdriver")
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        for word in (*OPTIONS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(word)
        options.binary_location = str(CHROMIUM)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.driver.set_script_timeout(PATIENCE)
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def kill(self) -> None:
        """End the browser by force, with all of its processes."""
        driver = psutil.Process(self.driver.service.process.pid)
        for process in (*driver.children(recursive=True), driver):
            process.kill()

    def open(self, address: str, name: str | None = None) -> None:
        """Open the page, type a name where it asks for one, and wait for a picture."""
        self.driver.get(address)
        self.until("return document.getElementById('status') && window.page")
        if name is not None:
            self.until("return document.querySelector('#ask-name[open]')")
            self.keys(name, "\ue007")
            self.until("return page.work && page.work.mask")

    def js(self, script: str, *arguments: object) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: object) -> Any:
        """Wait until a script returns something that is true, and return it."""
        end = time.monotonic() + min(PATIENCE, 120)
        while time.monotonic() < end:
            if found := self.js(script, *arguments):
                return found
            time.sleep(0.03)
        raise AssertionError(f"this did not become true: {script}\nthe page says: {self.status()}")

    def status(self) -> str:
        """The last words of the page's live region."""
        return str(self.js("return document.getElementById('status').textContent"))

    def key(self) -> str:
        """The name of the picture on the screen."""
        return str(self.js("return page.work && page.work.key"))

    def next(self, key: str) -> str:
        """Wait until another picture than `key` is shown and its answer is kept, and return its name."""
        self.until("return page.work && page.work.key !== arguments[0] && !page.talk.items.length", key)
        return self.key()

    def keys(self, *words: str) -> None:
        """Type texts and keys, one after the other."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*words).perform()

    def chord(self, *keys: str) -> None:
        """Hold all keys but the last, press the last, and let go."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for one in keys[:-1]:
            chain.key_down(one)
        chain.send_keys(keys[-1])
        for one in keys[-2::-1]:
            chain.key_up(one)
        chain.perform()

    def click(self, css: str) -> None:
        """Click the middle of an element."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, css).click()

    def at(self, *shares: Point) -> list[tuple[int, int]]:
        """The points of the window for points of the picture, each a share of its width and height."""
        left, top, scale, width, height = self.js(PLACE)
        return [(round(left + x * width * scale), round(top + y * height * scale)) for x, y in shares]

    def in_picture(self, points: Iterable[tuple[int, int]]) -> np.ndarray:
        """The pixels of the picture, [n, 2], that points of the window lie on."""
        left, top, scale, _, _ = self.js(PLACE)
        return (np.array(list(points), dtype=np.float64) - (left, top)) / scale

    def pointer(
        self,
        kind: str,
        points: Sequence[tuple[int, int]],
        button: int = 0,
        hold: bool = True,
        up: bool = True,
    ) -> None:
        """Move a mouse, a pen or a finger from point to point of the window, pressed from the first one on.

        With hold=False each point is a click of its own. With up=False the pointer stays pressed.
        """
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        device = PointerInput(kind, f"{kind} of the test")
        build = ActionBuilder(self.driver, mouse=device, duration=200)
        for i, (x, y) in enumerate(points):
            build.pointer_action.move_to_location(x, y)
            if i == 0 or not hold:
                build.pointer_action.pointer_down(button=button)
            if not hold:
                build.pointer_action.pointer_up(button=button)
        if hold and up:
            build.pointer_action.pointer_up(button=button)
        build.perform()

    def pinch(self, center: tuple[int, int], before: int, after: int) -> None:
        """Put two fingers beside a point of the window, and move them from one distance to another."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        build = ActionBuilder(self.driver, duration=100)
        for name, side in (("one", -1), ("two", 1)):
            finger = PointerInput("touch", f"finger {name}")
            build.devices.append(finger)
            finger.create_pointer_move(0, center[0] + side * before, center[1])
            finger.create_pointer_down(button=0)
            finger.create_pointer_move(300, center[0] + side * after, center[1])
            finger.create_pointer_up(0)
        build.devices = [one for one in build.devices if str(one.name).startswith("finger")]
        build.perform()

    def mask(self) -> np.ndarray:
        """The map on the screen, bool [H, W]."""
        runs, width, height = self.js("return [page.runs, page.work.width, page.work.height]")
        return from_runs(runs, (width, height))

    def last(self) -> dict[str, Any]:
        """The last shape that was drawn, in pixels of the picture."""
        found: dict[str, Any] = self.js("return page.tools.last")
        return found

    def complaints(self) -> list[str]:
        """The errors of the browser's console, but for those of a server that is away or asks back."""
        usual = ("ERR_CONNECTION", "ERR_EMPTY", "409", "the server responded with a status of 410")
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [text for text in said if not any(word in text for word in usual)]


def from_runs(runs: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask, bool [H, W], of lengths of runs."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0])


def grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The centres of the pixels of a picture of `size` (width, height): x and y, each [H, W]."""
    y, x = np.mgrid[: size[1], : size[0]]
    return x + 0.5, y + 0.5


def stroke(points: Sequence[Sequence[float]], radius: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre is within the radius of a line through points, bool [H, W]."""
    x, y = grid(size)
    made = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip([points[0], *points], points, strict=False):
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / length, 0, 1) if length else np.zeros_like(x)
        made |= (x - (ax + along * dx)) ** 2 + (y - (ay + along * dy)) ** 2 <= radius * radius
    return made


def polygon(points: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre a ray to the right leaves an odd number of times, bool [H, W]."""
    x, y = grid(size)
    odd = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        if ay == by:
            continue
        crosses = (ay > y) != (by > y)
        odd ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return odd


def rectangle(points: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies between two corners, with the left and the upper edge, bool [H, W]."""
    (ax, ay), (bx, by) = points
    x, y = grid(size)
    across = (x >= min(ax, bx)) & (x < max(ax, bx))
    return across & (y >= min(ay, by)) & (y < max(ay, by))


def enlarged(small: np.ndarray, size: tuple[int, int], percent: int = 50) -> np.ndarray:
    """A grid of bytes, enlarged bilinearly and cut above a threshold, bool [H, W], in whole numbers."""
    h, w = small.shape
    width, height = size

    def places(count: int, of: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((2 * np.arange(count, dtype=np.int64) + 1) * of - count, 0, (of - 1) * 2 * count)
        low = at // (2 * count)
        return low, np.minimum(low + 1, of - 1), at - low * 2 * count

    left, right, across = places(width, w)
    upper, lower, down = places(height, h)
    values = small.astype(np.int64)
    rows = values[upper] * (2 * height - down)[:, None] + values[lower] * down[:, None]
    made = rows[:, left] * (2 * width - across) + rows[:, right] * across
    return np.asarray(made * 100 > percent * 255 * 4 * width * height)
