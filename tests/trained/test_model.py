"""`SalModel`: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sal_fast
from sal_fast.data import augment, decode, reading
from sal_fast.errors import InputError
from sal_fast.probes import explain


def test_every_kind_of_image_gives_the_same(
    model: sal_fast.SalModel, shared_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    expected = model.preprocess(path)
    assert expected.shape == (1, 3, 32, 32)
    assert expected.dtype == torch.float32
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for kind in (str(path), [path], Image.open(path), pixels, pixels[None], tensor, tensor[None], [tensor]):
        assert torch.equal(model.preprocess(kind), expected)
    mixed = model.preprocess([pixels, path, tensor, Image.open(path)])
    assert torch.equal(mixed, expected.expand(4, -1, -1, -1))
    grey = pixels[..., 0]
    three = model.preprocess(np.repeat(grey[..., None], 3, axis=2))
    for kind in (grey, torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert torch.equal(model.preprocess(kind), three)


def test_preprocess_by_an_independent_way(model: sal_fast.SalModel, tmp_path: Path) -> None:
    """Pillow's resize to the stored size, then bilinear interpolation at pixel centres in float64."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    stored = np.asarray(Image.fromarray(pixels).resize((37, 37), Image.Resampling.BILINEAR), np.float64)
    at = np.clip((np.arange(32) + 0.5) * 37 / 32 - 0.5, 0, 36)
    low = np.minimum(np.floor(at).astype(int), 35)
    share = (at - low)[:, None, None]
    rows = stored[low] * (1 - share) + stored[low + 1] * share
    share = (at - low)[None, :, None]
    small = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    mean, std = (np.array(one) for one in model.normalisation)
    expected = ((small / 255 - mean) / std).transpose(2, 0, 1)
    # torch's resize is within one grey level of Pillow's
    np.testing.assert_allclose(model.preprocess(pixels)[0], expected, atol=1.01 / 255 / std.min())


def test_a_photograph_on_its_side(model: sal_fast.SalModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (30, 60, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(pixels, -1).copy()
    for kind in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert torch.equal(model.preprocess(kind), model.preprocess(upright))


BAD: list[tuple[Any, str]] = [
    ([], "no images were given"),
    ("nothing.jpg", "file not found"),
    (np.zeros((8, 8, 3), np.float32), "float32 values: expected uint8"),
    (np.zeros((3, 8, 8), np.uint8), r"shape \[3, 8, 8\]: expected \[H, W, 3\]"),
    (torch.zeros(8, 8, 3, dtype=torch.uint8), r"shape \[8, 8, 3\]: expected \[3, H, W\]"),
    (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r"expected \[3, H, W\]"),
    (np.zeros((8, 8, 4), np.uint8), r"expected \[H, W, 3\]"),
    (np.zeros((8, 8, 1), np.uint8), r"expected \[H, W, 3\]"),
    (torch.zeros(8, 8, dtype=torch.uint8), r"expected \[3, H, W\]"),
    (np.zeros((0, 8, 3), np.uint8), "has no pixel"),
    (Image.new("I;16", (4, 4)), "mode 'I;16': expected 8 bits"),
    ([3], "expected a path"),
]


@pytest.mark.parametrize(("image", "said"), BAD)
def test_images_that_can_be_misread_are_refused(model: sal_fast.SalModel, image: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model.preprocess(image)


def test_explain(model: sal_fast.SalModel) -> None:
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = model(x)
    best = logits.argmax(1)
    predicted = model.explain(x)
    assert predicted.dtype == torch.float32
    assert predicted.shape == (3, 4, 4)
    assert not predicted.requires_grad
    assert torch.equal(model.explain(x, best), predicted)
    red = model.classes.index("red")
    assert torch.equal(model.explain(x, "red"), model.explain(x, red))
    every = torch.arange(3).repeat(3, 1)
    torch.testing.assert_close(model.explain(x, every)[:, red], model.explain(x, "red"))
    net = model.classifier.net
    independent = torch.einsum("bchw,c->bhw", net.features(x), net.head.weight[red])
    torch.testing.assert_close(model.explain(x, "red"), independent.detach(), rtol=1e-4, atol=1e-5)
    for probe in ("gradcam", "gradcam++", "hirescam"):
        several = model.explain(x, every, probe)
        one = model.explain(x, red, probe)
        torch.testing.assert_close(several[:, red], one)
    for bad, said in (("rad", "did you mean 'red'"), (3, "from 0 to 2"), (-1, "from 0 to 2")):
        with pytest.raises(InputError, match=said):
            model.explain(x, bad)
    with pytest.raises(InputError, match="unknown probe"):
        model.explain(x, probe="gradcan")
    with pytest.raises(InputError, match=r"int64 \[B\] or \[B, T\]"):
        model.explain(x, torch.zeros(2, dtype=torch.int64))
    for wrong in (x.byte(), x[..., :16], x[0], None):
        with pytest.raises(InputError, match=r"expected floating images \[B, 3, 32, 32\]"):
            model(wrong)


@pytest.mark.parametrize("layer", ["features", "layer3"])
def test_several_classes_where_derivatives_are_needed(layer: str, model: sal_fast.SalModel) -> None:
    """Of a layer of the user's choice each class takes a pass of its own."""
    from sal_fast.models import Classifier

    own = model.classifier
    looking = Classifier(own.net, own.backbone, cam_layer=layer).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([[0, 2], [1, 1]])
    seen = looking.look(x, classes, probe="gradcam")
    assert seen.cam.shape[:2] == (2, 2)
    for column in range(2):
        expected = explain(
            _Logits(own.net),
            x,
            classes[:, column],
            layer="net.layer4" if layer == "features" else "net.layer3",
        )
        torch.testing.assert_close(seen.cam[:, column], expected.maps, rtol=1e-4, atol=1e-6)


class _Logits(torch.nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net.head(self.net.features(images).mean((2, 3)))


def test_deep_images_are_read_as_the_run_read_them(model: sal_fast.SalModel, tmp_path: Path) -> None:
    """`--white` of the run is a part of the model."""
    values = np.random.default_rng(3).integers(0, 4096, (40, 40)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    told = sal_fast.SalModel(model.classifier, {**model.metadata, "white": 4095})
    eight = np.rint(values * (255 / 4095)).astype(np.uint8)
    assert torch.equal(told.preprocess(tmp_path / "deep.png"), model.preprocess(eight))


def test_what_is_stored_is_what_the_store_has(model: sal_fast.SalModel, shared_folder: Path) -> None:
    """The same pixels as the data store's, bit by bit."""
    paths = sorted((shared_folder / "images").glob("*/*.jpg"))[:5]
    decoder = decode.choose("torch", torch.device("cpu"))
    pixels = reading.pictures(paths, 37, decoder)
    decoder.close()
    from sal_fast import ops

    expected = ops.crop_images(pixels, None, size=32, color=augment.plain().color)
    assert torch.equal(model.preprocess(paths), expected)
