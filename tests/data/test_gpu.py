"""Decoding, keeping and streaming on a GPU give what the CPU gives, to the tolerance of docs/data.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("polars")

from sal_fast import seeds
from sal_fast._util.words import DecoderName
from sal_fast.data import Keep, StoreOptions, decode, load_table, prepare, prepared, splits, store
from sal_fast.data.augment import Augmentation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("name", ["torch", "dali"])
@pytest.mark.parametrize("keep", ["resident", "stream"])
def test_decoded_on_the_gpu(name: DecoderName, keep: Keep, shared_folder: Path) -> None:
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    table = splits.assign(load_table(str(shared_folder)), seeds.stream(0, "split"))
    cpu = store.build(table, StoreOptions(28, 32, decode.choose("torch", torch.device("cpu"))))
    gpu = store.build(table, StoreOptions(28, 32, decode.choose(name, torch.device("cuda")), keep))
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    ours, theirs = gpu.pictures(rows.cuda()).cpu().int(), cpu.pictures(rows).int()
    assert (ours - theirs).abs().max() <= 8
    assert (ours - theirs).abs().float().mean() < 0.5
    assert torch.equal(gpu.masks.binary.words.cpu(), cpu.masks.binary.words)
    crops = Augmentation("color", 0, 1, 2)
    parts = rows.split(7)
    on_gpu = [part.cuda() for part in parts]
    mine = torch.cat(list(gpu.views(on_gpu, gpu.draws(on_gpu, crops)))).cpu()
    reference = torch.cat(list(cpu.views(parts, cpu.draws(parts, crops))))
    assert (mine - reference).abs().mean() < 0.02


def test_a_prepared_copy_on_the_gpu(shared_folder: Path, tmp_path: Path) -> None:
    table = load_table(str(shared_folder))
    host = decode.choose("torch", torch.device("cpu"))
    assert not prepare.prepare(table, tmp_path, prepare.Recipe(32, 32, True), host)
    ready = prepared.read(tmp_path)
    ready = splits.assign(ready, seeds.stream(0, "split"))
    gpu = decode.choose("torch", torch.device("cuda"))
    rows = torch.tensor([3, 29, 0, 3])
    expected = prepared.build(ready, StoreOptions(32, 32, host)).pictures(rows)
    for keep in ("resident", "stream"):
        assert torch.equal(
            prepared.build(ready, StoreOptions(32, 32, gpu, keep)).pictures(rows.cuda()).cpu(), expected
        )
