"""Runs that grow: to a larger share, by more maps from people, or by new images in the pool."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from experiment_runs import TINY, answer, kept, kill_before, rounds
from rank_process import together

import sal_fast
from sal_fast.cli.run import parse
from sal_fast.errors import InputError
from sal_fast.experiment import stopping
from sal_fast.experiment.answers import people
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.budget import Stage, plan
from sal_fast.experiment.record import RunFolder

SMALL = f"{Path(__file__).parents[1] / 'helpers/small_network.py'}:Small"
FAST: dict[str, Any] = {"arch": SMALL, "output_stride": 32, "epochs": 1}
Tiny = Callable[..., Path]
Maker = Callable[..., Path]


def record(run: Path) -> dict[str, Any]:
    """The content of run.json."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def same(one: Path, other: Path) -> bool:
    return rounds(one) == rounds(other) and kept(one) == kept(other)


def labelled(run: Path) -> list[int]:
    return [line["labelled"] for line in rounds(run)]


def queried(run: Path) -> list[list[str]]:
    """The ids of each query, the start set first."""
    count = len(list(run.glob("rounds/*/query.csv")))
    return [record(run)["start"], *(RunFolder(run).query(index) for index in range(count))]


def add(data: Path, more: Path, *names: str) -> list[str]:
    """Copy images and masks of a larger folder into the data."""
    for name in names:
        shutil.copy(more / "images" / f"{name}.jpg", data / "images" / f"{name}.jpg")
        shutil.copy(more / "masks" / f"{name}.png", data / "masks" / f"{name}.png")
    return sorted(names)


@pytest.fixture
def more(make_folder: Maker, tmp_path: Path) -> Path:
    """A folder with more images; those of NEW are not in `folder`, and look like none of it."""
    return make_folder(tmp_path / "more", 24)


NEW = [f"{name}/{index:03d}" for name in ("blue", "green", "red") for index in (10, 11, 14, 16)]


# --- the plan --------------------------------------------------------------------------------------------


def sizes(start: Fraction, stages: list[tuple[int | None, int, Fraction, Fraction]]) -> list[int]:
    """The labelled counts, in exact arithmetic: (queries, pool, query, stop) for each stage."""
    exact: list[Fraction] = []
    for queries, pool, query, stop in stages:
        if not exact:
            exact.append(min(start, stop) * pool)
        while exact[-1] < stop * pool and len(exact) != queries:
            exact.append(min(exact[-1] + query * pool, stop * pool))
    return list(dict.fromkeys(math.floor(one + Fraction(1, 2)) for one in exact))  # no query is empty


@pytest.mark.parametrize(
    "stages",
    [
        [(3, 100, ".1", ".3"), (None, 100, ".1", ".7")],
        [(2, 100, ".1", ".5"), (None, 160, ".1", ".5")],
        [(3, 18, ".25", ".6"), (3, 18, ".25", ".9"), (None, 25, ".25", "1")],
        [(1, 40, ".1", "1"), (4, 60, ".1", "1"), (6, 90, ".05", "1"), (None, 90, ".05", "1")],
    ],
)
def test_sizes_are_shares_of_the_pool_that_holds(stages: list[tuple[int | None, int, str, str]]) -> None:
    first = stages[0]
    start = Fraction(".25") if first[1] == 18 else Fraction(".1")
    wanted = sizes(start, [(count, pool, Fraction(q), Fraction(s)) for count, pool, q, s in stages])
    earlier = [Stage(count or 0, pool, float(q), float(s), 0.2) for count, pool, q, s in stages[:-1]]
    _, pool, query, stop = stages[-1]
    got = plan(pool, float(start), float(query), float(stop), 0.2, earlier)
    assert list(got.labelled) == wanted
    fixed = first[0] or 0
    alone = plan(first[1], float(start), float(first[2]), float(first[3]), 0.2)
    assert got.labelled[:fixed] == alone.labelled[:fixed]


def test_a_larger_share_of_the_same_pool_is_the_plan_that_had_it() -> None:
    for pool in range(10, 240):
        for stop in (0.3, 0.5, 0.7):
            short, whole = plan(pool, 0.1, 0.1, stop, 0.2), plan(pool, 0.1, 0.1, 1.0, 0.2)
            stages = [Stage(short.rounds, pool, 0.1, stop, 0.2)]
            assert plan(pool, 0.1, 0.1, 1.0, 0.2, stages) == whole, (pool, stop)


