"""Files and folders that no reader takes: what they look like, and the command or the step that leads on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from sal_fast.data import mistaken
from sal_fast.data.readers.base import Look, plural, some, subfolders, walk
from sal_fast.data.readers.manifest import OTHER_NAMES, read_frame
from sal_fast.data.readers.unfold import ARRAYS, is_image
from sal_fast.errors import InputError

Looks = Callable[[Path], Mapping[str, Look]]  # why a path may be of a format, by the readers' names
HINTS = (".json", ".jsonl", ".xml", ".csv", ".tsv", ".parquet")  # files that may be a format on their own
LEVELS = 4  # folders below an unknown one in which we look for a known one
MOST = 20_000  # files that we look at
NOT_CLASSES = re.compile(  # names of folders that hold all images, or all masks
    r"(?:(?:train|val|valid|validation|test)[_-]?)?"
    r"(?:images?|imgs?|masks?|labels?|annotations?|jpegimages|segmentation\w*|ground[_-]?truth|gt)",
    re.IGNORECASE,
)
YOLO = re.compile(
    r"\d+(?: +-?\d*\.?\d+(?:e-?\d+)?){4,}\s*", re.IGNORECASE
)  # a class, then a box or a polygon
PNG = "write the pictures in them as PNG or JPEG"
UNREAD = {  # what to say of files with an ending
    (".tfrecord", ".tfrecords"): f"TFRecord files are not read; {PNG}",
    (".h5", ".hdf5", ".lmdb", ".mdb"): f"databases of arrays are not read; {PNG}",
    (".pkl", ".pickle", ".pt", ".pth"): f"pickled objects are not opened, because they can run code; {PNG}",
    (".arrow",): "Arrow files are not read; save the data set with `to_parquet` of the library datasets",
    (".npy", ".npz", ".mat"): f"arrays are read as masks of images, but not as images; {PNG}",
    (".nii", ".nii.gz"): "NIfTI volumes are not read; write their slices as PNG",
    (".mp4", ".avi", ".mov", ".mkv"): "videos are not read; write their frames as JPEG or PNG",
    (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"): "archives are not read; unpack them, and "
    "name the folder",
}


def foreign(path: Path) -> str | None:
    """What a folder is that would be read wrongly as class folders; None if nothing tells so."""
    label = next((file for file in some(path, [".txt"], 3) if _is_yolo(file)), None)
    if label is not None:
        return (
            f"{path}: looks like YOLO, because {label.relative_to(path)} has a class and numbers in each "
            f"line, and YOLO is not read; export the project as COCO, and name that folder"
        )
    if (path / "JPEGImages").is_dir() and not (path / "Annotations").is_dir():
        return (
            f"{path}: looks like Pascal VOC without the folder Annotations, whose XML files name classes; "
            f"put it beside JPEGImages"
        )
    folders = subfolders(path / "images")
    if not folders:
        folders = subfolders(path)
        folders += [one for folder in folders for one in subfolders(folder)]
    for folder in folders:
        if NOT_CLASSES.fullmatch(folder.name) and (_pictures(folder, 1) or some(folder, [*ARRAYS], 0)):
            return _without_classes(path, f"{folder.relative_to(path)} is no class by its name")
    return None


def explained(path: Path, looks: Looks, formats: Sequence[str]) -> str:
    """What a path looks like that no reader knows, and the way on."""
    if path.is_file():
        return _file(path, formats)
    folders = _below(path)
    for part in (*folders, *some(path, [one for one in HINTS if one not in (".csv", ".tsv")], LEVELS)):
        found = looks(part) if not NOT_CLASSES.fullmatch(part.name) and foreign(part) is None else {}
        if found:
            name, look = next(iter(found.items()))
            return (
                f"{path}: no known format, but {part} looks like {name}, because {look.why}; try "
                f"`sal-fast data check {part}`"
            )
    if _pictures(path, 1):
        return _without_classes(path, "it has no class folders")
    files = list(islice(walk(path), MOST))
    for suffixes, what in UNREAD.items():
        of_kind = [file for file in files if file.name.lower().endswith(suffixes)]
        if of_kind:
            such = f"{plural(len(of_kind), 'file')} such as {of_kind[0].name}"
            return f"{path}: no images in it, but {such}; {what}"
    endings = Counter[str](file.suffix.lower() or "no ending" for file in files)
    there = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5)) or "no files"
    return (
        f"{path}: no images in it ({there}{mistaken.unread(files)}); expected a folder images/<class>/ in "
        f"it, and masks/<class>/ beside it, or another of {', '.join(formats)} (docs/data.md)"
    )


def _file(path: Path, formats: Sequence[str]) -> str:
    what = next((one for endings, one in UNREAD.items() if path.name.lower().endswith(endings)), None)
    with open(path, "rb") as file:
        packed = mistaken.archive(file.read(512))
    if what is not None and (packed is None or "archives" not in what):
        return f"{path}: {what}"
    if packed is not None:
        return f"{path}: {packed}; unpack it, and name the folder"
    if is_image(path):
        return f"{path}: one picture; name the folder of a data set, or a table with columns image and label"
    return f"{path}: no known format; expected one of {', '.join(formats)} (docs/data.md)"


def _below(path: Path) -> list[Path]:
    """The folders below one, the nearest first."""
    level, found = [path], list[Path]()
    for _ in range(LEVELS):
        level = [one for folder in level for one in subfolders(folder)][:64]
        found += level
    return found


def _pictures(path: Path, most: int) -> list[Path]:
    """The first pictures below a folder."""
    return list(islice(filter(is_image, islice(walk(path), MOST)), most))


def _is_yolo(file: Path) -> bool:
    with open(file, encoding="utf-8", errors="replace") as lines:
        return YOLO.fullmatch(lines.readline(2000)) is not None


def _without_classes(path: Path, why: str) -> str:
    """What to do with a folder of pictures that does not say their classes."""
    pictures = _pictures(path, MOST)
    said = f"{path}: {plural(len(pictures), 'picture')}, but it is not clear what their classes are: {why}; "
    masks = [one for one in pictures if re.search("mask|segment", str(one.relative_to(path)), re.IGNORECASE)]
    if len(masks) == len(pictures):
        return f"{path}: {len(masks)} masks, such as {masks[0]}, but no images; put these in images/<class>/"
    tables = some(path, [".csv", ".tsv"], 1)
    for table in sorted(tables, key=lambda one: "train" not in one.name.lower()):
        found = _columns(table, pictures)
        if found:
            return f"{said}{found}"
    return (
        f"{said}move the images to images/<class>/ in it, and their masks to masks/<class>/ under the same "
        f"names; or write a table with the columns image, label and mask, and name it "
        f"(`sal-fast data check {path / 'table.csv'}`); if nobody knows the classes yet, "
        f"`sal-fast label {path}` asks people for them"
    )


def _columns(table: Path, pictures: list[Path]) -> str | None:
    """The command that would take a table beside the pictures; None if none of its columns names them."""
    try:
        frame = read_frame(table)
    except InputError:
        return None
    by_name = {key: one for one in reversed(pictures) for key in (one.stem, one.name)}
    for column in frame.columns:
        value = next((str(one) for one in frame[column].head(100) if one is not None), "")
        if not value or Path(value).name not in by_name:
            continue
        rest = [name for name in frame.columns if name != column]
        labels = [name for name in rest if name.lower() in ("label", *OTHER_NAMES["label"])] or rest
        names = {"image": column, "label": labels[0] if labels else "COLUMN"}
        pairs = ",".join(f"{ours}={theirs}" for ours, theirs in names.items() if ours != theirs)
        command = f"`sal-fast data check {table}{' --columns ' * bool(pairs)}{pairs}`"
        if (table.parent / value).is_file():
            return f"{table.name} is a table of them: try {command}"
        there = by_name[Path(value).name].relative_to(table.parent)
        return (
            f"{table.name} is a table of them; write paths into its column {column!r}, such as {there} in "
            f"place of {value}, and try {command}"
        )
    return None
