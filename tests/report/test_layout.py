"""What matplotlib draws: no text leaves its figure or runs into another."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from report_folders import make_run

from sal_fast import plugins
from sal_fast.experiment.regimes import REGIMES
from sal_fast.report import comparisons, curves, figures, heatmaps
from sal_fast.report.looks import Looks
from sal_fast.report.runs import Run, by_panel, fullest, load, without_alpha_sweep

Box = tuple[str, float, float, float, float]
SLACK = 1.5  # pixels of 200 an inch


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Seven regimes by six criteria, three budgets, one that is found, probes, alphas; long names."""
    root = tmp_path_factory.mktemp("layout")
    settings = [{"regime": r, "criterion": c} for r in REGIMES for c in plugins.names("criterion")]
    settings += [{"regime": "sal", "human_budget": h} for h in (0.05, 0.1, "auto")]
    settings += [
        {"regime": r, "probe": p} for r in ("b1", "sal") for p in ("gradcam", "gradcam++", "hirescam")
    ]
    settings += [{"regime": "b2", "alpha": a} for a in (0.1, 0.5)]
    for i, setting in enumerate(settings):
        for seed in (0, 1):
            make_run(
                root / f"{i}-{seed}",
                seed=seed,
                examples=12 if setting.get("criterion", "margin") == "margin" else 0,
                wrong=tuple(range(12)),
                dataset="a data set of a long name",
                classes=("a class of a long name", "b" * 40, "c"),
                **setting,
            )
    return load([root])[0]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, list[Box]]]:
    """Width, height and the texts of every PNG that is drawn in a test."""
    pages: list[tuple[float, float, list[Box]]] = []
    seen: dict[int, int] = {}
    original = RendererAgg.draw_text

    def record(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        if id(self) not in seen:
            seen[id(self)] = len(pages)
            pages.append((self.width, self.height, []))
            keep.append(self)
        up = height - descent
        box = (x - up, y - width, x + descent, y) if angle == 90 else (x, y - up, x + width, y + descent)
        pages[seen[id(self)]][2].append((s, *box))
        original(self, gc, x, y, s, prop, angle, ismath, mtext)

    keep: list[RendererAgg] = []
    monkeypatch.setattr(RendererAgg, "draw_text", record)
    return pages


def of_panels(part: list[Run], count: int) -> list[Run]:
    panels = by_panel(part)
    return [run for run in part if run.panel in (*fullest(panels), *list(panels)[:count])]


DRAW = {
    "curves": lambda main, _, looks: curves.learning_curves(of_panels(main, 1), looks),
    "scatter": lambda main, _, looks: comparisons.scatter(main, looks),
    "budgets": lambda main, _, looks: comparisons.budgets(main, looks),
    "probes": lambda main, _, looks: comparisons.probes(main, looks),
    "alphas": lambda _, runs, looks: comparisons.alphas(runs, looks),
    "trials": lambda main, _, looks: comparisons.trials(main, looks),
    "heat maps": lambda main, _, looks: heatmaps.sheets(main),
    "one run": lambda main, _, looks: curves.single(main[-1]),
}


@pytest.mark.parametrize("what", DRAW)
def test_texts_stay_apart_and_inside(what, runs, drawn):
    with figures.drawing():
        main = without_alpha_sweep(runs)
        assert DRAW[what](main, runs, Looks(main))
    assert drawn
    for width, height, texts in drawn:
        assert texts
        for text, left, top, right, bottom in texts:
            inside = left > -SLACK and top > -SLACK and right < width + SLACK and bottom < height + SLACK
            assert inside, f"{text!r} leaves the figure"
        for a, b in combinations(texts, 2):
            meet = min(a[3], b[3]) - max(a[1], b[1]) > SLACK and min(a[4], b[4]) - max(a[2], b[2]) > SLACK
            assert not meet, f"{a[0]!r} and {b[0]!r} overlap"


def test_the_measure_sees_an_overlap(drawn):
    with figures.drawing():
        figure, axes = figures.new_figure()
        axes.text(0.5, 0.5, "one text")
        axes.text(0.52, 0.5, "another")
        figures.picture(figure, "name", "alt")
    boxes = {text: box for text, *box in drawn[-1][2]}
    assert boxes["one text"][2] > boxes["another"][0] > boxes["one text"][0]
    assert boxes["one text"][3] > boxes["another"][1]
