"""The sheets of maps: where each regime's model looks, on the same test images, and what machines drew."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from sal_fast import ops
from sal_fast.errors import InputError
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.sheet import of_query
from sal_fast.report.figures import Row, numbered, picture, short
from sal_fast.report.looks import VERMILLION
from sal_fast.report.runs import Run, by_dataset, by_group, by_label, by_panel, main_panel

MOST_IMAGES = 6
MOST_MAPS = 12
MOST_COLUMNS = 8
_KEYS = ("ids", "labels", "predicted", "images", "masks", "has_mask", "cams", "dice")

Column = dict[str, Any]  # the arrays of an examples.npz: an image has the same row in each


def sheets(runs: Sequence[Run]) -> list[Row]:
    """A sheet for each data set whose runs have examples of the same images, from its main panel."""
    drawn = []
    parts = by_dataset(runs)
    for i, (dataset, whole) in enumerate(parts.items()):
        part = main_panel(whole)
        if len(by_group(part)) == 1:  # other panels have the only models to set beside it
            part = whole
        shown = {label: run for label, run in _columns(part).items() if _files(run)}
        columns = {label: _load(_files(run)[-1]) for label, run in shown.items()}
        chosen, wrong = choose(list(columns.values())) if columns else ([], 0)
        if chosen:
            first = next(iter(columns.values()))
            chosen.sort(key=lambda name: int(first["labels"][_row(first, name)]))
            figure = _sheet(columns, chosen, part[0].classes)
            alt = f"Class activation maps on test images of {dataset}: {', '.join(columns)}."
            sheet = picture(figure, numbered("heatmaps", i, len(parts)), alt)
            caption = _caption(part, list(shown.values()), chosen, wrong)
            drawn.append(Row(dataset, [sheet], caption=caption))
    return drawn


def generated(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """Sheets of the maps that machines drew, beside the images; and notes on those that cannot be shown.

    A run has two: of its first query with such maps, and of its last. Of each data set the runs are those of
    `sheets`.
    """
    drawn, notes = [], []
    shown = [run for part in by_dataset(runs).values() for run in _columns(main_panel(part)).values()]
    for i, run in enumerate(shown):
        with_maps = [one.round for one in run.rounds if (_round(run, one.round) / "maps").is_dir()]
        pictures, told = [], []
        for place in dict.fromkeys((*with_maps[:1], *with_maps[-1:])):
            try:
                sheet = of_query(run, place, most=MOST_MAPS)
            except InputError as error:
                notes.append(f"The generated maps of {run.name} are not shown: {error}.")
                break
            if sheet is None:
                continue
            name = numbered(f"maps-{place + 1}", i, len(shown))
            alt = f"Images of query {place + 1} of {run.name}, each with the map that was generated for it."
            pictures.append(picture(_plain(sheet.pixels), name, alt))
            told.append(f"query {place + 1}: {', '.join(sheet.ids)}")
        if pictures:
            drawn.append(
                Row(run.name, pictures, caption=f"{run.name}, {run.group}. By rank, {'; '.join(told)}.")
            )
    return drawn, notes


def _round(run: Run, round_index: int) -> Path:
    return RunFolder(run.path).round(round_index)


def _plain(pixels: NDArray[np.uint8]) -> Figure:
    """A figure that is nothing but these pixels."""
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / 160, height / 160))
    _show(figure.add_axes((0, 0, 1, 1)), pixels)
    return figure


def choose(columns: Sequence[Column]) -> tuple[list[str], int]:
    """Up to six ids that all columns have, and how many of them some column classified wrongly.

    Images that all classified correctly come first, then those whose mask has a foreground; classes take
    turns.
    """
    first = columns[0]
    wrong = {name for one in columns for name in one["ids"][one["labels"] != one["predicted"]].tolist()}
    ranked = []
    turns: Counter[tuple[bool, bool, int]] = Counter()
    drawn = first["has_mask"] & first["masks"].any(axis=(1, 2))
    for name, label, shown in zip(first["ids"].tolist(), first["labels"], drawn.tolist(), strict=True):
        if all(name in one["ids"] for one in columns):
            rank = (name in wrong, not shown, int(label))
            ranked.append((*rank[:2], turns[rank], name))
            turns[rank] += 1
    ranked.sort(key=lambda entry: entry[:3])  # stable: the file's order where all is equal
    chosen = [entry[3] for entry in ranked[:MOST_IMAGES]]
    return chosen, sum(name in wrong for name in chosen)


def heat(cam: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The CAM in [0, 1] at the image's size: bilinear with half-pixel centres, min-max; flat becomes zero."""
    raw = torch.from_numpy(np.asarray(cam, dtype=np.float32))[None, None]
    large = torch.nn.functional.interpolate(raw, size=size, mode="bilinear", align_corners=False)
    scaled: NDArray[np.float32] = ops.minmax_normalize(large[0])[0].numpy()
    return scaled


