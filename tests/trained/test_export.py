"""export: what cannot be exported is refused in words; test_round_trip.py compares the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sal_fast
from sal_fast.cli import main
from sal_fast.errors import InputError
from sal_fast.models import Classifier
from sal_fast.trained import export


def looking(model: sal_fast.SalModel, layer: str, probe: str) -> sal_fast.SalModel:
    """The same network with maps of another layer and probe."""
    own = model.classifier
    other = Classifier(own.net, own.backbone, cam_layer=layer).eval()
    return sal_fast.SalModel(other, {**model.metadata, "cam_layer": layer, "probe": probe}).eval()


@pytest.mark.parametrize(("layer", "probe"), [("features", "gradcam++"), ("layer4.0", "cam")])
def test_layers_and_probes(layer: str, probe: str, model: sal_fast.SalModel, tmp_path: Path) -> None:
    own = looking(model, layer, probe)
    assert export.export(own, tmp_path / "m.pt2", "pt2") <= 1e-4
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits, maps = torch.export.load(tmp_path / "m.pt2").module()(x)
    with torch.no_grad():
        torch.testing.assert_close(logits, own(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps, own.explain(x), rtol=1e-4, atol=1e-4)


def test_maps_that_need_derivatives(model: sal_fast.SalModel, tmp_path: Path) -> None:
    own = looking(model, "layer3", "gradcam")
    with pytest.raises(InputError, match=r"gradcam of layer3\) need derivatives.*--maps False"):
        export.export(own, tmp_path / "m.pt2", "pt2")
    assert export.export(own, tmp_path / "m.pt2", "pt2", maps=False) <= 1e-4
    x = torch.randn(1, 3, 32, 32)
    (logits,) = torch.export.load(tmp_path / "m.pt2").module()(x)
    with torch.no_grad():
        torch.testing.assert_close(logits, own(x), rtol=1e-4, atol=1e-4)


def test_results_that_differ_are_not_kept(
    model: sal_fast.SalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export._to_pt2

    def off(*given: Any) -> Any:
        run = real(*given)

        def wrong(images: Tensor) -> list[Tensor]:
            logits, maps = run(images)
            return [logits, maps + 0.01 * maps.abs().max()]

        return wrong

    monkeypatch.setattr(export, "_to_pt2", off)
    with pytest.raises(InputError, match=r"differ from the model's by .*nothing was written"):
        export.export(model, tmp_path / "m.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_missing(
    model: sal_fast.SalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LIBRARIES", ("onnx_of_nobody",))
    with pytest.raises(InputError, match=r"onnx_of_nobody is not installed; pip install .*export"):
        export.export(model, tmp_path / "m.onnx", "onnx")


def test_a_network_that_cannot_be_traced(
    model: sal_fast.SalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*given: object, **more: object) -> None:
        raise RuntimeError("data-dependent control flow") from ValueError("an if over a tensor\nand more")

    monkeypatch.setattr(torch.export, "export", refuses)
    with pytest.raises(InputError, match=r"cannot be exported: an if over a tensor$"):
        export.export(model, tmp_path / "m.pt2", "pt2")


def test_the_command_names_the_file(
    finished: sal_fast.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(finished.path), "--to", "pt2"]) == 0
    assert "model.pt2: its results differ from the model's by at most" in capsys.readouterr().out
    assert main(["export", str(tmp_path), "--to", "pt2"]) == 2
    assert "no model found" in capsys.readouterr().err
