import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from report_folders import make_run

from sal_fast._util.curves import aulc
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.regimes import REGIMES
from sal_fast.report import comparisons, write
from sal_fast.report.curves import human_ends, learning_curves, mean_curve
from sal_fast.report.figures import drawing
from sal_fast.report.heatmaps import choose, heat, sheets
from sal_fast.report.looks import Looks
from sal_fast.report.runs import load, without_alpha_sweep

# Three seeds whose curves are worked out by hand: AULC accuracy .30, .35, .40, AULC Dice .5, .5, .5.
LABELLED = [40, 60, 100]
ACCURACY = {0: [0.1, 0.3, 0.4], 1: [0.15, 0.35, 0.45], 2: [0.2, 0.4, 0.5]}
SCRIPT = "<script>alert(1)</script>"
DICE = {0: [0.5, 0.5, 0.5], 1: [0.5, 0.5, 0.5], 2: [0.5, 0.5, 0.5]}


class Page(HTMLParser):
    """The page's visible text, its tags, and whatever it would load."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text, self.tags, self.sources = "", [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """3 regimes x 3 seeds, and the report on them."""
    root = tmp_path_factory.mktemp("nine")
    for regime in ("sal", "b1", "b2"):
        for seed in range(3):
            make_run(
                root / "runs" / f"{regime}-s{seed}",
                regime=regime,
                seed=seed,
                labelled=LABELLED,
                accuracy=ACCURACY[seed],
                dice=DICE[seed],
                wrong=(0,) if regime == "b1" else (),
            )
    return root / "runs", write([root / "runs"], root / "out")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One run of odd names, as at the end of `sal-fast run`: the report goes into its folder."""
    run = make_run(
        tmp_path_factory.mktemp("single") / 'a&<>"b',
        classes=(SCRIPT, r"$\frac$", "鳥"),
        criterion="/of/<b>.py:rule",
        dataset="$x_<i>",
    )
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    return run, write([run], run / "report"), before


def test_aulc_by_hand():
    # (20 * .2 + 40 * .35) / 60
    assert aulc(LABELLED, ACCURACY[0]) == pytest.approx(0.3)
    assert aulc([40], [0.7]) == 0.7
    assert aulc([40, 40], [0.7, 0.8]) == pytest.approx(0.75)  # people skipped the whole query


def test_tables_of_three_regimes_and_seeds(nine):
    runs = pl.read_csv(nine[1].parent / "runs.csv")
    assert runs.columns[:23] == [
        *(
            "data",
            "regime",
            "criterion",
            "probe",
            "arch",
            "train",
            "start_by",
            "seed",
            "finished",
            "labelled",
        ),
        *("human_maps", "generated_maps", "empty_maps", "accuracy", "balanced_accuracy", "macro_f1"),
        *("dice", "dice_floor", "iou", "pointing"),
        *("aulc_accuracy", "aulc_dice", "seconds"),
    ]
    assert runs["regime"].to_list() == ["b1"] * 3 + ["b2"] * 3 + ["sal"] * 3
    assert runs["run"].to_list()[:2] == ["b1-s0", "b1-s1"]
    assert runs["aulc_accuracy"].to_list() == pytest.approx([0.3, 0.35, 0.4] * 3)
    sal = runs.row(6, named=True)
    assert (sal["labelled"], sal["human_maps"], sal["generated_maps"], sal["empty_maps"]) == (100, 80, 18, 2)
    assert (sal["finished"], sal["accuracy"], sal["dice_floor"], sal["seconds"]) == (True, 0.4, 0.17, 99.5)

    summary = pl.read_csv(nine[1].parent / "summary.csv")
    assert summary["group"].to_list() == ["b1", "b2", "sal"]
    assert summary["n"].to_list() == [3, 3, 3]
    assert summary["aulc_accuracy_mean"].to_list() == pytest.approx([0.35] * 3)
    assert summary["aulc_accuracy_std"].to_list() == pytest.approx([0.05] * 3)
    assert summary["aulc_dice_std"].to_list() == pytest.approx([0.0] * 3, abs=1e-12)

    rounds = pl.read_csv(nine[1].parent / "rounds.csv")
    assert rounds.height == 27
    assert rounds.filter(run="sal-s1")["labelled"].to_list() == LABELLED
    assert rounds.filter(run="sal-s1")["seconds_train"].to_list() == [7.0, 8.0, 9.0]


