"""What mask files mean: each kind is made on the spot, and becomes a map or is refused in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from sal_fast.data import check, decode, files, load_table, meaning, store
from sal_fast.data.meaning import Rule, Seen, judge
from sal_fast.data.reading import StoreOptions
from sal_fast.errors import InputError

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE]
BOX = (Y >= 16) & (Y < 40) & (X >= 8) & (X < 32)  # foreground
CORE = (Y >= 24) & (Y < 32) & (X >= 16) & (X < 24)  # a part of it
VOID = BOX & ~((Y >= 18) & (Y < 38) & (X >= 10) & (X < 30))  # its outline
FALL = np.exp(-((Y - 28) ** 2 + (X - 20) ** 2) / 200)  # 1 in the middle of the box
GREYS = np.rint(FALL * 255).astype(np.uint8)
PHOTO = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
LABELS = BOX * 1 + CORE * 1  # 0, 1, 2


def grey(pixels: np.ndarray, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(pixels.astype(dtype))


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    flat = [channel for colour in colours for channel in colour]
    image.putpalette(flat + [0] * (768 - len(flat)))
    return image


def coloured(*parts: tuple[np.ndarray, tuple[int, int, int]], on: tuple[int, int, int] = (0, 0, 0)) -> Any:
    pixels = np.full((SIDE, SIDE, 3), on, dtype=np.uint8)
    for where, colour in parts:
        pixels[where] = colour
    return Image.fromarray(pixels)


def layer(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.concatenate([colour, alpha[..., None]], axis=-1).astype(np.uint8))


def rendered(name: str) -> Image.Image:
    return grey(colormaps[name](FALL)[..., :3] * 255)


class Kind(NamedTuple):
    """A mask, and what becomes of it: the map, or a part of the message, or of a note."""

    image: Any
    expected: np.ndarray | str
    rule: dict[str, Any] = {}  # noqa: RUF012
    note: str = ""
    suffix: str = ".png"


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
BINARY = BOX * np.uint8(255)
KINDS = {
    # label maps
    "0 and 255": Kind(grey(BINARY), BINARY),
    "0 and 1": Kind(grey(BOX), BINARY),
    "0 and 7": Kind(grey(BOX * 7), BINARY),
    "one bit": Kind(Image.fromarray(BOX), BINARY),
    "labels 0, 1, 2": Kind(grey(LABELS), "few values, 0, 1, 2,"),
    "labels, --foreground 1,2": Kind(grey(LABELS), BINARY, {"foreground": "1,2"}),
    "labels, --foreground 1-5": Kind(grey(LABELS), BINARY, {"foreground": "1-5"}),
    "labels, --foreground 2": Kind(grey(LABELS), CORE * 255, {"foreground": "2"}),
    "labels, --foreground 0": Kind(grey(LABELS), ~BOX * 255, {"foreground": "0"}),
    "labels, --foreground grades": Kind(grey(LABELS), LABELS, {"foreground": "grades"}),
    "trimap 1, 2, 3": Kind(grey(3 - 2 * BOX + VOID), "few values, 1, 2, 3"),
    "trimap, --foreground 1": Kind(grey(3 - 2 * BOX + VOID), (BOX & ~VOID) * 255, {"foreground": "1"}),
    "trimap, --ignore": Kind(
        grey(3 - 2 * BOX + VOID), (BOX & ~VOID) * 255, {"foreground": "1", "ignore": "2"}, "are ignored"
    ),
    "trimap 1, 2": Kind(grey(2 - BOX), "few values, 1, 2"),
    "void 255": Kind(grey(np.where(VOID, 255, BOX * 15)), "few values, 0, 15, 255"),
    "void 255, --ignore 255": Kind(
        grey(np.where(VOID, 255, BOX * 15)), (BOX & ~VOID) * 255, {"ignore": "255"}, "are ignored"
    ),
    "small label and void": Kind(
        grey(np.where(CORE, 15, 255 * ((Y >= 50) & (Y < 54) & (X < 12)))), "few values, 0, 15, 255"
    ),
    "labels of 16 bits": Kind(grey(LABELS, np.uint16), "few values, 0, 1, 2"),
    "labels of 16 bits, --foreground": Kind(grey(LABELS, np.uint16), BINARY, {"foreground": "1,2"}),
    "labels of 32 bits, --foreground": Kind(
        grey(LABELS * 70_000, np.int32), BINARY, {"foreground": "70000,140000"}, suffix=".tif"
    ),
    "0 and 1 of 16 bits": Kind(grey(BOX, np.uint16), BINARY),
    "0 and 1 of 32 bits": Kind(grey(BOX, np.int32), BINARY, suffix=".tif"),
    # palettes
    "palette of one colour": Kind(palette(BOX, (0, 0, 0), (128, 0, 0)), BINARY),
    "palette of greys": Kind(palette(LABELS, (0, 0, 0), (128,) * 3, (255,) * 3), "few values, 0, 128, 255"),
    "palette that inverts": Kind(palette(~BOX, WHITE, (0, 0, 0)), BINARY),
    "palette of classes": Kind(palette(LABELS, (0, 0, 0), (128, 0, 0), (0, 128, 0)), "indices of a palette"),
    "palette of classes, --foreground": Kind(
        palette(LABELS, (0, 0, 0), (128, 0, 0), (0, 128, 0)), BINARY, {"foreground": "1,2"}
    ),
    "palette of classes, --foreground-colour": Kind(
        palette(LABELS, (0, 0, 0), (128, 0, 0), (0, 128, 0)), CORE * 255, {"foreground_colour": "0,128,0"}
    ),
    # degrees
    "degrees": Kind(grey(GREYS), GREYS),
    "degrees as a JPEG": Kind(grey(GREYS), "close", suffix=".jpg"),
    "binary as a JPEG": Kind(grey(BINARY), BINARY, suffix=".jpg"),
    "soft edges": Kind(grey(BINARY).resize((61, 61)).resize((SIDE, SIDE)), "close"),
    "average of three": Kind(grey((BOX * 1 + CORE * 2) * 85), "--foreground grades if"),
    "average of three, --foreground grades": Kind(
        grey((BOX * 1 + CORE * 2) * 85), (BOX * 1 + CORE * 2) * 85, {"foreground": "grades"}
    ),
    "degrees of 16 bits": Kind(grey(FALL * 65535, np.uint16), GREYS),
    "12 bits in 16": Kind(grey(FALL * 4095, np.uint16), FALL * 4095 / 257, {}, "65535 is white"),
    "12 bits in 16, --white 4095": Kind(grey(FALL * 4095, np.uint16), GREYS, {"white": 4095.0}),
    "more than white": Kind(grey(FALL * 65535, np.uint16), "expected 0 to 4095", {"white": 4095.0}),
    "fractions": Kind(grey(FALL, np.float32), GREYS, suffix=".tif"),
    "fractions with a low peak": Kind(grey(FALL / 4, np.float32), GREYS / 4, suffix=".tif"),
    "fractions up to 255": Kind(grey(FALL * 255, np.float32), "say with --white", suffix=".tif"),
    "fractions up to 255, --white": Kind(
        grey(FALL * 255, np.float32), GREYS, {"white": 255.0}, suffix=".tif"
    ),
    "degrees of 32 bits": Kind(grey(FALL * 1000, np.int32), "say --white", suffix=".tif"),
    "degrees of 32 bits, --white": Kind(
        grey(FALL * 1000, np.int32), GREYS, {"white": 1000.0}, suffix=".tif"
    ),
    "below 0": Kind(grey(FALL - 0.5, np.float32), "expected 0 to 1", suffix=".tif"),
    # colours and alpha
    "red on black": Kind(coloured((BOX, RED)), BINARY),
    "red on black as a JPEG": Kind(coloured((BOX, RED)), "close", suffix=".jpg"),
    "red of all degrees": Kind(Image.fromarray(GREYS[..., None] * np.uint8([1, 0, 0])), GREYS),
    "red on white": Kind(coloured((BOX, RED), on=WHITE), "2 colours"),
    "red on white, --foreground-colour": Kind(
        coloured((BOX, RED), on=WHITE), BINARY, {"foreground_colour": "#ff0000"}
    ),
    "red and green": Kind(coloured((BOX, RED), (CORE, GREEN)), "3 colours"),
    "red and green, --foreground-colour": Kind(
        coloured((BOX, RED), (CORE, GREEN)), BINARY, {"foreground_colour": "255,0,0;0,255,0"}
    ),
    "viridis": Kind(rendered("viridis"), "heat map"),
    "jet": Kind(rendered("jet"), "heat map"),
    "jet as a JPEG": Kind(rendered("jet"), "heat map", suffix=".jpg"),
    "paint on the photograph": Kind(grey(np.where(BOX[..., None], RED, PHOTO)), "paint"),
    "the photograph itself": Kind(Image.fromarray(PHOTO), "colours, expected grey", suffix=".jpg"),
    "grey with colours": Kind(Image.fromarray(np.repeat(GREYS[..., None], 3, 2)), GREYS),
    "white layer": Kind(layer(np.full((SIDE, SIDE, 3), 255), BINARY), BINARY, {}, "transparency is the map"),
    "black layer": Kind(layer(np.zeros((SIDE, SIDE, 3)), BINARY), BINARY),
    "layer of degrees": Kind(layer(np.full((SIDE, SIDE, 3), RED), GREYS), GREYS),
    "opaque": Kind(layer(np.repeat(BINARY[..., None], 3, 2), np.full((SIDE, SIDE), 255)), BINARY),
    "cut out": Kind(layer(PHOTO, BINARY), "colours, expected grey"),
    # coverage
    "full": Kind(grey(np.full((SIDE, SIDE), 255)), np.zeros((SIDE, SIDE)), {}, "says nothing of any place"),
    "flat": Kind(grey(np.full((SIDE, SIDE), 90)), np.zeros((SIDE, SIDE)), {}, "says nothing of any place"),
    "empty": Kind(grey(np.zeros((SIDE, SIDE))), np.zeros((SIDE, SIDE)), {}, " empty"),
    "inverted": Kind(grey(255 - BINARY), 255 - BINARY, {}, "most of the border is foreground"),
    "inverted, --foreground 0": Kind(grey(255 - BINARY), BINARY, {"foreground": "0"}),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three images, with plain masks but for the one that a test puts in."""
    for name in ("a", "b"):
        for folder in ("images", "masks"):
            (tmp_path / folder / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.roll(PHOTO, number, 0)).save(tmp_path / f"images/{name}/{number}.png")
            grey(BINARY).save(tmp_path / f"masks/{name}/{number}.png")
    return tmp_path


