"""Fixations become graded maps: against explicit sums of Gaussians, and as masks of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sal_fast.cli import main
from sal_fast.data import check, files, fixations, load_table, meaning
from sal_fast.errors import InputError

RNG = np.random.default_rng(7)


def file(root: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = root / "gaze.csv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def of(*observers: list[tuple[float, float, float]], size: tuple[int, int]) -> fixations.Fixated:
    return fixations.Fixated(*size, [np.array(points, dtype=float).reshape(-1, 3) for points in observers])


def expected(fixated: fixations.Fixated, sigma: float, shape: tuple[int, int]) -> np.ndarray:
    """The definition, in float64: at the centre of every pixel of a map of `shape`, no cut-off."""
    y, x = (
        (np.arange(n) + 0.5) * side / n - 0.5
        for n, side in zip(shape, (fixated.height, fixated.width), strict=True)
    )
    maps = []
    for points in fixated.observers:
        one = sum(
            ms * np.exp(-((x[None] - px) ** 2 + (y[:, None] - py) ** 2) / (2 * sigma**2))
            for px, py, ms in points
        )
        maps.append(one / one.sum())
    mean = np.mean(maps, axis=0)
    return mean / mean.max() * 255


def scattered(count: int, size: tuple[int, int], margin: float) -> list[tuple[float, float, float]]:
    low, high = margin, np.array(size) - 1 - margin
    return [(*RNG.uniform(low, high), RNG.uniform(80, 600)) for _ in range(count)]


def test_sum_of_gaussians() -> None:
    size = (150, 110)
    fixated = of(*(scattered(count, size, 24) for count in (5, 9, 1)), size=size)
    graded = fixations.render(fixated)
    assert (graded.dtype, graded.shape, graded.max()) == (np.uint8, (110, 150), 255)
    assert np.abs(graded - expected(fixated, 6, (110, 150))).max() <= 1.5
    assert np.abs(fixations.render(fixated, sigma=5) - expected(fixated, 5, (110, 150))).max() <= 2


def test_observers_weigh_the_same_at_the_border_too() -> None:
    """What lies beyond the border is no part of a map's sum."""
    fixated = of([(0, 0, 50)], [(99, 40, 900)], [(60, 79, 300), (50, 40, 10)], size=(100, 80))
    assert np.abs(fixations.render(fixated, sigma=8) - expected(fixated, 8, (80, 100))).max() <= 1


def test_a_smaller_map() -> None:
    fixated = of(scattered(6, (640, 427), 80), scattered(3, (640, 427), 80), size=(640, 427))
    graded = fixations.render(fixated, sigma=24, longest=160)
    assert graded.shape == (107, 160)
    assert np.abs(graded - expected(fixated, 24, (107, 160))).max() <= 2
    assert fixations.render(fixated, longest=1000).shape == (427, 640)


def test_two_observers_weigh_the_same() -> None:
    """One looked left, the other right and a hundred times longer; within one observer time does count."""
    graded = fixations.render(of([(25, 30, 5)], [(75, 30, 500)], size=(101, 60)))
    assert graded[30, 25] == graded[30, 75] == 255
    graded = fixations.render(of([(25, 30, 100), (75, 30, 400)], size=(101, 60)))
    assert graded[30, 75] == 255
    assert graded[30, 25] == pytest.approx(255 / 4, abs=1)


def test_nobody_looked() -> None:
    """And who did not look, or for no time, changes nothing."""
    for fixated in (of(size=(30, 20)), of([], size=(30, 20)), of([(5, 5, 0)], size=(30, 20))):
        assert not fixations.render(fixated).any()
    some = [(10.0, 5.0, 100.0)]
    assert np.array_equal(
        fixations.render(of(some, [], [(20, 10, 0)], size=(30, 20))),
        fixations.render(of(some, size=(30, 20))),
    )


def test_extremes() -> None:
    assert fixations.render(of([(0, 0, 1)], size=(1, 1))).tolist() == [[255]]
    assert fixations.render(of([(2, 1, 1e308), (3, 1, 1e308)], size=(6, 3))).max() == 255
    dot = fixations.render(of([(2, 1, 9)], size=(6, 3)), sigma=1e-300)
    assert np.argwhere(dot).tolist() == [[1, 2]]
    assert fixations.render(of([(400, 0, 9)], size=(900, 1)), longest=9).shape == (1, 9)