def test_tables_of_classes(nine, single, tmp_path):
    """A line for each run and class in the file; on the page their means over the runs of a group."""
    classes = pl.read_csv(nine[1].parent / "classes.csv")
    assert classes.height == 9 * 3
    sal = classes.filter(run="sal-s0")
    assert sal["class"].to_list() == ["circle", "square", "triangle"]
    assert sal["recall"].to_list() == pytest.approx([0.4] * 3)
    assert sal["iou"].to_list() == pytest.approx([d / (2 - d) for d in sal["dice"]])
    page = Page(nine[1])
    assert "Classes in the last round (9)" in page.text  # three groups of three classes
    assert "Classes in the last round (3)" in Page(single[1]).text
    old = make_run(tmp_path / "old", per_class=False)
    page = write([old], tmp_path / "out")
    assert "Classes in the last round" not in Page(page).text
    assert not (page.parent / "classes.csv").exists()
    assert pl.read_csv(page.parent / "runs.csv")["macro_f1"].to_list() == [None]


def test_a_note_where_figures_mean_little(tmp_path):
    run = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    lines[-1]["per_class"] |= {"images": [9, 9, 9], "predicted": [0, 27, 0]}
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Page(write([run], tmp_path / "out")).text
    assert "run: only 27 images were tested, fewer than 50" in text
    assert "run: every test image was taken for 'square'" in text


def test_page_of_three_regimes(nine):
    page = Page(nine[1])
    assert "9 runs" in page.text
    assert "0.350 ± 0.050" in page.text
    assert "Images that all of the 3 models classified correctly." in page.text
    assert page.tags.count("img") == 6  # two curves, scatter, two gains by maps, heat maps
    names = {"curves-dice.png", "curves-accuracy.png", "scatter.png", "heatmaps.png"}
    names |= {"budget-aulc-dice.png", "budget-dice.png"}
    assert {file.name for file in nine[1].parent.iterdir()} == names | {
        "index.html", "runs.csv", "rounds.csv", "classes.csv", "summary.csv", "claims.csv", "differences.csv",
        "gains.csv",
    }  # fmt: skip


@pytest.mark.parametrize("which", ["nine", "single"])
def test_page_needs_nothing_else(which, request):
    html = request.getfixturevalue(which)[1]
    text = html.read_text()
    for source in Page(html).sources:
        assert source.startswith("data:") or f'id="{source[1:]}"' in text, source
    assert not re.search(r"url\(|@import|<script", text)


def test_same_runs_give_the_same_bytes(nine, tmp_path):
    again = write(sorted(nine[0].iterdir(), reverse=True), tmp_path / "elsewhere")
    for file in nine[1].parent.iterdir():
        assert (again.parent / file.name).read_bytes() == file.read_bytes(), file.name


def test_single_run(single):
    run, html, before = single
    page = Page(html)
    assert html == run / "report" / "index.html"
    assert 'Run a&<>"b' in page.text
    assert "probe cam, arch resnet18, train all, start by stratified, seed 0, on $x_<i>" in " ".join(
        page.text.split()
    )
    assert "Maps and time" in page.text
    assert "image_size" in page.text  # the configuration
    assert "±" not in page.text
    assert {"maps.png", "seconds.png"} < {file.name for file in html.parent.iterdir()}
    assert not (html.parent / "scatter.png").exists()
    after = {
        file: file.read_bytes()
        for file in run.rglob("*")
        if file.is_file() and html.parent not in file.parents
    }
    assert after == before
    summary = pl.read_csv(html.parent / "summary.csv").row(0, named=True)
    assert summary["n"] == 1
    assert summary["aulc_accuracy_std"] is None


def test_names_are_text_not_html(single):
    page = Page(single[1])
    assert not {"script", "b", "i"} & set(page.tags)
    assert SCRIPT in page.text


def test_unfinished_run_is_marked_and_left_out_of_means(tmp_path, sketches):
    for seed in range(3):
        make_run(
            tmp_path / f"s{seed}", seed=seed, rounds=3 if seed == 2 else 5, finished=seed != 2, examples=0
        )
    html = write([tmp_path], tmp_path / "out")
    assert "s2 is unfinished (3 rounds so far)" in Page(html).text
    summary = pl.read_csv(tmp_path / "out" / "summary.csv").row(0, named=True)
    assert (summary["n"], summary["unfinished"]) == (2, 1)
    runs = pl.read_csv(tmp_path / "out" / "runs.csv")
    assert runs["finished"].to_list() == [True, True, False]
    assert summary["aulc_dice_mean"] == pytest.approx(runs["aulc_dice"][:2].mean())
    assert runs["seconds"][2] == 33.0  # of its rounds


