"""The plain folder: what a spreadsheet and an image editor may do to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sal_fast.errors import InputError
from sal_fast.people import folder
from sal_fast.people.question import Answer, Question

HEADER = "id,label,annotator,seconds,skipped\n"


@pytest.fixture
def question(tmp_path: Path) -> Question:
    """Three pictures, 20 wide and 10 high, exported to `out`."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save(path)
    made = Question("run", 1, ["birds/a", "birds/b", "c"], paths, ["Sparrow", "Möwe"], True)
    folder.export(made, tmp_path / "out")
    return made


@pytest.fixture
def out(question: Question, tmp_path: Path) -> Path:
    return tmp_path / "out"


def save(out: Path, name: str, mask: np.ndarray) -> None:
    path = out / "masks" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def read(
    out: Path, question: Question, *lines: str, header: str = HEADER, encoding: str = "utf-8"
) -> list[Answer]:
    (out / "answers.csv").write_text(header + "\n".join(lines) + "\n", encoding=encoding)
    return folder.read_answers(out / "answers.csv", question)


def test_what_is_exported(question: Question, out: Path) -> None:
    assert (out / "answers.csv").read_text(
        encoding="utf-8-sig"
    ) == HEADER + "birds/a,,,,\nbirds/b,,,,\nc,,,,\n"
    assert (out / "classes.txt").read_text(encoding="utf-8") == "Sparrow\nMöwe\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.txt", "answers.csv", "classes.txt", "images", "masks", "query.json"
    ]  # fmt: skip
    assert (out / "masks" / "birds").is_dir()
    assert folder.read_answers(out, question) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_as_spreadsheets_write_it(encoding: str, question: Question, out: Path) -> None:
    """Other delimiters, decimal commas, columns in another order, more columns, empty lines, CR LF."""
    expected = [
        Answer("birds/a", "Möwe", None, "ada", 1.5, False),
        Answer("birds/b", None, None, "ada", None, True),
    ]
    lines = ["note;skipped;id;Label;seconds;annotator\r\n;;birds/a; Möwe ;1,5; ada\r\n\r\n;;;;;\r\n"]
    lines += ["x;YES;birds/b;;;ada\r\n;no;c;;;\r"]
    assert read(out, question, *lines, header="", encoding=encoding) == expected
    tabs = "".join(lines).replace(";", "\t")
    assert read(out, question, tabs, header="", encoding=encoding) == expected


def test_masks_of_an_image_editor(question: Question, out: Path) -> None:
    """Black and white however it is stored, and degrees."""
    binary = np.random.default_rng(0).random((10, 20)) < 0.4
    graded = np.arange(200, dtype=np.uint8).reshape(10, 20)
    line = "c,Möwe,,,"
    stored = [
        Image.fromarray(binary),
        Image.fromarray(binary.astype(np.uint8)),
        Image.fromarray(np.stack([binary * np.uint8(255)] * 3, axis=2)),
        Image.fromarray(binary.astype(np.uint16) * 65535),
    ]
    (out / "masks" / ".DS_Store").write_bytes(b"x")
    for image in stored:
        image.save(out / "masks" / "c.png")
        (answer,) = read(out, question, line)
        np.testing.assert_array_equal(answer.mask, binary * np.uint8(255), err_msg=image.mode)
    save(out, "c", graded)
    (answer,) = read(out, question, line)
    np.testing.assert_array_equal(answer.mask, graded)


def test_a_mask_of_one_among_several(question: Question, out: Path) -> None:
    """masks/<id>.png is the mask of the only person who answered; else it has to say whose it is."""
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2:4, 3:9] = 255
    save(out, "c", mask)
    (skipped, answer) = read(out, question, "c,,ben,,yes", "c,Möwe,ada,,")
    assert skipped.skipped
    np.testing.assert_array_equal(answer.mask, mask)
    with pytest.raises(InputError, match=r"whose is masks/c.png\? Several people answered"):
        read(out, question, "c,Sparrow,ben,,", "c,Möwe,ada,,")
    save(out, "ada/c", mask)
    (out / "masks" / "c.png").unlink()
    ben, ada = read(out, question, "c,Sparrow,ben,,", "c,Möwe,ada,,")
    assert ben.mask is None
    np.testing.assert_array_equal(ada.mask, mask)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "c,Sparow,,,",
            r"line 2 \(id 'c'\): the class 'Sparow' is none of the run's; did you mean 'Sparrow'\?",
        ),
        ("C,Möwe,,,", r"line 2: the id 'C' is none of this query's; did you mean 'c'\?$"),
        ("A,Möwe,,,", r"the id 'A' is none of this query's; did you mean 'birds/a'\?$"),
        ("birds/d,Möwe,,,", r"the id 'birds/d' is none of this query's$"),  # another image, not a slip
        (",Möwe,,,", r"line 2: the id '' is none of this query's"),
        ("c,Möwe,,,maybe", "skipped is 'maybe', expected yes or nothing"),
        ("c,Möwe,,,yes", "skipped, and yet of the class 'Möwe'"),
        ("c,Möwe,,-1,", "seconds is '-1', expected a number"),
        ("c,Möwe,,nan,", "seconds is 'nan', expected a number"),
        ("c,Möwe,,soon,", "seconds is 'soon', expected a number"),
        ("c,Möwe,,", "line 2: 4 fields, expected 5"),
        ("c,Möwe,../ada,,", "annotator '../ada' cannot be a folder's name"),
        ("c,Möwe,birds,,", "annotator 'birds' is also how an id begins"),
        ('\n"c,Möwe,,,', r"line 3: not CSV \(unexpected end of data\)"),
        ('c,"Mö"we,,,', "line 2: not CSV"),
    ],
)
def test_what_is_wrong_with_a_line(line: str, message: str, question: Question, out: Path) -> None:
    with pytest.raises(InputError, match=f"^answers.csv, .*{message}"):
        read(out, question, line)


