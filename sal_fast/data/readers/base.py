"""What all readers share: the interface, the words for splits, and how files are found and counted."""

from __future__ import annotations

import json
import mmap
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.made import Found, naming
from sal_fast.errors import InputError

ENDINGS = ", ".join(sorted(SUFFIXES))
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MASK_ENDING = re.compile(r"(?:[_-]mask|_segmentation|_seg)$|\.(?:jpg|png)$")
NUMBER = re.compile(r"(?:[_-]|(?<=mask)|(?<=_seg)|(?<=_segmentation))\d+$")
PEEKED = 64  # files of one ending that `some` gives at most, because the first few tell the format


class Look(NamedTuple):
    """What makes a path one of a format.

    why: in words, as the end of "it looks like coco, because ...".
    sure: False for a layout that other formats have too. It is taken only if no reader is sure.
    """

    why: str
    sure: bool = True


@dataclass(frozen=True)
class Options:
    """What a user says about files that do not say it themselves.

    format: the reader's name; "auto" asks all of them.
    columns: the names in the data by our names, such as {"image": "filename", "label": "dx"}.
    """

    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, format: str, columns: str) -> Options:
        """Read the texts of --format and --columns. Raises InputError for columns that are no NAME=NAME."""
        pairs = [part.partition("=") for part in columns.split(",") if part.strip()]
        for name, equals, _ in pairs:
            if not equals or name.strip() not in COLUMNS:
                raise InputError(
                    f"--columns {columns}: expected pairs such as image=filename,label=dx, where the left "
                    f"side is one of {', '.join(COLUMNS)}"
                )
        return cls(format, {name.strip(): value.strip() for name, _, value in pairs})


COLUMNS = ("id", "image", "label", "mask", "split", "group", "subgroup")


class Reading:
    """What a reader found in a path.

    found: the samples. notes: sentences for the user. used: the files that were read beside images and
    masks. counted: what a note counts, with the first example and the number.
    """

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.notes: list[str] = []
        self.used: set[Path] = set()
        self.counted: dict[str, tuple[object, int]] = {}

    def count(self, item: object, what: str) -> None:
        """Count a file, or the name of an entry in one, in the note `what`."""
        first, number = self.counted.get(what, (item, 0))
        self.counted[what] = first, number + 1

    def leave_out(self, item: object, reason: str) -> None:
        """Count a file or an entry that is not used, by its reason."""
        self.count(item, f"not used: {reason}")
        if isinstance(item, Path):
            self.used.add(item)

    def draw_splits_if_only_train(self) -> None:
        """Forget the splits if every image is in train, so that the run draws all three from them."""
        if {row.split for row in self.found} == {"train"}:
            self.found = [row._replace(split="") for row in self.found]
            self.notes.append("only a training split is there; the run draws train, val and test from it")


class Reader:
    """One format. A plug-in subclasses it, and registers the class in the group `sal_fast.readers`."""

    def looks(self, path: Path) -> Look | None:
        """What makes the path, a file or a folder, one of this format; None if nothing does.

        It is asked of every path, so it must be quick, and it must not raise errors for other formats.
        """
        raise NotImplementedError

    def read(self, path: Path, options: Options) -> Reading:
        """Read the path. Raises InputError that names the file, what was found and what was expected."""
        raise NotImplementedError


def split_of(word: str) -> str:
    """The split that a word means, in any case; "" if it means none."""
    return SPLIT_WORDS.get(word.strip().lower(), "")


def split_in(name: str) -> str:
    """The split that one of the words in a file's name means, such as instances_val2017; "" if none does."""
    found = {split_of(word) for word in re.split(r"[^a-z]+", name.lower())} - {""}
    return found.pop() if len(found) == 1 else ""


def as_text(value: object) -> str:
    """A cell of a table as stripped text; "" for an empty one, which some programs write as NaN."""
    return "" if value is None or value != value else str(value).strip()


def folded(text: str) -> str:
    """A name in one case and one Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).casefold()


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def visible(folder: Path) -> list[Path]:
    """Everything in a folder, sorted, without hidden files and what macOS adds; [] if it is no folder."""
    if not folder.is_dir():
        return []
    return [folder / name for name in sorted(os.listdir(folder)) if _is_visible(name)]


def _is_visible(name: str) -> bool:
    return name[0] != "." and name != "__MACOSX"


def subfolders(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_dir()]


def some(folder: Path, suffixes: Sequence[str], levels: int) -> list[Path]:
    """The first files with an ending, in a folder and at most `levels` below it, the nearest first."""
    found: list[Path] = []
    level = [str(folder)] if folder.is_dir() else []
    for _ in range(levels + 1):
        there = [entry for one in level for entry in os.scandir(one) if _is_visible(entry.name)]
        files = [entry.path for entry in there if entry.name.lower().endswith(tuple(suffixes))]
        found += [Path(path) for path in sorted(files) if os.path.isfile(path)]
        if len(found) >= PEEKED:
            break
        level = sorted(entry.path for entry in there if entry.is_dir())[:PEEKED]
    return found[:PEEKED]


def walk(root: Path) -> Iterator[Path]:
    """Every file below a folder, sorted, through links to folders but never in a circle.

    Of a hidden folder only its own path is given.
    """
    seen = {os.path.realpath(root)}
    for place, folders, names in os.walk(root, followlinks=True):
        hidden = [name for name in folders if name.startswith(".") or name == "__MACOSX"]
        yield from (Path(place, name) for name in sorted((*names, *hidden)))
        inside = {name: os.path.realpath(os.path.join(place, name)) for name in folders if name not in hidden}
        folders[:] = sorted(name for name, real in inside.items() if real not in seen)
        seen.update(inside.values())


def holds(path: Path, first: bytes, *words: bytes) -> bool:
    """True if a file begins with the byte `first`, after white space, and all of the words occur in it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
            return start[:1] == first and all(data.find(word) >= 0 for word in words)
    except (OSError, ValueError):  # such as an empty file, which cannot be mapped
        return False


def load_json(path: Path, then: str) -> Any:
    """Read a JSON file. Raises InputError that says where it is damaged, and what to do `then`."""
    with naming(path, "the JSON", then):
        return json.loads(path.read_bytes().decode("utf-8-sig"))


def load_xml(path: Path, then: str) -> ElementTree.Element:
    """The root of an XML file. Raises InputError that says where it is damaged, and what to do `then`."""
    with naming(path, "the XML", then):
        return ElementTree.parse(path).getroot()


def sample_id(image: Path, root: Path) -> str:
    """The id of an image: its path below the root, without the ending."""
    below = image.relative_to(root) if image.is_relative_to(root) else Path(image.name)
    return below.with_suffix("").as_posix()


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"