def test_no_masks_no_dice(tmp_path, sketches):
    for regime in ("b1", "sal"):
        make_run(tmp_path / regime, regime=regime, dice=[None] * 6, examples=3)
    html = write([tmp_path], tmp_path / "out")
    assert "There is no Dice" in Page(html).text
    assert not (tmp_path / "out" / "curves-dice.png").exists()
    assert not (tmp_path / "out" / "scatter.png").exists()
    assert pl.read_csv(tmp_path / "out" / "runs.csv")["aulc_dice"].to_list() == [None, None]


def test_one_round_without_examples(tmp_path, sketches):
    html = write([make_run(tmp_path / "run", rounds=1, examples=0)], tmp_path / "out")
    assert "Where the models look" not in Page(html).text
    runs = pl.read_csv(tmp_path / "out" / "runs.csv")
    assert runs["aulc_accuracy"][0] == runs["accuracy"][0]


def test_groups_name_what_differs(tmp_path):
    make_run(tmp_path / "a", regime="b1", alpha=1.0)
    make_run(tmp_path / "b", criterion="entropy", human_budget=0.05)
    make_run(tmp_path / "c", human_budget=0.2)
    make_run(tmp_path / "d", human_budget=0.2, seed=1)
    runs, notes = load([tmp_path])
    # The budgets differ among the runs of `sal`, the criteria among all; alpha differs only with the regime.
    assert [run.group for run in runs] == [
        "b1, margin", "sal, entropy, 5 % human", "sal, margin, 20 % human", "sal, margin, 20 % human"
    ]  # fmt: skip
    assert notes == []


def test_data_sets_of_one_name_stay_apart_and_seeds_together(tmp_path):
    make_run(tmp_path / "a", fingerprint="splits of seed 0")
    make_run(tmp_path / "b", fingerprint="splits of seed 1", seed=1)
    make_run(tmp_path / "c", fingerprint="other data", classes=("x", "y"), seed=2)
    runs, notes = load([tmp_path])
    assert [(run.dataset, run.name) for run in runs] == [
        ("builtin", "a"),
        ("builtin", "b"),
        ("builtin (2)", "c"),
    ]
    assert notes == []
    make_run(tmp_path / "d", fingerprint="changed since", regime="b1")
    assert load([tmp_path])[1] == ["a and d have the same seed, but images, masks or splits differ."]


def test_half_written_line_is_no_round(tmp_path):
    rounds = make_run(tmp_path / "run", finished=False) / "rounds.jsonl"
    rounds.write_text(rounds.read_text()[:-30])
    assert len(load([tmp_path / "run"])[0][0].rounds) == 5


def test_curves_are_parted_where_criterion_network_or_probe_differ(tmp_path, sketches):
    for regime in REGIMES:
        for criterion in ("margin", "badge"):
            make_run(
                tmp_path / f"{regime}-{criterion}", regime=regime, criterion=criterion, rounds=2, examples=1
            )
    make_run(tmp_path / "swin", regime="sal", arch="swin_t", rounds=2, examples=0)
    make_run(tmp_path / "grad", regime="sal", probe="gradcam", rounds=2, examples=0)
    for alpha in (0.1, 0.5):
        make_run(
            tmp_path / f"alpha-{alpha}", regime="b2", criterion="badge", alpha=alpha, rounds=2, examples=0
        )
    rows = drawn_rows(tmp_path)
    assert [(row.title, row.main) for row in rows] == [
        ("builtin, badge, cam, resnet18", True),
        ("builtin, margin, cam, resnet18", True),
        ("builtin, other settings", False),
    ]
    html = write([tmp_path], tmp_path / "out")
    assert {"curves-dice-1.png", "curves-dice-3.png"} < {file.name for file in html.parent.iterdir()}
    page = Page(html).text
    assert "1 more: builtin, other settings" in page
    assert "On builtin, margin, cam, resnet18, seed 0" in page  # the heat maps
    assert "alpha 0.5" not in drawn_labels(rows[0])
    assert "alpha-dice.png" in {file.name for file in html.parent.iterdir()}


