"""Files become tensors: binary and graded masks, one draw for image and mask, bad files named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sal_fast import seeds
from sal_fast.data import augment, check, decode, load_table, splits, store
from sal_fast.errors import InputError

CPU = torch.device("cpu")


def build(root: Path, image_size: int = 32, stored: int = 32) -> store.Store:
    return store.build(
        splits.assign(load_table(str(root)), seeds.stream(0, "split")), image_size, stored, CPU
    )


def test_store_holds_the_files(shared_folder: Path) -> None:
    samples = build(shared_folder, image_size=40, stored=40)
    row = samples.table.ids.index("green/004")
    assert torch.equal(
        samples.images[row].permute(1, 2, 0),
        torch.from_numpy(np.array(Image.open(shared_folder / "images/green/004.jpg"))),
    )
    assert torch.equal(
        samples.masks[row], torch.from_numpy(np.array(Image.open(shared_folder / "masks/green/004.png")))
    )
    assert samples.has_mask.all()
    assert samples.labels[row] == 1


def test_fingerprint_sees_one_pixel(folder: Path) -> None:
    before = build(folder).fingerprint
    assert build(folder).fingerprint == before
    path = folder / "masks" / "red" / "000.png"
    mask = np.array(Image.open(path))
    mask[0, 0] ^= 255
    Image.fromarray(mask).save(path)
    assert build(folder).fingerprint != before


@pytest.mark.parametrize("value", [1, 3, 255])
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_binary_masks_in_any_spelling(tmp_path: Path, mode: str, value: int) -> None:
    box = np.zeros((20, 30), dtype=bool)
    box[4:12, 6:20] = True
    if mode == "P":
        image = Image.fromarray(box.astype(np.uint8) * value).convert("P")
        image = Image.fromarray(box.astype(np.uint8))
        image.putpalette([0, 0, 0, 9, value, 200] + [0] * 762)
    elif mode == "I;16":
        image = Image.fromarray(box.astype(np.uint16) * value)
    elif mode == "1":
        image = Image.fromarray(box)
    else:
        image = Image.fromarray(box.astype(np.uint8) * value).convert(mode)
    image.save(tmp_path / "mask.png")
    pixels = decode.mask_file(tmp_path / "mask.png", 10)
    assert set(np.unique(pixels)) == {0, 255}
    assert (pixels > 0).sum() == pytest.approx(box.mean() * 100, abs=6)


def test_graded_mask_is_averaged_over_areas(tmp_path: Path) -> None:
    graded = np.add.outer(np.arange(20), np.arange(20)).astype(np.uint8) * 6
    Image.fromarray(graded).save(tmp_path / "mask.png")
    expected = graded.reshape(10, 2, 10, 2).mean((1, 3))
    assert np.abs(decode.mask_file(tmp_path / "mask.png", 10) - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10), 255),
        (np.linspace(0, 200, 100).astype(np.uint16).reshape(10, 10), 200),
        (np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10), 255),
    ],
    ids=["float", "dark-16-bit", "16-bit"],
)
def test_graded_masks_of_other_depths(tmp_path: Path, array: np.ndarray, expected: int) -> None:
    Image.fromarray(array).save(tmp_path / "mask.tif")
    pixels = decode.mask_file(tmp_path / "mask.tif", 10)
    assert pixels.max() == expected
    assert (np.diff(pixels.reshape(-1).astype(int)) >= 0).all()


def test_grades_out_of_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-1, 1, 100, dtype=np.float32).reshape(10, 10)).save(tmp_path / "mask.tif")
    with pytest.raises(decode.Unreadable, match=r"grades must lie in 0\.\.1"):
        decode.mask_file(tmp_path / "mask.tif", 10)


def test_upright_by_exif(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :15] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = decode.sample(tmp_path / "turned.jpg", None, 10, 10).image
    assert image[:4].mean() > 200 > 50 > image[6:].mean()
    assert decode.upright_size(tmp_path / "turned.jpg") == (20, 30)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: truncate(root / "images/red/004.jpg"), r"red/004\.jpg: .*truncated"),
        (lambda root: truncate(root / "masks/red/004.png"), r"masks/red/004\.png"),
        (lambda root: (root / "images/red/004.jpg").write_bytes(b""), r"red/004\.jpg: the file is empty"),
        (lambda root: (root / "images/red/004.jpg").write_bytes(b"<html>"), r"red/004\.jpg: not an image"),
        (
            lambda root: Image.new("L", (40, 30)).save(root / "masks/red/004.png"),
            r"mask is 40x30, its image 40x40: the aspect ratios differ by 33%",
        ),
    ],
)
def test_bad_files_are_named(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message):
        build(folder)
    found = check.look(str(folder))
    assert len(found.problems) == len(found.mis_sized) + len(found.unreadable) == 1
    assert len(found.mis_sized) == ("aspect" in message)


def test_mask_of_another_size_but_the_same_aspect(folder: Path) -> None:
    path = folder / "masks" / "red" / "004.png"
    Image.open(path).resize((81, 80)).save(path)  # 1.25 % off
    build(folder)


def test_check_counts(folder: Path) -> None:
    (folder / "masks/red/000.png").unlink()
    Image.new("L", (40, 40)).save(folder / "masks/red/001.png")
    Image.linear_gradient("L").save(folder / "masks/blue/000.png")
    found = check.look(str(folder))
    names = found.table.ids
    assert [names[row] for row in found.no_mask] == ["red/000"]
    assert [names[row] for row in found.empty] == ["red/001"]
    assert [names[row] for row in found.graded] == ["blue/000"]
    assert found.problems == []
    assert found.notes == []
    (folder / "images/blue/000.jpg").unlink()
    (folder / "images/.cache").mkdir()
    (folder / "images/violet").mkdir()
    found = check.look(str(folder))
    assert [note.split(": ")[1] for note in found.notes if "violet" in note] == ["a folder without images"]
    assert "masks/blue/000.png: belongs to no image" in found.notes[0]


def test_plain_view_is_the_normalised_image() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor(augment.MEAN)[:, None, None], torch.tensor(augment.STD)[:, None, None]
    torch.testing.assert_close(augment.view(images, 8), (images / 255 - mean) / std)


def test_image_and_mask_get_the_same_draw() -> None:
    """An image that is its own mask is still its own mask after a crop, a flip and two resizes."""
    size, stored = 56, augment.stored_size("standard", 56)
    assert stored == 64
    y, x = torch.meshgrid(torch.linspace(0, 1, stored), torch.linspace(0, 1, stored), indexing="ij")
    disc = (((y - 0.4) ** 2 + (x - 0.6) ** 2) < 0.06).float()
    images = (disc * 255).to(torch.uint8)[None, None].repeat(64, 3, 1, 1)
    masks = (
        torch.nn.functional.interpolate(disc[None, None], (size, size), mode="nearest").to(torch.uint8) * 255
    )
    theta = augment.draws("standard", np.random.default_rng(3), 64, CPU)
    pixels, cropped = augment.apply(images, masks[0].repeat(64, 1, 1), theta)
    bright = pixels[:, 0] * augment.STD[0] + augment.MEAN[0] > 0.5
    assert ((cropped > 0) != bright).float().mean() < 0.02
    assert (cropped > 0).float().mean((1, 2)).std() > 0.02  # the crops differ
    assert set(cropped.unique().tolist()) == {0, 255}


def test_draws_depend_on_the_row_alone() -> None:
    first = augment.draws("standard", np.random.default_rng(5), 10, CPU)
    more = augment.draws("standard", np.random.default_rng(5), 1000, CPU)
    assert torch.equal(first, more[:10])
    edges = more[:, :, :2].abs().sum(2) + more[:, :, 2].abs()
    assert edges.max() <= 1 + 1e-6  # a crop stays inside the image
    area = (more[:, 0, 0] * more[:, 1, 1]).abs()
    assert area.min() >= 0.5 * 0.85
    assert area.max() <= 1
    assert 0.4 < (more[:, 0, 0] < 0).float().mean() < 0.6


def test_memory_is_checked_first(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"30 images at 32 px need 0\.0 GB"):
        build(shared_folder)
