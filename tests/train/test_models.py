"""Backbones cut in two; weights that fit and weights that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from sal_fast import models, plugins
from sal_fast._util.words import MEAN, STD
from sal_fast.errors import InputError
from sal_fast.models import weights


@pytest.mark.parametrize("arch", plugins.names("network"))
def test_cut_network_is_the_librarys(arch: str) -> None:
    if arch == "xception":
        pytest.importorskip("timm")
    model = models.build(arch, 5, seed=1).eval()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, features = model(images)
        (mean, std), image = model.backbone.normalisation, images.movedim(1, -1)
        image = image * torch.tensor(STD) + torch.tensor(MEAN)  # 0 to 1
        own = ((image - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 1)
        torch.testing.assert_close(logits, model.net(own), rtol=1e-4, atol=1e-5)
    assert features.shape == (2, model.head.in_features, 3, 3)
    assert models.feature_size(model, 96) == (3, 3)


def test_the_seed_makes_the_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (models.build("resnet18", 3, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.net.conv1.weight, again.net.conv1.weight)
    assert not torch.equal(first.net.conv1.weight, other.net.conv1.weight)


@pytest.mark.parametrize(
    ("arch", "stride", "size"),
    [("resnet18", 16, 4), ("resnet18", 8, 8), ("resnet50", 8, 8), ("resnet34", 4, 16)],
)
def test_output_stride(arch: str, stride: int, size: int) -> None:
    with torch.device("meta"):
        model = models.build(arch, 3, output_stride=stride)
        assert models.feature_size(model, 64) == (size, size)


def test_output_stride_refused() -> None:
    with torch.device("meta"), pytest.raises(InputError, match="swin_t has a fixed stride"):
        models.build("swin_t", 3, output_stride=16)
    with torch.device("meta"), pytest.raises(InputError, match="expected one of 32, 16, 8, 4"):
        models.build("resnet18", 3, output_stride=12)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_file_with_another_head(tmp_path: Path, suffix: str) -> None:
    donor = torchvision.models.resnet18(num_classes=7)
    path = tmp_path / f"donor.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path)
    else:
        save_file(donor.state_dict(), path)
    model = models.build("resnet18", 3, weights=str(path))
    assert torch.equal(model.net.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert torch.equal(model.net.bn1.running_mean, donor.bn1.running_mean)
    assert model.head.out_features == 3
    whole = models.build("resnet18", 7, weights=str(path))
    assert torch.equal(whole.head.weight, donor.fc.weight)


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("", "state_dict"),
        ("module.", "model"),
        ("_orig_mod.module.", "model_state_dict"),
        ("module._orig_mod.", "ema"),
        ("model.backbone.", "state_dict"),
        ("model.net.encoder.", "params"),
    ],
)
def test_weights_of_wrapped_networks(prefix: str, place: str, tmp_path: Path) -> None:
    """As Lightning, DistributedDataParallel and torch.compile save them, with other things beside."""
    donor = torchvision.models.resnet18(num_classes=3).state_dict()
    state = {f"{prefix}{key}": value for key, value in donor.items()}
    other = {"criterion.weight": torch.ones(3)} if prefix else {}
    torch.save({"epoch": 3, place: {place: state | other}, "optimizer": {"lr": 0.1}}, tmp_path / "w.ckpt")
    model = models.build("resnet18", 3, weights=str(tmp_path / "w.ckpt"))
    for key, value in model.net.state_dict().items():
        assert torch.equal(value, donor[key])


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    plain, averaged = (torchvision.models.resnet18(num_classes=3).state_dict() for _ in range(2))
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "w.pth")
    model = models.build("resnet18", 3, weights=str(tmp_path / "w.pth"))
    assert torch.equal(model.head.weight, averaged["fc.weight"])


def test_names_of_a_network_that_begin_as_a_wrappers_are_kept() -> None:
    state = {"encoder.a": torch.ones(1), "encoder.b": torch.ones(1), "head.a": torch.ones(1)}
    assert weights.unwrapped(state, state.keys()) == state
    inner = {"model.b": torch.ones(1), "a": torch.ones(1)}
    wrapped = {f"module.{key}": value for key, value in inner.items()}
    assert weights.unwrapped(wrapped, inner.keys()).keys() == inner.keys()


def test_a_random_head_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sal_fast")
    path = tmp_path / "w.safetensors"
    save_file(torchvision.models.resnet18(num_classes=7).state_dict(), path)
    for _ in range(2):
        models.build("resnet18", 3, weights=str(path))
    assert [record.getMessage() for record in caplog.records] == [
        f"weights {path}: they have no head for these classes; it begins at random"
    ]


class Hyper:
    """What Lightning keeps beside the weights."""


def test_our_weights_are_torchvisions(tmp_path: Path) -> None:
    model = models.build("resnet18", 3, seed=4)
    (tmp_path / "w.safetensors").write_bytes(weights.to_bytes(model.net))
    net = torchvision.models.resnet18(num_classes=3)
    net.load_state_dict(weights.read(tmp_path / "w.safetensors"))
    assert torch.equal(net.fc.weight, model.head.weight)


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_weights_refused(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet34().state_dict(), tmp_path / "r34.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    torch.save({"net": Shell()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {}, "hyper_parameters": Hyper()}, tmp_path / "lightning.ckpt")
    state = torchvision.models.resnet18().state_dict()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    state["layer1.0.conv_1.weight"] = torch.zeros(64, 64, 3, 3)
    save_file(state, tmp_path / "renamed.safetensors")
    for name, message in (
        ("r34.safetensors", "do not fit resnet18: .* is not in the network"),
        ("part.safetensors", "'layer1.0.conv1.weight' is missing$"),
        ("renamed.safetensors", r"'layer1.0.conv1.weight' is missing \(similar: 'layer1.0.conv_1.weight'\)"),
        (
            "lightning.ckpt",
            r"cannot be read: it holds objects of Python, such as \S+Hyper.* its state dict alone",
        ),
        ("broken.safetensors", "cannot be read"),
        ("code.pth", "cannot be read"),
        ("list.pth", "expected a state dict of tensors, got list"),
        ("absent.pth", "weights file not found"),
        ("IMAGENET21K", "expected none, one of torchvision's for resnet18"),
    ):
        given = name if name == "IMAGENET21K" else str(tmp_path / name)
        with pytest.raises(InputError, match=message) as raised:
            models.build("resnet18", 3, weights=given)
        assert "\x1b" not in str(raised.value)