def drawn_rows(folder):
    with drawing():
        runs = without_alpha_sweep(load([folder])[0])
        return learning_curves(runs, Looks(runs))


def drawn_labels(row):
    """The texts of a row's first figure, as the fixture `sketches` writes them."""
    return " ".join(row.pictures[0].svg.decode().split())


def test_one_regime_by_many_criteria_is_one_figure(tmp_path, sketches):
    for criterion in ("margin", "badge", "entropy"):
        make_run(tmp_path / criterion, criterion=criterion, rounds=2, examples=0)
    (row,) = drawn_rows(tmp_path)
    assert row.title == "builtin"
    assert "sal, badge (n=1)" in drawn_labels(row)


def test_budgets_are_lines_of_one_figure(tmp_path, sketches):
    for budget in (0.05, 0.1, 0.2, "auto"):
        make_run(tmp_path / f"{budget}", human_budget=budget, rounds=4, examples=0)
    make_run(tmp_path / "b1", regime="b1", rounds=4, examples=0)
    (row,) = drawn_rows(tmp_path)
    labels = drawn_labels(row)
    for line in ("b1", "sal, 5 % human", "sal, 10 % human", "sal, 20 % human", "sal, auto budget"):
        assert f"{line} (n=1)" in labels


def test_probes_are_compared_where_a_line_has_several(tmp_path, sketches):
    for probe in ("cam", "gradcam"):
        for regime in ("b1", "sal"):
            make_run(tmp_path / f"{regime}-{probe}", regime=regime, probe=probe, rounds=2, examples=0)
    make_run(tmp_path / "tait", regime="tait", rounds=2, examples=0)
    make_run(tmp_path / "entropy", criterion="entropy", rounds=2, examples=0)
    with drawing():
        runs, _ = load([tmp_path])
        (row,) = comparisons.probes(runs, Looks(runs))
    assert row.title == "builtin, margin"
    labels = drawn_labels(row)
    assert "gradcam" in labels
    assert "sal" in labels
    assert "tait" not in labels


def test_page_of_many_runs(tmp_path, sketches):
    """What people spent, what was tried, probes and alphas: each has its place, and a name stays a name."""
    nasty = '<b onclick="x">&'
    for seed in (0, 1):
        for regime in ("b1", "b2", "sal"):
            for probe in ("cam", "gradcam"):
                make_run(
                    tmp_path / f"{nasty} {regime} {probe} {seed}",
                    regime=regime,
                    seed=seed,
                    probe=probe,
                    human_budget="auto",
                    people=regime != "b1",
                    dataset=nasty,
                    classes=(nasty, "b"),
                    examples=2,
                    rounds=4,
                )
        make_run(
            tmp_path / f"alpha {seed}", regime="b2", seed=seed, alpha=0.1, dataset=nasty, classes=(nasty, "b")
        )
        make_run(tmp_path / f"other {seed}", regime="b2", seed=seed, dataset="other", rounds=2)
    html = write([tmp_path], tmp_path / "out")
    page = Page(html)
    assert "b" not in page.tags
    assert page.text.count(nasty) > 20
    assert "<b onclick" not in html.read_text()
    for section in (
        "Summary",
        "What human maps gain",
        "People in the loop",
        "Probes",
        "Alpha",
        "Where the models look",
    ):
        assert section in page.text
    assert "What people spent (8)" in page.text
    files = {file.name for file in html.parent.iterdir()}
    assert {"trials-1.png", "probes.png", "alpha-dice.png", "budget-dice-1.png", "people.csv"} <= files
    rounds = pl.read_csv(html.parent / "rounds.csv")
    spent = rounds.filter(regime="sal", seed=0, probe="cam")["people_seconds"]
    assert spent.to_list() == [1000, 1500, 2000, 2200]


def test_mean_over_the_labelled_counts_all_have(tmp_path):
    make_run(tmp_path / "a", labelled=[40, 60, 80], accuracy=[0.2, 0.4, 0.6], dice=[0.5] * 3)
    make_run(tmp_path / "b", labelled=[40, 80, 90], accuracy=[0.4, 0.8, 0.9], dice=[0.5] * 3, seed=1)
    runs, _ = load([tmp_path])
    mean = mean_curve(runs, "accuracy")
    assert [x for x, _, _ in mean] == [40, 80]
    assert [m for _, m, _ in mean] == pytest.approx([0.3, 0.7])
    assert [s for _, _, s in mean] == pytest.approx([0.02**0.5] * 2)
    assert mean_curve(runs[:1], "accuracy")[0] == (40, 0.2, 0.0)


