"""The path of docs/use.md, command by command, as it stands there; only the run is made short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sal_fast
from sal_fast.cli import main
from sal_fast.data import builtin

PAGE = Path(__file__).parents[1] / "docs" / "use.md"
SHORT = (
    "--epochs 1 --start-fraction 0.2 --query-fraction 0.2 --stop-fraction 0.2 --human-budget 0.2 "
    "--augment standard --device cpu"
)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAL_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "SIZES", {"train": 40, "val": 6, "test": 6})
    draws = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for number in range(5):  # smooth, as photographs are
        small = draws.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        Image.fromarray(small).resize((140, 100), Image.Resampling.BICUBIC).save(f"photographs/{number}.jpg")
    names: dict[str, object] = {}
    for kind, block in re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), names)
            continue
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            assert main([*words, *(shlex.split(SHORT) if words[0] == "run" else [])]) == 0, line

    model = sal_fast.load_model("runs/first")
    assert model.metadata["stored_size"] > model.image_size  # both sizes of the script are at work
    x = model.preprocess(["photographs/0.jpg", "photographs/1.jpg"])
    with torch.no_grad():
        logits, maps = model(x), model.explain(x)
    # torch's resize is within a grey level of Pillow's, which rounds once more for the second size
    np.testing.assert_allclose(names["batch"], x.numpy(), atol=1.6 / 255 / 0.224)
    np.testing.assert_allclose(names["logits"], logits.numpy(), atol=0.05)
    np.testing.assert_allclose(names["where"], maps.numpy(), atol=0.05 * float(maps.abs().max()))
    assert len(list(Path("where/overlays").iterdir())) == 5
    assert len(list(Path("where-else/overlays").iterdir())) == min(3, len(model.classes))
    extra = {"sal_fast": ""}
    again = torch.export.load("first.pt2", extra_files=extra).module()(x)
    torch.testing.assert_close(again[0].detach(), logits, rtol=1e-4, atol=1e-4)
    assert '"classes"' in str(extra["sal_fast"])
