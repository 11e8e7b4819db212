"""`sal-fast query` status, settle, withdraw and collect; a model's maps in exports and imports."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sal_fast.cli import main
from sal_fast.data import StoreOptions, decode, load_table, open_store, plan_store
from sal_fast.experiment.answers import people
from sal_fast.experiment.answers.people import Waiting
from sal_fast.experiment.record import RunFolder
from sal_fast.people.answers import Answers
from sal_fast.people.question import Answer, Question
from sal_fast.people.suggested import Suggested, first_map

Tiny = Callable[..., Path]
OPTIONS = {
    "annotator": "people", "epochs": 1, "stop_fraction": 0.5, "human_budget": 0.5, "own_masks": "ask",
}  # fmt: skip


def drawn(data: Path, name: str, shift: int = 0) -> np.ndarray:
    """The data set's map of an image, moved down by some pixels."""
    return np.roll(np.asarray(Image.open(data / "masks" / f"{name}.png")), shift, axis=0)


def asked(run: Path) -> Question:
    return people.asked(RunFolder(run))


def give(run: Path, *answers: Answer) -> None:
    held = RunFolder(run)
    people.reopen(held, people.asked(held)).add(answers)


@pytest.fixture(scope="module")
def made(tiny: Tiny, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for its second query. Of the five images of the first one, all answers by two people:
    ann gave all but the last the right class and a map; ben the first one as well, and a wrong class to the
    second, which is a tie. Both skipped the last one."""
    run = tmp_path_factory.mktemp("query") / "run"
    with pytest.raises(Waiting):
        tiny(run, **OPTIONS)
    first, second, third, fourth, last = asked(run).ids
    right = {name: name.split("/")[0] for name in asked(run).ids}
    wrong = next(label for label in asked(run).classes if label != right[second])
    give(
        run,
        Answer(first, right[first], drawn(shared_folder, first), "ann", 2.0, False, kind="drawn"),
        Answer(second, right[second], drawn(shared_folder, second), "ann", 3.0, False, kind="corrected"),
        Answer(third, right[third], drawn(shared_folder, third), "ann", 1.5, False, note="blurred"),
        Answer(fourth, right[fourth], None, "ann", None, False),
        Answer(last, None, None, "ann", 0.5, True, reason="too dark"),
        Answer(first, right[first], drawn(shared_folder, first, 4), "ben", 2.5, False, kind="drawn"),
        Answer(second, wrong, None, "Ben", 1.0, False),
        Answer(last, None, None, "ben", None, True),
    )
    with pytest.raises(Waiting):
        tiny(run, **OPTIONS)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy, which a test may change. It has the same name, so exports of one fit the other."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_status(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = json.loads((run / "run.json").read_text())["start"][1]
    answers = Answers(run / "start")
    votes = answers.votes(second)
    assert set(votes.values()) == {1}
    right, wrong = votes
    number = len(asked(run).ids)
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    assert main(["query", "status", str(run)]) == 0
    said = capsys.readouterr().out
    assert " ".join(said.split()) == " ".join(
        f"""query 0: 5 images, 4 with a class, 3 with a map, 1 skipped; maps: 2 drawn, 1 corrected,
        1 of an unknown kind; 10.5 s
        query 1: {number} images, 0 with a class, 0 with a map, {number} open; the run waits for it
        people:
          ann: 4 answered, 3 with a map, 1 skipped; 7 s
          ben: 2 answered, 1 with a map, 1 skipped; 3.5 s
        tie in query 0: {second!r}, {right!r} 1 x, {wrong!r} 1 x
        agreement on classes: kappa 0.00, 50% alike, on 2 images
        agreement on maps: Dice 0.80, on 1 images""".split()
    )
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before


def test_status_of_other_folders(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "status", str(tmp_path)]) == 2
    assert "no run.json in it" in capsys.readouterr().err
    with pytest.raises(Waiting):
        tiny(tmp_path / "run", **OPTIONS)
    assert main(["query", "status", str(tmp_path / "run")]) == 0
    assert "query 0: 5 images, 0 with a class, 0 with a map, 5 open; the run waits" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["query", "collect", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "nobody has given a class yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settle(run: Path, shared_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, *_ = asked(run).ids
    words = ["query", "settle", str(run), "--label", "red", "--image"]
    assert main([*words, one]) == 2
    assert f"{one!r} is no tie (nobody gave a class)" in capsys.readouterr().err
    mask = drawn(shared_folder, one)
    give(run, Answer(one, "red", None, "ann", 1.0, False), Answer(one, "blue", mask, "ben", 1.0, False))
    give(run, Answer(other, "red", None, "ann", 1.0, False))
    assert main(["query", "status", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"tie in query 1: {one!r}, 'red' 1 x, 'blue' 1 x" in said
    assert f"  sal-fast query settle {run} --image ID --label CLASS --annotator NAME" in said
    assert main([*words, other]) == 2
    assert f"{other!r} is no tie ('red' 1 x)" in capsys.readouterr().err
    assert main([*words, "red/none"]) == 2
    assert "the id 'red/none' is none of this query's" in capsys.readouterr().err
    assert main(["query", "settle", str(run), "--image", one, "--label", "bleu"]) == 2
    assert "the class 'bleu' is none of the run's; did you mean 'blue'?" in capsys.readouterr().err
    with RunFolder(run).lock():
        assert main([*words, one]) == 2
    capsys.readouterr()
    key = asked(run).key(one)
    assert main(["query", "settle", str(run), "--image", key, "--label", "blue", "--annotator", "BEN"]) == 0
    assert f"{one!r} is settled as 'blue'; 2 of" in " ".join(capsys.readouterr().out.split())
    verdict = Answers(RunFolder(run).asked(1)).verdicts()[one]
    assert (verdict.label, verdict.tie) == ("blue", ())
    np.testing.assert_array_equal(np.asarray(Image.open(verdict.masks[0])), mask)
    assert main([*words, one]) == 0  # decided anew
    assert Answers(RunFolder(run).asked(1)).verdicts()[one].label == "red"


def test_withdraw(run: Path, shared_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, *_ = asked(run).ids
    start = (run / "start" / "answers.json").read_bytes()
    mask = drawn(shared_folder, one)
    give(
        run, *(Answer(name, "red", mask, who, 1.0, False) for name in (one, other) for who in ("ann", "ben"))
    )
    words = ["query", "withdraw", str(run), "--annotator"]
    assert main([*words, "cy"]) == 2
    assert (
        "query 1 has no answer by 'cy'; those who answered the query are ann, ben" in capsys.readouterr().err
    )
    assert main([*words, "ann", "--image", "red/none"]) == 2
    assert "is none of this query's" in capsys.readouterr().err
    assert main([*words, "ANN ", "--image", asked(run).key(one)]) == 0
    assert "withdrawn answers by 'ann': 1; " in capsys.readouterr().out
    there = Answers(RunFolder(run).asked(1))
    assert [(a.id, a.annotator) for a in there.kept] == [(one, "ben"), (other, "ann"), (other, "ben")]
    assert main([*words, "ben"]) == 0
    assert "still open" in capsys.readouterr().out
    there = Answers(RunFolder(run).asked(1))
    assert [(a.id, a.annotator) for a in there.kept] == [(other, "ann")]
    assert len(list(there.folder.glob("drawn/**/*.png"))) == 1
    assert one in there.open(asked(run).ids)
    assert (run / "start" / "answers.json").read_bytes() == start  # the round after it is finished


def test_collect(run: Path, shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The collected data set has the classes and maps that the run learned from, bit by bit."""
    one = asked(run).ids[0]
    label = one.split("/")[0]
    give(run, Answer(one, label, drawn(shared_folder, one), "ann", 1.0, False, kind="accepted"))
    out = tmp_path / "out"
    assert main(["query", "collect", str(run), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    first, second, third, fourth, last = json.loads((run / "run.json").read_text())["start"]
    assert "5 images with a class, 4 of them with a map" in said
    assert f"skipped by everyone, so only listed in answers.csv: 1, the first is {last!r}" in said

    table = load_table(str(out))
    names = [first, second, third, fourth, one]
    assert [table.class_name(row) for row in range(5)] == sorted(name.split("/")[0] for name in names)
    decoder = decode.choose("torch", torch.device("cpu"))
    store = open_store(table, plan_store(table, StoreOptions(32, 32, decoder)))
    verdicts = {name: v for q in (0, 1) for name, v in Answers(RunFolder(run).asked(q)).verdicts().items()}
    for name in names:
        row = table.ids.index(name)
        image = shared_folder / "images" / f"{name}.jpg"
        assert table.images[row].read_bytes() == image.read_bytes()
        assert bool(store.has_mask[row]) == (name != fourth)
        if name != fourth:
            expected = people.map_in_frame(verdicts[name].masks, image, 32)
            assert expected.any()
            np.testing.assert_array_equal(store.masks.unpack(torch.tensor([row]))[0].numpy(), expected)
    mean = store.masks.unpack(torch.tensor([table.ids.index(first)]))[0]
    assert sorted(mean.unique().tolist()) == [0, 128, 255]  # of two people

    with open(out / "answers.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["query"], line["id"], line["annotator"]) for line in lines] == [
        *(("0", name, "ann") for name in (first, second, third, fourth, last)),
        *(("0", name, "ben") for name in (first, second, last)),
        ("1", one, "ann"),
    ]
    assert (lines[0]["image"], lines[0]["mask"]) == (f"images/{first}.jpg", f"masks/{first}/001.png")
    assert (lines[5]["mask"], lines[1]["mask"]) == (f"masks/{first}/002.png", f"masks/{second}.png")
    assert (lines[1]["kind"], lines[1]["seconds"], lines[2]["note"]) == ("corrected", "3.0", "blurred")
    assert [lines[4][name] for name in ("image", "class", "label", "skipped", "reason")] == [
        "", "", "", "yes", "too dark"
    ]  # fmt: skip
    assert lines[6]["class"] == second.split("/")[0] != lines[6]["label"]
    for line in lines:
        for name in ("image", "mask"):
            assert not line[name] or (out / line[name]).is_file()

    assert main(["data", "check", str(out)]) == 2  # for its size alone
    said = capsys.readouterr().out
    assert "1 problem that a run would refuse" in said
    assert "class 'blue' has 1 image; a split into train, val and test needs at least 3" in said
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["query", "collect", str(run), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_collect_is_whole_or_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A map is missing at the end: nothing of the images that were copied is left."""
    next(run.glob("start/drawn/1/**/*.png")).unlink()
    assert main(["query", "collect", str(run), "--out", str(tmp_path / "new" / "out")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []


def test_collect_without_the_questions(run: Path, shared_folder: Path, tmp_path: Path) -> None:
    """Runs that are older than question.json, and rounds that ran again, have the images of the data."""
    for path in run.rglob("question.json"):
        path.unlink()
    assert main(["query", "collect", str(run), "--out", str(tmp_path / "out")]) == 0
    assert len(list(tmp_path.glob("out/images/*/*.jpg"))) == 4


def test_a_suggestion_from_export_to_answers(
    run: Path, shared_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's map is in the export; taken over it is accepted, changed it is corrected."""
    question, suggested = asked(run), Suggested.read(RunFolder(run).asked(1))
    assert suggested is not None
    begun = {name: first_map(question, name, suggested) for name in question.ids}
    begun = {name: mask for name, mask in begun.items() if mask is not None}
    assert begun
    assert main(["query", "export", str(run), "--to", "labelstudio"]) == 0
    tasks = json.loads((run / "query-001-labelstudio" / "tasks.json").read_text())
    assert {question.meant(task["data"]["id"]) for task in tasks if "predictions" in task} == set(begun)
    words = ["query", "export", str(run), "--to", "folder", "--out"]
    assert main([*words, str(run.parent / "bare"), "--suggest", "False"]) == 0
    assert not (run.parent / "bare" / "suggested").exists()
    out = run.parent / "out"
    assert main([*words, str(out)]) == 0
    files = list(out.glob("suggested/*.png"))
    assert {question.meant(path.stem) for path in files} == set(begun)
    for path in files:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), begun[question.meant(path.stem)])
    name, mask = next(iter(begun.items()))
    key = question.key(name)
    lines = f"id,label,annotator,seconds,skipped\n{key},red,ann,,\n{key},red,ben,,\n"
    (out / "answers.csv").write_text(lines)
    for who in ("ann", "ben"):
        (out / "masks" / who).mkdir()
        shutil.copyfile(out / "suggested" / f"{key}.png", out / "masks" / who / f"{key}.png")
    changed = mask.copy()
    changed[0, 0] ^= 255
    Image.fromarray(changed).save(out / "masks" / "ben" / f"{key}.png")
    assert main(["query", "import", str(run), str(out)]) == 0
    there = Answers(RunFolder(run).asked(1))
    assert [(one.annotator, one.kind) for one in there.kept] == [("ann", "accepted"), ("ben", "corrected")]

    Image.fromarray(np.full_like(mask, 255)).save(out / "masks" / "ben" / f"{key}.png")
    capsys.readouterr()
    assert main(["query", "import", str(run), str(out)]) == 2
    assert f"line 3 (id {key!r}): the map marks nearly all of the picture" in capsys.readouterr().err
    assert [one.kind for one in Answers(there.folder).kept] == ["accepted", "corrected"]
    assert main(["query", "import", str(run), str(out), "--keep-odd-maps", "True"]) == 0
    assert np.asarray(Image.open(there.folder / str(Answers(there.folder).kept[1].mask))).min() == 255
