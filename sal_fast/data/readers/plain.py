"""Folders of classes: our own (`images/<class>/`, `masks/<class>/`, `pool/`) and a plain ImageFolder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from sal_fast.data import mistaken
from sal_fast.data.files import SUFFIXES
from sal_fast.data.readers.base import (
    ENDINGS,
    MASK_ENDING,
    NUMBER,
    Look,
    Options,
    Reader,
    Reading,
    folded,
    sample_id,
    split_of,
    subfolders,
    visible,
    walk,
)
from sal_fast.data.readers.made import Found
from sal_fast.data.readers.unfold import ARRAYS, is_image, is_mask, unfold
from sal_fast.data.table import Mask, Sample, Table, make_table
from sal_fast.errors import InputError

METADATA = ("metadata.jsonl", "metadata.csv")  # with these it is Hugging Face's image folder


def _shorter(name: str) -> Iterator[str]:
    """A mask's name with one ending less (`MASK_ENDING`), then with two, and so on."""
    while (rest := MASK_ENDING.sub("", name)) not in (name, ""):
        yield (name := rest)


def _unnumbered(name: str) -> Iterator[str]:
    """A mask's name with one number less, such as 1_mask_0 and 1_0_mask; then with endings less as well."""
    for one in (name, *_shorter(name)):
        bare = NUMBER.sub("", one)
        if bare not in (one, ""):
            yield bare
            yield from _shorter(bare)


STEPS: tuple[tuple[Callable[[str], Iterable[str]], str], ...] = (  # see `pair`
    (lambda name: [name], "masks whose names differ from their images' in case or Unicode form"),
    (_shorter, "masks whose names have an ending, such as _mask, that their images' have not"),
    (_unnumbered, "masks with a number, of one object each, which are united with the others of their image"),
)


class ClassFolder(NamedTuple):
    path: Path
    split: str


class Folder(Reader):
    """Our own folder: `images/<class>/*` or `images/<split>/<class>/*`, masks at the same place in `masks/`.

    A mask may have any image format, be an array, or be a folder that holds several annotators' masks.
    Images below `pool/` have no label yet.
    """

    def looks(self, path: Path) -> Look | None:
        folders = subfolders(path / "images")
        if not folders:
            return None
        masks = bool(subfolders(path / "masks"))
        return Look(f"it has the folders images/{folders[0].name}" + " and masks" * masks, sure=masks)

    def read(self, path: Path, options: Options) -> Reading:
        if not (path / "images").is_dir():
            raise InputError(f"{path}: expected a folder images/<class>/ in it, and masks/<class>/ beside it")
        reading = Reading()
        for folder, split in _class_folders(path / "images"):
            images = [file for file in visible(folder) if is_image(file)]
            if not images:
                reading.count(folder, "class folders without images")
            own = _same_place(path / "masks", folder.relative_to(path / "images").parts)
            masks = [file for file in visible(own) if is_mask(file) or file.is_dir()] if own else []
            _add(reading, path / "images", folder.name, split, images, pair(images, masks, reading), options)
        if not reading.found:
            unread = mistaken.unread(walk(path / "images"))
            raise InputError(f"{path / 'images'}: no images in its class folders ({ENDINGS}){unread}")
        for _, image in below(path / "pool"):
            _add(reading, path, "", "", [image], {}, options)
        reading.draw_splits_if_only_train()
        return reading


