"""What is found in the networks of timm and torchvision, against the committed table; the page made of it.

A failing line shows what was found. `python tests/helpers/architectures.py` makes lines of the table.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from architectures import Row, in_place, make, pictures, read, row
from torch import nn

from sal_fast import probes

ROOT = Path(__file__).parents[2]
TABLE = {(line.library, line.name): line for line in read()}
QUICK = {
    "timm": [
        "resnet10t", "efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto", "test_vit", "test_vit3",
        "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "test_nfnet", "test_mambaout",
        "test_maxvit", "resmlp_12_224", "xcit_nano_12_p16_224", "regnetx_002", "ghostnet_050", "fasternet_t0",
    ],
    "torchvision": ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"],
}  # fmt: skip

MIXED = {"levit"}  # with random weights, the attention that halves its grid averages all places


def in_tiers() -> list[object]:
    """All lines of the table. Those of `QUICK` run in the quick tier too."""
    return [
        pytest.param(line, id=f"{line.library}-{line.name}", marks=() if quick else pytest.mark.full)
        for line in TABLE.values()
        for quick in [line.name in QUICK[line.library]]
    ]


@pytest.mark.parametrize("line", in_tiers())
def test_place_and_map(line: Row, record_property: pytest.RecordProperty) -> None:
    if line.library == "timm":
        pytest.importorskip("timm")
    net, size = make(line.library, line.name, line.image_size), line.image_size
    place = probes.find(net, pictures(size))
    found = row(net, place, line.library, line.name, size)
    record_property("found", ",".join(map(str, found)))
    assert found == line
    if place.to_maps.kind != "nchw" and line.family not in MIXED:
        assert in_place(net, place, size) == 4

    x, classes = pictures(size), torch.tensor([3, 7])
    result = probes.explain(net, x, classes, probe="cam")
    other = probes.explain(net, x, 9 - classes, layer=place.layer, to_maps=place.to_maps, probe="cam")
    assert result.layer == place.layer
    assert result.maps.shape == (2, *place.shape[1:])
    assert result.maps.isfinite().all()
    spans = result.maps.detach().flatten(1).aminmax(dim=1)
    least = 2e-6 if line.family in MIXED else 1e-4  # float32 resolves 1e-7
    assert (spans.max - spans.min > least * result.maps.detach().abs().amax()).all()
    assert (result.maps - other.maps).abs().max() > 1e-2 * result.maps.abs().max()
    if line.name in QUICK[line.library]:
        result.maps.square().sum().backward()
        assert first_weight(net).grad.abs().sum() > 0


def first_weight(net: nn.Module) -> nn.Parameter:
    return next(module.weight for module in net.modules() if isinstance(module, nn.Conv2d))


def test_the_table_is_large_enough() -> None:
    families = {line.family for line in TABLE.values() if line.library == "timm"}
    assert sum(library == "timm" for library, _ in TABLE) >= 200
    assert len(families) >= 85
    assert all((library, name) in TABLE for library, names in QUICK.items() for name in names)


def test_the_page_of_networks_says_what_the_table_says() -> None:
    """Each network that docs/networks.md names has the layer, layout and form that the page gives."""
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    pattern = r"^\| [^|]+ \| `(\w+)/(\w+)` \| `([\w.]+)` \| ([^|]+) \| [^|]+ \| ([^|]+) \|$"
    lines = re.findall(pattern, text, re.M)
    assert len(lines) >= 25
    layouts = {"nchw": "[B, C, h, w]", "nhwc": "[B, h, w, C]", "tokens": "tokens"}
    for library, name, layer, layout, closed in lines:
        line = TABLE[library, name]
        extra = f", {line.extra_tokens} left out" if line.extra_tokens else ""
        assert (layer, layout, closed) == (line.layer, layouts[line.layout] + extra, line.closed_form), name
    forms = Counter(line.closed_form for line in TABLE.values())
    counted = re.search(r"(\d+) networks of.* (\d+) always have.* (\d+) in eval mode .* (\d+) never", text)
    assert counted is not None
    expected = [len(TABLE), forms["always"], forms["in eval mode"], forms["never"]]
    assert [int(number) for number in counted.groups()] == expected
