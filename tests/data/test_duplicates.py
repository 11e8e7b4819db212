"""Pictures that occur twice: against a search of all pairs, on copies of every kind, and in every command."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_runs import TINY
from PIL import Image, ImageEnhance
from scipy.sparse.csgraph import connected_components

from sal_fast.cli import main
from sal_fast.data import (
    Sample,
    StoreOptions,
    catalog,
    check,
    decode,
    duplicates,
    load_table,
    make_table,
    open_store,
)
from sal_fast.data.duplicates import Traits, Twice
from sal_fast.errors import InputError
from sal_fast.experiment.config import Config
from sal_fast.experiment.run import run


def photographs(count: int, seed: int = 0, side: int = 96) -> list[Image.Image]:
    """Smooth pictures in random colours, no two of which look the same."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 7, 7, 3)).astype(np.uint8)
    grain = rng.normal(0, 3, (count, side, side, 3))
    out = []
    for pixels, noise in zip(small, grain, strict=True):
        smooth = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        out.append(Image.fromarray(np.clip(np.asarray(smooth) * 0.7 + 20 + noise, 0, 255).astype(np.uint8)))
    return out


def looks(images: list[Image.Image]) -> torch.Tensor:
    return torch.cat([duplicates.looks(torch.from_numpy(np.array(image))[None]) for image in images])


