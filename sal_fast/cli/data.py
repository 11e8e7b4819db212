"""sal-fast data: look through a data set, decode it once for all runs, render eye tracking to maps."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Column
from rich.table import Table as Sheet

from sal_fast._util.devices import torch_device
from sal_fast._util.words import DecoderName
from sal_fast.cli import parsing
from sal_fast.cli.files import FilesWithMasks
from sal_fast.cli.output import say, tell
from sal_fast.data import (
    catalog,
    check,
    convert,
    decode,
    duplicates,
    fixations,
    groups,
    prepare,
    prepared,
)
from sal_fast.data import preview as pages
from sal_fast.data.augment import stored_size
from sal_fast.data.fixations.setting import Coordinates, Unit
from sal_fast.data.prepared import PreparedTable
from sal_fast.errors import InputError
from sal_fast.experiment import frozen
from sal_fast.experiment.config import Config
from sal_fast.trained.metadata import like_its_weights


def main(arguments: list[str]) -> int:
    return parsing.one_of(
        {
            "check": Check,
            "prepare": Prepare,
            "convert": Convert,
            "fixations": render_fixations,
        },
        arguments,
        "sal-fast data",
        "What can be done with data before a run.",
    )


@dataclass(frozen=True, kw_only=True)
class Check(FilesWithMasks):
    """Look through a data set before a run does.

    It counts the images of each class, lists every file that is missing, empty, mis-sized or unreadable, and
    says what the masks mean. It names pictures that occur twice, byte by byte or by their look.
    For one of the paper's data sets it also says what differs from the paper's Table 1. The exit status is 2
    if a run would refuse the data.
    """

    data: Annotated[str, tyro.conf.Positional]
    """A folder or file in one of the formats of docs/data.md, builtin, or, with root: cub200, flowers102,
    imagenet-s, ham10000, food201; or file.py:function."""
    preview: Path | None = None
    """An .html file to write, with the maps of thirty images laid over them, the oddest first."""
    allow_leaks: bool = False
    """The run's --allow-leaks: it is no problem if a picture is in more than one split or class, or a group
    in more than one split."""

    def run(self) -> int:
        """Print what was found; return the exit status."""
        found = check.look(self.data, self.root, self.its_rule, self.its_format, allow_leaks=self.allow_leaks)
        say(f"{found.table.name}: {len(found.table)} images, {len(found.table.classes)} classes")
        Console().print(_sheet(found), markup=False)
        if self.data in catalog.ENTRIES and not catalog.compare(self.data, found.table):
            say("all counts are those of the paper's Table 1")
        for line in (*(f"note: {note}" for note in found.notes), *found.problems):
            tell(line, sys.stdout)
        if self.preview is not None:
            pages.write(self.preview, found)
            say(f"preview: {self.preview}")
        problems, notes = len(found.problems), len(found.notes)
        say(
            f"{problems} problem{'s' * (problems != 1)} that a run would refuse, "
            f"{notes} note{'s' * (notes != 1)}{' above' * bool(problems + notes)}"
        )
        return 2 if found.problems else 0


def _sheet(found: check.Findings) -> Sheet:
    """Lay the findings out with one line per class."""
    table = found.table
    sheet = Sheet(Column("class", overflow="fold"))
    rows = {kind: rows for kind, rows in found.rows.items() if rows and kind != "binary mask"}
    columns: dict[str, Sequence[int]] = {"images": range(len(table)), **rows}
    for column in columns:
        sheet.add_column(column, justify="right", min_width=max(map(len, column.split())))
    tallies = [Counter(table.class_name(row) for row in rows) for rows in columns.values()]
    for name in (*table.classes, *([""] if tallies[0][""] else [])):
        sheet.add_row(name or "(no label yet)", *(str(tally[name]) for tally in tallies))
    sheet.add_section()
    sheet.add_row("all", *(str(tally.total()) for tally in tallies))
    return sheet


@dataclass(frozen=True, kw_only=True)
class Prepare(FilesWithMasks):
    """Decode a data set once, for all runs.

    `sal-fast run --data OUT` then starts at once. The same command continues where it was interrupted, and
    decodes again only what has changed since. Files that cannot be used are listed at the end, with exit
    status 2; mend or remove them and repeat the command.
    """

    data: str
    """A folder or file in one of the formats of docs/data.md, builtin, or, with root: cub200, flowers102,
    imagenet-s, ham10000, food201; or file.py:function."""
    out: Path
    """The folder to write to."""
    image_size: int | None = None
    """The runs' --image-size, pixels a side that the network sees. Without it that of the model which
    --weights names is taken, else 224."""
    augment: str = "none"
    """The runs' --augment; for crops, images are kept at 8/7 of image_size. A plug-in crops nothing here."""
    copy: bool = True
    """Keep decoded images (3 bytes a pixel). Without it only masks are kept, and every run decodes images."""
    decoder: DecoderName = "auto"
    """dali, torch, pillow, or auto (dali on a GPU where it is installed, else torch)."""
    arch: str | None = None
    """A network whose features are kept too, for runs with --train head and the same --arch, --weights,
    --output-stride and, without weights, --seed."""
    weights: str = "none"
    """The runs' --weights. A model that a run has written says --arch, --image-size and --output-stride."""
    output_stride: int | None = None
    """The runs' --output-stride; 32 if neither this nor --weights says it."""
    seed: int = 0
    """The runs' --seed, from which random weights follow."""
    allow_leaks: bool = False
    """The runs' --allow-leaks."""

    def run(self) -> int:
        """Prepare the folder; return the exit status."""
        config = self._config()
        size = config.image_size
        table = self.table(self.data)
        groups.check(table, allowed=catalog.allows(table, self.allow_leaks))
        recipe = prepare.Recipe(size, stored_size(self.augment, size), self.copy)
        with closing(decode.choose(self.decoder, torch_device("auto"))) as decoding:
            broken = prepare.prepare(table, self.out, recipe, decoding)
        for error in broken:
            tell(str(error), sys.stdout)
        if broken:
            raise InputError(
                f"{len(broken)} of {len(table)} samples cannot be used (see above); mend or remove their "
                f"files, then repeat the command: the others are kept"
            )
        if "arch" in config.given:
            frozen.prepare_features(config)
        _check_twice(prepared.read(self.out), self.allow_leaks)
        say(f"{len(table)} samples, for --image-size {size} --augment {self.augment}: {self.out}")
        return 0

    def _config(self) -> Config:
        """The options of the runs that the features are for; `arch` is given if features are wanted."""
        Config.of({"augment": self.augment})  # it refuses unknown words
        names = ("arch", "weights", "output_stride", "image_size", "seed", "decoder")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return like_its_weights(Config(train="head", data=str(self.out), preset="cyborg", **given))


