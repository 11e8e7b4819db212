"""The file of class weights: what is read, and what is said of mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sal_fast.errors import InputError
from sal_fast.experiment.class_weights import resolved

CLASSES = ["cat", "great dane", "sea-horse"]


def test_words_stay_as_they_are() -> None:
    assert [resolved(word, CLASSES) for word in ("none", "balanced")] == ["none", "balanced"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.toml", 'cat = 2\n"great dane" = 0\nsea-horse = 0.5\n'),
        ("w.csv", "class,weight\nsea-horse,0.5\n\ncat, 2\ngreat dane,0\n"),
        ("w.csv", "sea-horse,0.5\ncat,2e0\ngreat dane,0.0\n"),
    ],
)
def test_a_file_is_read_in_the_order_of_the_classes(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert resolved(str(tmp_path / name), CLASSES) == (2.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("w.toml", "cat = 1\ndog = 1\n", "unknown class 'dog'"),
        ("w.toml", "catt = 1\n", "unknown class 'catt'; did you mean 'cat'"),
        ("w.csv", "cat,1\nsea-horse,1\n", "no weight for the class 'great dane'; add a line for it"),
        ("w.csv", "cat,1\ncat,1\n", "class 'cat' stands twice"),
        ("w.csv", "cat;1\n", "expected lines class,weight, got 'cat;1'"),
        ("w.toml", "cat =", "w.toml cannot be read"),
        *(
            ("w.toml", f'cat = {value}\n"great dane" = 1\nsea-horse = 1\n', "the weight of 'cat' is")
            for value in ("-1", "nan", "inf", '"much"', "true", "[1]")
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        resolved(str(tmp_path / name), CLASSES)


def test_a_misspelt_word_is_taken_for_a_file() -> None:
    with pytest.raises(InputError, match=r"file not found: balancd; expected none or balanced, or a \.toml"):
        resolved("balancd", CLASSES)
