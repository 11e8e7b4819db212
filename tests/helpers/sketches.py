"""Figures that are made, but not drawn: drawing takes nearly all of a report's time."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


@dataclass
class Sketch:
    """What a figure says: its texts, and the colour of each entry of its legend."""

    texts: list[str]
    colours: dict[str, str]
    drawn: set[str] = field(default_factory=set)  # the colours of the lines in its axes


@pytest.fixture
def sketches(monkeypatch: pytest.MonkeyPatch) -> list[Sketch]:
    """Every figure of the test. Its SVG and PNG hold no more than its texts."""
    found: list[Sketch] = []

    def savefig(self: Figure, file: Any, *, format: str, **_: Any) -> None:
        texts = [text.get_text() for text in self.findobj(Text) if text.get_text()]
        if format == "svg":
            legends = [zip(one.legend_handles, one.get_texts(), strict=True) for one in self.legends]
            entries = [(handle, text.get_text()) for one in legends for handle, text in one]
            colours = {
                label.replace("\n", " "): to_hex(handle.get_color())
                for handle, label in entries
                if isinstance(handle, Line2D) and label.strip()
            }
            lines = [line for axes in self.axes for line in axes.get_lines()]
            found.append(Sketch(texts, colours, {to_hex(line.get_color()) for line in lines}))
        file.write("\n".join(texts).encode())

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found
