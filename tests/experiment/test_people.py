"""A run whose queries people answer: it waits, takes what they say, and ends as if it had known it before."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_runs import answer, arguments, kept, rounds
from PIL import Image

from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.experiment.answers import people
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.rounds import Steps
from sal_fast.people import folder
from sal_fast.people.answers import Answers, Verdict, tally
from sal_fast.people.question import Answer, Question

Tiny = Callable[..., Path]


def played(tiny: Tiny, out: Path, data: Path, **options: object) -> list[Question]:
    """The run, answered as often as it asks."""
    asked = []
    while True:
        try:
            tiny(out, **{"annotator": "people", "own_masks": "ask", **options})
            return asked
        except Waiting:
            assert not (out / "summary.json").exists()
            asked.append(answer(out, data))


@pytest.mark.parametrize(
    "options",
    [
        {"regime": "sal"},
        {"regime": "tait", "epochs": 1},
        {"regime": "b1", "epochs": 1},
        pytest.param(
            {"regime": "sal-single", "human_budget": "auto", "query_fraction": 0.2, "epochs": 1},
            marks=pytest.mark.full,
        ),
    ],
    ids=lambda options: options["regime"],
)
def test_a_run_by_people_is_the_run_that_knew(
    options: dict, tiny: Tiny, shared_folder: Path, tmp_path: Path
) -> None:
    """Same rounds, queries and maps, bit by bit; people give every class, and maps while they are asked."""
    asked = played(tiny, tmp_path / "people", shared_folder, **options)
    run = tiny(tmp_path / "data", **options)
    lines = rounds(tmp_path / "people")
    told = [line.pop("people") for line in lines]
    assert lines == rounds(run)
    assert kept(tmp_path / "people") == kept(run)
    assert [one.query_index for one in asked] == list(range(len(lines)))
    by_hand = [line["human_maps"] for line in lines]
    for one, before, after in zip(asked, [0, *by_hand], by_hand, strict=False):
        assert one.maps == (after > before), one.query_index
    count, maps = lines[-1]["labelled"], by_hand[-1]
    assert (told[-1]["labelled"], told[-1]["maps"], told[-1]["skipped"]) == (count, maps, 0)
    assert told[-1]["seconds"] == pytest.approx(2.0 * maps + 0.5 * (count - maps))
    saved = told[-1].get("saved")
    assert (saved is not None) == (0 < maps < count)
    if saved:  # every answer takes the same time, so the interval has no width
        assert saved["low"] == saved["seconds"] == saved["high"] == pytest.approx(1.5 * (count - maps))
    assert [(one["name"], one["answers"]) for one in told[-1]["by_person"]] == [("ann", count)]
    assert json.loads((tmp_path / "people" / "summary.json").read_text())["people"] == told[-1]


def test_the_command_waits_with_status_75_and_says_what_to_do(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export, fill the folder, import, go on; through the command line alone."""
    out = tmp_path / "run"
    words = [
        "run",
        *arguments(
            data=shared_folder, out=out, annotator="people", own_masks="ask", epochs=1, stop_fraction=0.5
        ),
    ]
    assert main(words) == 75
    said = capsys.readouterr().out
    assert "0 of the 5 images of query 0 are answered" in said
    assert f"sal-fast query export {out} --to labelstudio" in said
    assert main(["query", "export", str(out), "--to", "folder"]) == 0
    folder = out / "query-000-folder"
    assert main(["query", "export", str(out), "--to", "folder"]) == 0  # beside the first
    assert f"  {folder}-2\n" in capsys.readouterr().out
    assert main(["query", "export", str(out), "--to", "folder", "--out", str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err

    _fill(out, folder, shared_folder, leave=1)
    drawn = sorted(folder.glob("masks/**/*.png"))[0]
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(drawn)
    assert main(["query", "import", str(out), str(folder)]) == 0
    said, noted = capsys.readouterr()
    assert "4 answers read; 4 of 5 images have a class, 4 a map" in said
    assert "note: maps that mark nothing, from which nobody learns where to look: 1, the first" in noted
    assert "still open: 1, the first is " in said
    assert main(words) == 75
    assert "4 of the 5 images of query 0 are answered" in capsys.readouterr().out
    with monkeypatch.context() as other:  # of several processes the first alone tells
        other.setenv("RANK", "1")
        assert main(words) == 0
        assert "waits for people" not in capsys.readouterr().out
    assert main(["query", "import", str(out), str(folder), "--skip-rest", "True"]) == 0
    assert "skipped: 1\nthe query is answered" in capsys.readouterr().out
    assert main(words) == 75  # after the first round
    assert [line["labelled"] for line in rounds(out)] == [4]
    told = rounds(out)[0]["people"]
    assert (told["skipped"], told["annotators"]) == (1, 1)  # --skip-rest is nobody

    assert main(["query", "export", str(out), "--to", "folder", "--out", str(tmp_path / "second")]) == 0
    assert main(["query", "import", str(out), str(folder)]) == 2  # of the query before
    assert "is of query 0" in capsys.readouterr().err
    assert not (tmp_path / "second" / "masks").exists()  # after the budget: classes alone
    _fill(out, tmp_path / "second", shared_folder)
    assert main(["query", "import", str(out), str(tmp_path / "second" / "answers.csv")]) == 0
    assert main(words) == 0
    assert [line["labelled"] for line in rounds(out)] == [4, 8]
    assert main(["query", "export", str(out), "--to", "folder"]) == 2
    assert "is finished" in capsys.readouterr().err


def _fill(run: Path, folder: Path, data: Path, leave: int = 0) -> None:
    """Answer all but the first lines of an exported folder. Its images have keys for names."""
    asked = people.asked(RunFolder(run))
    with open(folder / "answers.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows[leave:]:
        name = asked.meant(row["id"])
        assert name != row["id"]
        row |= {"label": name.split("/")[0], "annotator": "ann", "seconds": "3.5"}
        if (folder / "masks").exists():
            shutil.copyfile(data / "masks" / f"{name}.png", folder / "masks" / f"{row['id']}.png")
    with open(folder / "answers.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_run_that_goes_on_while_a_file_is_read(
    tiny: Tiny,
    shared_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a round was trained on is not changed after it."""
    out = tmp_path / "run"
    with pytest.raises(Waiting):
        tiny(out, annotator="people", own_masks="ask", epochs=1)
    assert main(["query", "export", str(out), "--to", "folder"]) == 0
    _fill(out, out / "query-000-folder", shared_folder)
    read, before = folder.read_answers, b""

    def slowly(path: Path, asked: Question, *options: Any) -> list[Answer]:
        nonlocal before
        answers = read(path, asked, *options)
        answer(out, shared_folder)
        with pytest.raises(Waiting):
            tiny(out, annotator="people", own_masks="ask", epochs=1)
        before = (out / "start" / "answers.json").read_bytes()
        return answers

    monkeypatch.setattr(folder, "read_answers", slowly)
    assert main(["query", "import", str(out), str(out / "query-000-folder")]) == 2
    assert "has gone on meanwhile" in capsys.readouterr().err
    assert (out / "start" / "answers.json").read_bytes() == before
    assert len(rounds(out)) == 1


def test_several_people_partial_answers_and_second_thoughts(tmp_path: Path) -> None:
    zeros = np.zeros((4, 4), dtype=np.uint8)
    ones = zeros.copy()
    ones[:2] = 255

    def said(
        name: str, label: str | None, mask: np.ndarray | None, who: str, skipped: bool = False
    ) -> Answer:
        return Answer(name, label, mask, who, 1.0, skipped)

    there = Answers(tmp_path)
    there.add([said("a/1", "cat", ones, "ann"), said("a/2", None, None, "ann", skipped=True)])
    assert there.open(["a/1", "a/2", "b"]) == ["b"]
    there = Answers(tmp_path)  # from its file
    there.add([said("a/1", "dog", zeros, "ben"), said("a/2", None, None, "ben", skipped=True)])
    there.add([said("b", "dog", None, "ben"), said("b", "cat", None, "cy"), said("b", "cat", ones, "ann")])
    found = Answers(tmp_path).verdicts()
    assert found["a/1"].label == "cat"  # one each: the first
    assert len(found["a/1"].masks) == 2
    assert found["a/2"] == Verdict(None, [])
    assert found["b"].label == "cat"
    assert len(found["b"].masks) == 1
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(image)
    mean = people.map_in_frame(found["a/1"].masks, image, 8)
    assert (mean[:4] == 128).all()
    assert not mean[4:].any()
    count = tally([there])
    assert (count["labelled"], count["maps"], count["skipped"], count["annotators"]) == (2, 2, 1, 3)
    assert (count["answers_with_map"], count["answers_label_only"], count["seconds"]) == (3, 2, 7.0)
    there.add([said("a/1", "dog", None, "ann"), said("a/2", "dog", None, "ben")])  # they changed their minds
    found = Answers(tmp_path).verdicts()
    assert (found["a/1"].label, len(found["a/1"].masks)) == ("dog", 1)
    assert found["a/2"].label == "dog"


def test_a_bad_file_changes_nothing(tiny: Tiny, shared_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Waiting):
        tiny(out, annotator="people", own_masks="ask")
    assert main(["query", "export", str(out), "--to", "folder"]) == 0
    folder = out / "query-000-folder"
    _fill(out, folder, shared_folder)
    assert main(["query", "import", str(out), str(folder)]) == 0
    before = (out / "start/answers.json").read_bytes()
    text = (folder / "answers.csv").read_text().splitlines()
    text[3] = text[3].replace(",", ",purple-", 1)
    (folder / "answers.csv").write_text("\n".join(text))
    assert main(["query", "import", str(out), str(folder)]) == 2
    assert (out / "start/answers.json").read_bytes() == before
    (out / "start/answers.json").write_text(before.decode().replace('"label"', '"lable"'))
    with pytest.raises(InputError, match=r"answers\.json: the answers cannot be read"):
        tiny(out, annotator="people", own_masks="ask")


def test_a_pool_without_labels(tiny: Tiny, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Images below pool/ are the training pool, the labelled ones val and test."""
    data = make_folder(tmp_path / "data", 4)
    known = make_folder(tmp_path / "known", 8)
    for path in sorted(known.glob("images/*/*.jpg")):
        (data / "pool" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, data / "pool" / path.parent.name / path.name)
    with pytest.raises(InputError, match=r"24 images have no label, the first is 'pool/blue/000'.*people"):
        tiny(tmp_path / "run", data=str(data))
    # four of the pictures are in the pool and among those with a label
    options = {
        "data": str(data),
        "annotator": "people",
        "epochs": 1,
        "stop_fraction": 0.5,
        "allow_leaks": True,
    }
    truth = known / "masks"
    while True:
        try:
            tiny(tmp_path / "run", **options)
            break
        except Waiting:
            held = RunFolder(tmp_path / "run")
            asked = people.asked(held)
            assert asked.classes == ["blue", "green", "red"]
            masks = [
                np.asarray(Image.open(truth / f"{name.removeprefix('pool/')}.png")) for name in asked.ids
            ]
            people.reopen(held, asked).add(
                Answer(name, name.split("/")[1], mask if asked.maps else None, "", None, False)
                for name, mask in zip(asked.ids, masks, strict=True)
            )
    lines = rounds(tmp_path / "run")
    assert [line["labelled"] for line in lines] == [6, 12]
    assert lines[-1]["people"]["seconds"] is None
    splits = json.loads((tmp_path / "run" / "run.json").read_text())["splits"]
    assert [len(splits[name]) for name in ("train", "val", "test")] == [24, 6, 6]
    assert all(name.startswith("pool/") for name in splits["train"])


@pytest.mark.full
def test_answers_that_are_changed_after_maps_were_drawn_for_them(
    tiny: Tiny, shared_folder: Path, tmp_path: Path
) -> None:
    """A run killed in the round after a query; people then answer anew: as if never said."""

    def killed(step: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Steps, step, _killed)
            with pytest.raises(KeyboardInterrupt):
                tiny(tmp_path / "run", **options)

    truth = tiny(tmp_path / "data", regime="tait", epochs=1)
    options = {"annotator": "people", "own_masks": "ask", "regime": "tait", "epochs": 1}
    with pytest.raises(Waiting):
        tiny(tmp_path / "run", **options)
    answer(tmp_path / "run", shared_folder)
    answers = RunFolder(tmp_path / "run").asked(0) / "answers.json"
    right = answers.read_text()
    answer(tmp_path / "run", shared_folder, label="red")
    killed("test")  # the teacher has been trained on these
    assert (tmp_path / "run/teacher.safetensors").exists()
    answer(tmp_path / "run", shared_folder)
    assert answers.read_text() == right
    with pytest.raises(Waiting):
        tiny(tmp_path / "run", **options)
    first = people.asked(RunFolder(tmp_path / "run")).ids[0]
    answer(tmp_path / "run", shared_folder, label="red")
    _skip(tmp_path / "run", first)
    killed("train")  # maps have been drawn
    assert list(tmp_path.glob("run/rounds/000/maps/**/*.png"))
    stale = people.asked(RunFolder(tmp_path / "run"))
    answer(tmp_path / "run", shared_folder)
    played(tiny, tmp_path / "run", shared_folder, regime="tait", epochs=1)
    assert kept(tmp_path / "run") == kept(truth)
    lines = [
        {name: value for name, value in line.items() if name != "people"} for line in rounds(tmp_path / "run")
    ]
    assert lines == rounds(truth)
    with pytest.raises(InputError, match="has gone on meanwhile; it no longer asks about query 1"):
        people.reopen(RunFolder(tmp_path / "run"), stale)


def test_a_lost_line_costs_no_answers(tiny: Tiny, shared_folder: Path, tmp_path: Path) -> None:
    """The round runs again, and finds what people said after it."""
    options = {"epochs": 1, "stop_fraction": 0.5, "human_budget": 0.5}
    played(tiny, tmp_path / "run", shared_folder, **options)
    lines = rounds(tmp_path / "run")
    (tmp_path / "run/rounds.jsonl").write_bytes(b"")
    (tmp_path / "run/summary.json").unlink()
    assert played(tiny, tmp_path / "run", shared_folder, **options) == []
    assert rounds(tmp_path / "run") == lines


def test_what_people_skip(tiny: Tiny, shared_folder: Path, tmp_path: Path) -> None:
    """Nearly all of the start set: refused, and mended; a whole query: a round without new images."""
    options = {"annotator": "people", "own_masks": "ask", "epochs": 1, "stop_fraction": 0.5}
    with pytest.raises(Waiting):
        tiny(tmp_path / "run", **options)
    first, second, *others = answer(tmp_path / "run", shared_folder).ids
    for name in (first, *others):
        _skip(tmp_path / "run", name)
    with pytest.raises(
        InputError, match=r"1 images of the start set have a class.*training needs 2 at least"
    ):
        tiny(tmp_path / "run", **options)
    held = RunFolder(tmp_path / "run")
    people.reopen(held, people.asked(held)).add([Answer(first, "blue", None, "ann", None, False)])
    with pytest.raises(Waiting):
        tiny(tmp_path / "run", **options)
    query = people.asked(held).ids
    assert not {first, second, *others} & {*query}
    for name in query:
        _skip(tmp_path / "run", name)
    tiny(tmp_path / "run", **options)
    lines = rounds(tmp_path / "run")
    assert [line["labelled"] for line in lines] == [2, 2]
    assert [line["people"]["skipped"] for line in lines] == [3, 3 + len(query)]
    assert [line["human_maps"] for line in lines] == [1, 1]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def _skip(run: Path, name: str) -> None:
    held = RunFolder(run)
    people.reopen(held, people.asked(held)).add([Answer(name, None, None, "ann", None, True)])
