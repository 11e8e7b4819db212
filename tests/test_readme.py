"""The examples of the documents run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run_examples(document: str) -> dict[str, object]:
    """What the document's blocks of Python leave, run one after the other."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, document, "exec"), names)
    return names


def test_readme() -> None:
    names = run_examples("README.md")
    assert len(names["ask_first"]) == 100  # type: ignore[arg-type]
    assert bool(names["features"].grad.isfinite().all())  # type: ignore[attr-defined]


def test_ops() -> None:
    torch.manual_seed(0)
    names = run_examples("docs/ops.md")
    assert len(names["ask_first"]) == 4  # type: ignore[arg-type]
    for name in ("model", "decoder"):
        for parameter in names[name].parameters():  # type: ignore[attr-defined]
            assert bool(parameter.isfinite().all())
            assert bool(parameter.grad.any())


def test_evaluate() -> None:
    names = run_examples("docs/evaluate.md")
    assert names["figures"].iou.shape == (8,)  # type: ignore[attr-defined]


def test_networks() -> None:
    names = run_examples("docs/networks.md")
    assert names["layer"] == names["place"].layer == "layer4"  # type: ignore[attr-defined]


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))])
def test_linked_files_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text):
        assert ((ROOT / document).parent / target).exists(), target


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook from a folder of images to heat maps, its cells one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((ROOT / "examples" / "folder_to_heat_maps.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "notebook", "exec"), names)
    assert (tmp_path / "runs" / "notebook" / "heat_maps.png").stat().st_size > 10_000
