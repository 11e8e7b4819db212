"""Manifests: names of columns, separators, splits in words, and what is refused with a way out."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from sal_fast.data import Table, load_table
from sal_fast.data.readers import Options
from sal_fast.errors import InputError


def written(root: Path, text: str, name: str = "list.csv", columns: str = "") -> Table:
    (root / name).write_text(text, encoding="utf-8")
    return load_table(str(root / name), options=Options.of("auto", columns))


@pytest.mark.parametrize(
    ("name", "mark"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.tab", "\t")]
)
def test_separators(name: str, mark: str, tmp_path: Path) -> None:
    lines = ["id,image,label,mask,split", "x,i/x.png,cat,m/x.png,train", 'y,"i/y, z.png",dog,,val']
    text = "\n".join(lines).replace(",", mark).replace(f"y{mark} z", "y, z")
    table = written(tmp_path, text, name)
    assert (table.ids, table.classes, table.split) == (["x", "y"], ["cat", "dog"], ["train", "val"])
    assert table.images == [tmp_path / "i/x.png", tmp_path / "i/y, z.png"]
    assert table.masks == [tmp_path / "m/x.png", None]


def test_parquet_with_other_names(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"filename": ["b/1.jpg", "b/2.jpg"], "dx": [3, 4], "seg": ["m/1.png", None], "age": [1, 2]}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    options = Options.of("auto", "image=filename, label=dx,mask=seg")
    table = load_table(str(tmp_path / "a.parquet"), options=options)
    assert (table.ids, table.classes) == (["b/1", "b/2"], ["3", "4"])
    assert table.masks == [tmp_path / "m/1.png", None]
    assert table.notes[1:] == ("a.parquet: columns that are not known and not used: age",)


@pytest.mark.parametrize("column", ["split", "Split", " SPLIT", "set", "Subset", "partition", "fold"])
def test_columns_of_splits(column: str, tmp_path: Path) -> None:
    table = written(tmp_path, f"image,label,{column}\n1.png,a,Training\n2.png,a,valid\n3.png,a,testing\n")
    assert table.split == ["train", "val", "test"]
    said = [note for note in table.notes if "is read as the split" in note]
    assert len(said) == (column.strip().lower() != "split")


def test_a_column_that_is_half_a_split(tmp_path: Path) -> None:
    text = "image,label,set\n1.png,a,train\n2.png,a,holdout\n"
    with pytest.raises(
        InputError, match=r"column 'set' has 'train', a split, and 'holdout', .*--columns split="
    ):
        written(tmp_path, text)
    table = written(tmp_path, text, columns="split=")
    assert table.split == ["", ""]
    assert "list.csv: columns that are not known and not used: set" in table.notes


def test_a_column_called_set_that_is_none(tmp_path: Path) -> None:
    table = written(tmp_path, "image,label,set\n1.png,a,north\n2.png,a,south\n")
    assert table.split == ["", ""]


def test_groups_and_subgroups(tmp_path: Path) -> None:
    text = "image,label,Group,subgroup,age\n1.png,a, g ,h,3\n2.png,a,7,,4\n"
    table = written(tmp_path, text)
    assert (table.group, table.subgroup) == (["g", "7"], ["h", ""])
    assert table.notes[1:] == ("list.csv: columns that are not known and not used: age",)
    without = written(tmp_path, text, columns="group=,subgroup=age")
    assert (without.group, without.subgroup) == ([], ["3", "4"])


def test_a_group_is_given_for_all_images_or_none(tmp_path: Path) -> None:
    text = "image,label,group\n1.png,a,g\n2.png,a,\n"
    with pytest.raises(InputError, match=r"list: '2' has no group, others have, .*--columns group="):
        written(tmp_path, text)
    assert written(tmp_path, text, columns="group=").group == []
    assert written(tmp_path, text.replace(",g", ",")).group == []


def test_the_nan_of_an_empty_cell_is_no_group(tmp_path: Path) -> None:
    frame = pl.DataFrame({"image": ["1.png", "2.png"], "label": ["a", "b"], "subgroup": [1.5, float("nan")]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert load_table(str(tmp_path / "a.parquet")).subgroup == ["1.5", ""]


def test_a_column_that_looks_like_a_group_is_pointed_out(tmp_path: Path) -> None:
    text = "image,label,Patient_ID\n1.png,a,g\n"
    hint = "; if images with one 'Patient_ID' belong into one split, say --columns group=Patient_ID"
    assert written(tmp_path, text).notes[-1].endswith(f"not used: Patient_ID{hint}")
    assert not written(tmp_path, text, columns="group=").notes[-1].endswith(hint)
    table = written(tmp_path, text, columns="group=Patient_ID")
    assert table.group == ["g"]
    assert len(table.notes) == 1


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        (
            "filename,dx\n1.png,a\n",
            "",
            r"column 'image' is missing; .*found filename, dx; perhaps --columns image=filename,label=dx",
        ),
        ("image,Category\n1.png,a\n", "", r"column 'label' is missing; .*; perhaps --columns label=Category"),
        ("image,what\n1.png,a\n", "", r"column 'label' is missing; .*found image, what$"),
        (
            "image,label\n1.png,a\n",
            "label=dx",
            r"names a column 'dx' for label, which is missing; found image",
        ),
        ("image,label\n1.png,a\n", "lable=dx", r"--columns lable=dx: expected pairs such as image=filename"),
        ("image,label\n1.png,a\n", "label", r"--columns label: expected pairs"),
        ("image,label\n", "", "no rows"),
        ("image,label,split\n1.png,a,trainig\n", "", "split 'trainig'; expected train, val, test"),
        ("image,label\n,a\n", "", "line 2: 'image' is empty"),
    ],
)
def test_refused(text: str, columns: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        written(tmp_path, text, columns=columns)


@pytest.mark.parametrize("name", ["list.xlsx", "list.ods", "list.csv"])
def test_spreadsheets(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 a spreadsheet\n")
    with pytest.raises(InputError, match=rf"{name}: .*save it as CSV"):
        load_table(str(tmp_path / name))


def test_a_page_for_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))
    pages = [Image.new("L", (8, 6), grey) for grey in (1, 2)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    table = written(tmp_path, "id,image,label\nx,s.tif,a\n")
    assert table.ids == ["x#0001", "x#0002"]
    assert table.classes == ["a"]


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    table = written(tmp_path, "image,label\n1.png,a\n2.png\n3.png,\n")
    assert table.labels == [0, -1, -1]
    assert table.notes[1:] == (
        "list.csv: rows without a label, which people may give: 2, such as 2.png in line 3",
    )


@pytest.mark.parametrize("said", ["image=filename", "image= filename ", "image=FileName"])
def test_columns_are_found_but_for_case_and_spaces(said: str, tmp_path: Path) -> None:
    assert written(tmp_path, " filename ,label\n1.png,a\n", columns=said).ids == ["1"]