def test_read(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        '# eye tracker, 1000 Hz, "never closed',
        "id,w,h,x1,y1,ms1",
        "rot/ein Bär & söhne,40,30,1.5,2,100,39.9,29.9,50.5",
        "",
        '"a, b",10,10',
        "rot/ein Bär & söhne, 40, 30, 40,10,100, -0.1,10,100, 3,4,5,,,",
        encoding="utf-8-sig",
    )
    images = fixations.read(path)
    assert list(images) == ["rot/ein Bär & söhne", "a, b"]
    bear, other = images.values()
    assert (bear.width, bear.height, bear.outside) == (40, 30, 2)
    assert [points.tolist() for points in bear.observers] == [
        [[1.5, 2, 100], [39.9, 29.9, 50.5]],
        [[3, 4, 5]],
    ]
    assert [points.shape for points in other.observers] == [(0, 3)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_line_ends(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "gaze.csv"
    path.write_bytes(b"a,10,10,1,2,3" + end)
    assert fixations.read(path)["a"].observers[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b", "expected id,w,h and three fields a fixation .*, got 1 fields"),
        ("b,40", "got 2 fields"),
        ("b,40,30,1,2", "got 5 fields"),
        ("b,40,30,1,2,,3,4,5,6", "got 10 fields"),
        ("b,40,30,1,,3", "'' is not a number"),
        ("b,40,30,1,two,3", "'two' is not a number"),
        ("b,40,30,1,nan,3", "'nan' is not a number"),
        ("b,40,30,1,2,inf", "'inf' is not a number"),
        ("b,forty,30", "'forty' is not a number"),
        ("b,40.5,30", "a width or height of 40.5"),
        ("b,0,30", "a width or height of 0; expected a whole number of pixels, at least 1"),
        ("b,40,-30", "a width or height of -30"),
        ("b,100000,100000", "an image of 100000x100000 pixels; expected at most 89,478,485"),
        ("b,40,30,1,2,-3", "a duration of -3 ms"),
        ("b,40,30,-1,-2,-3", "a duration of -3 ms"),
        ("a,40,31,1,2,3", "'a' is 40x31 here and 40x30 on a line before"),
        (",40,30,1,2,3", "id '' cannot be used as a file name"),
        ("../b,40,30,1,2,3", "id '../b' cannot be used as a file name"),
        ("/b,40,30,1,2,3", "cannot be used as a file name"),
        ("a//b,40,30,1,2,3", "cannot be used as a file name"),
        ('"b,40,30,1,2,3', "unexpected end of data"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path: Path, line: str, message: str) -> None:
    path = file(tmp_path, "# by line", "a,40,30,1,2,3", line)
    with pytest.raises(InputError, match=f"^{path}, line 3: .*{message}") as error:
        fixations.write(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fixation file not found"):
        fixations.read(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="no fixations; expected lines id,w,h"):
        fixations.read(file(tmp_path, "# nothing", "id,w,h"))
    with pytest.raises(InputError, match="line 2: 'utf-8' codec"):
        fixations.read(file(tmp_path, "a,4,3", "Bär,4,3", encoding="latin-1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma 0: expected more than 0 and at most the image's longest side, 90 pixels"),
        ({"sigma": float("nan")}, "sigma nan"),
        ({"sigma": 31.0}, "sigma 31: .* 30 pixels"),
        ({"longest": 0}, "longest 0: expected at least 1 pixel"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, message: str) -> None:
    path = file(tmp_path, "a,90,60,1,2,3", "b,30,20,1,2,3")
    with pytest.raises(InputError, match=message):
        fixations.write(path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_write_replaces_a_map_and_leaves_the_rest(tmp_path: Path) -> None:
    path = file(
        tmp_path, "a b/ö,60,40,20,10,100,70,10,5", "a b/ö,60,40,30,20,100", "c,60,40", "d,60,40,1,1,0"
    )
    out = tmp_path / "out"
    (out / "a b").mkdir(parents=True)
    (out / "a b" / "ö.png").write_bytes(b"old")
    (out / "other.png").write_bytes(b"kept")
    assert fixations.write(path, out) == fixations.Summary(
        maps=3, observers=4, fixations=3, outside=1, empty=2
    )
    assert sorted(str(item.relative_to(out)) for item in out.rglob("*.*")) == [
        "a b/ö.png", "c.png", "d.png", "other.png",
    ]  # fmt: skip
    assert (out / "other.png").read_bytes() == b"kept"
    with Image.open(out / "a b" / "ö.png") as map_:
        assert (map_.mode, map_.size) == ("L", (60, 40))
        assert np.array_equal(np.asarray(map_), fixations.render(fixations.read(path)["a b/ö"]))


def test_command_makes_the_masks_of_a_folder(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks of another size than their images, one of them empty; the folder's own go first."""
    for mask in (folder / "masks").rglob("*.png"):
        mask.unlink()
    bear = folder / "images" / "red" / "ein Bär.jpg"
    (folder / "images" / "red" / "000.jpg").rename(bear)
    names = [f"{path.parent.name}/{path.stem}" for path in sorted((folder / "images").rglob("*.jpg"))]
    lines = [f"{name},40,40,{10 + index % 20},15,200,25,20,{index * 10}" for index, name in enumerate(names)]
    lines[3] = f"{names[3]},40,40,41,2,100"
    path = file(tmp_path, "id,w,h,...", *lines)
    command = ["data", "fixations", str(path), "--out", str(folder / "masks")]
    assert main([*command, "--sigma", "4", "--longest", "20"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "maps 30, observers' lines 30, fixations 58" in said
    assert "note: fixations outside their images, left out: 1" in said
    assert "note: empty maps (nobody looked), each of which counts as no map: 1" in said
    table = load_table(str(folder))
    assert None not in table.masks
    mask = table.masks[table.ids.index("red/ein Bär")]
    assert mask is not None
    with Image.open(mask) as map_:
        assert map_.size == (20, 20)
        encoded = files.read(mask)
        graded = meaning.read(encoded, files.grades(encoded), None).pixels
        assert np.array_equal(graded, np.asarray(map_))
    assert not np.isin(graded, (0, 255)).all()
    found = check.look(str(folder))
    assert not found.problems
    assert found.rows["empty mask"] == [3]
    assert len(found.rows["graded mask"]) == 29


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fixations", "--help"]) == 0
    assert "usage: sal-fast data fixations" in capsys.readouterr().out
    assert main(["data"]) == 2
    assert "fixations" in capsys.readouterr().out
    assert main(["data", "fixations", str(file(tmp_path, "a,1,1"))]) == 2
    assert main(["data", "fixations", str(tmp_path / "absent"), "--out", str(tmp_path)]) == 2
    assert main(["data", "fixation"]) == 2
    assert capsys.readouterr().err.count("sal-fast: error: ") == 3
