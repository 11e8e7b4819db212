"""Six ways in which people paint a mask: what `sal-fast data check` says of each, and its page of maps.

docs/data.md has the same ways on 300 photographs, with the lines that were printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image, ImageFilter

from sal_fast.cli import main
from sal_fast.data import decode, load_table, store
from sal_fast.data.meaning import Rule
from sal_fast.data.reading import StoreOptions

SIDE = 48
PHOTOGRAPHS, MASKS = 24, 12
Painter = Callable[[np.ndarray, np.ndarray], np.ndarray]


def grey(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8)


def blurred(drawn: np.ndarray, radius: int) -> np.ndarray:
    soft = Image.fromarray(grey(drawn * 255)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft, dtype=float) / 255


def brushed(drawn: np.ndarray, photograph: np.ndarray) -> np.ndarray:
    """Half-transparent red with a soft edge, on the photograph."""
    weight = blurred(drawn, 1)[..., None] / 2
    return grey(photograph * (1 - weight) + np.array([255, 0, 0]) * weight)


def outlined(drawn: np.ndarray, photograph: np.ndarray) -> np.ndarray:
    """A label map: 1 is the object, 2 its outline."""
    inner = np.asarray(Image.fromarray(grey(drawn * 255)).filter(ImageFilter.MinFilter(5))) > 0
    return grey(np.where(drawn & ~inner, 2, drawn))


WAYS: dict[str, Painter] = {
    "white on black": lambda drawn, photograph: grey(drawn * 255),
    "black on white": lambda drawn, photograph: grey(~drawn * 255),
    "0 and 1": lambda drawn, photograph: grey(drawn),
    "paint on the photograph": brushed,
    "heat map": lambda drawn, photograph: grey(colormaps["jet"](blurred(drawn, 4))[..., :3] * 255),
    "labels": outlined,
}
MANY = r"12 files: a picture of many colours"
SAID = {  # exit status, and what is said
    "white on black": (0, r"masks: 12 binary; every value but 0 is foreground \(255\); .* 0% of its border"),
    "black on white": (
        0,
        r"12 masks, .*: most of the border is foreground; they look inverted.*--foreground 0",
    ),
    "0 and 1": (0, r"masks: 12 binary; every value but 0 is foreground \(1\)"),
    "paint on the photograph": (2, MANY + ".*paint on the photograph.*the paint alone, white on black"),
    "heat map": (2, MANY + ".*a heat map.*as it was before it was coloured, in grey"),
    "labels": (2, r"12 of 12 masks have few values, 0, 1, 2, .*--foreground 1.*--ignore 2"),
}


def shape(number: int) -> np.ndarray:
    """An ellipse that does not touch the border."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    high, wide = 8 + number % 5, 14 - number % 7
    return ((rows - 24) / high) ** 2 + ((columns - 22 - number % 3) / wide) ** 2 < 1


def paint(root: Path, ways: list[str]) -> None:
    """Write two classes of photographs, every second with a mask; the ways take turns."""
    for number in range(PHOTOGRAPHS):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        place = f"{'moth' if number % 4 < 2 else 'wasp'}/{number:02d}.png"
        for folder, content in (
            ("images", pixels),
            ("masks", WAYS[ways[number // 2 % len(ways)]](shape(number), pixels)),
        ):
            if folder == "images" or number % 2 == 0:
                (root / folder / place).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(root / folder / place)


def maps(root: Path, rule: Rule) -> np.ndarray:
    table = load_table(str(root), rule=rule).with_split(["train"] * PHOTOGRAPHS)
    made = store.build(table, StoreOptions(SIDE, 0, decode.choose("pillow", torch.device("cpu"))))
    rows = torch.tensor([row for row, mask in enumerate(table.masks) if mask is not None])
    return made.masks.unpack(rows).numpy()


@pytest.mark.parametrize("way", WAYS)
def test_one_way(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    paint(tmp_path, [way])
    status, said = SAID[way]
    assert main(["data", "check", str(tmp_path)]) == status
    out = capsys.readouterr().out
    assert re.search(said, out)
    assert ("0 problems that" if status == 0 else "1 problem that") in out
    assert way == "white on black" or not re.search(SAID["white on black"][1], out)


@pytest.mark.parametrize(
    ("way", "rule"),
    [
        ("0 and 1", Rule()),
        ("black on white", Rule.of(foreground="0")),
        ("labels", Rule.of(foreground="1,2")),
    ],
)
def test_the_way_out_gives_the_masks_of_white_on_black(tmp_path: Path, way: str, rule: Rule) -> None:
    paint(tmp_path / "right", ["white on black"])
    paint(tmp_path / "other", [way])
    assert np.array_equal(maps(tmp_path / "other", rule), maps(tmp_path / "right", Rule()))


def test_all_ways_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each way is said once, and the page shows the refused files first, then the odd maps."""
    paint(tmp_path / "set", list(WAYS))
    page = tmp_path / "page.html"
    assert main(["data", "check", str(tmp_path / "set"), "--preview", str(page)]) == 2
    out = capsys.readouterr().out
    for line in (
        r"note: masks: 6 binary, 2 of few values; every value but 0 is foreground \(1, 255\)",
        r"note: 2 masks, .*most of the border is foreground; they may be inverted: look at them",
        r"\n4 files: a picture of many colours",
        r"\n2 of 8 masks have few values, .*--foreground 1,255, .*--ignore 2",
        r"2 problems that a run would refuse, 3 notes above",
    ):
        assert len(re.findall(line, out)) == 1, line
    cards = page.read_text().split("<li")[-12:]
    reasons = [match[1] if (match := re.search("<strong>(.*?)</strong>", card)) else "" for card in cards]
    assert reasons[:4] == ["refused: this is the mask file itself"] * 4
    assert sorted(reasons[4:8]) == [
        "few values, perhaps labels: 0, 1, 2", "few values, perhaps labels: 0, 1, 2",
        "most of the border is foreground: inverted?", "most of the border is foreground: inverted?",
    ]  # fmt: skip
    assert reasons[8:] == [""] * 4


def test_an_option_that_empties_masks_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path, ["white on black", "0 and 1"])
    assert main(["data", "check", str(tmp_path), "--foreground", "1"]) == 0
    assert re.search(r"6 masks, .*: empty, because no pixel is of --foreground", capsys.readouterr().out)


def test_labels_beside_masks_in_255(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """255 is void in some files and foreground in most: no option can tell both."""
    paint(tmp_path, ["white on black"])
    path = sorted(tmp_path.glob("masks/*/*.png"))[0]
    labels = np.asarray(Image.open(path)).copy()
    labels[labels > 0] = 15
    labels[24, :] = labels[23, :] = labels[22, :] = 255
    Image.fromarray(labels).save(path)
    assert main(["data", "check", str(tmp_path)]) == 2
    said = "255 is foreground in most masks: save these as those are, with 0 and 255"
    assert said in capsys.readouterr().out