def test_a_larger_budget_holds_for_the_queries_to_come() -> None:
    stages = [Stage(4, 100, 0.1, 1.0, 0.2)]
    assert plan(100, 0.1, 0.1, 1.0, 0.6, stages).human == (True, True, False, False, True, True, *[False] * 4)


# --- a larger share --------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["sal", "tait", "b1"])
def test_a_larger_share_gives_the_run_that_had_it(
    regime: str, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A finished run goes on, bit by bit; a run that did not grow says nothing of it."""
    options = {**FAST, "regime": regime, "baseline": "none" if regime == "b1" else "b1"}
    whole = tiny(tmp_path / "whole", **options)
    part = tiny(tmp_path / "part", **options, stop_fraction=0.5)
    assert "grown" not in record(part)
    assert labelled(part) == [5, 9]
    with caplog.at_level("INFO"):
        tiny(part, **options)
    assert "9 are labelled or asked for; the last round runs again" in caplog.text
    assert same(part, whole)
    grown = record(part).pop("grown")
    shares = {"query_fraction": 0.25, "stop_fraction": 0.5, "human_budget": 0.25}
    assert grown == [{"queries": 2, "pool": 18, **shares, "joined": []}]
    there = record(part)
    for name in ("took", "data", "splits", "start", "inputs"):
        assert there[name] == record(whole)[name]
    assert there["config"] | {"out": ""} == record(whole)["config"] | {"out": ""}
    summaries = [json.loads((run / "summary.json").read_text()) for run in (part, whole)]
    assert summaries[0] | {"seconds": 0} == summaries[1] | {"seconds": 0}
    assert sorted(path.name for path in part.glob("baseline/*")) == sorted(
        path.name for path in whole.glob("baseline/*")
    )
    for path in whole.glob("baseline/*.npz"):
        assert (part / "baseline" / path.name).read_bytes() == path.read_bytes()
    loaded = sal_fast.load(part)
    assert loaded.finished
    assert list(loaded.plan.labelled) == labelled(part) == [5, 9, 14]
    assert loaded.model().metadata["round"] == 2
    before = (part / "summary.json").stat().st_mtime_ns
    tiny(part, **options)  # nothing is left to do
    assert (part / "summary.json").stat().st_mtime_ns == before


def test_a_larger_budget_for_the_queries_to_come(tiny: Tiny, tmp_path: Path) -> None:
    """A machine drew for query 1; people draw for query 2 and 3 after the run has grown."""
    part = tiny(tmp_path / "run", **FAST, stop_fraction=0.5)
    before = rounds(part)
    tiny(part, **FAST, human_budget=1.0, stop_fraction=0.9)
    lines = rounds(part)
    assert lines[:2] == before
    assert [line["human_maps"] for line in lines] == [5, 5, 10, 12]
    assert labelled(part) == [5, 9, 14, 16]
    assert [round_.name for round_ in sorted(part.glob("rounds/*")) if (round_ / "maps").exists()] == ["000"]


def test_a_run_that_ended_by_the_rule_goes_on_to_a_share(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "ends", lambda kappas, gain: len(kappas) == 2)
    run = tiny(tmp_path / "run", **FAST, stop_fraction="auto")
    assert labelled(run) == [5, 9]
    assert rounds(run)[-1]["stopped"]
    for options in ({"stop_fraction": 0.4}, {"stop_fraction": "auto", "human_budget": 0.9}):
        with pytest.raises(InputError, match="changes nothing, because no query is to come"):
            tiny(run, **FAST, **options)
    assert json.loads((run / "summary.json").read_text())["stopped"]
    tiny(run, **FAST, stop_fraction=0.75)
    assert labelled(run) == [5, 9, 14]
    whole = tiny(tmp_path / "whole", **FAST)
    assert kept(run) == kept(whole)
    assert "stopped" not in rounds(run)[-1]
    assert "stopped" not in json.loads((run / "summary.json").read_text())


def test_the_rule_is_asked_again_with_new_images(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round that ended by the rule runs again, and goes on if the rule no longer holds."""
    options = {**FAST, "data": str(folder), "stop_fraction": "auto"}
    monkeypatch.setattr(stopping, "ends", lambda kappas, gain: len(kappas) == 2)
    run = tiny(tmp_path / "run", **options)
    add(folder, more, *NEW[:6])
    tiny(run, **options, add_data=True)
    assert [line["stopped"] for line in rounds(run)] == [False, True]
    assert (run / "summary.json").exists()
    monkeypatch.setattr(stopping, "ends", lambda kappas, gain: len(kappas) == 3)
    add(folder, more, *NEW[6:])
    tiny(run, **options, add_data=True)
    assert [line["stopped"] for line in rounds(run)] == [False, False, True]
    assert labelled(run) == [5, 9, 17]


def test_a_query_of_automatic_size_fits_the_new_pool(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    options = {**FAST, "data": str(folder), "start_fraction": "auto", "query_fraction": "auto"}
    run = tiny(tmp_path / "run", **options, stop_fraction=1.0)
    assert labelled(run) == [18]
    add(folder, more, *NEW)
    tiny(run, **options, stop_fraction=1.0, add_data=True)
    assert labelled(run) == [18, 30]
    assert record(run)["took"]["query_fraction"] == pytest.approx(12 / 30)
    assert record(run)["config"]["query_fraction"] == "auto"


# --- new images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
def test_new_images_join_the_pool_alone(
    finished: bool, tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    """Val and test stay; the rounds and queries so far stay; the coming ones are shares of the new pool."""
    options = {**FAST, "data": str(folder)}
    whole = tiny(tmp_path / "whole", **options)
    run = tmp_path / "run"
    if finished:
        shutil.copytree(whole, run)
    else:
        sal_fast.run(sal_fast.Config.of({**TINY, **options, "out": str(run)}), until=1)
    before = record(run)
    added = add(folder, more, *NEW)
    tiny(run, **options, add_data=True)
    now = record(run)
    for split in ("val", "test"):
        assert now["splits"][split] == before["splits"][split]
    assert now["splits"]["train"] == sorted([*before["splits"]["train"], *added])
    assert now["data"]["counts"] == {"train": 30, "val": 6, "test": 6}
    assert now["data"]["fingerprint"] != before["data"]["fingerprint"]
    assert now["config"] | {"out": ""} == before["config"] | {"out": ""}
    assert not now["config"]["add_data"]
    assert [entry["joined"] for entry in now["grown"]] == [added]
    fixed = 3 if finished else 2
    assert now["grown"][0]["queries"] == fixed
    quarter, end = Fraction(1, 4), Fraction(3, 4)
    assert labelled(run) == sizes(quarter, [(fixed, 18, quarter, end), (None, 30, quarter, end)])
    assert list(sal_fast.load(run).plan.labelled) == labelled(run)
    assert rounds(run)[:fixed] == rounds(whole)[:fixed]
    assert queried(run)[:fixed] == queried(whole)[:fixed]
    assert set(added) & {name for query in queried(run)[fixed:] for name in query}
    assert all(line["accuracy"] is not None for line in rounds(run))
    size = (run / "run.json").stat().st_mtime_ns
    tiny(run, **options, add_data=True)  # nothing has come since
    assert (run / "run.json").stat().st_mtime_ns == size


def test_a_run_grows_again_and_again(tiny: Tiny, folder: Path, more: Path, tmp_path: Path) -> None:
    """Two sets of images and a larger share, and the same again in one call for the last two."""
    options = {**FAST, "data": str(folder)}
    run = tiny(tmp_path / "run", **options, stop_fraction=0.5)
    first = add(folder, more, *NEW[:6])
    sal_fast.run(
        sal_fast.Config.of({**TINY, **options, "stop_fraction": 0.5, "add_data": True, "out": str(run)}),
        until=2,
    )
    shutil.copytree(run, tmp_path / "copy")
    second = add(folder, more, *NEW[6:])
    tiny(run, **options, stop_fraction=0.5, add_data=True)
    tiny(run, **options, stop_fraction=0.9)
    assert [(entry["queries"], entry["pool"], entry["joined"]) for entry in record(run)["grown"]] == [
        (2, 18, first),
        (3, 24, second),
        (4, 30, []),
    ]
    quarter, half, end = Fraction(1, 4), Fraction(1, 2), Fraction(9, 10)
    stages = [(2, 18, quarter, half), (3, 24, quarter, half), (4, 30, quarter, half)]
    assert labelled(run) == sizes(quarter, [*stages, (None, 30, quarter, end)])
    at_once = tiny(tmp_path / "copy", **options, stop_fraction=0.9, add_data=True)
    assert len(record(at_once)["grown"]) == 2
    assert labelled(at_once)[:3] == labelled(run)[:3]


def test_features_and_segmenters_masks_of_new_images(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    """A head on kept features, with crops; and masks of a segmenter, whose digest knows the old ones."""
    head = {**FAST, "data": str(folder), "train": "head", "augment": "turn", "crops": 2, "lr": 0.1}
    masks = tmp_path / "masks"
    shutil.copytree(more / "masks", masks)
    segmented = {
        **FAST, "data": str(folder), "regime": "segmenter", "segmenter_masks": str(masks),
    }  # fmt: skip
    runs = {"head": head, "segmented": segmented}
    before = {name: rounds(tiny(tmp_path / name, **options)) for name, options in runs.items()}
    add(folder, more, *NEW)
    for name, options in runs.items():
        run = tiny(tmp_path / name, **options, add_data=True)
        assert rounds(run)[:3] == before[name]
        assert labelled(run) == [5, 9, 14, 21, 23]
    inputs = record(tmp_path / "segmented")["inputs"]
    shutil.copy(masks / "red/001.png", masks / "red/000.png")
    shutil.copy(masks / "red/001.png", masks / "blue/000.png")
    add(folder, more, "red/017")
    with pytest.raises(InputError, match="--segmenter-masks has changed since"):
        tiny(tmp_path / "segmented", **segmented, add_data=True)
    assert record(tmp_path / "segmented")["inputs"] == inputs


def test_a_run_of_an_older_version_grows(tiny: Tiny, folder: Path, more: Path, tmp_path: Path) -> None:
    options = {**FAST, "data": str(folder)}
    run = tiny(tmp_path / "run", **options, stop_fraction=0.5)
    there = record(run)
    del there["config"]["add_data"]
    (run / "run.json").write_text(json.dumps(there))
    (run / "summary.json").unlink()
    tiny(run, **options, stop_fraction=0.5)
    assert "grown" not in record(run)
    add(folder, more, *NEW)
    tiny(run, **options, stop_fraction=0.75, add_data=True)
    assert len(labelled(run)) == 4


# --- what is refused -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny: Tiny, make_folder: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and its data, both to be copied."""
    root = tmp_path_factory.mktemp("finished")
    data = make_folder(root / "data")
    tiny(root / "run", **FAST, data=str(data), stop_fraction=0.5)
    return root


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"stop_fraction": 0.4},
            r"has --stop-fraction 0\.5, and 0\.4 was asked; a run can only grow: give 0",
        ),
        ({"human_budget": 0.2}, r"has --human-budget 0\.25, and 0\.2 was asked; a run can only grow"),
        ({"stop_fraction": "auto"}, "cannot change between a share and auto"),
        ({"human_budget": "auto"}, "cannot change between a share and auto"),
        ({"human_budget": 0.9}, "--human-budget 0.9 changes nothing, because no query is to come"),
        ({"stop_fraction": 0.51}, "--stop-fraction 0.51 changes nothing, because no query is to come"),
        ({"stop_fraction": 0.9, "lr": 0.5}, r"another configuration \(lr 0.01 there, 0.5 asked\)"),
    ],
)
def test_options_that_are_refused(options: dict, message: str, finished: Path, tiny: Tiny) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.json*")}
    asked = {**FAST, "data": str(finished / "data"), "stop_fraction": 0.5, **options}
    with pytest.raises(InputError, match=message):
        tiny(finished / "run", **asked)
    assert before == {path: path.read_bytes() for path in finished.rglob("*.json*")}


