"""Fixations become graded maps: against explicit sums of Gaussians, and as masks of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        fixations.write([path], tmp_path / "out")
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
        fixations.write([path], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_write_replaces_a_map_and_leaves_the_rest(tmp_path: Path) -> None:
    path = file(
        tmp_path, "a b/ö,60,40,20,10,100,70,10,5", "a b/ö,60,40,30,20,100", "c,60,40", "d,60,40,1,1,0"
    )
    out = tmp_path / "out"
    (out / "a b").mkdir(parents=True)
    (out / "a b" / "ö.png").write_bytes(b"old")
    (out / "other.png").write_bytes(b"kept")
    assert fixations.write([path], out) == fixations.Summary(
        maps=3, observers=4, fixations=3, outside=1, empty=2
    )
    assert sorted(str(item.relative_to(out)) for item in out.rglob("*.*")) == [
        ".fixations.lock", ".fixations.parquet", "a b/ö.png", "c.png", "d.png", "other.png",
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
    assert "maps 30, observers 30, fixations 58" in said
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


# --- tables with one fixation a row ------------------------------------------------------------------------


def setting(**options: Any) -> fixations.Setting:
    return fixations.Setting(**options)


def points(path: Path, **options: Any) -> dict[str, list[list[list[float]]]]:
    """The fixations of each observer of each image."""
    found = fixations.read(path, setting(**options))
    return {name: [own.round(6).tolist() for own in one.observers] for name, one in found.items()}


TABLE = {
    "comma": "image,x,y,duration,observer,width,height\n"
    "red/a.jpg,10,20,300,A,100,80\nred/a.jpg,30,40.5,100,A,100,80\n"
    "red/b.jpg,50,60,250,A,100,80\nred/a.jpg,70,10,220,B,100,80\n",
    "tab": "Stimulus Name\tFixation X [px]\tFixation Y [px]\tFixation Duration [ms]\tParticipant\t"
    "Image Width\tImage Height\n"
    "red/a.jpg\t10\t20\t300\tA\t100\t80\nred/a.jpg\t30\t40.5\t100\tA\t100\t80\n"
    "red/b.jpg\t50\t60\t250\tA\t100\t80\nred/a.jpg\t70\t10\t220\tB\t100\t80\n",
    "semicolon": "# exported\n\nid;subject;stimulus;fix_x;fix_y;dur_s;w;h\n1;A;red\\a.jpg;10;20;0.3;100;80\n"
    "2;A;red\\a.jpg;30;40.5;0.1;100;80\n3;A;red/b.jpg;50;60;0.25;100;80\n4;B;red/a.jpg;70;10;0.22;100;80\n",
    "EyeLink": "RECORDING_SESSION_LABEL,image,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,width,height\n"
    "A,red/a,10,20,300,100,80\nA,red/a,30,40.5,100,100,80\nA,red/b,50,60,250,100,80\nB,red/a,70,10,220,100,80\n",
    "microseconds": "image,x,y,duration,observer,width,height\nred/a,10,20,300000,A,100,80\n"
    "red/a,30,40.5,100000,A,100,80\nred/b,50,60,250000,A,100,80\nred/a,70,10,220000,B,100,80\n",
}  # fmt: skip
EXPECTED = {
    "red/a": [[[10, 20, 300], [30, 40.5, 100]], [[70, 10, 220]]],
    "red/b": [[[50, 60, 250]]],
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", TABLE)
def test_tables(tmp_path: Path, form: str, encoding: str) -> None:
    path = tmp_path / "gaze.txt"
    path.write_text(TABLE[form], encoding=encoding)
    assert points(path) == EXPECTED


def test_columns_by_name(tmp_path: Path) -> None:
    path = file(tmp_path, "a,b,c,d,ww,hh", "x,1,2,0.2,40,30", "x,3,4,0.4,40,30")
    columns = {"image": "a", "x": "b", "y": "c", "duration": "d", "width": "ww", "height": "hh"}
    assert points(path, columns=columns) == {"x": [[[1, 2, 200], [3, 4, 400]]]}
    assert points(path, columns={**columns, "duration": ""}) == {"x": [[[1, 2, 1], [3, 4, 1]]]}
    assert points(path, columns=columns, unit="ms") == {"x": [[[1, 2, 0.2], [3, 4, 0.4]]]}


def test_a_table_gives_the_maps_of_the_lines(tmp_path: Path) -> None:
    """The same fixations in both forms, as shares, on a screen, and in seconds: the same maps."""
    size, screen = (120, 90), (320, 200)
    observers = [scattered(count, size, 10) for count in (4, 6)]
    observers = [[tuple(map(float, point)) for point in one] for one in observers]
    lines = [f"a,120,90,{','.join(f'{x!r},{y!r},{ms!r}' for x, y, ms in one)}" for one in observers]
    (tmp_path / "lines").mkdir()
    expected_map = fixations.render(fixations.read(file(tmp_path / "lines", *lines))["a"])
    rows = [(who, *point) for who, one in enumerate(observers) for point in one]

    def same(place: Any, **options: Any) -> None:
        said = ["image,observer,x,y,duration,width,height"]
        for who, x, y, ms in rows:
            said.append(f"a,{who},{place(x, y)[0]!r},{place(x, y)[1]!r},{ms / 1000!r},120,90")
        found = fixations.read(file(tmp_path, *said), setting(**options))["a"]
        assert found.outside == 0
        assert np.abs(fixations.render(found).astype(int) - expected_map).max() <= 1

    same(lambda x, y: (x, y))
    same(lambda x, y: ((x + 0.5) / 120, (y + 0.5) / 90))
    same(lambda x, y: (x + 100, y + 55), screen=screen)
    same(lambda x, y: (x + 7, y + 11), offset=(7, 11))
    same(lambda x, y: ((x + 0.5) * 2 + 40 - 0.5, (y + 0.5) * 2 + 10 - 0.5), screen=screen, scale=2.0)
    fit = 200 / 90
    same(
        lambda x, y: ((x + 0.5) * fit + 160 - 60 * fit - 0.5, (y + 0.5) * fit - 0.5),
        screen=screen,
        scale="fit",
    )
    same(lambda x, y: ((x + 100.5) / 320, (y + 55.5) / 200), screen=screen)
    same(lambda x, y: ((x + 7.5) / 320, (y + 11.5) / 200), screen=screen, offset=(7, 11))


def test_the_border_of_shares_and_screens(tmp_path: Path) -> None:
    """The image's edges belong to it; what is beyond does not."""
    head = "image,x,y,width,height"
    shares = [(0, 0), (1, 1), (1.001, 0.5), (0.5, -0.001), (0.25, 0.5), *[(0.5, 0.5)] * 20]
    path = file(tmp_path, head, *(f"a,{x},{y},10,8" for x, y in shares))
    found = fixations.read(path)["a"]
    assert found.outside == 2
    assert found.observers[0][:3, :2].tolist() == [[0, 0], [9, 7], [2, 3.5]]
    screen = [(4.4, 20), (4.5, 20), (14.5, 20), (14.6, 20), (9, 20)]
    path = file(tmp_path, head, *(f"a,{x},{y},10,8" for x, y in screen))
    found = fixations.read(path, setting(offset=(5, 15)))["a"]
    assert found.outside == 2
    assert found.observers[0][:, 0].tolist() == [0, 9, 4]