class ImageFolder(Reader):
    """Class folders at the top, or in train, val and test. Masks, `<name>_mask`, may lie beside images."""

    def looks(self, path: Path) -> Look | None:
        if (path / "images").is_dir() or any((path / name).is_file() for name in METADATA):
            return None
        folders = subfolders(path)
        deeper = [one for folder in folders if split_of(folder.name) for one in subfolders(folder)]
        for folder in (*folders, *deeper):
            if any(is_image(file) for file in visible(folder)):
                return Look(f"its folder {folder.relative_to(path)} has images", sure=False)
        return None

    def read(self, path: Path, options: Options) -> Reading:
        reading = Reading()
        every = [(one, *_parted(one.path)) for one in _class_folders(path)]
        masked = any(masks for _, _, masks, _ in every)
        for (folder, split), images, masks, without in every:
            if masked:  # else the set has no masks, and these are its images
                for file in without:
                    reading.leave_out(file, "named like a mask, and its image is not there")
            else:
                images = sorted((*images, *without))
            _add(reading, path, folder.name, split, images, pair(images, masks, reading), options)
        if not reading.found:
            unread = mistaken.unread(walk(path))
            raise InputError(
                f"{path}: no images in its class folders ({ENDINGS}); expected <class>/<image>{unread}"
            )
        reading.draw_splits_if_only_train()
        return reading


