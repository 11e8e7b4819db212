"""A file or folder that is written aside is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sal_fast._util.files import whole_file, whole_folder


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def fill(folder: Path, text: str) -> None:
    (folder / "below").mkdir()
    (folder / "below/b.txt").write_text(text)


def fail(file: Path, error: type[BaseException]) -> None:
    file.write_text("half")
    raise error


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    for text in ("old", "new"):
        before = content(tmp_path)
        with whole_file(tmp_path / "deep/a.txt") as aside:
            aside.write_text(text)
            assert {
                name: text for name, text in content(tmp_path).items() if name != "deep/a.txt.part"
            } == before
        assert content(tmp_path) == {"deep/a.txt": text}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_that_fails_leaves_the_old_one(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), whole_file(tmp_path / "a.txt") as aside:
        fail(aside, error)
    assert content(tmp_path) == {"a.txt": "old"}


def test_a_folder_is_renamed_when_the_block_ends(tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part/left.txt").write_text("of a killed process")
    with whole_folder(tmp_path / "out") as aside:
        fill(aside, "one")
        assert not (tmp_path / "out").exists()
    assert content(tmp_path) == {"out/below/b.txt": "one"}


def test_a_folder_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    fill(tmp_path, "old")
    with pytest.raises(OSError, match="not empty"), whole_folder(tmp_path / "below") as aside:
        fill(aside, "new")
    assert content(tmp_path) == {"below/b.txt": "old"}
    with whole_folder(tmp_path / "below", replace=True) as aside:
        fill(aside, "new")
    assert content(tmp_path) == {"below/below/b.txt": "new"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(error: type[BaseException], tmp_path: Path) -> None:
    fill(tmp_path, "old")
    with pytest.raises(error), whole_folder(tmp_path / "below", replace=True) as aside:
        fail(aside / "b.txt", error)
    assert content(tmp_path) == {"below/b.txt": "old"}