def test_lines_are_counted_as_an_editor_does(question: Question, out: Path) -> None:
    header = '"note\nof two lines",' + HEADER
    with pytest.raises(InputError, match=r"line 5 \(id 'c'\): seconds"):
        read(out, question, '"three\nlines",birds/a,Möwe,,,', ",c,Möwe,,x,", header=header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "line 1: expected a CSV file with the columns id, label, .*; missing: id"),
        ("id,label,seconds\n", "missing: annotator, skipped"),
        (HEADER.replace("seconds", "label,seconds"), "two columns have the same name"),
        ("annotation_id,annotator,id,label\n", "Label Studio's export in the format CSV; choose .* JSON"),
    ],
)
def test_other_tables(header: str, message: str, question: Question, out: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(out, question, header=header)


def test_files_that_do_not_belong(question: Question, out: Path) -> None:
    with pytest.raises(InputError, match=r"answers.csv, line 3: not UTF-8"):
        read(out, question, "c,,,,", "birds/a,Möwe,,,", encoding="latin-1")
    (out / "answers.csv").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(InputError, match="expected a CSV file"):
        folder.read_answers(out, question)
    (out / "query.json").unlink()
    with pytest.raises(InputError, match=r"query.json is missing; keep the exported folder together"):
        read(out, question, "c,Möwe,,,")
    (out / "answers.csv").unlink()
    with pytest.raises(InputError, match=r"file not found: .*answers.csv; import Label Studio's JSON export"):
        folder.read_answers(out, question)


def test_masks_that_cannot_be_used(question: Question, out: Path) -> None:
    """One of another size, a damaged one, and two whose names are slips."""
    mask = np.zeros((10, 20), dtype=np.uint8)
    save(out, "c", mask[:, :10])
    save(out, "birds/a", mask)
    save(out, "brids/b", mask)
    Image.fromarray(mask).save(out / "masks" / "birds" / "b.jpg")
    path = out / "masks" / "birds" / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError) as caught:
        read(out, question, *(f"{name},Möwe,,," for name in question.ids))
    count, damaged, size, *slips = str(caught.value).split("\n  ")
    assert count == "answers.csv: 4 problems:"
    assert damaged.startswith("line 2 (id 'birds/a'): ")
    assert size == (
        "line 4 (id 'c'): masks/c.png has 10x10 pixels, its image 20x10; draw it at the picture's size"
    )
    assert [line.split(": ")[0] for line in slips] == ["masks/birds/b.jpg", "masks/brids/b.png"]


def test_paint_that_cannot_be_told_from_what_is_under_it(question: Question, out: Path) -> None:
    """Paint on the photograph or on white is refused; on black, or on a transparent layer, it is the map."""
    binary = np.random.default_rng(0).random((10, 20)) < 0.4
    full, on = np.full((10, 20), 255, dtype=np.uint8), binary * np.uint8(255)
    photo = np.random.default_rng(1).integers(1, 255, (10, 20, 3)).astype(np.uint8)
    photo[binary] = (255, 0, 0)
    palette = Image.fromarray(on).convert("P")
    palette.info["transparency"] = 0
    for wrong, message in [
        (Image.fromarray(photo), r"masks/c.png: a picture of many colours, expected grey"),
        (Image.fromarray(np.stack([full, full - on, full - on], axis=2)), "a mask of 2 colours"),
    ]:
        wrong.save(out / "masks" / "c.png")
        with pytest.raises(InputError, match=rf"line 2 \(id 'c'\): .*{message}"):
            read(out, question, "c,Möwe,,,")
    for right in (
        Image.fromarray(np.stack([full, full, full, on], axis=2)),
        Image.fromarray(np.stack([0 * on, 0 * on, 0 * on, on // 2], axis=2)),
        Image.fromarray(np.stack([full, on], axis=2)),
        palette,
        Image.fromarray(np.stack([on, on, on, full], axis=2)),
        Image.fromarray(np.stack([on, full], axis=2)),
        Image.fromarray(np.stack([on, 0 * on, 0 * on], axis=2)),  # red on black
    ):
        right.save(out / "masks" / "c.png")
        (answer,) = read(out, question, "c,Möwe,,,")
        np.testing.assert_array_equal(answer.mask, on, err_msg=right.mode)


def test_without_maps_no_mask_is_looked_at(question: Question, out: Path) -> None:
    save(out, "c", np.zeros((3, 3), dtype=np.uint8))
    labels = Question("run", 1, question.ids, question.images, question.classes, maps=False)
    assert read(out, labels, "c,Möwe,,,") == [Answer("c", "Möwe", None, "", None, False)]
