"""The page in a real browser: nothing sticks out at phone width or on a desktop."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_folders import make_run

from sal_fast.report import write

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# Headless windows are never narrower than 500 px, so the page stands in a frame and tells the frame's owner.
FRAME = """<iframe src="index.html" style="width: {width}px; height: 900px; border: 0"></iframe><script>
addEventListener("message", message => document.documentElement.dataset.measured = message.data)</script>"""
MEASURE = """<script>addEventListener("load", () => {
  const page = document.documentElement;
  const blank = [...document.images].filter(image => !image.naturalWidth).length;
  parent.postMessage([page.scrollWidth, page.clientWidth, document.images.length, blank].join(" "), "*");
})</script></head>"""

pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("runs", [1, 14])
def test_no_horizontal_overflow(runs: int, width: int, tmp_path: Path) -> None:
    regimes = ("b1", "b2", "sal", "sal-single", "no-ai-saliency", "tait", "segmenter")
    for i in range(runs):
        name = f"a-run-with-a-name-too-long-for-a-phone-{i}-" + "x" * 80
        make_run(
            tmp_path / "runs" / name, regime=regimes[i % 7], seed=i // 7, classes=("long " * 20, "b" * 99)
        )
    page = write([tmp_path / "runs"], tmp_path / "out")
    page.write_text(page.read_text().replace("</head>", MEASURE))
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width))

    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"]
    shown = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    measured = re.search(r'data-measured="(\d+) (\d+) (\d+) (\d+)"', shown)
    assert measured is not None
    scroll, client, images, blank = map(int, measured.groups())
    assert width - 20 <= client <= width
    assert scroll <= client
    assert images >= 4
    assert blank == 0
