"""What the user, or a data set, says about its mask files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sal_fast.errors import InputError

Foreground = Callable[[np.ndarray], np.ndarray]
Colour = tuple[int, int, int]
GRADES = "grades"  # the word of --foreground for maps whose few values are degrees all the same


@dataclass(frozen=True)
class Rule:
    """How the pixels of mask files are read. Without any of these the files speak for themselves.

    foreground: the values of a label map that are foreground. All others are background.
    grades: maps with few values are degrees of grey, and no label maps.
    ignore: values that are neither (void). They become background, and are counted.
    colours: the colours of a colour-coded mask that are foreground.
    white: the number that is white in files of more than 8 bits, such as 4095 for 12 bits.
    own: the data set's own rule, bool [H, W] of the pixels as Pillow decodes them (uint8 [H, W] or
        [H, W, 3], the indices of a palette); of a masked array (numpy.ma) the pixels that it leaves out are
        neither. It overrides all others but `white`.
    """

    foreground: tuple[int, ...] = ()
    grades: bool = False
    ignore: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    white: float | None = None
    own: Foreground | None = None

    @classmethod
    def of(
        cls,
        foreground: str | None = None,
        ignore: str | None = None,
        foreground_colour: str | None = None,
        white: float | None = None,
    ) -> Rule:
        """Make a rule from the texts of options. Raises InputError for a text that is no list of numbers."""
        grades = foreground == GRADES
        values = () if foreground is None or grades else _numbers("foreground", foreground)
        void = () if ignore is None else _numbers("ignore", ignore)
        colours = () if foreground_colour is None else _colours(foreground_colour)
        both = set(values) & set(void)
        if both:
            raise InputError(f"{min(both)} is in both --foreground and --ignore; leave it out of one")
        if colours and (values or grades):
            raise InputError("--foreground goes with values, --foreground-colour with colours; leave one out")
        return cls(values, grades, void, colours, white)

    def __str__(self) -> str:
        """The rule in words that tell it from others, as prepared folders keep it; empty for no rule."""
        said = {
            "foreground": GRADES if self.grades else ",".join(map(str, self.foreground)),
            "ignore": ",".join(map(str, self.ignore)),
            "foreground-colour": ";".join(",".join(map(str, colour)) for colour in self.colours),
            "white": "" if self.white is None else f"{self.white:g}",
            "own": "" if self.own is None else self.own.__module__,
        }
        return " ".join(f"{name}={value}" for name, value in said.items() if value)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of a text such as 1,2 or 1-3,7."""
    found: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            found += range(int(low), int(high) + 1) if dash else [int(low)]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        also = f", or {GRADES}" if option == "foreground" else ""
        raise InputError(f"--{option} {text!r}: expected values of pixels, such as 1 or 1,2 or 1-5{also}")
    return tuple(sorted(set(found)))


def _colours(text: str) -> tuple[Colour, ...]:
    """The colours of a text such as 255,0,0 or #ff0000, several divided by semicolons."""
    found = []
    for part in text.split(";"):
        part = part.strip()
        try:
            coded = part.startswith("#")
            red, green, blue = bytes.fromhex(part[1:]) if coded else bytes(map(int, part.split(",")))
        except ValueError:
            raise InputError(
                f"--foreground-colour {text!r}: expected a colour such as 255,0,0 or #ff0000; several are "
                f"divided by semicolons"
            ) from None
        found.append((red, green, blue))
    return tuple(found)
