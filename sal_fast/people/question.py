"""The question that a query puts to people, and the answers that any tool brings back."""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from sal_fast._util.files import whole_folder
from sal_fast._util.suggest import nearest
from sal_fast.data import files
from sal_fast.data.table import names_a_file
from sal_fast.errors import InputError
from sal_fast.people.odd_maps import asked_back

SHOWN = 20  # problems that one message lists

# The way in which a person made a map: drawn from nothing, corrected from the model's map, accepted as the
# model made it, or made by a rule from a box or from points.
Kind = Literal["drawn", "corrected", "accepted", "box", "points"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Question:
    """A query as people see it.

    run: the run's name, so that answers to another run are refused.
    query_index: its number in the run; 0 is the start set.
    ids, images: the images to look at, in order, and their files.
    classes: the classes to choose from.
    maps: True if saliency maps are wanted as well, False if classes are enough.
    has_map: the images whose map is known already, so that nobody has to draw it.
    labels: the classes that are known already, by id.
    """

    run: str
    query_index: int
    ids: list[str]
    images: list[Path]
    classes: list[str]
    maps: bool
    has_map: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """The position of each id."""
        return {name: row for row, name in enumerate(self.ids)}

    def key(self, name: str) -> str:
        """A name for an image that tells nothing about it, for people who must not see its file's name."""
        said = f"{self.run}\0{self.query_index}\0{name}"
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()

    @cached_property
    def id_of(self) -> Mapping[str, str]:
        """The id of each key."""
        return {self.key(name): name for name in self.ids}

    @cached_property
    def secret(self) -> bool:
        """True if ids may tell the class: the name of a class occurs in at least one of them.

        Only letters and digits are compared, without regard to case and accents, so that `Sea_Lion_7` tells
        the class "sea lion". A short name may occur by chance, which does no harm.
        """
        words = {_letters(label) or label for label in self.classes}
        ids = [f"{_letters(name)}\0{name}" for name in self.ids]
        return any(word in name for name in ids for word in words)

    def shown(self, name: str) -> str:
        """The name of an image in what annotators get: its id, or its key if the ids may tell the class."""
        return self.key(name) if self.secret else name

    def meant(self, shown: str) -> str:
        """The id of an image that is shown under this name, be it an id or a key; any other name as it is."""
        return shown if shown in self.row_of else self.id_of.get(shown, shown)

    def wants_map(self, name: str) -> bool:
        """True if people are to draw a map of this image."""
        return self.maps and name not in self.has_map

    @property
    def want_map(self) -> list[str]:
        """The images that people are to draw a map of."""
        return [name for name in self.ids if self.wants_map(name)]

    @property
    def spared(self) -> list[str]:
        """The images that only want a class because their maps are known, while others may want a map."""
        return [name for name in self.ids if self.maps and name in self.has_map]

    def refuse_others(self, run: object, query: object, place: str) -> None:
        """Raise InputError if answers belong to another run or query than this one."""
        if (run, query) != (self.run, self.query_index):
            renamed = "" if run == self.run else ", or give the run's folder the name that it had"
            raise InputError(
                f"{place} is of query {query!r} of run {run!r}, expected query {self.query_index} of "
                f"{self.run!r}; import the file of this query{renamed}"
            )

    def class_problem(self, label: str) -> str:
        """Say that a class is unknown, with the nearest one that exists."""
        close = nearest(label, self.classes)
        hint = f"; did you mean {close!r}?" if close else ""
        return f"the class {label!r} is none of the run's{hint}"

    def id_problem(self, name: str) -> str:
        """Say that an id is unknown.

        The most similar id is usually another image. We suggest one only if its last part is the same, apart
        from upper and lower case, and no other id has that part.
        """
        same = [one for one in self.ids if _last_part(one) == _last_part(name)]
        hint = f"; did you mean {same[0]!r}?" if len(same) == 1 else ""
        return f"the id {name!r} is none of this query's{hint}"


@dataclass(frozen=True)
class Answer:
    """One annotator's answer for one image.

    label: the class; None if the annotator skipped the image.
    mask: uint8 [H, W] at the image's own size, upright. It is 0 or 255; a mask from a folder may have values
        between. None if nothing was drawn.
    annotator: the person's name; "" if it is unknown.
    seconds: the active time that the answer took; None if it was not measured.
    kind: the way in which the map was made; None if there is none, or if it is not known.
    idle: the seconds without input that the picture was shown for, which `seconds` leaves out.
    class_seconds, stroke_seconds: the active seconds until the class was chosen, and until the first stroke.
    reason: why the image was skipped. note: what the person wrote beside it.
    settles: True if the answer decides between classes that others gave equally often.
    """

    id: str
    label: str | None
    mask: np.ndarray | None
    annotator: str
    seconds: float | None
    skipped: bool
    kind: Kind | None = None
    idle: float | None = None
    class_seconds: float | None = None
    stroke_seconds: float | None = None
    reason: str = ""
    note: str = ""
    settles: bool = False


class Problems:
    """Everything that is wrong with one file, so that it can be mended in one go."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[str] = []

    def add(self, place: str, what: str) -> None:
        """Note a problem and the place in the file where it is ("" if it has none)."""
        self.found.append(f"{place}: {what}" if place else what)

    def check(self) -> None:
        """Raise InputError with the first SHOWN problems, if there are any."""
        count = len(self.found)
        if count == 1:
            raise InputError(f"{self.file}, {self.found[0]}")
        if count:
            more = f", the first {SHOWN}" if count > SHOWN else ""
            raise InputError("\n  ".join([f"{self.file}: {count} problems{more}:", *self.found[:SHOWN]]))


ODD = {
    "full": "the map marks nearly all of the picture",
    "inverted": "the map looks inverted, as it marks the border and leaves out the middle",
}


def one_person(name: str) -> str:
    """The key of a person: their name without regard to case and spaces."""
    return " ".join(name.split()).casefold()


def kind_of(mask: np.ndarray, first: np.ndarray | None, begun: bool) -> Kind:
    """The way in which a person made a map.

    first: the map that a model suggested; None if there was none. begun: True if the person began from it.
    """
    if first is not None and np.array_equal(mask, first):
        return "accepted"
    return "corrected" if begun else "drawn"


def in_order(
    question: Question, answers: list[tuple[str, Answer]], problems: Problems, keep_odd_maps: bool = False
) -> list[Answer]:
    """Sort answers, each given with its place in the file, as the question's images are sorted.

    An annotator answers an image once. If the same person skipped it at first, only the answer is kept.
    Raises InputError if there are any problems. Two answers by one person for one image are one. So is a map
    that is full or looks inverted (`odd_maps.asked_back`), unless `keep_odd_maps` is true.
    """
    answered = {(answer.id, one_person(answer.annotator)) for _, answer in answers if not answer.skipped}
    kept: dict[tuple[str, str], Answer] = {}
    for place, answer in answers:
        key = (answer.id, one_person(answer.annotator))
        if answer.skipped and (key in answered or key in kept):
            continue
        if key in kept:
            who = repr(answer.annotator) if answer.annotator else "one person, no annotator is named"
            problems.add(place, f"a second answer by {who}; keep one of them")
        kept[key] = answer
        odd = None if answer.mask is None or keep_odd_maps else asked_back(answer.mask)
        if odd in ODD:
            problems.add(place, f"{ODD[odd]}; draw it again, or keep it with --keep-odd-maps True")
    problems.check()
    return sorted(kept.values(), key=lambda answer: question.row_of[answer.id])


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which is renamed to `out` at the end. Raises InputError if `out` is in use."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already, perhaps with answers; choose a new folder with --out")
    with whole_folder(out.resolve()) as folder:
        yield folder


def fill_template(name: str, **fields: Any) -> str:
    """Fill a template of this folder, such as an exported README."""
    environment = Environment(
        loader=PackageLoader("sal_fast.people", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(name).render(**fields)


def picture(path: Path) -> tuple[bytes, str]:
    """The bytes and the suffix of an image as an 8-bit, upright JPEG or PNG that any program can show.

    A file that already is one is copied. Anything else becomes a JPEG of quality 95 if it was a JPEG, else a
    PNG. Raises Unreadable if it cannot be read.
    """
    file = files.read(path)
    pixels = files.rgb(file)
    jpeg = file.data.startswith(b"\xff\xd8")
    clear = b"tRNS" in file.data  # a browser would show through the grey that the file calls transparent
    data = file.data if file.plain or (file.grey and not clear) else _encoded(pixels, jpeg)
    return data, ".jpg" if jpeg else ".png"


def pictures(question: Question) -> Iterator[tuple[str, bytes, str]]:
    """Yield (id, bytes, suffix) of every image (`picture`).

    Raises InputError that names all files that cannot be read.
    """
    problems = Problems(f"query {question.query_index}")
    for name, path in zip(question.ids, question.images, strict=True):
        if not names_a_file(name):
            raise InputError(f"id {name!r} cannot be used as a file name")
        try:
            data, suffix = picture(path)
        except files.Unreadable as error:
            problems.add("", str(error))
            continue
        if not problems.found:
            yield name, data, suffix
    problems.check()


def _encoded(pixels: np.ndarray, jpeg: bool) -> bytes:
    stream = BytesIO()
    options: dict[str, Any] = {"format": "JPEG", "quality": 95} if jpeg else {"format": "PNG"}
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


def _letters(name: str) -> str:
    """The letters and digits of a name, in lower case and without accents."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name.casefold())))


def _last_part(name: str) -> str:
    return name.rpartition("/")[2].casefold()