def test_seeds_without_a_common_count_are_drawn_alone(tmp_path, sketches):
    make_run(tmp_path / "a", labelled=[40, 60], rounds=2, examples=0)
    make_run(tmp_path / "b", labelled=[41, 61], rounds=2, seed=1, examples=0)
    assert write([tmp_path], tmp_path / "out").exists()


def test_human_ends(tmp_path):
    make_run(tmp_path / "a", regime="b1")
    make_run(tmp_path / "b", regime="b2")
    make_run(tmp_path / "c", regime="sal")
    make_run(tmp_path / "d", regime="sal", human_budget=0.15, seed=1)
    runs, _ = load([tmp_path / name for name in "abc"])
    assert human_ends(runs) == [80]
    assert human_ends(load([tmp_path])[0]) == [60, 80]


def test_heat_is_half_pixel_bilinear_and_min_max():
    got = heat(np.array([[0.0, 1.0], [2.0, 3.0]], dtype=np.float32), (4, 4))
    weight = np.array([0, 0.25, 0.75, 1])  # half-pixel centres of 4 on 2
    np.testing.assert_allclose(got, (weight[None] + 2 * weight[:, None]) / 3, atol=1e-6)
    assert not heat(np.full((3, 3), 0.4, dtype=np.float32), (8, 8)).any()


@pytest.mark.parametrize("last", ["no mask", "an empty mask"])
def test_images_all_classified_correctly_come_first_and_classes_take_turns(last):
    masks = np.full((8, 2, 2), 255, dtype=np.uint8)
    masks[7] *= last != "an empty mask"

    def column(predicted, ids="abcdefgh"):
        return {
            "ids": np.array(list(ids)),
            "labels": np.array([0, 0, 0, 1, 1, 2, 2, 2]),
            "predicted": np.array(predicted),
            "has_mask": np.array([True] * 7 + [last != "no mask"]),
            "masks": masks,
        }

    right = column([0, 0, 0, 1, 1, 2, 2, 2])
    assert choose([right]) == (["a", "d", "f", "b", "e", "g"], 0)
    assert choose([right, column([1, 0, 0, 1, 1, 2, 2, 2])]) == (["b", "d", "f", "c", "e", "g"], 0)
    assert choose([right, column([1, 1, 1, 0, 0, 2, 2, 2])]) == (["f", "g", "h", "a", "d", "b"], 3)
    assert choose([right, column([0] * 8, ids="ABCDEFGH")]) == ([], 0)


def test_misclassified_images_are_owned_up_to(tmp_path, sketches):
    runs, _ = load([make_run(tmp_path / "run", wrong=tuple(range(12)))])
    with drawing():
        (sheet,) = sheets(runs)
    assert "Too few images were classified correctly by the model: 6 of these 6 were not" in sheet.caption


def test_a_run_given_twice_or_repeated_counts_once(tmp_path):
    run = make_run(tmp_path / "runs" / "b")
    assert len(load([run, tmp_path / "runs", run])[0]) == 1
    make_run(tmp_path / "runs" / "a", out="a", device="cuda:1", finished=False)
    runs, notes = load([tmp_path / "runs"])
    assert [run.name for run in runs] == ["b"]  # the finished one
    assert notes == ["a is left out: it repeats b (same data, settings and seed)."]


def test_what_a_glob_names_beside_runs_is_left_out(tmp_path, monkeypatch, caplog, capsys, sketches):
    """`sal-fast report runs/*`: a run just begun, an older report, a file."""
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/a"), rounds=2, examples=0)
    (make_run(Path("runs/b"), finished=False, examples=0) / "rounds.jsonl").unlink()
    Path("runs/report").mkdir()
    Path("runs/report/index.html").write_text("")
    Path("runs/grid.toml").write_text("")
    assert main(["report", *map(str, sorted(Path("runs").iterdir()))]) == 0
    assert capsys.readouterr().out == "report/index.html\n"
    said = [
        "b is left out: it has no finished round yet.",
        "runs/grid.toml is left out: there is no run.json in it or in its folders.",
        "runs/report is left out: there is no run.json in it or in its folders.",
    ]
    assert [record.message for record in caplog.records] == said
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    text = Page(Path("report/index.html")).text
    for note in said:
        assert note in text
    assert "Run a" in text