def _parted(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The images in a folder, the masks beside them, and files named like masks whose images are missing."""
    there = visible(folder)
    named = {file: folded(file.stem) for file in there if is_image(file)}
    stems = set(named.values())
    masked = set(chain.from_iterable(map(_shorter, stems)))
    images, masks, without = [], [file for file in there if file.suffix.lower() in ARRAYS], []
    for file, name in named.items():
        bases = set(_bases(name))
        if bases & stems:
            masks.append(file)
        elif bases and name not in masked:
            without.append(file)
        else:
            images.append(file)
    return images, masks, without


def _bases(name: str) -> Iterator[str]:
    """The folded names of images whose mask a file beside them may be; a number alone is no sign of one."""
    yield from _shorter(name)
    if any(_shorter(NUMBER.sub("", name))):
        yield from _unnumbered(name)


def read_images(root: Path) -> Table:
    """Read every image below a folder, without class or mask; its path, without the suffix, is its id."""
    samples = [Sample(name, path) for name, path in below(root)]
    if not samples:
        raise InputError(f"{root}: no images in it ({ENDINGS}){mistaken.unread(walk(root))}")
    return make_table(root.resolve().name, samples)


def below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every image below a folder, with its path there, without the suffix; none if there is no folder."""
    for path in sorted(walk(root)):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield sample_id(path, root), path


def _class_folders(top: Path) -> list[ClassFolder]:
    """The class folders in a folder, or in its folders for splits, if all of its folders are such."""
    folders = subfolders(top)
    splits = [folder for folder in folders if split_of(folder.name)]
    direct = {folder for folder in splits if any(is_image(file) for file in visible(folder))}
    if splits and len(splits) == len(folders):
        if direct:
            raise InputError(
                f"{top}: {', '.join(folder.name for folder in splits)} are names of splits, and images lie "
                f"directly in {sorted(direct)[0].name}; expected {splits[0].name}/<class>/<image>, or other "
                f"names if they are classes"
            )
        return [ClassFolder(one, split_of(folder.name)) for folder in splits for one in subfolders(folder)]
    deep = [folder for folder in splits if folder not in direct and subfolders(folder)]
    if deep:
        other = next(folder for folder in folders if folder not in splits)
        raise InputError(
            f"{top}: {deep[0].name} is the name of a split and has folders in it, {other.name} is none; "
            f"expected either only train, val and test there, or only classes"
        )
    return [ClassFolder(folder, "") for folder in folders]


def _same_place(root: Path, parts: Sequence[str]) -> Path | None:
    """The folder at the same place below `root`, but for case, Unicode form and the words for splits."""
    for part in parts:
        there = subfolders(root)
        words = {part, split_of(part) or part}
        found = [one for one in there if one.name == part] or [
            one for one in there if folded(one.name) == folded(part) or split_of(one.name) in words - {part}
        ]
        if not found:
            return None
        root = found[0]
    return root


def pair(images: Iterable[Path], masks: Iterable[Path], reading: Reading) -> dict[Path, Mask]:
    """Each image's mask, in four steps: the same stem; but for case and Unicode form; but for the endings
    _mask, _segmentation, _seg, -mask, and .jpg or .png before the last one; but for a number at the end.

    Masks with numbers, such as 1_0.png and 1_1.png, show one object each. They are given as a tuple, together
    with one that has no number. A mask of a later step is counted in a note, and so is a mask that belongs to
    no image. Raises InputError if two masks without numbers fit an image in one step, or two images a mask.
    """
    images = list(images)
    stems = {folded(image.stem) for image in images}
    order = sorted(masks, key=lambda path: (path.suffix.lower() == ".png", path.is_file()))
    left = {path.name if path.is_dir() else path.stem: path for path in order}  # PNGs are preferred
    for spare in set(order) - set(left.values()):
        reading.leave_out(spare, "another mask of the same image is preferred")
    found = {image: [left.pop(image.stem)] for image in images if image.stem in left}
    for key, what in STEPS:
        by_key: dict[str, list[str]] = defaultdict(list)
        for name in left:
            by_key[next((one for one in key(folded(name)) if one in stems), "")].append(name)
        taken: dict[str, Path] = {}
        for image in images:
            names = by_key[folded(image.stem)]
            if not names or (key is not _unnumbered and image in found):
                continue
            if names[0] in taken or (key is not _unnumbered and len(names) > 1):
                two = [taken[names[0]], image] if names[0] in taken else [left[name] for name in names[:2]]
                raise InputError(
                    f"{two[0]} and {two[1]} fit {left[names[0]] if names[0] in taken else image}; expected "
                    f"one, several annotators' masks in a folder {image.stem}/, or several objects' masks "
                    f"{image.stem}_0, {image.stem}_1"
                )
            taken |= dict.fromkeys(names, image)
        for name, image in taken.items():
            reading.count(left[name], what)
            found.setdefault(image, []).append(left.pop(name))
    for name, spare in left.items():
        fits = any(one in stems for key, _ in STEPS for one in key(folded(name)))
        for file in visible(spare) if spare.is_dir() else [spare]:
            reading.leave_out(
                file, "another mask fits its image better" if fits else "no image for this mask"
            )
    return {image: its[0] if len(its) == 1 else tuple(its) for image, its in found.items()}


def _add(
    reading: Reading,
    root: Path,
    label: str,
    split: str,
    images: Iterable[Path],
    masks: dict[Path, Mask],
    options: Options,
) -> None:
    for image in images:
        add(reading, Found(sample_id(image, root), image, label, masks.get(image), split), options)


def add(reading: Reading, row: Found, options: Options) -> None:
    """Add a row whose image and mask are files. Of several pictures in its image each becomes a row.

    Raises InputError if an image has several pictures, and its mask another number of them.
    """
    image, mask = row.image, row.mask
    assert isinstance(image, Path)
    images = unfold(image, "image", options, reading)
    if isinstance(mask, tuple):
        every = [unfold(path, "mask", options, reading) for path in mask if isinstance(path, Path)]
        masks: list[Any] = [tuple(chain.from_iterable(every))]
    elif isinstance(mask, Path):
        masks = unfold(mask, "mask", options, reading)
        if mask.suffix.lower() not in SUFFIXES and mask.is_dir():
            reading.count(mask, "folders of several annotators' masks, which are averaged")
    else:
        masks = [mask]
    if len(images) == 1:
        reading.found.append(row._replace(image=images[0], mask=masks[0] if len(masks) == 1 else mask))
        return
    if not row.group and not row.split:
        parted = "which splits may part; a manifest with a column group keeps them together"
        reading.count(image, f"files of several pictures, {parted}")
    if mask is not None and len(masks) != len(images):
        raise InputError(
            f"{mask}: {len(masks)} pictures in it, its image {image} has {len(images)}; expected as many"
        )
    for number, (one, its) in enumerate(
        zip(images, masks * (len(images) if mask is None else 1), strict=True), start=1
    ):
        reading.found.append(row._replace(id=f"{row.id}#{number:04d}", image=one, mask=its))