def put(root: Path, kind: Kind) -> None:
    (root / "masks/a/1.png").unlink()
    options = {"quality": 90} if kind.suffix == ".jpg" else {}
    kind.image.save(root / f"masks/a/1{kind.suffix}", **options)


@pytest.mark.parametrize("decoder", ["pillow", "torch", "dali"])
@pytest.mark.parametrize("name", KINDS)
def test_each_kind(root: Path, name: str, decoder: Any) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    kind = KINDS[name]
    put(root, kind)
    if kind.rule.get("foreground") == "0":  # for all masks of the set
        for path in root.glob("masks/*/[02].png"):
            grey(255 - BINARY).save(path)
    table = load_table(str(root), rule=Rule.of(**kind.rule)).with_split(["train"] * 6)
    decoding = decode.choose(decoder, torch.device("cpu"))
    options = StoreOptions(SIDE, 0, decoding)
    found = check.look(str(root), rule=Rule.of(**kind.rule), allow_leaks=True)
    if isinstance(kind.expected, str) and kind.expected != "close":
        assert any(kind.expected in problem for problem in found.problems), found.problems
        with pytest.raises(InputError, match=kind.expected):
            store.build(table, options)
        return
    assert found.problems == []
    assert any(kind.note in note for note in found.notes)
    (row,) = [row for row, one in enumerate(table.ids) if one == "a/1"]
    got = store.build(table, options).masks.unpack(torch.tensor([row]))[0].numpy().astype(float)
    if isinstance(kind.expected, str):  # compression or a resize moved some grey levels
        assert np.abs(got - (GREYS if "degrees" in name else BINARY)).mean() < 4
    elif kind.suffix == ".jpg":
        assert (got != kind.expected).mean() < 0.02
    else:
        assert np.abs(got - kind.expected).max() <= 1


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 60