def _columns(runs: Sequence[Run]) -> dict[str, Run]:
    """A run for each group: that of the lowest seed that all groups have, else of the group's own lowest."""
    groups = list(by_label(runs).items())
    common = set.intersection(*({run.seed for run in members} for _, members in groups))
    if len(groups) > MOST_COLUMNS:  # one of each regime first
        first = {members[0].regime: label for label, members in reversed(groups)}
        groups.sort(key=lambda group: group[0] != first[group[1][0].regime])
    return {
        label: next((run for run in members if common and run.seed == min(common)), members[0])
        for label, members in groups[:MOST_COLUMNS]
    }


def _files(run: Run) -> list[Path]:
    """The examples that the run kept; those of its latest round are the last."""
    finished = [RunFolder(run.path).round(one.round) / "examples.npz" for one in run.rounds]
    return [path for path in finished if path.exists()]


def _load(file: Path) -> Column:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in _KEYS}
    except Exception as error:  # a damaged archive raises nearly anything
        raise InputError(
            f"{file}: not readable examples ({error}); delete the file or repeat the run"
        ) from error


def _row(column: Column, name: str) -> int:
    return int(np.flatnonzero(column["ids"] == name)[0])


def _sheet(columns: dict[str, Column], chosen: Sequence[str], names: Sequence[str]) -> Figure:
    wide, high = len(columns) + 1, len(chosen)
    titles = ["image, human mask", *(textwrap.fill(group, 17) for group in columns)]
    head = 0.1 + 0.16 * max(title.count("\n") + 1 for title in titles)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(1.28 * wide + 0.25, 1.28 * high + head), layout=layout)
    grid = figure.subplots(high, wide, squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    first = next(iter(columns.values()))
    for row, name in zip(grid, chosen, strict=True):
        k = _row(first, name)
        row[0].set_ylabel(_class(names, first["labels"][k]), fontsize=8)
        _show(row[0], first["images"][k])
        _outline(row[0], first, k)
        for axes, column in zip(row[1:], columns.values(), strict=True):
            _heat_cell(axes, column, _row(column, name), names)
    return figure


def _heat_cell(axes: Axes, column: Column, k: int, names: Sequence[str]) -> None:
    image = column["images"][k].astype(np.float32) / 255
    grey = (image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    colour = matplotlib.colormaps["inferno"](heat(column["cams"][k], image.shape[:2]))[..., :3]
    _show(axes, np.round(255 * (0.4 * grey + 0.6 * colour)).astype(np.uint8))
    _outline(axes, column, k)
    score = float(column["dice"][k])
    box = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
    text: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "bbox": box}
    axes.text(0.04, 0.96, "–" if np.isnan(score) else f"{score:.2f}", va="top", ha="left", **text)
    if column["predicted"][k] != column["labels"][k]:
        said = f"✗ {_class(names, column['predicted'][k])}"
        axes.text(0.04, 0.04, said, va="bottom", ha="left", **{**text, "fontsize": 7, "color": VERMILLION})


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    axes.imshow(image, interpolation="none", aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _outline(axes: Axes, column: Column, k: int) -> None:
    """The human mask's outline; a frame of zeros closes it at the image's edge."""
    mask = np.pad(column["masks"][k], 1)
    if not (column["has_mask"][k] and (mask > 127).any()):
        return
    place = [np.arange(n) - 1 for n in mask.shape]
    for colour, width in (("black", 2.2), ("white", 1.1)):
        axes.contour(place[1], place[0], mask, levels=[127.5], colors=colour, linewidths=width)
    height, width = mask.shape
    axes.set(xlim=(-0.5, width - 2.5), ylim=(height - 2.5, -0.5))


def _class(names: Sequence[str], label: int) -> str:
    name = names[label] if 0 <= label < len(names) else f"class {label}"
    return short(name, 17)


def _caption(runs: Sequence[Run], shown: Sequence[Run], chosen: Sequence[str], wrong: int) -> str:
    models = "the model" if len(shown) == 1 else f"all of the {len(shown)} models"
    if not wrong:
        verdict = f"Images that {models} classified correctly."
    else:
        verdict = (
            f"Too few images were classified correctly by {models}: {wrong} of these {len(chosen)} were not "
            "(marked ✗ with the class that was predicted)."
        )
    seeds = ", ".join(map(str, sorted({run.seed for run in shown})))
    groups = len(by_group(runs))
    left_out = "" if groups == len(shown) else f" {groups - len(shown)} of {groups} groups are not shown."
    place = runs[0].panel if len(by_panel(runs)) == 1 else runs[0].dataset
    where = f"On {place}, {'seeds' if ',' in seeds else 'seed'} {seeds}."
    return f"{where} {verdict}{left_out} Top to bottom: {', '.join(chosen)}."