def found(images: list[Image.Image]) -> list[list[int]]:
    """The groups of pictures that look the same."""
    traits = Traits([bytes([index, 1]) for index in range(len(images))], looks(images))
    groups = duplicates.find(traits)
    assert not any(group.exact for group in groups)
    return [group.rows for group in groups]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((48, 48)),
    "larger": lambda image: image.resize((200, 200)),
    "stretched": lambda image: image.resize((120, 60)),
    "recompressed": lambda image: jpeg(image, 30),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "half a turn": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned left": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned right": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
}
OTHERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cut off": lambda image: image.crop((12, 12, 84, 84)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "negative": lambda image: Image.fromarray(255 - np.asarray(image)),
    "other colours": lambda image: Image.fromarray(np.asarray(image)[..., [1, 2, 0]]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_look_the_same(kind: str) -> None:
    images = photographs(40)
    copies = [COPIES[kind](image) for image in images[::4]]
    assert found(images + copies) == [[4 * index, 40 + index] for index in range(10)]


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pictures_do_not(kind: str) -> None:
    images = photographs(40)
    assert found(images + [OTHERS[kind](image) for image in images]) == []


def compared(looks: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """Groups by the definition, from all pairs in float64, and squared distances by the mean of the set."""
    vectors = looks.astype(float) - looks.mean(axis=(2, 3), keepdims=True)
    vectors /= np.sqrt((vectors**2).sum(axis=(1, 2, 3), keepdims=True))
    flat = vectors.reshape(len(looks), -1)
    turned = [np.rot90(side, turns, (2, 3)) for side in (vectors, vectors[..., ::-1]) for turns in range(4)]
    squared = np.min([2 - 2 * turn.reshape(len(looks), -1) @ flat.T for turn in turned], axis=0)
    ratio = squared / (2 - 2 * flat @ flat.T).mean()
    number = connected_components(ratio <= 0.02, directed=False)[1]
    return [np.flatnonzero(number == group).tolist() for group in range(number.max() + 1)], ratio


def test_the_same_as_all_pairs() -> None:
    """Pairs at all distances around the limit, turned, in chains, and in any order."""
    rng = np.random.default_rng(2)
    base = looks(photographs(700, seed=2)).numpy().astype(float)
    share = rng.uniform(0, 0.4, (500, 1, 1, 1))  # of another picture
    share = np.concatenate([share, share[:200] + 0.1])
    which = np.concatenate([np.arange(500), np.arange(200)])
    near = (1 - share) * base[which] + share * base[which + 200]
    turns = rng.integers(0, 4, 700)
    turned = [np.rot90(look, turn, (1, 2)) for look, turn in zip(near, turns, strict=True)]
    every = np.rint(np.concatenate([base, np.stack(turned)[..., ::-1]])).astype(np.uint8)
    groups, ratio = compared(every)
    apart = ratio[~np.eye(len(every), dtype=bool)]
    assert (abs(apart / 0.02 - 1) > 1e-3).all()  # rounding decides nothing
    assert ((apart > 0.01) & (apart < 0.02)).sum() > 50
    assert ((apart > 0.02) & (apart < 0.03)).sum() > 50
    assert any(ratio[np.ix_(group, group)].max() > 0.02 for group in groups)
    for order in (np.arange(len(every)), rng.permutation(len(every))):
        number = duplicates.alike(every[order])[np.argsort(order)]
        assert [np.flatnonzero(number == number[group[0]]).tolist() for group in groups] == groups


@pytest.mark.parametrize("seed", range(10))
def test_where_the_lower_bound_is_tight(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that no turn changes and that differ in one direction are as far apart as their places."""
    monkeypatch.setattr(duplicates, "BLOCK", 1)
    rng = np.random.default_rng(seed)
    base = looks(photographs(2, seed)).numpy().astype(float)
    one, other = np.mean(
        [np.rot90(side, turns, (2, 3)) for side in (base, base[..., ::-1]) for turns in range(4)], axis=0
    )
    share = rng.uniform(0, 1, (25, 1, 1, 1))
    every = np.rint((1 - share) * one + share * other).astype(np.uint8)
    groups, ratio = compared(every)
    assert (abs(ratio / 0.02 - 1) > 1e-3).all()
    number = duplicates.alike(every)
    assert [np.flatnonzero(number == number[group[0]]).tolist() for group in groups] == groups


def test_what_all_pictures_share_does_not_count() -> None:
    """A bright disc on black, as in pictures of the retina, makes different pictures correlate by 0.98."""
    y, x = np.mgrid[:96, :96]
    disc = ((y - 47.5) ** 2 + (x - 47.5) ** 2 < 44**2)[..., None]
    images = [
        Image.fromarray((disc * (120 + np.asarray(image) * 0.25)).astype(np.uint8))
        for image in photographs(60)
    ]
    vectors = duplicates._units(looks(images).numpy()).reshape(60, -1)
    assert np.quantile(vectors @ vectors.T, 0.5) > 0.98
    assert found([*images, images[7].resize((48, 48))]) == [[7, 60]]


def test_flat_pictures_and_few() -> None:
    """Pictures without a look are not the same as any; a set of one or none has no pairs."""
    flat = [Image.new("RGB", (20, 20), (index, 0, 90)) for index in range(30)]
    assert found(flat) == []
    assert found([*flat, *photographs(3)]) == []
    assert found(photographs(1)) == []
    for count in (0, 1):
        assert duplicates.alike(np.zeros((count, 3, 16, 16), np.uint8)).tolist() == list(range(count))
    assert duplicates.find(Traits([], None)) == []


def test_a_set_of_one_look() -> None:
    one = photographs(1) * 5
    assert found(one) == [[0, 1, 2, 3, 4]]
    assert found([*one, Image.new("RGB", (9, 9))]) == [[0, 1, 2, 3, 4]]
    assert found(one[:2]) == [[0, 1]]
    assert found(photographs(2)) == []


def test_many_copies_are_one_picture() -> None:
    """A film of 100 frames and 3,000 copies of one picture are a group each."""
    images = photographs(50)
    rng = np.random.default_rng(0)
    many = looks([images[0]]).numpy().astype(int) + rng.integers(-2, 3, (3000, 3, 16, 16))
    begin, end = looks(images[1:3]).numpy().astype(float)
    film = [begin + (end - begin) * frame / 101 for frame in range(1, 101)]
    parts = [looks(images).numpy(), np.clip(many, 0, 255), np.stack(film)]
    every = torch.from_numpy(np.concatenate(parts).astype(np.uint8))
    groups = duplicates.find(Traits([index.to_bytes(2) for index in range(3150)], every))
    assert [group.rows for group in groups] == [[0, *range(50, 3050)], [1, 2, *range(3050, 3150)]]


def test_same_bytes() -> None:
    digests = [b"a", b"b", b"", b"a", b"", b"c", b"a", b"c"]
    assert duplicates.find(Traits(digests, None)) == [Twice([0, 3, 6], True), Twice([5, 7], True)]
    images = photographs(8)
    images[5] = images[7] = images[1]  # other bytes, the same look
    assert duplicates.find(Traits(digests, looks(images))) == [
        Twice([0, 3, 6], True),
        Twice([1, 5, 7], False),
    ]


def test_a_batch_is_reduced_as_its_pictures() -> None:
    images = photographs(5)
    batch = torch.from_numpy(np.stack([np.array(image) for image in images]))
    assert torch.equal(duplicates.looks(batch), looks(images))
    tiny = duplicates.looks(torch.from_numpy(np.array(images[0].resize((5, 3))))[None])
    assert tiny.shape == (1, 3, 16, 16)


def table(rows: list[tuple[str, str]]) -> duplicates.Table:
    """A table of these (class, split)."""
    return make_table(
        "mine", [Sample(f"{i}", f"{i}.png", label, None, split) for i, (label, split) in enumerate(rows)]
    )


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([("a", "train"), ("a", "train"), ("b", "test")], False),
        ([("a", "train"), ("a", "test"), ("b", "test")], True),
        ([("a", "train"), ("b", "train"), ("b", "test")], True),
        ([("a", "train"), ("", "train"), ("b", "test")], False),
        ([("a", ""), ("a", ""), ("b", "")], True),
    ],
)
def test_what_is_refused(rows: list[tuple[str, str]], refused: bool) -> None:
    twice = [Twice([0, 1], True)]
    expected = (twice, []) if refused else ([], twice)
    assert duplicates.judged(table(rows), twice, allowed=False) == expected
    assert duplicates.judged(table(rows), twice, allowed=True) == ([], twice)


def test_lines() -> None:
    rows = [("a", "train"), ("b", "test"), *[("a", "train")] * 4, *[("a", "val")] * 50]
    mine = table(rows)
    assert duplicates.described(mine, [Twice([0, 1], True), Twice([2, 3], False)]) == [
        "'0' (train, class a) and '1' (test, class b) are the same file, byte by byte",
        "'10' (val) and '11' (val) look the same",
    ]
    lines = duplicates.described(mine, [Twice([0, 1, 2, 3, 4, 5, 6], False)] * 23)
    assert len(lines) == 21
    assert lines[0].endswith("and 3 more look the same")
    assert lines[-1] == "3 pictures occur twice, too"
    mine = table([("a", "train")] * 8 + [("a", "test")])
    assert duplicates.described(mine, [Twice(list(range(9)), True)]) == [
        "'0' (train), '8' (test), '1' (train), '2' (train) and 5 more are the same file, byte by byte"
    ]


def test_a_refusal_says_what_to_do() -> None:
    mine = table([("a", "train"), ("a", "test"), ("b", "test")])
    assert duplicates.refusal(mine, [Twice([0, 1], True)]) == (
        "mine: 1 picture occurs in more than one split or class, so a test would prove little. The first: "
        "'0' (train) and '1' (test) are the same file, byte by byte. Keep one of each, put the copies into "
        "one split and one class, or go on with --allow-leaks True; `sal-fast data check` lists them"
    )
    drawn = duplicates.refusal(table([("a", "")] * 4), [Twice([0, 1], False), Twice([2, 3], False)])
    assert drawn.startswith(
        "mine: 2 pictures occur twice, so a test would prove little. The first: '0' and '1' look the same; "
        "the splits that a run draws may part them. Keep"
    )


@pytest.fixture
def pool(folder: Path) -> Path:
    """The thirty images, with splits; one of them occurs twice in train."""
    rows = ["id,image,label,mask,split"]
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    for name in ("blue", "green", "red"):
        for index, split in enumerate(splits):
            stem = f"{name}/{index:03d}"
            rows.append(f"{stem},images/{stem}.jpg,{name},masks/{stem}.png,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    copy(folder, "blue/000", "blue/001")
    return folder


def copy(folder: Path, one: str, other: str) -> None:
    shutil.copy(folder / "images" / f"{one}.jpg", folder / "images" / f"{other}.jpg")


def leak(folder: Path) -> None:
    image = Image.open(folder / "images/red/000.jpg").resize((80, 80))
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "images/red/009.jpg", quality=90)


SAID = "'red/000' (train) and 'red/009' (test) look the same"
TOLD = "'blue/000' (train) and 'blue/001' (train) are the same file, byte by byte"


@pytest.mark.parametrize("train", ["all", "head"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_run(
    pool: Path, tmp_path: Path, prepared: bool, train: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From the originals and from a prepared folder: a leak is refused, another copy is told."""
    caplog.set_level(logging.WARNING)
    leak(pool)
    data = str(pool / "manifest.csv")
    if prepared:
        out = str(tmp_path / "prepared")
        command = ["data", "prepare", "--data", data, "--out", out, "--image-size", "32"]
        assert main(command) == 2
        assert main([*command, "--allow-leaks", "True"]) == 0
        data = out
    config = Config.of({**TINY, "data": data, "out": str(tmp_path / "run"), "train": train})
    with pytest.raises(InputError) as error:
        run(config, until=1)
    assert "1 picture occurs in more than one split or class" in str(error.value)
    assert SAID in str(error.value)
    assert not (tmp_path / "run" / "run.json").exists()
    caplog.clear()
    run(config.replace(allow_leaks=True), until=1)
    assert SAID in caplog.text
    assert TOLD in caplog.text


def test_check(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(pool / "manifest.csv")
    assert main(["data", "check", data]) == 0
    assert f"note: {TOLD}" in capsys.readouterr().out
    leak(pool)
    assert main(["data", "check", data]) == 2
    told = capsys.readouterr().out.splitlines()
    assert SAID in told
    assert f"note: {TOLD}" in told
    assert main(["data", "check", data, "--allow-leaks", "True"]) == 0
    assert f"note: {SAID}" in capsys.readouterr().out.splitlines()
    (pool / "images/red/000.jpg").write_bytes(b"")
    assert SAID not in check.look(data).problems
    whole = check.look(str(pool))  # without splits they are drawn
    assert (
        "'blue/000' and 'blue/001' are the same file, byte by byte; the splits that a run draws may part them"
        in (whole.problems)
    )


def test_an_official_set_is_only_told(pool: Path, caplog: pytest.LogCaptureFixture) -> None:
    leak(pool)
    mine = load_table(str(pool / "manifest.csv"))
    decoder = decode.choose("pillow", torch.device("cpu"))
    traits = open_store(mine, StoreOptions(32, 32, decoder)).traits
    assert traits is not None
    assert not catalog.allows(mine, False)
    with pytest.raises(InputError):
        duplicates.check(mine, traits, allowed=False)
    official = replace(mine, name="ham10000")
    duplicates.check(official, traits, allowed=catalog.allows(official, False))
    assert SAID in caplog.text
    decoder.close()


@pytest.mark.full
def test_a_hundred_thousand() -> None:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(128, 60, (100_000, 3, 4, 4)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
    every = fine.clamp(0, 255).to(torch.uint8).numpy()
    every[-1000:] = np.clip(
        every[:1000, ..., ::-1].astype(int) + rng.integers(-3, 4, (1000, 3, 16, 16)), 0, 255
    )
    group = duplicates.alike(every)
    assert (group[:1000] == group[-1000:]).all()
    assert len(np.unique(group)) == 99_000