@pytest.mark.parametrize(
    ("image", "orientation", "note"),
    [(None, 6, "turned as that is"), (None, 3, "nobody can tell"), (6, 6, ""), (3, 3, "")],
)
def test_masks_of_photographs_that_exif_turns(
    root: Path, image: int | None, orientation: int, note: str
) -> None:
    """A mask without EXIF was drawn on stored pixels, or it cannot be told; one with EXIF turns by itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = Image.fromarray(PHOTO[:48])
    wide.save(root / "images/a/1.png", exif=exif)
    stored = grey(BINARY[:48])
    stored.save(root / "masks/a/1.png", **({} if image is None else {"exif": exif}))
    found = check.look(str(root), allow_leaks=True)
    assert found.problems == []
    assert any(note in one and "a/1.png" in one for one in found.notes) or not note
    assert not (not note and any("EXIF" in one for one in found.notes))
    table = load_table(str(root)).with_split(["train"] * 6)
    options = StoreOptions(SIDE, 0, decode.choose("pillow", torch.device("cpu")))
    got = store.build(table, options).masks.unpack(torch.tensor([1]))[0].numpy()
    turn: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        6: lambda a: np.rot90(a, -1), 3: lambda a: np.rot90(a, 2)
    }  # fmt: skip
    shown = BINARY[:48] if orientation == 3 and image is None else turn[orientation](BINARY[:48])
    exact = Image.fromarray(np.ascontiguousarray(shown)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    assert np.array_equal(got, np.asarray(exact))


RIGHT = (Y >= 16) & (Y < 40) & (X >= 40) & (X < 56)  # another object
LAYOUTS = {  # the masks of image a/1, its map, and a part of the note or of the problem
    "objects": ({"1_0": BOX, "1_1": RIGHT}, (BOX | RIGHT) * 255, "which are united"),
    "objects that touch": ({"1_0": BOX, "1_1": CORE}, BOX * 255, "which are united"),
    "annotators": ({"1/ann": BOX, "1/ben": CORE}, np.where(CORE, 255, BOX * 128), "which are averaged"),
    "one saw all of it": ({"1/ann": BOX, "1/ben": BOX | True}, 128 + BOX * 127, "says more"),
    "nobody saw a place": ({"1/ann": ~BOX & False, "1/ben": BOX | True}, BOX * 0, "says more"),
    "objects in a folder": ({"1/ann": BOX, "1/ben": RIGHT}, None, "never overlap"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_several_masks_of_an_image(root: Path, name: str) -> None:
    masks, expected, said = LAYOUTS[name]
    (root / "masks/a/1.png").unlink()
    for place, mask in masks.items():
        path = root / f"masks/a/{place}.png"
        path.parent.mkdir(exist_ok=True)
        grey(mask * 255).save(path)
    found = check.look(str(root), allow_leaks=True)
    table = load_table(str(root)).with_split(["train"] * 6)
    options = StoreOptions(SIDE, 0, decode.choose("pillow", torch.device("cpu")))
    if expected is None:
        assert any(said in problem for problem in found.problems)
        with pytest.raises(InputError, match=said):
            store.build(table, options)
        return
    assert found.problems == []
    assert any(said in note for note in found.notes)
    got = store.build(table, options).masks.unpack(torch.tensor([1]))[0].numpy()
    assert np.array_equal(got, expected)


def test_a_set_without_a_useful_mask_is_refused(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        grey(np.full((SIDE, SIDE), 255)).save(path)
    (problem,) = check.look(str(root), allow_leaks=True).problems
    assert "no mask says anything: 6 full" in problem


def test_the_verdict_is_of_the_whole_set() -> None:
    """One file of 0 and 255 between files of 0 and 1 changes nothing; labels need not be in every file."""
    plain = ("a", Seen("binary", (0, 255), 0.2))
    assert judge([plain, ("b", Seen("binary", (0, 1), 0.2))], Rule()).problems == []
    several = judge([plain, ("b", Seen("binary", (0, 15), 0.2))], Rule())
    assert several.problems == []
    assert "every value but 0 is foreground (15, 255)" in several.notes[0]
    assert "values, 0, 3, 9" in judge([plain, ("b", Seen("graded", (0, 3, 9), 0.2))], Rule()).problems[0]
    assert judge([plain, ("b", Seen("graded", (0, 85, 170, 255), 0.2))], Rule(grades=True)).problems == []


@pytest.mark.parametrize(
    ("kind", "rule", "note"),
    [
        ("0 and 255", {"foreground": "1"}, r"1 mask, .*a/1.png: empty, because no pixel is of --foreground;"),
        ("0 and 255", {"ignore": "255"}, r"6 masks, .*: empty, because nothing is foreground;"),
        ("degrees", {"foreground": "255"}, r"1 mask, .*a/1.png: they have many values or are JPEGs, and"),
        ("binary as a JPEG", {"foreground": "255"}, r"1 mask, .*a/1.jpg: they have many values or are JPEGs"),
    ],
)
def test_masks_that_a_rule_does_not_fit_are_named(
    root: Path, kind: str, rule: dict[str, str], note: str
) -> None:
    put(root, KINDS[kind])
    if rule == {"foreground": "1"}:
        for path in root.glob("masks/*/*.png"):
            if path != root / "masks/a/1.png":
                grey(BOX).save(path)
    found = check.look(str(root), rule=Rule.of(**rule), allow_leaks=True)
    assert any(re.match(note, line) for line in found.notes), found.notes


def test_maps_of_two_scales_are_both_named() -> None:
    small, large = (Seen("graded", depth="fractions", peak=peak) for peak in (1.0, 255.0))
    (*_, note) = judge([("a", small), ("b", large)], Rule(white=255.0)).notes
    assert note.endswith("255 is white, the largest is 255 (b); in a the largest is 1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foreground": "x"}, "--foreground 'x': expected values of pixels"),
        ({"ignore": "1-"}, "--ignore '1-': expected values"),
        ({"foreground_colour": "red"}, "--foreground-colour 'red': expected a colour"),
        ({"foreground_colour": "1,2,300"}, "expected a colour"),
        ({"foreground": "1", "ignore": "1,2"}, "1 is in both"),
        ({"foreground": "1", "foreground_colour": "1,2,3"}, "leave one out"),
    ],
)
def test_rules_that_cannot_be_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rule.of(**options)


def test_what_was_seen_survives_an_index() -> None:
    seen = Seen("graded", (0.0, 1.0), 0.25, 0.5, 0.125, "16 bits", 400.0, ("turned",))
    assert Seen.from_json(seen.to_json()) == seen
    assert Seen.from_json(Seen("empty").to_json()) == Seen("empty")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(8))
def test_random_mixtures_are_right_or_refused(tmp_path: Path, seed: int) -> None:
    """Sets of four masks of any kinds: every map is right, or the set is refused in words."""
    rng = np.random.default_rng(seed)
    plain = [name for name, kind in KINDS.items() if not kind.rule]
    for index in range(250):
        root = tmp_path / str(index)
        names = [str(name) for name in rng.choice(plain, 4)]
        for folder in ("images/a", "masks/a"):
            (root / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            kind = KINDS[name]
            Image.fromarray(PHOTO).save(root / f"images/a/{number}.png")
            kind.image.save(root / f"masks/a/{number}{kind.suffix}")
        found = check.look(str(root), allow_leaks=True)
        problems = [line for line in found.problems if "split" not in line]
        wrong = [name for name in names if isinstance(KINDS[name].expected, str)]
        refused = [name for name in wrong if KINDS[name].expected != "close"]
        useless = all(np.ptp(KINDS[name].expected) == 0 for name in names if name not in wrong)
        assert bool(problems) == bool(refused or (useless and not wrong)), (names, problems)
        for name in names:
            note = KINDS[name].note
            assert not note or problems or any(note in one for one in found.notes), (names, found.notes)
        for number, name in enumerate(names):
            if not problems and name not in wrong:
                file = files.read(root / f"masks/a/{number}{KINDS[name].suffix}")
                read = meaning.read(file, files.grades(file), SIDE)
                got = meaning.joined([read], united=False).astype(float)
                assert np.abs(got - KINDS[name].expected).mean() <= (4 if file.plain else 1), name
