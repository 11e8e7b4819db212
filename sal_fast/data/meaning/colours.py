"""Masks in colours: those that one colour was painted in, and those whose colours are known by name."""

import numpy as np

from sal_fast.data.files import Encoded, Unreadable
from sal_fast.data.meaning.rule import Colour

MOST_COLOURS = 40  # of a colour-coded label map; a photograph or a heat map has more
OFF = 6  # grey levels by which a pixel of one hue may miss it, by rounding
JPEG_OFF = 40  # the same after compression
NEARLY_ALL = 0.98


def are(rgb: np.ndarray, wanted: tuple[Colour, ...]) -> np.ndarray:
    """True for each pixel that has one of these colours, bool [H, W]."""
    return np.isin(_codes(rgb), [red << 16 | green << 8 | blue for red, green, blue in wanted])


def of_one_hue(rgb: np.ndarray, file: Encoded) -> np.ndarray:
    """How far each pixel has the one colour of a mask that was painted on black, uint8 [H, W].

    Raises Unreadable if there are several colours, or another background.
    """
    brightness = rgb.max(axis=-1)
    brightest = rgb[brightness == brightness.max()].astype(float).mean(axis=0)
    hue = brightest / brightest.max()
    off = np.abs(rgb - brightness[..., None] * hue).max(axis=-1)
    if (off <= (JPEG_OFF if file.plain else OFF)).mean() >= (NEARLY_ALL if file.plain else 1.0):
        return brightness
    codes, counts = np.unique(_codes(rgb), return_counts=True)
    if len(codes) <= MOST_COLOURS:
        raise Unreadable(
            file.path,
            f"a mask of {len(codes)} colours ({_named(codes[np.argsort(-counts)])}), expected one on black; "
            f"say which are foreground, as in --foreground-colour {_triple(codes[np.argsort(-counts)][-1])}",
        )
    raise Unreadable(
        file.path,
        "a picture of many colours, expected grey: it looks like a heat map drawn with a colour map, or "
        "paint on the photograph, which does not say how much each place counts; save the map as it was "
        "before it was coloured, in grey, or the paint alone, white on black",
    )


def _codes(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _triple(code: int) -> str:
    return f"{code >> 16},{code >> 8 & 255},{code & 255}"


def _named(codes: np.ndarray) -> str:
    """The commonest colours in words."""
    first = "; ".join(_triple(int(code)) for code in codes[:4])
    return first + ("; ..." if len(codes) > 4 else "")