def test_a_run_just_begun_is_left_out_of_its_folder(tmp_path):
    make_run(tmp_path / "a")
    (make_run(tmp_path / "b", finished=False) / "rounds.jsonl").unlink()
    runs, notes = load([tmp_path])
    assert [run.name for run in runs] == ["a"]
    assert notes == ["b is left out: it has no finished round yet."]
    with pytest.raises(InputError, match=r"b is left out: .* yet; name runs that have finished a round"):
        load([tmp_path / "b"])
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match=r"yet \(and 1 more\); name runs"):
        load([tmp_path / "b", tmp_path / "c"])


def _break(file, change):
    def do(run: Path) -> Path:
        target = run / file
        change(target)
        return run

    return do


def _edit(key, value=None):
    def change(target):
        record = json.loads(target.read_text())
        record.pop(key) if value is None else record.update({key: value})
        target.write_text(json.dumps(record))

    return change


BAD = {
    "missing folder": (lambda run: run / "nowhere", "no such folder"),
    "a file": (lambda run: run / "run.json", "run.json is left out: there is no run.json in it"),
    "no run.json": (lambda run: run / "rounds", "rounds is left out: there is no run.json in it"),
    "no rounds": (_break("rounds.jsonl", Path.unlink), "run is left out: it has no finished round yet"),
    "empty rounds": (_break("rounds.jsonl", lambda f: f.write_text("")), "no finished round yet"),
    "a blank line": (_break("rounds.jsonl", lambda f: f.write_text("\n")), "line 1 is damaged"),
    "broken run.json": (_break("run.json", lambda f: f.write_text("{")), "run.json cannot be read"),
    "run.json a list": (_break("run.json", lambda f: f.write_text("[]")), "run.json: expected an object"),
    "not text": (_break("run.json", lambda f: f.write_bytes(b"\xff\xfe")), "run.json cannot be read"),
    "no config": (_break("run.json", _edit("config")), "run.json is damaged: no 'config' in it"),
    "no classes": (_break("run.json", _edit("data", {"name": "a"})), "no 'fingerprint' in its 'data'"),
    "odd regime": (
        _break("run.json", _edit("config", {"regime": "sla"})),
        "run.json: unknown regime 'sla'; did you mean 'sal'?",
    ),
    "newer option": (
        _break("run.json", _edit("config", {"colour": 1})),
        "run.json: this sal-fast has no option 'colour'; update it",
    ),
    "new format": (_break("run.json", _edit("format", 2)), "format 2, expected 1; update sal-fast"),
    "broken summary": (
        _break("summary.json", lambda f: f.write_text("nope")),
        "summary.json cannot be read",
    ),
    "broken line": (
        _break("rounds.jsonl", lambda f: f.write_text(f.read_text()[:-30] + "\n")),
        "rounds.jsonl, line 6 is damaged",
    ),
    "not a round": (
        _break("rounds.jsonl", lambda f: f.write_text('{"round": 0}\n')),
        "line 1: not the line of a round",
    ),
    "a round twice": (
        _break("rounds.jsonl", lambda f: f.write_text(f.read_text() * 2)),
        "rounds.jsonl, line 7 is damaged",
    ),
    "broken examples": (
        _break("rounds/005/examples.npz", lambda f: f.write_bytes(b"PK no")),
        "examples.npz: not readable",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_file_and_writes_nothing(case, tmp_path, sketches):
    spoil, message = BAD[case]
    path = spoil(make_run(tmp_path / "run"))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        write([path], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_runs_and_no_place_to_write(tmp_path, sketches):
    with pytest.raises(InputError, match="no run folder given"):
        write([], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --out"):
        write([make_run(tmp_path / "run", rounds=1, examples=0)], tmp_path / "file")


def test_heat_equals_torch():
    cam = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    large = torch.nn.functional.interpolate(torch.tensor(cam)[None, None], size=(30, 20), mode="bilinear")[
        0, 0
    ]
    expected = (large - large.min()) / (large.max() - large.min())
    np.testing.assert_allclose(heat(cam, (30, 20)), expected.numpy(), atol=1e-6)
