"""What was seen in one mask file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MOST_VALUES = 40  # distinct values that a label map may have; a map of degrees has more
INVERTED = 0.5  # the share of foreground along the border, and in the picture, of a mask that looks inverted


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in one mask file, for the verdict on the whole set.

    kind: `binary`, `graded`, `empty`, or `full` (one grey everywhere).
    values: the distinct values of a file that has at most MOST_VALUES.
    coverage, border: the share of foreground in the whole picture, and along its border. A graded pixel
        counts as far as it is foreground.
    ignored: the share of pixels that are neither.
    depth: `8 bits`, `16 bits`, `32 bits` or `fractions`. peak: the largest number of a file that is deeper
        than 8 bits.
    marks: `turned` (it was drawn on the stored pixels of a turned photograph), `undecidable` (that cannot be
        told), `alpha` (its transparency is the map), `palette` (its values are indices of colours), `many`
        (a rule takes its values for labels, but they are many, or a JPEG's), and, of several annotators'
        masks of one image, `overlapping` or `apart` (`compared`).
    """

    kind: str
    values: tuple[float, ...] = ()
    coverage: float = 0.0
    border: float = 0.0
    ignored: float = 0.0
    depth: str = "8 bits"
    peak: float = 0.0
    marks: tuple[str, ...] = field(default=())

    @property
    def useful(self) -> bool:
        """True if the map says more about one place than about another."""
        return self.kind in ("binary", "graded")

    @property
    def looks_labelled(self) -> bool:
        """True if the map has so few values that they may be labels of regions, not degrees."""
        return self.kind == "graded" and bool(self.values)

    @property
    def looks_inverted(self) -> bool:
        """True if most of the border, and most of the picture, is foreground."""
        return self.useful and min(self.border, self.coverage) > INVERTED

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults, rounded, for an index file."""
        plain = asdict(self)
        for name in ("coverage", "border", "ignored"):
            plain[name] = round(plain[name], 4)
        return {name: value for name, value in plain.items() if value not in (0.0, (), "8 bits")}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Seen:
        """Read what `to_json` wrote."""
        whole: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()
        }
        return cls(**whole)
