"""Folders made at random, as people have them, with what each image shows: its class, its split and its map.

A picture is divided into 8 x 8 cells, and its map has one grade for each of them. So the map is the same at
every size, and no resize is needed to compare it.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sal_fast.data.readers.brush_code import encode

Rng = np.random.Generator
CELLS = 8
SIDES = (64, 72, 80, 96)
LABELS = ("cat", "dog", unicodedata.normalize("NFC", "Bär"), "Common Tern")
WORDS = {
    "train": ("train", "Train", "training", "TRAIN"),
    "val": ("val", "valid", "validation", "Valid"),
    "test": ("test", "testing", "Test", "test"),
}
RED, GREEN, WHITE = (200, 10, 30), (0, 128, 0), (255, 255, 255)


@dataclass(frozen=True)
class Photo:
    """One image, upright, and its foreground.

    cells: bool [8, 8], a rectangle inside the picture, so that every format can say it.
    stem, suffix: of its file. turned: its orientation in EXIF. drawn_turned: its mask was drawn on the pixels
    as they are stored.
    """

    stem: str
    label: str
    split: str
    cells: np.ndarray
    size: tuple[int, int]
    suffix: str = ".png"
    turned: int = 1
    drawn_turned: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom in pixels; the last two are not in it."""
        height, width = (side // CELLS for side in self.size)
        rows, columns = np.flatnonzero(self.cells.any(1)), np.flatnonzero(self.cells.any(0))
        return (
            int(columns[0] * width),
            int(rows[0] * height),
            int((columns[-1] + 1) * width),
            int((rows[-1] + 1) * height),
        )

    def pixels(self, cells: np.ndarray) -> np.ndarray:
        """Cells at the size of the picture."""
        return np.kron(cells, np.ones((self.size[0] // CELLS, self.size[1] // CELLS), dtype=cells.dtype))

    def stored(self, upright: np.ndarray) -> np.ndarray:
        """Upright pixels as a camera stores them."""
        return np.ascontiguousarray(np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: -1}[self.turned]))


class Truth(NamedTuple):
    """What an image shows.

    map: uint8 [8, 8], or None if it has none. excuse: words of the note without which another map is wrong;
    without any, no note excuses one.
    """

    label: str
    split: str
    map: np.ndarray | None
    excuse: str = ""
    near: float = 1.0  # grey levels that the map may be off, on average


@dataclass
class Folder:
    """A folder, and the truth of every image in it, by its path.

    data: what `--data` names. rule: options about masks. columns, format: options about files.
    excuses: words of notes that excuse a difference of the whole folder, by `image`, `map`, `label`, `split`.
    story: how it was made.
    """

    root: Path
    data: Path
    rule: dict[str, Any] = field(default_factory=dict)
    columns: str = ""
    truth: dict[Path, Truth] = field(default_factory=dict)
    excuses: dict[str, list[str]] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)

    def excuse(self, what: str, words: str) -> None:
        self.excuses.setdefault(what, []).append(words)


def make(root: Path, seed: int) -> Folder:
    """Make the folder of a seed."""
    rng = np.random.default_rng(seed)
    folder = Folder(root, root)
    root.mkdir(parents=True, exist_ok=True)
    layout = str(pick(rng, LAYOUTS if rng.random() < 0.4 else OFTEN))
    folder.story.append(layout)
    photos = some_photos(rng, folder)
    LAYOUTS[layout](rng, folder, photos)
    for _ in range(int(rng.choice([0, 0, 1, 1, 2]))):
        stray = pick(rng, STRAYS)
        folder.story.append(stray)
        STRAYS[stray](rng, folder)
    return folder


def pick(rng: Rng, choices: Any) -> Any:
    several = list(choices)
    return several[int(rng.integers(len(several)))]


def some_photos(rng: Rng, folder: Folder) -> list[Photo]:
    """Six to eight photographs of two classes; each class has three at least, one for each split."""
    labels = [str(label) for label in rng.choice(LABELS, 2, replace=False)]
    turned, sides = rng.random() < 0.15, SIDES if rng.random() < 0.4 else [pick(rng, SIDES)]
    photos = []
    for number in range(int(rng.integers(6, 9))):
        top, left = rng.integers(1, 4, 2)
        cells = np.zeros((CELLS, CELLS), dtype=bool)
        cells[top : top + rng.integers(2, 5), left : left + rng.integers(2, 5)] = True
        size = (int(pick(rng, sides)), int(pick(rng, sides)))
        exif = int(rng.choice([1, 3, 6, 8])) if turned else 1
        suffix = ".jpg" if exif != 1 else str(rng.choice([".png", ".jpg", ".JPG", ".bmp", ".tif", ".jpeg"]))
        split = ("train", "val", "test")[number // 2 % 3]
        stem = f"{pick(rng, ('img', 'IMG_', 'Foto ü', 'scan.v'))}{number:03d}"
        photos.append(Photo(stem, labels[number % 2], split, cells, size, suffix, exif, rng.random() < 0.5))
    if rng.random() < 0.2:  # a name that looks like another's mask, or its second instance
        stem = photos[0].stem + pick(rng, ("_1", "_mask", "_seg"))
        photos[2] = replace(photos[2], stem=stem)
        folder.excuse("image", "named like a mask, and its image")
        folder.excuse("map", "another mask fits its image better|names have an ending, such as _mask")
    return photos


def write_photo(rng: Rng, path: Path, photo: Photo) -> None:
    """A picture of fine noise, which has no look that others could have too."""
    base = rng.integers(60, 180, 3)
    noise = rng.integers(0, 12, (*photo.size, 3)) + base
    image = Image.fromarray(photo.stored(noise.astype(np.uint8)))
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if photo.turned != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = photo.turned
    image.save(path, **options)


# --- masks


class Drawn(NamedTuple):
    """What a mask file holds, and what it means: a map with one grade for each cell."""

    image: Any  # pixels or a Pillow image
    map: np.ndarray
    excuse: str = ""
    suffixes: tuple[str, ...] = (".png",)
    near: float = 1.0


class Kind(NamedTuple):
    draw: Callable[[Rng, Photo], Drawn]
    rules: tuple[dict[str, Any], ...] = ({},)


def full(cells: np.ndarray) -> np.ndarray:
    return cells.astype(np.uint8) * np.uint8(255)


def ring(photo: Photo) -> np.ndarray:
    """The cells around the foreground."""
    wide = photo.cells.copy()
    wide[:-1] |= photo.cells[1:]
    wide[1:] |= photo.cells[:-1]
    wide[:, :-1] |= wide[:, 1:].copy()
    wide[:, 1:] |= wide[:, :-1].copy()
    return wide & ~photo.cells


LOSSLESS = (".png", ".PNG", ".bmp", ".tif")


def two(value: int, other: int = 0, suffixes: tuple[str, ...] = LOSSLESS) -> Kind:
    def draw(rng: Rng, photo: Photo) -> Drawn:
        pixels = photo.pixels(np.where(photo.cells, value, other).astype(np.uint8))
        return Drawn(pixels, full(photo.cells), "", suffixes, 6.0 if ".jpg" in suffixes else 1.0)

    return Kind(draw)


def valued(inside: int, around: int, outside: int, *rules: dict[str, Any], palette: bool = False) -> Kind:
    """A label map whose value `inside` is foreground; the rules say so. Without one it has to be refused."""

    def draw(rng: Rng, photo: Photo) -> Drawn:
        labels = np.where(photo.cells, inside, np.where(ring(photo), around, outside)).astype(np.uint8)
        image: Any = photo.pixels(labels)
        if palette:
            image = Image.fromarray(image)
            colours = np.random.default_rng(1).integers(1, 256, (256, 3), dtype=np.uint8)
            colours[[outside, inside, around]] = (0, 0, 0), GREEN, (224, 224, 192)
            image.putpalette(colours.ravel().tolist())
        return Drawn(image, full(photo.cells))

    return Kind(draw, ({}, *rules))


def graded(dtype: type, top: float, *rules: dict[str, Any], excuse: str = "") -> Kind:
    """Degrees of the type, with `top` for white, which the rules say."""

    def draw(rng: Rng, photo: Photo) -> Drawn:
        degrees = np.where(photo.cells | ring(photo), rng.uniform(0.05, 0.95, (CELLS, CELLS)), 0)
        fine = photo.pixels(degrees) + rng.uniform(-0.02, 0.02, photo.size)  # more values than labels have
        numbers = (np.where(photo.pixels(degrees) > 0, fine, 0) * top).astype(dtype)
        suffixes = (".tif",) if dtype == np.float32 else (".png", ".tif")
        return Drawn(numbers, np.rint(degrees * 255).astype(np.uint8), excuse, suffixes, 1.5)

    return Kind(draw, ({}, *rules))


def coloured(*rules: dict[str, Any], inside: Any, around: Any = (0, 0, 0), outside: Any = (0, 0, 0)) -> Kind:
    def draw(rng: Rng, photo: Photo) -> Drawn:
        cells = np.where(
            photo.cells[..., None], inside, np.where(ring(photo)[..., None], around, outside)
        ).astype(np.uint8)
        pixels = np.stack(
            [photo.pixels(np.ascontiguousarray(cells[..., c])) for c in range(cells.shape[2])], -1
        )
        return Drawn(pixels, full(photo.cells))

    return Kind(draw, ({}, *rules))


def inverted(rng: Rng, photo: Photo) -> Drawn:
    return Drawn(photo.pixels(full(~photo.cells)), full(photo.cells), "most of the border is foreground")


def flat(rng: Rng, photo: Photo) -> Drawn:
    grey = np.full((CELLS, CELLS), int(rng.integers(1, 256)), dtype=np.uint8)
    return Drawn(photo.pixels(grey), np.full((CELLS, CELLS), 255, np.uint8), "says nothing of any place")


def empty(rng: Rng, photo: Photo) -> Drawn:
    return Drawn(photo.pixels(np.zeros((CELLS, CELLS), np.uint8)), np.zeros((CELLS, CELLS), np.uint8))


def small_void(rng: Rng, photo: Photo) -> Drawn:
    """One cell of a label, void beside it; either is smaller than the outline of the picture is long."""
    labels = np.zeros((CELLS, CELLS), np.uint8)
    labels[3, 3:5] = 15, 255
    return Drawn(photo.pixels(labels), full(labels == 15))


def heat(rng: Rng, photo: Photo) -> Drawn:
    y, x = np.mgrid[: photo.size[0], : photo.size[1]]
    pixels = np.stack([x * 255 // photo.size[1], y * 255 // photo.size[0], 255 - x], -1).astype(np.uint8)
    return Drawn(pixels, full(photo.cells))


def one_bit(rng: Rng, photo: Photo) -> Drawn:
    return Drawn(photo.pixels(photo.cells), full(photo.cells))


def array(dtype: type, top: float) -> Kind:
    def draw(rng: Rng, photo: Photo) -> Drawn:
        return Drawn(photo.pixels(photo.cells.astype(dtype) * dtype(top)), full(photo.cells), "", (".npy",))

    return Kind(draw)


KINDS: dict[str, Kind] = {
    "0 and 255": two(255),
    "0 and 1": two(1),
    "0 and 7": two(7),
    "0 and 255, JPEG": two(255, suffixes=(".jpg",)),
    "one bit": Kind(one_bit),
    "trimap 1, 2": valued(1, 2, 2, {"foreground": "1"}),
    "trimap 1, 2, 3": valued(1, 3, 2, {"foreground": "1"}, {"foreground": "1", "ignore": "3"}),
    "labels": valued(2, 1, 0, {"foreground": "2"}),
    "void": valued(15, 255, 0, {"ignore": "255"}, {"foreground": "15"}),
    "palette with void": valued(
        15, 255, 0, {"ignore": "255"}, {"foreground": "15"}, {"foreground_colour": "0,128,0"}, palette=True
    ),
    "labels in RGB": coloured({"foreground": "2"}, inside=(2, 2, 2), around=(1, 1, 1)),
    "void, small": Kind(small_void),
    "one hue": coloured(inside=RED),
    "two colours": coloured({"foreground_colour": "#c80a1e"}, inside=RED, around=GREEN),
    "on white": coloured({"foreground_colour": "200,10,30"}, inside=RED, outside=WHITE, around=WHITE),
    "white layer": coloured(inside=(*WHITE, 255), around=(*WHITE, 0), outside=(*WHITE, 0)),
    "translucent layer": coloured(inside=(255, 0, 0, 128), around=(0, 0, 0, 0), outside=(0, 0, 0, 0)),
    "black layer": coloured(inside=(0, 0, 0, 255), around=(0, 0, 0, 0), outside=(0, 0, 0, 0)),
    "opaque": coloured(inside=(255, 255, 255, 255), around=(0, 0, 0, 255), outside=(0, 0, 0, 255)),
    "degrees": graded(np.uint8, 255),
    "16 bits": graded(np.uint16, 65535),
    "12 bits in 16": graded(np.uint16, 4095, {"white": 4095.0}, excuse="65535 is white, the largest is"),
    "fractions": graded(np.float32, 1),
    "fractions up to 255": graded(np.float32, 255, {"white": 255.0}),
    "inverted": Kind(inverted, ({}, {"foreground": "0"})),
    "flat": Kind(flat),
    "empty": Kind(empty),
    "heat map": Kind(heat),
    "array of bool": array(np.bool_, 1),
    "array of 0 and 1": array(np.int64, 1),
    "array of fractions": array(np.float64, 1),
}  # fmt: skip
USUAL = ("0 and 255", "0 and 1", "one bit", "0 and 255, JPEG", "degrees", "white layer")


def some_kinds(rng: Rng, folder: Folder) -> list[str]:
    """One kind for all masks, or a mixture; sometimes with the rule that one of them needs."""
    kinds = [
        str(pick(rng, KINDS if rng.random() < 0.6 else USUAL))
        for _ in range(int(rng.choice([1, 1, 1, 2, 3])))
    ]
    none, *rules = KINDS[kinds[0]].rules
    folder.rule = pick(rng, rules) if rules and rng.random() < 0.8 else none
    if folder.rule and len(set(kinds)) > 1:  # a rule that one kind needs, and that others do not follow
        folder.excuse(
            "map",
            "no pixel is of --foreground|nothing is foreground|their values for labels|are ignored|"
            "most of the border|the largest is",
        )
    folder.story += [*kinds, str(folder.rule)]
    return kinds


def write_mask(path: Path, image: Any) -> None:
    """Write pixels to a file, in the format that its name has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
        return
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))


def either(*words: str) -> str:
    return "|".join(filter(None, words))


def draw(rng: Rng, photo: Photo, kind: str) -> Drawn:
    """The mask of a photograph, perhaps at twice its size, or drawn on its pixels as they are stored."""
    drawn = KINDS[kind].draw(rng, photo)
    image = drawn.image
    if isinstance(image, np.ndarray) and rng.random() < 0.1:
        image = image.repeat(2, axis=0).repeat(2, axis=1)
    if isinstance(image, np.ndarray) and rng.random() < 0.01:
        image = image[:, : image.shape[1] // 2]  # not this photograph's
    if photo.turned == 1 or not photo.drawn_turned:
        return drawn._replace(image=image)
    if isinstance(image, Image.Image):
        image = image.rotate({3: 180, 6: 90, 8: -90}[photo.turned], expand=True)
    else:
        image = photo.stored(image)
    undecidable = photo.turned == 3 or photo.size[0] == photo.size[1]
    return drawn._replace(image=image, excuse=either(drawn.excuse, "nobody can tell" * undecidable))


# --- several masks of one image


def alone(rng: Rng, photo: Photo, drawn: Drawn, name: str) -> tuple[dict[str, Any], Truth]:
    files = {name + pick(rng, drawn.suffixes): drawn.image}
    return files, Truth(photo.label, photo.split, drawn.map, drawn.excuse, drawn.near)


def annotators(rng: Rng, photo: Photo, drawn: Drawn, name: str) -> tuple[dict[str, Any], Truth]:
    """A folder with a mask by each of two or three people; the map is their mean."""
    cells = [np.roll(photo.cells, int(rng.integers(-1, 2)), 0) for _ in range(int(rng.integers(2, 4)))]
    files = {
        f"{name}/{pick(rng, ('Ann', 'b', '0'))}{n}.png": photo.pixels(full(one))
        for n, one in enumerate(cells)
    }
    mean = np.rint(np.mean([full(one) for one in cells], axis=0)).astype(np.uint8)
    undecidable = photo.turned != 1
    return files, Truth(photo.label, photo.split, mean, "nobody can tell" * undecidable)


def instances(rng: Rng, photo: Photo, drawn: Drawn, name: str) -> tuple[dict[str, Any], Truth]:
    """Numbered files of one image; the map is their union."""
    other = np.roll(photo.cells, 1, 1)
    ending, start = pick(rng, ("_", "_mask_", "-mask-")), int(rng.integers(2))
    endings = [f"{ending}{start}", f"{ending}{start + 1}"]
    if ending != "_" and rng.random() < 0.5:  # as in BUSI, name_mask.png and name_mask_1.png
        endings[0] = ending[:-1]
    both = zip(endings, (photo.cells, other), strict=True)
    files = {f"{name}{end}.png": photo.pixels(full(one)) for end, one in both}
    return files, Truth(
        photo.label, photo.split, full(photo.cells | other), "nobody can tell" * (photo.turned != 1)
    )


SEVERAL = (alone, annotators, instances)
STYLES: dict[str, Callable[[str], str]] = {
    "same": lambda name: name,
    "_mask": lambda name: name + "_mask",
    "_Mask": lambda name: name + "_Mask",
    "_segmentation": lambda name: name + "_segmentation",
    "_seg": lambda name: name + "_seg",
    "-mask": lambda name: name + "-mask",
    ".jpg": lambda name: name + ".jpg",
    "upper": str.upper,
    "lower": str.lower,
    "NFD": lambda name: unicodedata.normalize("NFD", name),
    "_gt": lambda name: name + "_gt",
}


def add_with_mask(
    rng: Rng, folder: Folder, photo: Photo, image: Path, masks: Path, style: str, kind: str
) -> None:
    """Write an image and its mask or masks, and note the truth."""
    write_photo(rng, image, photo)
    missing = rng.random() < 0.05
    if missing:
        folder.truth[image] = Truth(photo.label, photo.split, None)
        return
    how = pick(rng, SEVERAL) if rng.random() < 0.2 and not folder.rule else alone
    files, truth = how(rng, photo, draw(rng, photo, kind), STYLES[style](image.stem))
    if how is not alone:
        folder.story.append(how.__name__)
    for name, pixels in files.items():
        write_mask(masks / name, pixels)
    folder.truth[image] = truth


# --- layouts


def in_folders(
    place: str, masks: str, split_words: bool = False
) -> Callable[[Rng, Folder, list[Photo]], None]:
    """A layout whose images and masks lie in folders: {label}, {split} and {other}, another word for it."""

    def write(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
        kinds, style = some_kinds(rng, folder), str(pick(rng, STYLES))
        if place == masks:
            style = str(pick(rng, ("_mask", "_segmentation", "-mask", "_Mask")))
        folder.story.append(style)
        words = {
            split: (word := pick(rng, WORDS[split]), pick(rng, (word, *WORDS[split]))) for split in WORDS
        }
        if rng.random() < 0.1:
            words["val"] = ("dev", "dev")
        if rng.random() < 0.1:
            photos = [replace(photo, split="train") for photo in photos]
        if "{split}" not in place:
            photos = [replace(photo, split="") for photo in photos]
        if "{label}" not in place:
            photos = [replace(photo, label="") for photo in photos]
        for photo in photos:
            word, other = words.get(photo.split, ("", ""))
            names = {"label": photo.label, "split": word, "other": other}
            image = folder.root / place.format(**names) / (photo.stem + photo.suffix)
            add_with_mask(
                rng, folder, photo, image, folder.root / masks.format(**names), style, str(pick(rng, kinds))
            )
        if {photo.split for photo in photos} == {"train"}:
            folder.excuse("split", "only a training split is there")

    return write


def some_deeper(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    """Half of the images lie one folder too deep."""
    kinds = some_kinds(rng, folder)
    for number, photo in enumerate(photos):
        deep = "more" if number % 2 else ""
        image = folder.root / "images" / photo.label / deep / (photo.stem + photo.suffix)
        add_with_mask(
            rng, folder, replace(photo, split=""), image, folder.root / "masks" / photo.label / deep, "same",
            str(pick(rng, kinds)),
        )  # fmt: skip
    folder.excuse("image", "not used: in a place where")


def manifest(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    """A table beside the images: separators, endings, names of columns, and columns that nobody knows."""
    kinds = some_kinds(rng, folder)
    others = {
        "image": ("Image", " image ", "filename", "file_name", "path"),
        "label": ("Label", "LABEL", "dx", "class"),
        "mask": ("Mask", "mask ", "mask_path"),
        "split": ("Split", "set", "subset", "fold", "dataset"),
    }
    names = {ours: pick(rng, words) if rng.random() < 0.6 else ours for ours, words in others.items()}
    spell = {split: pick(rng, WORDS[split]) for split in WORDS} | (
        {"val": "dev"} if rng.random() < 0.1 else {}
    )
    with_split = rng.random() < 0.6
    rows = []
    for photo in photos:
        photo = photo if with_split else replace(photo, split="")
        image = folder.root / "pictures" / (photo.stem + photo.suffix)
        write_photo(rng, image, photo)
        drawn = draw(rng, photo, str(pick(rng, kinds)))
        mask = f"drawn/{photo.stem}{pick(rng, drawn.suffixes)}"
        write_mask(folder.root / mask, drawn.image)
        folder.truth[image] = Truth(photo.label, photo.split, drawn.map, drawn.excuse, drawn.near)
        label = photo.label.upper() if rng.random() < 0.02 else photo.label + " " * (rng.random() < 0.1)
        row = {"image": str(image.relative_to(folder.root)), "label": label, "mask": mask, "age": "3"}
        rows.append(row | ({"split": spell[photo.split]} if with_split else {}))
    if rng.random() < 0.1:
        del rows[0]["label"]
    order = [str(name) for name in rng.permutation(list(rows[1]))]
    suffix = pick(rng, (".csv", ".csv", ".tsv", ".CSV", ".tab"))
    mark = "\t" if suffix in (".tsv", ".tab") else pick(rng, (",", ",", ";"))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark)
    writer.writerow([names.get(name, name) for name in order])
    for row in rows:
        writer.writerow([row.get(name, "") for name in order])
    folder.data = folder.root / f"table{suffix}"
    folder.data.write_text(text.getvalue(), encoding=pick(rng, ("utf-8", "utf-8-sig", "utf-8")))
    if rng.random() < 0.7:
        folder.columns = ",".join(
            f"{ours}={theirs.strip()}" for ours, theirs in names.items() if ours in order
        )
    folder.story += [*names.values(), folder.columns, str(spell) * with_split]
    for ours in ("mask", "split"):
        excuse = f"not known and not used:.*{names[ours].strip()}"
        folder.excuse("map" if ours == "mask" else ours, excuse)
    folder.excuse("label", "rows without a label|differ in case or Unicode form alone")


# --- the formats of other programs


def plainly(rng: Rng, folder: Folder, photos: Sequence[Photo], place: str) -> list[tuple[Photo, str]]:
    """Write the images, and note the truth of each; gives each with its path below the root."""
    placed = []
    for photo in photos:
        below = place.format(split=photo.split, label=photo.label) + photo.stem + photo.suffix
        write_photo(rng, folder.root / below, photo)
        split = photo.split if "{split}" in place else ""
        folder.truth[folder.root / below] = Truth(photo.label, split, full(photo.cells))
        placed.append((photo, below))
    return placed


def left_out(rng: Rng, folder: Folder, placed: list[tuple[Photo, str]]) -> list[tuple[Photo, str]]:
    """Sometimes an image that the annotations do not know: it has no class, so it cannot be used."""
    if rng.random() < 0.3:
        _, below = placed.pop()
        folder.story.append(f"without annotation {below}")
        folder.excuse("image", "not used: ")
    return placed


def coco(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    labels = sorted({photo.label for photo in photos})
    sets: dict[str, dict[str, list[Any]]] = {}
    for number, (photo, below) in enumerate(
        left_out(rng, folder, plainly(rng, folder, photos, "{split}2017/"))
    ):
        one = sets.setdefault(photo.split, {"images": [], "annotations": [], "categories": []})
        one["categories"] = [{"id": 5 - n, "name": label} for n, label in enumerate(labels)]
        height, width = photo.size
        one["images"].append({"id": number, "file_name": Path(below).name, "width": width, "height": height})
        left, top, right, bottom = photo.box
        polygon: Any = [[left, top, right, top, right, bottom, left, bottom]]
        if rng.random() < 0.5:
            flat = photo.pixels(photo.cells).ravel(order="F")
            edges = np.flatnonzero(np.diff(flat, prepend=False))
            polygon = {"size": [height, width], "counts": np.diff([0, *edges, flat.size]).tolist()}
        entry = {"id": number, "image_id": number, "category_id": 5 - labels.index(photo.label)}
        one["annotations"].append(
            entry | {"segmentation": polygon, "iscrowd": int(isinstance(polygon, dict))}
        )
    (folder.root / "annotations").mkdir()
    for split, data in sets.items():
        (folder.root / f"annotations/instances_{split}2017.json").write_text(json.dumps(data))


def labelme(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    for photo, below in left_out(rng, folder, plainly(rng, folder, photos, "")):
        left, top, right, bottom = photo.box
        points = [[left, top], [right - 1, bottom - 1]]
        kind = "rectangle"
        if rng.random() < 0.5:
            points = [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]
            kind = "polygon"
        shape = {"label": photo.label, "shape_type": kind, "points": points, "flags": {}}
        data = {"version": "5.4", "flags": {}, "imagePath": below, "imageData": None, "shapes": [shape]}
        data |= {"imageHeight": photo.size[0], "imageWidth": photo.size[1]}
        (folder.root / below).with_suffix(".json").write_text(json.dumps(data))


def cvat(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    parts = []
    for number, (photo, below) in enumerate(
        left_out(rng, folder, plainly(rng, folder, photos, "images/{split}/"))
    ):
        left, top, right, bottom = photo.box
        shape = f'<box label="{photo.label}" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
        if rng.random() < 0.5:
            size = (bottom - top) * (right - left)
            shape = (
                f'<mask label="{photo.label}" rle="0, {size}" left="{left}" top="{top}" '
                f'width="{right - left}" height="{bottom - top}"/>'
            )
        parts.append(
            f'<image id="{number}" name="{Path(below).name}" subset="{pick(rng, WORDS[photo.split])}" '
            f'width="{photo.size[1]}" height="{photo.size[0]}">{shape}</image>'
        )
    (folder.root / "annotations.xml").write_text(
        f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{"".join(parts)}</annotations>',
        encoding="utf-8",
    )


def voc(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    folder.excuse("image", "not in the lists of")  # they end a name at its first space
    how, lists = (
        pick(rng, ("SegmentationObject", "SegmentationClass", "")),
        {"train": "", "val": "", "test": ""},
    )
    photos = [replace(photo, label={"Common Tern": "bird"}.get(photo.label, photo.label)) for photo in photos]
    for photo, below in left_out(rng, folder, plainly(rng, folder, photos, "JPEGImages/")):
        left, top, right, bottom = photo.box
        stem = Path(below).stem
        (folder.root / "Annotations").mkdir(exist_ok=True)
        (folder.root / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation><filename>{Path(below).name}</filename><size><width>{photo.size[1]}</width>"
            f"<height>{photo.size[0]}</height></size><object><name>{photo.label}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            "</bndbox></object></annotation>",
            encoding="utf-8",
        )
        if how:
            value = {"cat": 8, "dog": 12, "bird": 3}.get(photo.label, 20) if how == "SegmentationClass" else 1
            labels = np.where(photo.cells, value, np.where(ring(photo), 255, 0)).astype(np.uint8)
            image = Image.fromarray(photo.pixels(labels))
            image.putpalette(np.random.default_rng(2).integers(0, 256, 768).tolist())
            write_mask(folder.root / how / f"{stem}.png", image)
        lists[photo.split] += f"{stem}\n"
    if rng.random() < 0.6:
        (folder.root / "ImageSets/Main").mkdir(parents=True)
        for split, text in lists.items():
            (folder.root / f"ImageSets/Main/{split}.txt").write_text(text, encoding="utf-8")
        for path, truth in folder.truth.items():
            split = next(photo.split for photo in photos if photo.stem == path.stem)
            folder.truth[path] = truth._replace(split=split)


def label_studio(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    tasks = []
    for number, (photo, below) in enumerate(left_out(rng, folder, plainly(rng, folder, photos, "upload/"))):
        (height, width), (left, top, right, bottom) = photo.size, photo.box
        value: dict[str, Any] = {
            "x": left / width * 100, "y": top / height * 100, "width": (right - left) / width * 100,
            "height": (bottom - top) / height * 100,
        }  # fmt: skip
        kind = "rectanglelabels"
        if rng.random() < 0.5:
            kind, value = "brushlabels", {"format": "rle", "rle": encode(photo.pixels(full(photo.cells)))}
        region = {"type": kind, "value": {**value, kind: [photo.label]}, "original_width": width}
        result = [region | {"original_height": height}]
        task = {"id": number, "data": {"image": f"/data/local-files/?d=upload/{Path(below).name}"}}
        tasks.append(task | {"annotations": [{"id": number, "result": result}]})
    (folder.root / "export.json").write_text(json.dumps(tasks))


def hf_folder(rng: Rng, folder: Folder, photos: list[Photo]) -> None:
    kinds = some_kinds(rng, folder)
    lines: dict[str, list[str]] = {}
    for photo in photos:
        image = folder.root / photo.split / (photo.stem + photo.suffix)
        write_photo(rng, image, photo)
        drawn = draw(rng, photo, str(pick(rng, kinds)))
        mask = f"masks/{photo.stem}{pick(rng, drawn.suffixes)}"
        write_mask(image.parent / mask, drawn.image)
        entry = {"file_name": image.name, "mask_file_name": mask, "label": photo.label, "age": 3}
        lines.setdefault(photo.split, []).append(json.dumps(entry))
        folder.truth[image] = Truth(photo.label, photo.split, drawn.map, drawn.excuse, drawn.near)
    for split, entries in lines.items():
        (folder.root / split / "metadata.jsonl").write_text("\n".join(entries) + "\n")


IMAGES, MASKS = "images/{label}", "masks/{label}"
LAYOUTS: dict[str, Callable[[Rng, Folder, list[Photo]], None]] = {
    "classes": in_folders(IMAGES, MASKS),
    "splits": in_folders("images/{split}/{label}", "masks/{other}/{label}"),
    "imagefolder": in_folders("{label}", "{label}"),
    "imagefolder with splits": in_folders("{split}/{label}", "{split}/{label}"),
    "imagefolder with a folder of masks": in_folders("{label}", "masks"),
    "splits of images and masks": in_folders("{split}/images", "{split}/masks"),
    "splits of image and mask": in_folders("{split}/image", "{split}/mask"),
    "images and masks": in_folders("images", "masks"),
    "Images and Masks": in_folders("Images", "Masks"),
    "photos and gt": in_folders("photos", "gt"),
    "masks among the classes": in_folders("images/{label}", "images/masks"),
    "photos and mask": in_folders("photos", "mask"),
    "masks without splits": in_folders("images/{split}/{label}", "masks/{label}"),
    "split within class": in_folders("images/{label}/{split}", "masks/{label}/{split}"),
    "images within class": in_folders("{label}/images", "{label}/masks"),
    "one level too deep": in_folders("set/images/{label}", "set/masks/{label}"),
    "one folder between": in_folders("images/all/{label}", "masks/all/{label}"),
    "some one level too deep": some_deeper,
    "manifest": manifest,
    "coco": coco,
    "labelme": labelme,
    "cvat": cvat,
    "voc": voc,
    "label-studio": label_studio,
    "hf-folder": hf_folder,
}  # fmt: skip
OFTEN = ("classes", "splits", "imagefolder", "imagefolder with splits", "manifest")


# --- what else lies in a folder


def a_file(name: str, data: bytes) -> Callable[[Rng, Folder], None]:
    """A file beside one of the images, or at the top."""

    def write(rng: Rng, folder: Folder) -> None:
        place = pick(rng, (folder.root, pick(rng, folder.truth).parent))
        (place / name).write_bytes(data)

    return write


def in_place_of_an_image(suffix: str, data: Callable[[bytes], bytes]) -> Callable[[Rng, Folder], None]:
    """An image gets other bytes, and perhaps another ending: it cannot be used."""

    def write(rng: Rng, folder: Folder) -> None:
        path = pick(rng, folder.truth)
        other = path.with_suffix(suffix) if suffix else path
        changed = data(path.read_bytes())
        path.unlink()
        other.write_bytes(changed)
        folder.truth[other] = folder.truth.pop(path)
        folder.excuse("image", f"not used: the ending {suffix}")

    return write


def hide(rng: Rng, folder: Folder) -> None:
    path = pick(rng, folder.truth)
    hidden = path.with_name("." + path.name)
    path.rename(hidden)
    folder.truth[hidden] = folder.truth.pop(path)
    folder.excuse("image", "not used: hidden")


def misplace(rng: Rng, folder: Folder) -> None:
    """An image of no class lies at the top."""
    photo = Photo("stray", "", "", np.zeros((8, 8), bool), (64, 64))
    write_photo(rng, folder.root / "stray.png", photo)
    folder.truth[folder.root / "stray.png"] = Truth("", "", None)
    folder.excuse("image", "not used: ")


def wrong_ending(rng: Rng, folder: Folder) -> None:
    """A PNG called .jpg is what it is."""
    path = pick(rng, folder.truth)
    if path.suffix == ".png" and not path.with_suffix(".jpg").exists() and folder.data == folder.root:
        path.rename(path.with_suffix(".jpg"))
        folder.truth[path.with_suffix(".jpg")] = folder.truth.pop(path)
        folder.excuse("image", "not used: |that are not below")


def empty_folder(rng: Rng, folder: Folder) -> None:
    (pick(rng, folder.truth).parent.parent / "empty").mkdir(exist_ok=True)


STRAYS: dict[str, Callable[[Rng, Folder], None]] = {
    "text": a_file("readme.txt", b"some words"),
    "hidden": a_file("._img.png", b"\0\5\x16\7"),
    "thumbnails": a_file("Thumbs.db", b"\xd0\xcf"),
    "an archive": a_file("photos.zip", b"PK\3\4"),
    "a broken picture": in_place_of_an_image("", lambda data: data[: len(data) // 2]),
    "a web page": in_place_of_an_image("", lambda data: b"<html>404</html>"),
    "no bytes": in_place_of_an_image("", lambda data: b""),
    "HEIC": in_place_of_an_image(".heic", lambda data: b"\0\0\0\x18ftypheic"),
    "a text's ending": in_place_of_an_image(".txt", lambda data: data),
    "a hidden image": hide,
    "an image at the top": misplace,
    "a wrong ending": wrong_ending,
    "an empty folder": empty_folder,
}
