"""A group of images is in one split, whether splits are drawn or given, and in every format."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path

import format_writers as write
import numpy as np
import polars as pl
import pytest
from experiment_runs import TINY, arguments

from sal_fast import seeds
from sal_fast.cli import main
from sal_fast.data import Sample, Table, check, convert, groups, load_table, make_table, prepared, splits
from sal_fast.data.readers import Options
from sal_fast.data.table import SPLITS
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run


def patients(count: int, classes: int, rng: np.random.Generator, most: int = 12) -> Table:
    """A table without files, of patients with 1 to `most` images each, in several classes."""
    samples = []
    for patient in range(count):
        odds = rng.dirichlet(np.full(classes, 0.5))
        for image in range(int(rng.integers(1, most + 1))):
            label = f"class {rng.choice(classes, p=odds)}"
            samples.append(Sample(f"{patient:04d}-{image:02d}", "", label, group=f"p{patient}"))
    return make_table("clinic", samples)


def by_definition(table: Table, share: float) -> tuple[int, float]:
    """The two numbers that a division is judged by, from the splits of a table, in Python's numbers."""
    missing, off = 0, 0.0
    for label in range(len(table.classes)):
        own = [split for split, one in zip(table.split, table.labels, strict=True) if one == label]
        few = max(1, round(share * len(own)))
        for split, wanted in zip(SPLITS, (len(own) - 2 * few, few, few), strict=True):
            have = own.count(split)
            missing += (have == 0 and wanted > 0) * (2 if split == "train" else 1)
            off += (have - wanted) ** 2 / max(wanted, 1)
    return missing, off


@pytest.mark.parametrize("seed", range(8))
def test_few_groups_are_divided_as_well_as_any_division_does(seed: int) -> None:
    """All 3^6 divisions are tried."""
    table = patients(6, 2, np.random.default_rng(seed))
    names = sorted(set(table.group))
    every = (
        by_definition(table.with_split([split[names.index(group)] for group in table.group]), 0.2)
        for split in product(SPLITS, repeat=len(names))
    )
    best = min(every)
    if best[0]:
        with pytest.raises(InputError, match=r"lies in 2 groups|lies in 1 group;|is missing in"):
            splits.assign(table, seeds.stream(seed, "split"))
        return
    drawn = splits.assign(table, seeds.stream(seed, "split"))
    assert by_definition(drawn, 0.2) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_many_groups_give_the_asked_shares_of_every_class(seed: int) -> None:
    table = patients(300, 4, np.random.default_rng(seed))
    drawn = splits.assign(table, seeds.stream(seed, "split"))
    assert not groups.cut(drawn)
    for label in range(4):
        own = [split for split, one in zip(drawn.split, table.labels, strict=True) if one == label]
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            assert abs(own.count(split) - share * len(own)) < 2
    assert drawn.split == splits.assign(table, seeds.stream(seed, "split")).split
    assert drawn.split != splits.assign(table, seeds.stream(seed + 1, "split")).split


def test_large_groups_are_no_more_often_in_one_split() -> None:
    """Patients with many images are in train, val and test as often as all patients are."""
    table = patients(400, 2, np.random.default_rng(0))
    drawn = splits.assign(table, seeds.stream(0, "split"))
    sizes = {group: table.group.count(group) for group in set(table.group)}
    split_of = dict(zip(table.group, drawn.split, strict=True))
    large = [split_of[group] for group, size in sizes.items() if size > 9]
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        assert abs(large.count(split) / len(large) - share) < 0.1


def test_groups_of_one_image_are_divided_as_images_are() -> None:
    samples = [Sample(f"{i:02d}", "", "ab"[i % 2], group=f"g{i}") for i in range(40)]
    drawn = splits.assign(make_table("t", samples), seeds.stream(0, "split"))
    for label in (0, 1):
        own = [split for split, one in zip(drawn.split, drawn.labels, strict=True) if one == label]
        assert [own.count(split) for split in SPLITS] == [12, 4, 4]


def test_a_pool_without_labels_stays_train_with_its_groups() -> None:
    """All images of a patient who has an unlabelled one are train; the others are half val, half test."""
    samples = [
        Sample(f"{patient}-{i}", "", "" if patient < 4 and i else "ab"[patient % 2], group=f"p{patient}")
        for patient in range(12)
        for i in range(3)
    ]
    drawn = splits.assign(make_table("t", samples), seeds.stream(0, "split"))
    assert not groups.cut(drawn)
    in_pool = [
        split for name, split in zip(drawn.ids, drawn.split, strict=True) if int(name.split("-")[0]) < 4
    ]
    assert set(in_pool) == {"train"}
    assert [drawn.split.count(split) for split in SPLITS] == [12, 12, 12]


