"""`data convert` writes the plain folder of any format, and needs no option about masks afterwards."""

from __future__ import annotations

from pathlib import Path

import format_writers as write
import numpy as np
import pytest
from PIL import Image

from sal_fast.cli import main
from sal_fast.data import Sample, Table, check, convert, files, load_table, make_table, meaning
from sal_fast.data.meaning import Rule
from sal_fast.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", write.FORMATS)
def test_convert(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    root.mkdir()
    write.FORMATS[name](root)
    table = load_table(str(root))
    assert main(["data", "convert", str(root), str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    masks = sum(mask is not None for mask in table.masks)
    assert f"{len(table)} images, {masks} masks" in said
    assert f"note: {table.notes[0]}" in said
    source = out / "manifest.csv" if any(table.split) else out
    assert f"`sal-fast data check {source}`" in said
    made = load_table(str(source))
    assert write.content(made) == write.content(table)
    if any(table.split):
        assert made.ids == table.ids
        by_folder = load_table(str(out))
        assert sorted(map(str, by_folder.images)) == sorted(map(str, made.images))
        assert sorted(map(str, by_folder.masks)) == sorted(map(str, made.masks))


def test_classes_pools_and_names_that_meet(tmp_path: Path) -> None:
    pictures = [write.save(tmp_path / f"{number}.png", one) for number, one in enumerate(write.pictures(4))]
    samples = [
        Sample("a/b", pictures[0], "cat"),
        Sample("a_b", pictures[1], "cat"),
        Sample("cat/x", pictures[2], "cat"),
        Sample("pool/y", pictures[3]),
    ]
    out = convert.convert(make_table("mine", samples), tmp_path / "out")
    assert out == tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "images/cat/a_b.png", "images/cat/a_b_.png", "images/cat/x.png", "pool/y.png",
    ]  # fmt: skip
    with pytest.raises(InputError, match="out is there and holds something; name a new folder"):
        convert.convert(make_table("mine", samples), out)


def test_a_rule_of_the_data_set_is_applied(tmp_path: Path) -> None:
    image = write.save(tmp_path / "1.png", next(write.pictures(1)))
    values = np.arange(write.HEIGHT * write.WIDTH, dtype=np.uint8).reshape(write.HEIGHT, write.WIDTH)
    mask = write.save(tmp_path / "1-mask.bmp", values)
    table = make_table("mine", [Sample("1", image, "cat", mask)], lambda pixels: pixels > 127)
    made = load_table(str(convert.convert(table, tmp_path / "out")))
    np.testing.assert_array_equal(np.asarray(Image.open(made.masks[0] or "")), (values > 127) * np.uint8(255))


def maps(table: Table, size: int | None) -> list[list[np.ndarray]]:
    """The maps of each image, as a run makes them for a frame of that size."""
    found = []
    for path, mask in zip(table.images, table.masks, strict=True):
        image = files.read(path, table.rule.white)
        drawn = [files.read(one, table.rule.white) for one in files.of_mask(mask)] if mask else []
        read = [meaning.read(one, files.grades(one), size, image, table.rule).pixels for one in drawn]
        found.append([files.rgb(image), *read])
    return found


def painted(root: Path, masks: list[np.ndarray | list[np.ndarray]], *, deep: bool = False) -> Path:
    """A plain folder of four images, 48 pixels a side, with these masks; a list has several annotators'."""
    rng = np.random.default_rng(1)
    for number in range(4):
        photo = (
            rng.integers(0, 4096, (48, 48), dtype=np.uint16) if deep else rng.integers(0, 256, (48, 48, 3))
        )
        write.save(root / f"images/cat/{number}.png", photo if deep else photo.astype(np.uint8))
    for number, mask in enumerate(masks):
        if isinstance(mask, list):
            for nth, one in enumerate(mask):
                write.save(root / f"masks/cat/{number}/by{nth}.png", one)
        else:
            write.save(root / f"masks/cat/{number}{'.tif' if mask.dtype == np.float32 else '.png'}", mask)
    return root


def blocks(*values: int | tuple[int, int, int], kind: type = np.uint8) -> np.ndarray:
    """Flat stripes of these values or colours."""
    rows = np.repeat(np.array(values, dtype=kind), 48 // len(values), axis=0)
    return np.repeat(rows[:, None], 48, axis=1)


SLOPE = np.add.outer(np.arange(48), np.arange(48))  # 0..94
WITH_OPTIONS = {
    "--foreground 1,2": [blocks(0, 1, 2, 3), blocks(2, 0, 0, 5)],
    "--foreground 0": [blocks(0, 1, 1, 1), blocks(0, 0, 255, 255)],
    "--foreground 1-3 --ignore 255": [blocks(0, 1, 255, 2), [blocks(1, 255, 3, 0), blocks(0, 3, 3, 4)]],
    "--ignore 255": [blocks(0, 1, 255), (SLOPE * 2).astype(np.uint8)],
    "--foreground-colour 255,0,0": [blocks((255, 0, 0), (0, 0, 255)), blocks((0, 9, 0), (255, 0, 0))],
    "--white 4095": [(SLOPE * 40).astype(np.uint16), (SLOPE * 43).astype(np.uint16)],
    "--white 100 --ignore 7": [SLOPE.astype(np.float32), (SLOPE / 2).astype(np.float32)],
}


@pytest.mark.parametrize("said", WITH_OPTIONS)
def test_options_about_masks_are_applied(said: str, tmp_path: Path) -> None:
    """The new folder gives the same maps, bit by bit, and needs no option; the old one does."""
    root, out = painted(tmp_path / "set", WITH_OPTIONS[said], deep="4095" in said), tmp_path / "out"
    assert main(["data", "convert", str(root), str(out), *said.split()]) == 0
    options = dict(zip(said.split()[::2], said.split()[1::2], strict=True))
    rule = Rule.of(
        options.get("--foreground"), options.get("--ignore"), options.get("--foreground-colour"),
        float(options["--white"]) if "--white" in options else None,
    )  # fmt: skip
    asked, plain, made = load_table(str(root), rule=rule), load_table(str(root)), load_table(str(out))
    assert made.rule == Rule()
    assert check.look(str(out)).problems == []
    for size in (None, 20, 31):
        for one, other in zip(maps(asked, size), maps(made, size), strict=True):
            assert [array.tolist() for array in one] == [array.tolist() for array in other]
    try:
        differ = maps(plain, None)
    except files.Unreadable:
        return
    whole = [[array.tolist() for array in one] for one in differ]
    assert whole != [[array.tolist() for array in one] for one in maps(asked, None)]


def test_masks_of_several_objects_become_one(tmp_path: Path) -> None:
    root = painted(tmp_path / "set", [])
    first, second = blocks(0, 255, 0, 0), blocks(0, 0, 0, 255)
    write.save(root / "masks/cat/2_0.png", first)
    write.save(root / "masks/cat/2_1.png", second)
    assert isinstance(load_table(str(root)).masks[2], tuple)
    made = load_table(str(convert.convert(load_table(str(root)), tmp_path / "out")))
    (found,) = [mask for mask in made.masks if mask]
    np.testing.assert_array_equal(np.asarray(Image.open(found)), first | second)  # type: ignore[arg-type]


def test_degrees_of_few_values_have_to_be_said_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = painted(tmp_path / "set", [blocks(0, 85, 170, 255)]), tmp_path / "out"
    assert main(["data", "convert", str(root), str(out), "--foreground", "grades"]) == 0
    again = f"sal-fast data check {out} --foreground grades"
    assert f"`{again}` looks through" in " ".join(capsys.readouterr().out.split())
    assert check.look(str(out), rule=Rule(grades=True)).problems == []


@pytest.mark.parametrize("label", ["a/b", "..", ".hidden", "a\\b"])
def test_classes_that_cannot_be_folders(label: str, tmp_path: Path) -> None:
    image = write.save(tmp_path / "1.png", next(write.pictures(1)))
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        convert.convert(make_table("mine", [Sample("1", image, label)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^1: No such file or directory: .*gone\.png"):
        convert.convert(make_table("mine", [Sample("1", tmp_path / "gone.png", "cat")]), tmp_path / "out")
    assert not list(tmp_path.iterdir())