def test_a_duration_weighs_as_it_should(tmp_path: Path) -> None:
    """In proportion to its time, and all alike without times."""
    head = "image,x,y,duration,width,height"
    for durations, ratio in (((100, 400), 0.25), (("", ""), 1)):
        path = file(tmp_path, head, f"a,25,30,{durations[0]},101,60", f"a,75,30,{durations[1]},101,60")
        graded = fixations.render(fixations.read(path)["a"])
        assert graded[30, 75] == 255
        assert graded[30, 25] == pytest.approx(255 * ratio, abs=1)


def test_names_and_sizes_of_the_images(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside OUT: a name without its class is found, and its size, as it is shown, is the file's own."""
    exif = Image.Exif()
    exif[files.ORIENTATION] = 6
    Image.new("RGB", (60, 20)).save(folder / "images/red/turned.jpg", exif=exif)
    path = file(tmp_path, "filename,x,y", "turned.jpg,10,50", "gone.jpg,1,2", "green/003.jpg,30,20")
    done = fixations.write([path], folder / "masks")
    assert (done.maps, done.fixations, done.outside) == (2, 2, 0)
    with Image.open(folder / "masks/red/turned.png") as map_:
        assert map_.size == (20, 60)
    assert "1 of 3 images are not in" in caplog.text
    assert "the first is 'gone.jpg'" in caplog.text
    for name, message in (
        ("000.jpg", "'000.jpg' may be 'blue/000' or 'green/000'; write the folder before it"),
        ("gone.jpg", "has none of its images, the first of which is 'gone.jpg'"),
    ):
        with pytest.raises(InputError, match=message):
            fixations.write([file(tmp_path, "image,x,y", f"{name},10,20")], folder / "masks")
    with pytest.raises(InputError, match=r"no columns for width and height; .* or the folder .* --images"):
        fixations.read(path)


H = "image,x,y,duration,width,height"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,x,y", "a,0.5,0.5"], "no columns for width and height"),
        (["image,gx,y,width,height", "a,5,5,9,9"], "no column for x; name it with --columns x=NAME; found"),
        ([H, "a,0.5,1,200,9,9", "a,7,3,200,9,9"], "50% of the fixations lie in 0..1, .* --coordinates"),
        ([H, "a,0,1,200,9,9", "a,1,1,200,9,9"], "100% of the fixations lie in 0..1"),
        ([H, "a,5,5,20,9,9"], "the median duration is 20, which is no usual fixation .* --unit s, ms or us"),
        ([H, "a,5,5,9000,9,9"], "the median duration is 9000"),
        ([H, "a,5,5,0,9,9"], "every duration is 0; leave them out with --columns duration="),
        ([H.replace("duration", "duration_ms"), "a,5,5,0.2,9,9"], "0.2, and the column's name says ms"),
        ([H, "a,5,5,200,9,9", "a,5,5,,9,9"], "line 3: no duration, and others have one"),
        ([H, "a,5,5,200,9,9", "a,5,5,-200,9,9"], "line 3: a negative duration"),
        ([H, "a,5,five,200,9,9"], "line 2: y 'five' is not a number"),
        (["#", H, "a,5,5,200,9,9", 'a,5,"5,5",200,9,9'], "line 4: y '5,5' is not a number; write decimal"),
        ([H, "a,5,inf,200,9,9"], "line 2: y 'inf' is not a number"),
        ([H, ",5,5,200,9,9"], "line 2: the image has no name"),
        ([H, "../a,5,5,200,9,9"], "line 2: id '../a' cannot be used as a file name"),
        ([H, "a,5,5,200,9.5,9"], "line 2: a width or height of 9.5"),
        ([H, "a,5,5,200,,9"], "line 2: a width or height of None"),
        ([H, "a,5,5,200,9,9", "a,5,5,200,9,8"], "line 3: 'a' is 9x8 here and 9x9 before"),
        ([H + ",fix_x", "a,5,5,200,9,9,5"], "columns 'x' and 'fix_x' may both be the x; .*--columns x=x"),
        (["image,x,y,w,h,stimulus", "a,5,5,9,9,a"], "columns 'image' and 'stimulus' may both be the image"),
        (["x,y,w,h,name", "5,5,9,9,a"], "no column for image; name it with --columns image=NAME; found x"),
        ([H], "no fixations; expected lines id,w,h,.*, or a header and one fixation a row"),
        ([H, "a,50,5,200,9,9", "a,60,5,200,9,9", "a,5,5,200,9,9"], "2 of 3 fixations lie outside"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_told(tmp_path: Path, lines: list[str], message: str) -> None:
    path = file(tmp_path, *lines)
    with pytest.raises(InputError, match=f"^{path}.*{message}"):
        fixations.write([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_user_says_settles_it(tmp_path: Path) -> None:
    path = file(tmp_path, H, "a,0.5,1,20,9,9", "a,7,3,40,9,9")
    assert points(path, coordinates="pixels", unit="ms") == {"a": [[[0.5, 1, 20], [7, 3, 40]]]}
    outside = file(tmp_path, H, "a,50,5,200,9,9", "a,5,5,200,9,9", "a,70,5,200,9,9")
    done = fixations.write([outside], tmp_path / "out", setting=setting(coordinates="pixels"))
    assert (done.fixations, done.outside) == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"pupil": "p"}}, "--columns pupil=p: unknown name"),
        ({"columns": {"x": "gx"}}, "--columns x=gx: no such column; found image, x,"),
        ({"columns": {"y": "norm_pos_y"}}, "norm_pos_y counts from the bottom"),
        ({"scale": "fit"}, "--scale fit: the size of the screen is needed"),
        ({"scale": 2.0}, "--scale goes with --screen or --offset"),
        ({"scale": -1.0, "screen": (9, 9)}, "--scale -1.0: expected a positive number, or fit"),
        ({"screen": (60, 400)}, "'a' is 90x60, which does not fit on the screen of 60x400; give --scale fit"),
        ({"offset": (5, 5), "coordinates": "shares"}, "shares of a screen need its size; give --screen"),
    ],
)
def test_bad_settings(tmp_path: Path, options: dict, message: str) -> None:
    path = file(tmp_path, "image,x,y,norm_pos_y,width,height", "a,5,6,0.5,90,60")
    with pytest.raises(InputError, match=message):
        fixations.read(path, setting(**options))


