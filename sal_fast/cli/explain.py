"""sal-fast explain: where a trained model looks on images."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from sal_fast._util.words import Probe
from sal_fast.cli import parsing
from sal_fast.cli.output import say
from sal_fast.cli.predict import OnImages
from sal_fast.trained.explain import explain


@dataclass(frozen=True, kw_only=True)
class Options(OnImages):
    """Draw where a model looks on images.

    OUT gets overlays/ID.jpg, the photograph with its map over it; maps/ID.png, the map in grey; maps/ID.npy,
    the map's numbers; sheet.png, the first overlays on one sheet; and explain.csv, which lists all. A file
    that cannot be used is named and passed over. The same command continues one that was interrupted.
    """

    classes: Annotated[str | None, tyro.conf.arg(name="class", metavar="CLASS|all|top3")] = None
    """The class whose map is drawn: a name, all, or top3 (top5, ...) for the most probable ones. Without it
    each image's predicted class is."""
    probe: Probe | None = None
    """The kind of map; without it the one that the run used."""


def main(arguments: list[str]) -> int:
    options = parsing.one_line(Options, arguments, "sal-fast explain")
    model, images = options.loaded()
    explain(
        model,
        images,
        options.out,
        classes=options.classes,
        probe=options.probe,
        decoder=options.decoder,
    )
    say(f"{len(images)} images: {options.out / 'sheet.png'}, {options.out / 'explain.csv'}")
    return 0
