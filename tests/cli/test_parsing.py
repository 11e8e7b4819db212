"""Options that cannot be read: every message names the option and fits one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from sal_fast.cli import parsing
from sal_fast.errors import InputError


@dataclass(frozen=True)
class Base:
    """What all have."""

    device: str = "auto"
    """The device,
    that is, the place (and nothing else)."""


@dataclass(frozen=True)
class Options(Base):
    """Do it.

    And then do it
    again.
    """

    a_rather_long_name_of_an_option_that_is_required_to_be_given: int = tyro.MISSING
    """The first one."""
    to: Literal["folder", "labelstudio"] = "folder"
    size: int | None = None


def go(run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")], /, k: int) -> str:
    if k < 0:
        raise ValueError("an error of the command, not of its options")
    return f"{run} {k}"


LONG = "--a-rather-long-name-of-an-option-that-is-required-to-be-given"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], f"missing {LONG}"),
        (["--devise", "cpu"], "unknown option --devise; did you mean --device?"),
        (["--pool=3"], "unknown option --pool=3"),
        (["extra"], "unexpected 'extra'"),
        (["--to"], "--to needs a value"),
        ([LONG, "1", "--size", "big"], "--size: expected {None}|INT (invalid literal"),
        ([LONG, "1.5"], f"{LONG}: expected INT (invalid literal"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_what_is_wrong_is_named(
    words: list[str], said: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(InputError) as caught:
        parsing.one_line(Options, words, "sal-fast it")
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("(see `sal-fast it --help`)")
    assert "\n" not in str(caught.value)


def test_a_word_that_is_none_of_the_choices() -> None:
    with pytest.raises(InputError) as caught:
        parsing.one_line(Options, ["--to", "foldr"], "sal-fast it")
    assert str(caught.value) == (
        "--to: unknown value 'foldr'; did you mean 'folder'? (expected one of folder, labelstudio)"
    )


def test_everything_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"^missing RUN, --k "):
        parsing.one_line(go, [], "sal-fast go")
    with pytest.raises(InputError, match=r"^missing --k "):
        parsing.one_line(go, ["runs/a"], "sal-fast go")


def test_the_command_gets_its_options() -> None:
    assert parsing.one_line(go, ["runs/a", "--k", "3"], "sal-fast go") == "runs/a 3"
    assert parsing.one_line(Options, [LONG, "4", "--size", "None"], "x") == Options("auto", 4, "folder", None)
    with pytest.raises(ValueError, match="an error of the command"):
        parsing.one_line(go, ["runs/a", "--k", "-3"], "sal-fast go")


def test_help_is_running_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstrings' line breaks are gone, and a parent's fields have their texts."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        parsing.one_line(Options, ["--help"], "sal-fast it")
    out = capsys.readouterr().out
    assert "Do it.\n\nAnd then do it again.\n" in out
    assert "The device, that is, the place (and nothing else). (default: auto)" in out