def test_val_is_taken_from_train_by_groups() -> None:
    samples = [
        Sample(f"{p:02d}-{i}", "", "ab"[p % 2], split="test" if p < 4 else "train", group=f"p{p}")
        for p in range(24)
        for i in range(3)
    ]
    drawn = splits.assign(make_table("t", samples), seeds.stream(0, "split"))
    assert not groups.cut(drawn)
    assert [drawn.split.count(split) for split in SPLITS] == [48, 12, 12]
    assert {name[:2] for name, split in zip(drawn.ids, drawn.split, strict=True) if split == "test"} == {
        "00", "01", "02", "03",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "class 'a' lies in 1 group; splits that cut no group need at least 3"),
        (2, "class 'a' lies in 2 gr"),
    ],
)
def test_a_class_in_too_few_groups_is_refused(count: int, said: str) -> None:
    samples = [
        Sample(f"{label}{i}", "", label, group=f"{label}{i % count}") for label in "ab" for i in range(9)
    ]
    with pytest.raises(InputError, match=f"{said}.*--columns group="):
        splits.assign(make_table("t", samples), seeds.stream(0, "split"))


def test_classes_that_only_come_together_are_refused_with_the_class_and_split() -> None:
    """Each class lies in three groups, but no division of the four groups shows both everywhere."""
    kinds = {"one": "ab", "two": "a", "three": "a", "four": "b", "five": "b", "six": "ccc"}
    samples = [
        Sample(f"{g}{i}", "", one, group=g) for g, labels in kinds.items() for i, one in enumerate(labels)
    ]
    samples += [Sample(f"{g}c", "", "c", group=g) for g in ("two", "three")]
    drawn = splits.assign(make_table("t", samples), seeds.stream(0, "split"))
    assert by_definition(drawn, 0.2)[0] == 0
    kinds = {"x": "ab", "y": "ac", "z": "bc", "w": "abc"}
    only = [Sample(f"{g}{label}", "", label, group=g) for g, labels in kinds.items() for label in labels]
    with pytest.raises(InputError, match="no splits were found that cut no group and show every class"):
        splits.assign(make_table("t", only), seeds.stream(0, "split"))


