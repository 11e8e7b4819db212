"""timm's Xception, cut like the other networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sal_fast import models
from sal_fast.errors import InputError
from sal_fast.experiment.checks import check_networks
from sal_fast.experiment.config import Config
from sal_fast.models import weights


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r'xception is timm\'s, which is not installed; pip install "sal-fast\[timm\]"'
    for options in ({"arch": "xception"}, {"regime": "tait", "teacher_arch": "xception"}):
        with pytest.raises(InputError, match=message):
            check_networks(Config.of(options))
    check_networks(Config.of({"regime": "sal", "teacher_arch": "xception"}))  # no teacher there
    with pytest.raises(InputError, match=message):
        models.build("xception", 3)


def test_sizes_and_stride() -> None:
    pytest.importorskip("timm")
    with torch.device("meta"):
        model = models.build("xception", 3)
        assert models.map_shape(model, 224) == (2048, 7, 7)
        assert models.feature_size(model, 299) == (10, 10)
        assert models.map_shape(models.build("xception", 3, cam_layer="conv4"), 224) == (2048, 7, 7)
        with pytest.raises(InputError, match="xception has a fixed stride"):
            models.build("xception", 3, output_stride=16)
    assert Config.of({"arch": "xception"}).output_stride == 32  # whatever the preset has
    with pytest.raises(InputError, match="xception has a fixed stride"):
        models.build(
            "xception", 3, output_stride=Config.of({"arch": "xception", "output_stride": 8}).output_stride
        )


def test_weights_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by one, read by the other; a file with another head; a name, from torch's own folder."""
    timm = pytest.importorskip("timm")
    model = models.build("xception", 3, seed=4)
    (tmp_path / "w.safetensors").write_bytes(weights.to_bytes(model.net))
    net = timm.create_model("legacy_xception", num_classes=3)
    net.load_state_dict(weights.read(tmp_path / "w.safetensors"))
    assert torch.equal(net.fc.weight, model.head.weight)
    again = models.build("xception", 3, seed=5, weights=str(tmp_path / "w.safetensors"))
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))

    donor = timm.create_model("legacy_xception").state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    named = tmp_path / "hub/checkpoints" / Path(weights.urls("xception")["tf_in1k"]).name
    named.parent.mkdir(parents=True)
    torch.save(donor, named)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for name in ("tf_in1k", "DEFAULT"):
        built = models.build("xception", 3, weights=name)
        assert torch.equal(built.net.conv4.pointwise.weight, donor["conv4.pointwise.weight"])
        assert built.head.out_features == 3
    assert torch.equal(torch.rand(3), expected)


def test_weights_refused(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    save_file({"fc.bias": torch.zeros(3)}, tmp_path / "part.safetensors")
    for given, message in (
        ("IMAGENET1K_V1", r"expected none, one of timm's for xception \(DEFAULT, tf_in1k\), or a"),
        (str(tmp_path / "part.safetensors"), "'conv1.weight' is missing"),
    ):
        with pytest.raises(InputError, match=message):
            models.build("xception", 3, weights=given)
