"""A sentence and a figure on what saliency and the criterion gained in a run (`--baseline b1`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sal_fast.experiment import baseline, loading
from sal_fast.experiment.baseline import Gain, Gained
from sal_fast.experiment.record import RunFolder
from sal_fast.report.figures import Drawn, Row, new_figure, rows
from sal_fast.report.looks import BLACK, BLUE, ORANGE
from sal_fast.report.runs import Run

MINUS = "−"
COLOURS = {"saliency": BLUE, "criterion": ORANGE}
SHOWN = {"dice": "Dice", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Opening:
    """The beginning of a report on a run: a sentence, what it rests on, and what makes it worth little."""

    sentence: str
    basis: str
    notes: list[str]


def opening(run: loading.Run) -> Opening | None:
    """The beginning of a report on a run; None if the run has no baseline."""
    found = baseline.read(RunFolder(run.path))
    return None if found is None else Opening(_sentence(run, found), _basis(run, found), found.notes)


def figures(runs: Sequence[Run]) -> list[Row]:
    """A figure for each run with a baseline: what was gained in each measure, and its interval."""
    found = {run.name: baseline.read(RunFolder(run.path)) for run in runs}
    shown = {name: one for name, one in found.items() if one is not None and one.gains}
    return rows(shown, partial(_draw, {run.name: run for run in runs}))


def _sentence(run: loading.Run, found: Gained) -> str:
    """One sentence on what was gained, or that it cannot be told."""
    control = run.config.control_maps
    maps = run.config.regime if control == "none" else f"{run.config.regime}, {control} maps"
    subjects = {
        "saliency": f"training with maps ({maps})",
        "criterion": f"choosing images by {run.config.criterion}",
    }
    parts = []
    for what, subject in subjects.items():
        told = [_amount(gain) for gain in found.gains if gain.what == what]
        if told:
            parts.append(f"{subject} {', and '.join(told)}")
    place = f"On {run.record['data']['name']}"
    if not parts:
        return f"{place} it cannot be told what saliency and the criterion gained."
    return f"{place}, with this one seed, {'; '.join(parts)}."


def _amount(gain: Gain) -> str:
    """Tell what was gained in one measure, as the rest of a sentence."""
    measure, mean, low, high = SHOWN[gain.measure], gain.mean, gain.low, gain.high
    if low > 0:
        return f"gained {mean:.3f} of {measure} ({low:.3f} to {high:.3f})"
    if high < 0:
        return f"lost {-mean:.3f} of {measure} ({-high:.3f} to {-low:.3f})"
    span = f"{low:+.3f} to {high:+.3f}".replace("-", MINUS)
    return f"changed {measure} by an amount that cannot be told from nothing ({span})"


def _basis(run: loading.Run, found: Gained) -> str:
    """Tell what was compared, and what the intervals are over."""
    by_what = {gain.what: gain for gain in found.gains}
    parts = []
    if "saliency" in by_what:
        parts.append(
            f"Saliency: the run's last model against b1 on the same {by_what['saliency'].labelled} images, "
            f"without maps."
        )
    if "criterion" in by_what:
        count = by_what["criterion"].labelled
        parts.append(
            f"Criterion: b1 on {count} images that {run.config.criterion} chose, against b1 on {count} "
            f"images that were drawn at random."
        )
    if parts:
        sizes = " or ".join(str(count) for count in sorted({gain.images for gain in found.gains}))
        parts.append(
            f"The intervals (95 %, paired bootstrap) are over the {sizes} test images alone: they leave out "
            f"what another seed would change, which is often more, and which sal-fast sweep shows."
        )
    return " ".join(parts)


def _draw(runs: Mapping[str, Run], title: str, found: Gained) -> Iterator[Drawn]:
    gains = found.gains[::-1]  # the first one is to stand at the top
    size = (5.2, 1.2 + 0.45 * len(gains))
    figure, axes = new_figure(title, "gained (95 % interval over test images)", size=size, whole=False)
    for y, gain in enumerate(gains):
        low, high = max(0.0, gain.mean - gain.low), max(0.0, gain.high - gain.mean)
        axes.errorbar(gain.mean, y, xerr=[[low], [high]], fmt="o", color=COLOURS[gain.what], capsize=3)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_yticks(range(len(gains)), [f"{gain.what}: {SHOWN[gain.measure]}" for gain in gains])
    axes.set_ylim(-0.6, len(gains) - 0.4)
    axes.grid(visible=False, axis="y")
    yield "gained", _sentence(runs[title], found), figure