def test_rows_without_a_place_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file(tmp_path, H, "a,5,5,200,9,9", "a,.,.,200,9,9", "a,NaN,3,200,9,9", "a,7,7,300,9,9")
    assert points(path) == {"a": [[[5, 5, 200], [7, 7, 300]]]}
    assert "2 rows have no x or y; they are left out" in caplog.text


# --- files are added ---------------------------------------------------------------------------------------


def test_files_and_runs_are_added(tmp_path: Path) -> None:
    """In one command or in several, in any form; a file that is given again counts once."""
    one = tmp_path / "one.csv"
    one.write_text("a,100,80,10,20,300\nb,100,80,50,60,250\n")
    two = tmp_path / "two.tsv"
    two.write_text("image\tx\ty\tduration\twidth\theight\na\t70\t10\t0.2\t100\t80\nc\t5\t5\t0.2\t30\t30\n")
    together, apart = tmp_path / "together", tmp_path / "apart"
    assert fixations.write([one, two], together) == (3, 4, 4, 0, 0)
    for path in (one, two, one, two):
        done = fixations.write([path], apart)
    assert done == (3, 4, 4, 0, 0)
    both = fixations.Fixated(100, 80, [np.array([[10, 20, 1.0]]), np.array([[70, 10, 1.0]])])
    for out in (together, apart):
        with Image.open(out / "a.png") as map_:
            assert np.array_equal(np.asarray(map_), fixations.render(both))
    moved = one.rename(tmp_path / "moved.csv")
    assert fixations.write([moved], apart).observers == 4
    moved.write_text("a,100,80,10,20,300\n")  # the same path, other bytes
    assert fixations.write([moved], apart) == (2, 3, 3, 0, 0)


