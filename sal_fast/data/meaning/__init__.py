"""The meaning of mask files: which pixels are foreground, and to what degree, in a file and in a whole set.

`mask.read` makes a map of one file and notes what it saw. `verdict.judge` looks at what was seen in all files
of a set, and says what is refused and what should be known. Data sets and people's answers go the same way.
"""

from sal_fast.data.meaning.mask import Map, MisSized, compared, joined, nearest, read
from sal_fast.data.meaning.rule import Foreground, Rule
from sal_fast.data.meaning.seen import Seen
from sal_fast.data.meaning.verdict import Verdict, judge, of_deep_images, useless

__all__ = [
    "Foreground", "Map", "MisSized", "Rule", "Seen", "Verdict", "compared", "joined", "judge", "nearest",
    "of_deep_images", "read", "useless",
]  # fmt: skip
