"""sal-fast data: look through a data set, decode it once for all runs, render eye tracking to maps."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Column
from rich.table import Table as Sheet

from sal_fast._util.devices import torch_device
from sal_fast._util.words import DecoderName
from sal_fast.cli import parsing
from sal_fast.cli.output import say, tell
from sal_fast.data import (
    catalog,
    check,
    convert,
    decode,
    duplicates,
    fixations,
    load_originals,
    prepare,
    prepared,
)
from sal_fast.data import preview as pages
from sal_fast.data.augment import stored_size
from sal_fast.data.fixations.setting import Coordinates, Unit
from sal_fast.data.meaning import Rule
from sal_fast.data.prepared import PreparedTable
from sal_fast.data.readers import Options
from sal_fast.errors import InputError
from sal_fast.experiment import frozen
from sal_fast.experiment.config import Config


def main(arguments: list[str]) -> int:
    return parsing.one_of(
        {
            "check": check_data,
            "prepare": prepare_data,
            "convert": convert_data,
            "fixations": render_fixations,
        },
        arguments,
        "sal-fast data",
        "What can be done with data before a run.",
    )


def check_data(
    data: Annotated[str, tyro.conf.Positional],
    /,
    root: str | None = None,
    *,
    format: str = "auto",
    columns: str = "",
    foreground: str | None = None,
    ignore: str | None = None,
    foreground_colour: str | None = None,
    white: float | None = None,
    preview: Path | None = None,
    allow_leaks: bool = False,
) -> int:
    """Look through a data set before a run does.

    It counts the images of each class, lists every file that is missing, empty, mis-sized or unreadable, and
    says what the masks mean. It names pictures that occur twice, byte by byte or by their look.
    For one of the paper's data sets it also says what differs from the paper's Table 1. The exit status is 2
    if a run would refuse the data.

    Args:
        data: a folder or file in one of the formats of docs/data.md, builtin, or, with root: cub200,
            flowers102, imagenet-s, ham10000, food201; or file.py:function.
        root: the folder of the official archives, unpacked or not.
        format: the run's --format: the format of the data, such as coco; auto takes what it looks like.
        columns: the run's --columns: the names in the data by ours, such as image=filename,label=dx.
        foreground: the run's --foreground: the values of masks that are foreground, such as 1,2, or grades.
        ignore: the run's --ignore: the values of masks that are neither foreground nor background.
        foreground_colour: the run's --foreground-colour: the colours of masks that are foreground.
        white: the run's --white: the number that is white in files of more than 8 bits.
        preview: an .html file to write, with the maps of thirty images laid over them, the oddest first.
        allow_leaks: the run's --allow-leaks: a picture in more than one split or class is no problem.
    """
    rule = Rule.of(foreground, ignore, foreground_colour, white)
    found = check.look(data, root, rule, Options.of(format, columns), allow_leaks=allow_leaks)
    say(f"{found.table.name}: {len(found.table)} images, {len(found.table.classes)} classes")
    Console().print(_sheet(found), markup=False)
    if data in catalog.ENTRIES and not catalog.compare(data, found.table):
        say("all counts are those of the paper's Table 1")
    for line in (*(f"note: {note}" for note in found.notes), *found.problems):
        tell(line, sys.stdout)
    if preview is not None:
        pages.write(preview, found)
        say(f"preview: {preview}")
    problems, notes = len(found.problems), len(found.notes)
    say(
        f"{problems} problem{'s' * (problems != 1)} that a run would refuse, {notes} note{'s' * (notes != 1)}"
        f"{' above' * bool(problems + notes)}"
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


def prepare_data(
    *,
    data: str,
    out: Path,
    root: str | None = None,
    format: str = "auto",
    columns: str = "",
    image_size: int = 224,
    augment: str = "none",
    copy: bool = True,
    decoder: DecoderName = "auto",
    arch: str | None = None,
    weights: str = "none",
    output_stride: int = 32,
    seed: int = 0,
    foreground: str | None = None,
    ignore: str | None = None,
    foreground_colour: str | None = None,
    white: float | None = None,
    allow_leaks: bool = False,
) -> int:
    """Decode a data set once, for all runs.

    `sal-fast run --data OUT` then starts at once. The same command continues where it was interrupted, and
    decodes again only what has changed since. Files that cannot be used are listed at the end, with exit
    status 2; mend or remove them and repeat the command.

    Args:
        data: a folder or file in one of the formats of docs/data.md, builtin, or, with root: cub200,
            flowers102, imagenet-s, ham10000, food201; or file.py:function.
        out: the folder to write to.
        root: the folder of the official archives, unpacked or not.
        format: the runs' --format: the format of the data, such as coco; auto takes what it looks like.
        columns: the runs' --columns: the names in the data by ours, such as image=filename,label=dx.
        image_size: the runs' --image-size: pixels a side that the network sees.
        augment: the runs' --augment; for crops, images are kept at 8/7 of image_size. A plug-in crops nothing
            here.
        copy: keep decoded images (3 bytes a pixel). Without it only masks are kept, and every run decodes
            images.
        decoder: dali, torch, pillow, or auto (dali on a GPU where it is installed, else torch).
        arch: a network whose features are kept too, for runs with --train head and the same --arch,
            --weights, --output-stride and, without weights, --seed.
        weights: the runs' --weights.
        output_stride: the runs' --output-stride.
        seed: the runs' --seed, from which random weights follow.
        foreground: the values of masks that are foreground, such as 1,2, or grades.
        ignore: the values of masks that are neither foreground nor background.
        foreground_colour: the colours of masks that are foreground, such as 255,0,0.
        white: the number that is white in files of more than 8 bits, such as 4095.
        allow_leaks: the runs' --allow-leaks.
    """
    if image_size < 1:
        raise InputError(f"--image-size {image_size}: expected at least 1")
    Config.of({"augment": augment})  # it refuses unknown words
    rule = Rule.of(foreground, ignore, foreground_colour, white)
    table = load_originals(data, root, rule, Options.of(format, columns))
    recipe = prepare.Recipe(image_size, stored_size(augment, image_size), copy)
    with closing(decode.choose(decoder, torch_device("auto"))) as decoding:
        broken = prepare.prepare(table, out, recipe, decoding)
    for error in broken:
        tell(str(error), sys.stdout)
    if broken:
        raise InputError(
            f"{len(broken)} of {len(table)} samples cannot be used (see above); mend or remove their files, "
            f"then repeat the command: the others are kept"
        )
    if arch is not None:
        _prepare_features(
            data=str(out), arch=arch, weights=weights, output_stride=output_stride, image_size=image_size,
            seed=seed, decoder=decoder,
        )  # fmt: skip
    _check_twice(prepared.read(out), allow_leaks)
    say(f"{len(table)} samples, for --image-size {image_size} --augment {augment}: {out}")
    return 0


def convert_data(
    data: Annotated[str, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    root: str | None = None,
    *,
    format: str = "auto",
    columns: str = "",
    foreground: str | None = None,
    ignore: str | None = None,
    foreground_colour: str | None = None,
    white: float | None = None,
) -> int:
    """Write a data set of any format as a plain folder.

    Images and masks are copied to OUT/images/<class>/ and OUT/masks/<class>/, and images without a class to
    OUT/pool/. If the data set has splits, OUT/manifest.csv holds them. What the options say about masks is
    applied, so that OUT needs none of them. Only --foreground grades has to be said again.

    Args:
        data: what `sal-fast data check` takes.
        out: the folder to write to; it must be new or empty.
        root: the folder of the official archives, unpacked or not.
        format: the format of the data, such as coco; auto takes what it looks like.
        columns: the names in the data by ours, such as image=filename,label=dx.
        foreground: the values of masks that are foreground, such as 1,2, or grades.
        ignore: the values of masks that are neither foreground nor background.
        foreground_colour: the colours of masks that are foreground, such as 255,0,0.
        white: the number that is white in files of more than 8 bits, such as 4095.
    """
    rule = Rule.of(foreground, ignore, foreground_colour, white)
    table = load_originals(data, root, rule, Options.of(format, columns))
    for note in table.notes:
        tell(f"note: {note}", sys.stdout)
    made = convert.convert(table, out)
    masks = sum(mask is not None for mask in table.masks)
    also = " --foreground grades" * rule.grades
    say(f"{len(table)} images, {masks} masks: {out}; `sal-fast data check {made}{also}` looks through them")
    return 0


def _prepare_features(**options: Any) -> None:
    """Keep the features of a network for runs that train its head alone."""
    frozen.prepare_features(Config(train="head", **options))


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