def test_a_named_observer_is_one_in_all_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, x in (("one", 25), ("two", 75)):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"image,observer,x,y,duration,width,height\na,A,{x},30,{x * 10},101,60\n")
        done = fixations.write([path], out)
    assert done.observers == 1
    with Image.open(out / "a.png") as map_:
        assert np.asarray(map_)[30, 25] == pytest.approx(255 / 3, abs=1)
    path = tmp_path / "three.csv"
    path.write_text("image,observer,x,y,width,height\na,A,50,30,101,60\n")
    with pytest.raises(InputError, match="some fixations of observer 'A' have a duration and others"):
        fixations.write([path], out)
    path.write_text("image,observer,x,y,width,height\na,B,50,30,90,60\n")
    with pytest.raises(InputError, match=r"image 'a' is 101x60 in .*one.csv and 90x60 in .*three.csv"):
        fixations.write([path], out)
    assert fixations.write([], out) == done


def test_maps_are_made_again_from_the_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = file(tmp_path, "a,90,60,20,10,100,70,40,50"), tmp_path / "out"
    assert main(["data", "fixations", str(path), "--out", str(out), "--longest", "30"]) == 0
    small = (out / "a.png").read_bytes()
    images = fixations.read(path)
    path.unlink()
    assert main(["data", "fixations", "--out", str(out)]) == 0
    with Image.open(out / "a.png") as map_:
        assert np.array_equal(np.asarray(map_), fixations.render(images["a"]))
    assert main(["data", "fixations", "--out", str(out), "--longest", "30"]) == 0
    assert (out / "a.png").read_bytes() == small
    capsys.readouterr()
    assert main(["data", "fixations", "--out", str(tmp_path / "none")]) == 2
    assert "no fixations are kept in it; name a fixation file" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    (out / ".fixations.parquet").write_bytes(b"damaged")
    assert main(["data", "fixations", "--out", str(out)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "pic,px,py,t,w,h", "a,0.5,0.5,150000,100,80", "a,0.6,0.5,300000,100,80")
    command = ["data", "fixations", str(path), "--out", str(tmp_path / "out")]
    options = ["--columns", "image=pic,x=px,y=py,duration=t", "--screen", "200x160", "--scale", "fit"]
    more = ["--unit", "us", "--coordinates", "shares", "--offset", "0,0"]
    assert main([*command, *options, *more]) == 0
    assert "maps 1, observers 1, fixations 2" in capsys.readouterr().out
    for option, value, message in (
        ("--columns", "image", "'image' has no =; expected image=NAME,x=NAME"),
        ("--screen", "1920", "--screen 1920: expected two numbers with 'x' between them"),
        ("--offset", "a,b", "--offset: 'a' is not a number"),
        ("--scale", "large", "--scale: 'large' is not a number"),
    ):
        assert main([*command, option, value]) == 2
        assert message in capsys.readouterr().err