def test_one_large_group_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    samples = [Sample(f"{i:02d}", "", "a", group="large" if i < 80 else f"g{i}") for i in range(100)]
    with caplog.at_level(logging.INFO, "sal_fast"):
        splits.assign(make_table("t", samples), seeds.stream(0, "split"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "splits that cut none of 21 groups: train 80%, val 10%, test 10%" in record.getMessage()


def given(tmp_path: Path, folder: Path) -> Path:
    """A manifest whose splits cut the group g0, and whose subgroups lie in all splits."""
    lines = ["image,label,mask,split,group,subgroup"]
    for label in ("blue", "red"):
        for i in range(9):
            split, group = SPLITS[i % 3], f"{label}{i}" if i > 1 else "g0"
            image, mask = folder / f"images/{label}/{i:03d}.jpg", folder / f"masks/{label}/{i:03d}.png"
            lines.append(f"{image},{label},{mask},{split},{group},{'old' if i < 5 else 'new'}")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_group_in_two_given_splits_is_refused(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = given(tmp_path, shared_folder)
    said = (
        "list: 1 of 15 groups lie in more than one split, so a test would prove little. The first: group 'g0'"
    )
    assert any(line.startswith(said) for line in check.look(str(path)).problems)
    allowed = check.look(str(path), allow_leaks=True)
    assert any(line.startswith(said) for line in allowed.notes)
    assert not any("groups" in line for line in allowed.problems)
    ignored = check.look(str(path), options=Options.of("auto", "group="))
    assert not any("groups" in line for line in ignored.problems)
    out = tmp_path / "run"
    words = arguments(data=path, out=out, regime="b1")
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (out / "run.json").exists()
    prepare = ["data", "prepare", "--data", str(path), "--image-size", "32", "--out", str(tmp_path / "ready")]
    assert main(prepare) == 2
    assert main([*prepare, "--allow-leaks", "True"]) == 0


def test_a_run_that_began_before_groups_were_read_goes_on(
    shared_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = given(tmp_path, shared_folder)
    out = tmp_path / "run"
    options = {**TINY, "data": str(path), "out": str(out), "regime": "b1", "stop_fraction": 0.5, "epochs": 1}
    run(Config(**options, columns="group="), until=1)
    record = json.loads((out / "run.json").read_text())
    record["config"]["columns"] = ""
    (out / "run.json").write_text(json.dumps(record))
    with caplog.at_level(logging.WARNING, "sal_fast"):
        assert len(run(Config(**options)).rounds) == 2
    assert "groups lie in more than one split" in caplog.text


def test_copies_in_one_group_are_no_leak(folder: Path, tmp_path: Path) -> None:
    """Splits that the run draws cannot part them."""
    rows = [(f"{label}/{i:03d}", label) for label in ("blue", "red") for i in range(9)]
    twin = folder / "images/blue/001.jpg"
    twin.write_bytes((folder / "images/blue/000.jpg").read_bytes())
    path = folder / "list.csv"

    def problems(group: str) -> list[str]:
        lines = [
            f"images/{n}.jpg,{label},{group if n in ('blue/000', 'blue/001') else n}" for n, label in rows
        ]
        path.write_text("image,label,group\n" + "\n".join(lines) + "\n")
        return check.look(str(path)).problems

    assert not any("same file" in line for line in problems("twins"))
    text = path.read_text().replace("blue/001.jpg,blue,twins", "blue/001.jpg,blue,other")
    path.write_text(text)
    assert any(
        "same file, byte by byte; the splits that a run draws may part them" in line
        for line in check.look(str(path)).problems
    )


# Formats.


def test_prepared_and_converted_data_keep_groups(shared_folder: Path, tmp_path: Path) -> None:
    path = given(tmp_path, shared_folder)
    table = load_table(str(path))
    assert (set(table.subgroup), len(set(table.group))) == ({"old", "new"}, 15)
    ready = tmp_path / "ready"
    words = ["--data", str(path), "--out", str(ready), "--image-size", "32", "--allow-leaks", "True"]
    assert main(["data", "prepare", *words]) == 0
    for made in (prepared.read(ready), load_table(str(convert.convert(table, tmp_path / "plain")))):
        assert (made.ids, made.group, made.subgroup) == (table.ids, table.group, table.subgroup)
    undrawn = table.with_split([""] * len(table))
    made = load_table(str(convert.convert(undrawn, tmp_path / "undrawn")))
    assert (made.group, set(made.split)) == (table.group, {""})


def test_a_prepared_folder_of_before_has_no_groups(shared_folder: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = ["--data", str(shared_folder), "--out", str(ready), "--image-size", "32"]
    assert main(["data", "prepare", *words]) == 0
    assert "group" not in pl.read_parquet_schema(ready / "table.parquet")
    assert (prepared.read(ready).group, prepared.read(ready).subgroup) == ([], [])


@pytest.mark.parametrize("name", ["coco", "label-studio", "labelme", "hf-folder", "hf-parquet"])
def test_formats_that_can_tell_groups(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    root.mkdir()
    write.FORMATS[name](root)
    assert load_table(str(root)).group == []
    for file in (*root.rglob("*.json"), *root.rglob("*.jsonl"), *root.rglob("*.parquet")):
        tell(name, file)
    table = load_table(str(root), options=Options.of("auto", "group=video"))
    assert set(table.group) == {"v0", "v1"}
    assert len(table.subgroup) == len(table)
    assert set(table.subgroup) == {"s"}
    with pytest.raises(InputError, match="film"):
        load_table(str(root), options=Options.of("auto", "group=film"))


def tell(name: str, file: Path) -> None:
    """Write a video and a subgroup beside each image of an annotation file."""

    def told(number: int) -> dict[str, str]:
        return {"video": f"v{number % 2}", "subgroup": "s"}

    if file.suffix == ".parquet":
        frame = pl.read_parquet(file)
        both = [told(number) for number in range(len(frame))]
        metadata = pl.read_parquet_metadata(file)
        metadata.pop("ARROW:schema", None)
        frame.hstack(pl.DataFrame(both)).write_parquet(file, metadata=metadata)
    elif file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("\n".join(json.dumps({**one, **told(n)}) for n, one in enumerate(lines)) + "\n")
    else:
        data = json.loads(file.read_text())
        if name == "labelme":
            data |= told(sum(map(ord, file.name)))
        for number, one in enumerate(data if name == "label-studio" else data.get("images", [])):
            (one["data"] if name == "label-studio" else one).update(told(number))
        file.write_text(json.dumps(data))


def test_a_format_that_tells_no_groups_refuses_to_be_asked(shared_folder: Path) -> None:
    with pytest.raises(InputError, match=r"--columns group=patient, and no image has one \(read as folder\)"):
        load_table(str(shared_folder), options=Options.of("auto", "group=patient"))
