"""The page in a real browser: nothing sticks out, is cut or overlaps at phone width or on a desktop."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from report_folders import let_people_answer, make_run

from sal_fast.report import write

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=20000"),
)
# Headless windows are never narrower than 500 px, so the page stands in a frame and tells the frame's owner.
FRAME = """<iframe src="index.html" style="width: {width}px; height: 900px; border: 0"></iframe><script>
addEventListener("message", message => document.documentElement.dataset.measured = message.data)</script>"""
# Everything folded is opened; a line of text is the rectangle of a text node on one line.
MEASURE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(details => details.open = true);
  const page = document.documentElement, lines = [], cut = [], overlaps = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, box = node.parentElement;
    if (!node.data.trim() || box.tagName == "SCRIPT") continue;
    const scrolls = box.closest(".scroll, .wide");
    if (getComputedStyle(box).display != "inline" && box.scrollWidth > box.clientWidth + 1 && !scrolls)
      cut.push(node.data.trim());
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) {
      if (rect.width < 1) continue;
      lines.push([rect, node]);
      const left = 0, right = page.clientWidth + 1;
      if (!scrolls && (rect.left < left || rect.right > right)) cut.push(node.data.trim());
    }
  }
  for (const image of document.images) lines.push([image.getBoundingClientRect(), image]);
  lines.sort((a, b) => a[0].top - b[0].top);
  const name = node => (node.data || node.alt).trim().slice(0, 60);
  for (let i = 0; i < lines.length; i++)
    for (let j = i + 1; j < lines.length && lines[j][0].top < lines[i][0].bottom - 2; j++) {
      const [a, of_a] = lines[i], [b, of_b] = lines[j];
      if (of_a != of_b && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1)
        overlaps.push([name(of_a), name(of_b)]);
    }
  const blank = [...document.images].filter(image => !image.naturalWidth).length;
  parent.postMessage(JSON.stringify({scroll: page.scrollWidth, client: page.clientWidth, cut, overlaps, blank,
    images: document.images.length, lines: lines.length}), "*");
})</script></head>"""
REGIMES = ("b1", "b2", "sal", "sal-single", "no-ai-saliency", "tait", "segmenter")

pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]


def measured(page: Path, width: int, profile: Path) -> dict[str, Any]:
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width))
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--window-size=1400,1000"]
    shown = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout
    found = re.search(r'data-measured="([^"]*)"', shown)
    assert found is not None
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer


@pytest.fixture(scope="module", params=[1, 14, 38])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports on one run, seven regimes, and all there is: budgets, people, probes, alphas, two data sets."""
    root = tmp_path_factory.mktemp("page")
    classes = ("long " * 20, "b" * 99)
    settings: list[dict[str, Any]] = [{"regime": r, "seed": s} for s in (0, 1) for r in REGIMES]
    more: list[dict[str, Any]] = [{"human_budget": h, "people": True} for h in (0.05, "auto")]
    more += [{"regime": r, "probe": "gradcam++"} for r in ("b1", "b2", "sal")]
    more += [{"regime": "b2", "alpha": a} for a in (0.1, 0.5)]
    more += [{"regime": r, "dataset": "data of a name too long for a phone " * 3} for r in REGIMES[:5]]
    settings += [{**setting, "seed": s} for s in (0, 1) for setting in more]
    for i, setting in enumerate(settings[: request.param]):
        name = f"a-run-with-a-name-too-long-for-a-phone-{i}-" + "x" * 80
        run = make_run(root / "runs" / name, classes=classes, **setting)
        if setting.get("people") and setting["seed"] == 0:
            let_people_answer(run)
    written = write([root / "runs"], root / "out")
    written.write_text(written.read_text().replace("</head>", MEASURE))
    return written


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_or_overlaps(page: Path, width: int, tmp_path: Path) -> None:
    found = measured(page, width, tmp_path / "profile")
    assert width - 20 <= found["client"] <= width
    assert found["scroll"] <= found["client"]
    assert found["images"] >= 4
    assert found["lines"] > 100
    assert found["blank"] == 0
    assert found["cut"] == []
    assert found["overlaps"] == []


def test_the_measure_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(
        f"<!DOCTYPE html><html><head>{MEASURE}<body style='margin: 0'><p style='width: 3em; overflow: hidden;"
        " white-space: nowrap'>a line that is cut</p><div>under</div><div style='margin-top: -1em'>over</div>"
    )
    found = measured(page, 400, tmp_path / "profile")
    assert "a line that is cut" in found["cut"]
    assert ["under", "over"] in found["overlaps"]
