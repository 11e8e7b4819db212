"""Masks that the data has already: people are not asked for them, and it is as if they had drawn them."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_runs import answer, kept, rounds
from PIL import Image

from sal_fast import seeds
from sal_fast.cli import main
from sal_fast.data import splits
from sal_fast.data.table import UNLABELLED
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.config import Config
from sal_fast.experiment.record import RunFolder
from sal_fast.people.answers import Answers
from sal_fast.people.question import Answer, Question

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def half(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared folder, in which every second image has a mask."""
    folder = tmp_path_factory.mktemp("half") / "data"
    shutil.copytree(shared_folder, folder)
    for path in sorted((folder / "masks").rglob("*.png"))[::2]:
        path.unlink()
    return folder


def has_mask(data: Path, name: str) -> bool:
    return (data / "masks" / f"{name}.png").exists()


def played(tiny: Tiny, out: Path, truth: Path, **options: Any) -> list[Question]:
    """The run, answered as often as it asks."""
    asked = []
    while True:
        try:
            tiny(out, **{"annotator": "people", **options})
            return asked
        except Waiting:
            asked.append(answer(out, truth))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"regime": "sal"}, id="sal"),
        pytest.param(
            {"regime": "sal-single", "human_budget": "auto", "query_fraction": 0.2},
            id="auto",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_run_with_masks_is_the_run_whose_people_drew_them(
    options: dict[str, Any], tiny: Tiny, half: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """Bit by bit; and people draw nothing that is there."""
    tiny(tmp_path / "first", regime="b1", epochs=1, data=str(half), stop_fraction=0.25)
    start = json.loads((tmp_path / "first" / "run.json").read_text())["start"]
    (tmp_path / "start.txt").write_text("\n".join(start))
    options = {**options, "data": str(half), "epochs": 1, "start_by": str(tmp_path / "start.txt")}
    spared = played(tiny, tmp_path / "use", shared_folder, **options)
    asked = played(tiny, tmp_path / "ask", shared_folder, own_masks="ask", **options)
    with_maps = [one for one in spared if one.maps]
    names = [name for one in with_maps for name in one.ids]
    assert [one.ids for one in spared] == [one.ids for one in asked]
    assert {name for one in with_maps for name in one.spared} == {n for n in names if has_mask(half, n)}
    assert not any(one.has_map for one in asked)
    lines, others = rounds(tmp_path / "use"), rounds(tmp_path / "ask")
    told, before = ([line.pop("people") for line in some] for some in (lines, others))
    assert lines == others
    assert kept(tmp_path / "use") == kept(tmp_path / "ask")
    drawn = sum(not has_mask(half, name) for name in names)
    assert 0 < drawn < len(names)
    assert (told[-1]["maps"], before[-1]["maps"]) == (drawn, len(names))
    assert told[-1]["labelled"] == before[-1]["labelled"]
    assert lines[-1]["human_maps"] == len(names)


def test_the_start_set_prefers_images_with_masks(tiny: Tiny, half: Path, tmp_path: Path) -> None:
    starts = {}
    for name, options in {
        "use": {"annotator": "people"},
        "again": {"annotator": "people", "regime": "b1"},
        "seed": {"annotator": "people", "seed": 1},
        "ask": {"annotator": "people", "own_masks": "ask"},
    }.items():
        with pytest.raises(Waiting):
            tiny(tmp_path / name, data=str(half), **options)
        starts[name] = json.loads((tmp_path / name / "run.json").read_text())["start"]
    tiny(tmp_path / "data", data=str(half), regime="b1", epochs=1, stop_fraction=0.25)
    assert starts["ask"] == json.loads((tmp_path / "data" / "run.json").read_text())["start"]
    assert not all(has_mask(half, name) for name in starts["ask"])
    assert starts["use"] == starts["again"]  # the same for every regime
    for name in ("use", "seed"):
        assert all(has_mask(half, one) for one in starts[name])
        assert {one.split("/")[0] for one in starts[name]} == {"blue", "green", "red"}
    assert starts["use"] != starts["seed"]


def test_the_preference_of_the_start_set() -> None:
    labels = [0] * 30 + [1] * 20 + [2] * 10 + [UNLABELLED] * 20
    preferred = [row % 3 == 0 and row >= 30 for row in range(80)]  # none of class 0
    first = set()
    for seed in range(20):
        plain = splits.start_set(labels, 30, seeds.stream(seed, "start"))
        for nobody in ([False] * 80, [True] * 80):
            assert splits.start_set(labels, 30, seeds.stream(seed, "start"), nobody) == plain
        found = splits.start_set(labels, 30, seeds.stream(seed, "start"), preferred)
        assert found == splits.start_set(labels, 30, seeds.stream(seed, "start"), preferred)
        assert len(set(found)) == 30
        assert {labels[row] for row in found[:3]} == {0, 1, 2}
        assert [preferred[row] for row in found] == [preferred[row] for row in found[:3]] + (
            [True] * (sum(preferred) - 2) + [False] * (30 - 3 - sum(preferred) + 2)
        )
        first.add(tuple(found[:5]))
    assert len(first) > 10  # they still follow the seed


def test_what_people_draw_wins_and_empty_masks_are_maps(tiny: Tiny, half: Path, tmp_path: Path) -> None:
    """In the start set one own mask is empty, another is drawn anew, and one image is skipped."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(half, data)
    options = {"data": str(data), "annotator": "people", "epochs": 1, "stop_fraction": 0.25}
    with pytest.raises(Waiting):
        tiny(tmp_path / "look", **options)
    empty, drawn, skipped, *rest = json.loads((tmp_path / "look" / "run.json").read_text())["start"]
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(data / "masks" / f"{empty}.png")
    with pytest.raises(Waiting) as waiting:
        tiny(out, **options)
    assert not waiting.value.maps  # all have masks
    held = RunFolder(out)
    asked = people.asked(held)
    assert asked.maps
    assert (asked.want_map, asked.has_map) == ([], {empty, drawn, skipped, *rest})
    mine = np.zeros((40, 40), dtype=np.uint8)
    mine[:, :7] = 255
    people.reopen(held, asked).add(
        Answer(name, None if name == skipped else name.split("/")[0], mine if name == drawn else None,
               "ann", None, name == skipped)
        for name in asked.ids
    )  # fmt: skip
    seen: dict[str, np.ndarray] = {}
    with pytest.MonkeyPatch.context() as patch:
        from sal_fast.experiment.answers.answering import Answering

        read = Answering._maps

        def noted(self: Answering, query_index: int, rows: Any) -> Any:
            maps = read(self, query_index, rows)
            seen.update(zip(self._ids(rows), maps.numpy(), strict=True))
            return maps

        patch.setattr(Answering, "_maps", noted)
        tiny(out, **options)
    (line,) = rounds(out)
    assert (line["labelled"], line["human_maps"], line["empty_maps"]) == (4, 3, 1)
    assert line["people"]["maps"] == 1
    assert set(seen) == {empty, drawn, *rest}
    assert not seen[empty].any()
    assert seen[drawn].mean(axis=0)[0] == 255
    assert not seen[drawn][:, 8:].any()
    assert all(seen[name].any() for name in rest)


@pytest.mark.full
def test_a_run_of_before_the_option_asks_as_before(
    tiny: Tiny, half: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """The same command goes on, and asks for all maps."""
    out, options = tmp_path / "run", {"data": str(half), "annotator": "people", "epochs": 1}
    options |= {"stop_fraction": 0.5, "human_budget": 0.5}
    truth = played(tiny, tmp_path / "truth", shared_folder, own_masks="ask", **options)
    with pytest.raises(Waiting):
        tiny(out, own_masks="ask", **options)
    there = json.loads((out / "run.json").read_text())
    assert there["config"].pop("own_masks") == "ask"
    assert "own_masks" not in there["took"]
    (out / "run.json").write_text(json.dumps(there))
    (out / "start" / "question.json").unlink()
    assert RunFolder(out).config().own_masks == "ask"
    with pytest.raises(InputError, match="own_masks 'ask' there, 'use' asked"):
        tiny(out, own_masks="use", **options)
    asked = played(tiny, out, shared_folder, **options)
    assert [one.want_map for one in asked] == [one.ids for one in truth]
    assert rounds(out) == rounds(tmp_path / "truth")
    # and a run that has the option keeps what it took
    with pytest.raises(Waiting):
        tiny(tmp_path / "new", **options)
    assert json.loads((tmp_path / "new" / "run.json").read_text())["took"]["own_masks"] == "use"
    assert people.asked(RunFolder(tmp_path / "new")).has_map


def test_data_that_answers_knows_nothing_of_the_option(tiny: Tiny, half: Path, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", data=str(half), regime="b1", epochs=1, stop_fraction=0.25)
    there = json.loads((run / "run.json").read_text())
    assert there["config"]["own_masks"] == "auto"
    assert "own_masks" not in there["took"]
    with pytest.raises(InputError, match="--own-masks use goes with --annotator people"):
        Config(own_masks="use").check()


def test_the_first_lines_and_the_tools(
    tiny: Tiny,
    half: Path,
    shared_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run says, exports and imports the right things where some images have masks and others not."""
    out = tmp_path / "run"
    options = {"data": str(half), "annotator": "people", "epochs": 1, "start_by": "random"}
    with caplog.at_level(logging.INFO, "sal_fast"), pytest.raises(Waiting):
        tiny(out, **options)
    question = people.asked(RunFolder(out))
    want, spared = question.want_map, question.spared
    assert want
    assert spared
    assert sorted(want + spared) == sorted(question.ids)
    in_train = [n for n in json.loads((out / "run.json").read_text())["splits"]["train"] if has_mask(half, n)]
    assert f"own masks: {len(in_train)} of the 18 training images have a mask, which is used" in caplog.text
    assert f"draw at most {len(want)} maps" in caplog.text
    assert f"none of images that have masks ({len(spared)} of the 5 at the start have one)" in caplog.text
    assert main(["query", "export", str(out), "--to", "folder"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"5 images that want a class, and {len(want)} of them a map (the other {len(spared)} have" in said
    folder = out / "query-000-folder"
    assert (folder / "class-only.txt").read_text().split() == [question.key(name) for name in spared]
    assert "class-only.txt" in (folder / "README.txt").read_text()
    with open(folder / "answers.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        name = question.meant(row["id"])
        row["label"] = name.split("/")[0]
        if name in want[1:]:
            shutil.copyfile(shared_folder / "masks" / f"{name}.png", folder / "masks" / f"{row['id']}.png")
    with open(folder / "answers.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["query", "import", str(out), str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(want) - 1} a map (beside {len(spared)} whose own masks are used)" in said
    assert f"(without: 1, the first is {want[0]!r})" in said
    assert set(Answers(out / "start").verdicts()) == set(question.ids)

    with pytest.raises(Waiting):
        tiny(tmp_path / "second", **options)
    assert main(["query", "export", str(tmp_path / "second"), "--to", "labelstudio"]) == 0
    folder = tmp_path / "second" / "query-000-labelstudio"
    question = people.asked(RunFolder(tmp_path / "second"))
    tasks = {
        question.meant(task["data"]["id"]): task["data"]["wanted"]
        for task in json.loads((folder / "tasks.json").read_text())
    }
    assert tasks == dict.fromkeys(want, "class and map") | dict.fromkeys(spared, "class only")
    assert 'value="$wanted"' in (folder / "config.xml").read_text()
    assert "BrushLabels" in (folder / "config.xml").read_text()