def gone(data: Path, more: Path) -> None:
    (data / "images/red/000.jpg").unlink()


def new_class(data: Path, more: Path) -> None:
    for kind in ("images", "masks"):
        shutil.copytree(more / kind / "red", data / kind / "yellow")


def changed_mask(data: Path, more: Path) -> None:
    shutil.copy(data / "masks/red/001.png", data / "masks/red/000.png")


def the_same_picture(data: Path, more: Path) -> None:
    shutil.copy(data / "images/red/000.jpg", data / "images/green/020.jpg")


@pytest.mark.parametrize(
    ("spoil", "add_data", "message"),
    [
        (None, False, "'blue/010' is new in data; --add-data lets new images join the training pool"),
        (gone, True, "'red/000' is gone in data; choose another --out"),
        (new_class, True, "class 'yellow' is new in data, and the outputs of a run's network are fixed"),
        (changed_mask, True, "was made from other data: data has changed since"),
        (the_same_picture, True, "green/020"),
    ],
)
def test_data_that_are_refused(
    spoil: Callable[[Path, Path], None] | None,
    add_data: bool,
    message: str,
    finished: Path,
    more: Path,
    tiny: Tiny,
    tmp_path: Path,
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(finished / "data", data)
    tiny(run, **FAST, data=str(data), stop_fraction=0.5)
    add(data, more, *NEW)
    if spoil is not None:
        spoil(data, more)
    before = {path: path.read_bytes() for path in run.rglob("*.json*")}
    with pytest.raises(InputError, match=message):
        tiny(run, **FAST, data=str(data), stop_fraction=0.6, add_data=add_data)
    assert before == {path: path.read_bytes() for path in run.rglob("*.json*")}


def test_a_new_image_that_the_data_give_to_test_is_refused(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    rows = ["id,image,label,mask,split"]
    for index in range(10):
        split = "train" if index < 6 else "val" if index < 8 else "test"
        for name in ("blue", "green", "red"):
            at = f"{name}/{index:03d}"
            rows.append(f"{at},images/{at}.jpg,{name},masks/{at}.png,{split}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    options = {**FAST, "data": str(manifest)}
    run = tiny(tmp_path / "run", **options)
    add(folder, more, "red/010")
    line = "red/010,images/red/010.jpg,red,masks/red/010.png,{}"
    manifest.write_text("\n".join([*rows, line.format("test")]) + "\n")
    with pytest.raises(InputError, match=r"join the training pool alone.*'red/010' in split 'test'"):
        tiny(run, **options, add_data=True)
    manifest.write_text("\n".join([*rows, line.format("train")]) + "\n")
    tiny(run, **options, add_data=True)
    assert "red/010" in record(run)["splits"]["train"]


def test_a_new_image_of_a_group_in_test_is_refused(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    rows = ["id,image,label,mask,group"]
    for path in sorted((folder / "masks").glob("*/*.png")):
        at = f"{path.parent.name}/{path.stem}"
        rows.append(f"{at},images/{at}.jpg,{path.parent.name},masks/{at}.png,patient {at}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    options = {**FAST, "data": str(manifest)}
    run = tiny(tmp_path / "run", **options)
    add(folder, more, "red/010")
    patient = f"patient {record(run)['splits']['test'][0]}"
    rows.append(f"red/010,images/red/010.jpg,red,masks/red/010.png,{patient}")
    manifest.write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match=f"group '{patient}' lies in test"):
        tiny(run, **options, add_data=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": True}, "has ended, and with --warm-start its last round cannot run again"),
        (
            {"control_maps": "shuffled"},
            "--control-maps shuffled gives each training image the map of another",
        ),
    ],
)
def test_runs_that_cannot_grow(
    options: dict, message: str, tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    options = {**FAST, "data": str(folder), **options}
    run = tiny(tmp_path / "run", **options)
    add(folder, more, *NEW)
    with pytest.raises(InputError, match=message):
        tiny(run, **options, add_data=True)
    assert (run / "summary.json").exists()


# --- kills, people, ranks, the command line --------------------------------------------------------------


def killed(
    numbers: list[int], finished: Path, more: Path, tiny: Tiny, tmp_path: Path
) -> list[tuple[int, int]]:
    """Kill a run before each of these changes of names, and let it go on: it ends as the one that was whole.

    Returns how many rounds and how many growths the killed runs had.
    """
    data = tmp_path / "data"
    shutil.copytree(finished / "data", data)
    options = {**FAST, "data": str(data), "baseline": "b1"}
    tiny(tmp_path / "run", **options, stop_fraction=0.5)
    add(data, more, *NEW)
    grown = {**options, "stop_fraction": 0.6, "add_data": True}
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "run", whole)
    tiny(whole, **grown)
    assert labelled(whole) == [5, 9, 17, 18]
    states = []
    for number in numbers:
        cut = tmp_path / f"cut-{number}"
        shutil.copytree(tmp_path / "run", cut)
        ended = kill_before(number, cut, **grown) == 0
        states.append((len(rounds(cut)), len(record(cut).get("grown", []))))
        tiny(cut, **grown)
        assert same(cut, whole), number
        assert record(cut)["grown"] == record(whole)["grown"]
        assert record(cut)["data"] == record(whole)["data"]
        for path in whole.glob("baseline/*.npz"):
            assert (cut / "baseline" / path.name).read_bytes() == path.read_bytes()
        shutil.rmtree(cut)
        if ended:
            break
    return states


def test_killed_while_it_grows(finished: Path, more: Path, tiny: Tiny, tmp_path: Path) -> None:
    """After the summary is gone, after the last line is, after run.json is written, and in the last round.

    The first three changes of names are those of the model, because the run is a copy.
    """
    assert killed([6, 7, 8, 13], finished, more, tiny, tmp_path) == [(2, 0), (1, 0), (1, 1), (1, 1)]


@pytest.mark.full
def test_killed_before_every_change_of_names_while_it_grows(
    finished: Path, more: Path, tiny: Tiny, tmp_path: Path
) -> None:
    states = killed(list(range(2, 100)), finished, more, tiny, tmp_path)
    assert {(2, 0), (1, 0), (1, 1), (2, 1), (3, 1), (4, 1)} <= set(states)


def test_a_question_in_flight_stays_as_it_was_asked(
    tiny: Tiny, folder: Path, more: Path, tmp_path: Path
) -> None:
    """The run waits for query 1, without maps; it grows, waits for the same, and then asks for more."""
    options = {**FAST, "data": str(folder), "annotator": "people", "own_masks": "ask"}
    run = tmp_path / "run"
    with pytest.raises(Waiting):
        tiny(run, **options)
    answer(run, folder)
    with pytest.raises(Waiting):
        tiny(run, **options)
    asked = people.asked(RunFolder(run))
    added = add(folder, more, *NEW)
    grown = {"human_budget": 1.0, "add_data": True}
    with pytest.raises(Waiting, match="0 of the 4 images of query 1"):
        tiny(run, **options, **grown)
    after = people.asked(RunFolder(run))
    assert (after.ids, after.maps, after.query_index) == (asked.ids, asked.maps, 1) == (asked.ids, False, 1)
    answer(run, folder)
    with pytest.raises(Waiting, match="0 of the 8 images of query 2"):
        tiny(run, **options, **grown)
    assert people.asked(RunFolder(run)).maps
    answer(run, folder)
    with pytest.raises(Waiting):
        tiny(run, **options, human_budget=1.0)
    answer(run, folder)
    tiny(run, **options, human_budget=1.0)
    assert labelled(run) == [5, 9, 17, 23]
    assert [line["people"]["maps"] for line in rounds(run)] == [5, 5, 13, 19]
    tiny(tmp_path / "told", **FAST, data=str(folder), human_budget=1.0)
    with pytest.raises(InputError, match="is finished; it asks nothing more"):
        people.asked(RunFolder(run))
    with pytest.raises(Waiting, match="0 of the 7 images of query 4"):
        tiny(run, **options, human_budget=1.0, stop_fraction=1.0)
    assert set(added) <= set(record(run)["splits"]["train"])


def test_an_earlier_teacher_stays_while_people_are_asked_again(
    tiny: Tiny, shared_folder: Path, tmp_path: Path
) -> None:
    """A teacher drew for query 1; then the budget is larger, and people change their answers to query 2."""
    options = {**FAST, "annotator": "people", "regime": "tait"}
    run = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(Waiting):
            tiny(run, **options)
        answer(run, shared_folder)
    with pytest.raises(Waiting):
        tiny(run, **options, human_budget=1.0)  # query 2 is in flight, and it was asked without maps
    teacher = (run / "teacher.safetensors").read_bytes()
    answer(run, shared_folder)
    with pytest.raises(Waiting):
        tiny(run, **options, human_budget=1.0, stop_fraction=1.0)
    assert answer(run, shared_folder).maps
    assert (run / "teacher.safetensors").read_bytes() == teacher


@pytest.mark.full
def test_two_processes_grow_as_one(tiny: Tiny, folder: Path, more: Path, tmp_path: Path) -> None:
    options = {**TINY, **FAST, "data": str(folder)}
    run = tiny(tmp_path / "run", **options)
    shutil.copytree(run, tmp_path / "shared")
    add(folder, more, *NEW)
    tiny(run, **options, add_data=True)
    together(tmp_path / "two", 2, [{**options, "add_data": True, "out": str(tmp_path / "shared")}])
    assert same(tmp_path / "shared", run)
    assert record(tmp_path / "shared")["grown"] == record(run)["grown"]


def test_the_command_line_takes_it_alone_and_with_a_value(finished: Path) -> None:
    run = str(finished / "run")
    assert parse(["--resume", run, "--add-data"]).add_data
    assert parse(["--resume", run, "--add-data", "--stop-fraction", "0.8"]).stop_fraction == 0.8
    assert parse(["--resume", run, "--add-data", "True", "--baseline"]).baseline == "b1"
    assert not parse(["--resume", run, "--add-data", "False"]).add_data
    assert not parse(["--resume", run]).add_data
    assert not parse([]).add_data
