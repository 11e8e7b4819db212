"""sal-fast data fixations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro

from sal_fast.cli import parsing
from sal_fast.data import fixations


def main(arguments: list[str]) -> int:
    return parsing.one_line(main_fixations, arguments, "sal-fast data fixations")


def main_fixations(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Path,
    *,
    sigma: float | None = None,
    longest: int = fixations.LONGEST,
) -> int:
    """Graded maps from eye tracking, OUT/<id>.png, to be used as masks.

    FILE is text, a line an image and observer: id,w,h,x1,y1,ms1,x2,y2,ms2,... in pixels of the image of
    w x h and milliseconds.

    Args:
        file: the fixations.
        out: the folder of the maps; with ids <class>/<name>, the folder masks beside images.
        sigma: of the Gaussian about a fixation, in pixels of the image, usually one degree of visual angle;
            without it the image's width / 25.
        longest: side of a map, in pixels, where its image is larger.
    """
    place = Path(os.path.expanduser(out))
    done = fixations.write(Path(os.path.expanduser(file)), place, sigma, longest)
    print(f"{place}: maps {done.maps}, observers' lines {done.observers}, fixations {done.fixations}")
    if done.outside:
        print(f"note: fixations outside their images, left out: {done.outside}")
    if done.empty:
        print(f"note: empty maps (nobody looked), each of which counts as no map: {done.empty}")
    return 0