@dataclass(frozen=True, kw_only=True)
class Convert(FilesWithMasks):
    """Write a data set of any format as a plain folder.

    Images and masks are copied to OUT/images/<class>/ and OUT/masks/<class>/, and images without a class to
    OUT/pool/. If the data set has splits, OUT/manifest.csv holds them. What the options say about masks is
    applied, so that OUT needs none of them. Only --foreground grades has to be said again.
    """

    data: Annotated[str, tyro.conf.Positional]
    """What `sal-fast data check` takes."""
    out: Annotated[Path, tyro.conf.Positional]
    """The folder to write to; it must be new or empty."""

    def run(self) -> int:
        """Write the folder; return the exit status."""
        table = self.table(self.data)
        for note in table.notes:
            tell(f"note: {note}", sys.stdout)
        made = convert.convert(table, self.out)
        masks = sum(mask is not None for mask in table.masks)
        also = " --foreground grades" * table.rule.grades
        say(
            f"{len(table)} images, {masks} masks: {self.out}; `sal-fast data check {made}{also}` looks "
            f"through them"
        )
        return 0


def _check_twice(table: PreparedTable, allowed: bool) -> None:
    """Tell of pictures that occur twice, and refuse those that leak, unless that is allowed."""
    found = duplicates.find(prepared.traits(table))
    refused, _ = duplicates.judged(table, found, allowed=catalog.allows(table, allowed))
    for line in duplicates.described(table, found):
        tell(f"note: {line}", sys.stdout)
    if refused:
        raise InputError(f"{table.folder} is ready, but runs refuse it. {duplicates.refusal(table, refused)}")


def render_fixations(
    files: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE ...]")],
    out: Path,
    *,
    columns: str = "",
    images: Path | None = None,
    coordinates: Coordinates | None = None,
    screen: str | None = None,
    offset: str | None = None,
    scale: str = "1",
    unit: Unit | None = None,
    sigma: float | None = None,
    longest: int = fixations.LONGEST,
) -> int:
    """Render eye tracking to graded maps.

    The maps OUT/<id>.png can be used as masks. A FILE is a table with a header and one fixation a row (CSV,
    TSV), or has one line per image and observer: id,w,h,x1,y1,ms1,x2,y2,ms2,... in pixels of the image of w x
    h and milliseconds. Files are added to those that OUT has. Without a FILE the maps are made again from the
    points that are kept there.

    Args:
        files: the fixations.
        out: the folder of the maps; with ids <class>/<name>, the folder masks beside images.
        columns: names of a table's columns if they are not found, as image=stim,x=gx; known are image, x, y,
            duration, observer, width, height. duration= leaves durations out.
        images: the folder of the images, whose names and sizes are taken from there; without it the folder
            images beside OUT.
        coordinates: pixels, or shares (0..1) of the width and height; without it all values of a file tell.
        screen: the screen, as 1920x1080, on which images were shown in the middle; x and y belong to it then.
        offset: X,Y of the image's top left corner on the screen, if it was not in the middle.
        scale: pixels of the screen for each pixel of the image, or fit.
        unit: s, ms or us, the unit of durations; without it their median tells.
        sigma: the deviation of the Gaussian about a fixation, in pixels of the image, usually one degree of
            visual angle; without it the image's width / 25.
        longest: the longer side of a map in pixels, if its image is larger.
    """
    size = None if screen is None else _two("--screen", screen, "x")
    setting = fixations.Setting(
        columns=_named(columns), images=images, coordinates=coordinates,
        screen=None if size is None else (int(size[0]), int(size[1])),
        offset=None if offset is None else _two("--offset", offset, ","),
        scale="fit" if scale == "fit" else _float("--scale", scale), unit=unit,
    )  # fmt: skip
    done = fixations.write(files, out, sigma, longest, setting)
    say(f"maps {done.maps}, observers {done.observers}, fixations {done.fixations}: {out}")
    if done.outside:
        say(f"note: fixations outside their images, left out: {done.outside}")
    if done.empty:
        say(f"note: empty maps (nobody looked), each of which counts as no map: {done.empty}")
    return 0


def _named(text: str) -> dict[str, str]:
    """What `name=value,name=value` says."""
    parts = [part.partition("=") for part in text.split(",") if part]
    for name, equals, _ in parts:
        if not equals:
            raise InputError(f"--columns {text}: {name!r} has no =; expected image=NAME,x=NAME,...")
    return {name.strip(): value.strip() for name, _, value in parts}


def _two(option: str, text: str, between: str) -> tuple[float, float]:
    """Two numbers of an option."""
    one, found, other = text.partition(between)
    if not found:
        raise InputError(f"{option} {text}: expected two numbers with {between!r} between them")
    return _float(option, one), _float(option, other)


def _float(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option}: {text!r} is not a number") from None
