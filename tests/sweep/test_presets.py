"""The paper's grids: how many runs and trainings they are, and that each can be planned on a bare machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sal_fast.cli import main
from sal_fast.experiment.config import Config
from sal_fast.sweep import grid, plan

# Runs, trainings, rounds that train. Rounds to 100 % in steps of 5 %: 20 for two sets, which start with 5 %,
# 19 for three that start with 10 %; 2 * 20 + 3 * 19 = 97. With 20 % by people queries 4 to 19 (3 to 18) are
# a model's: 16 interpretability models a run of sal. Of rounds 0 to 2 (0 and 1) one training does for b2,
# sal, sal-single, no-ai-saliency and tait: 2 * 3 + 3 * 2 = 12 rounds less for each but the first.
COUNTS = {
    # rounds at 10, 20, 30, 40 %: 4 a run, round 0 shared, 2 interpretability models
    "small": (3 * 3, 3 * (4 + 4 + 3 + 2), 3 * (4 + 4 + 3)),
    # 10, 20, 30, 40, 50 %: 5 rounds a run. b1, and sal with five kinds of maps, which share no round; maps of
    # queries 2, 3 and 4 by a model
    "controls": (3 * 6, 3 * (5 + 5 * (5 + 3)), 3 * 6 * 5),
    # 6 criteria, 8 seeds; 6 regimes with a round of their own each and the segmenter; tait's teacher
    "paper": (5 * 6 * 7 * 8, 48 * (7 * 97 - 4 * 12 + 5 * 16 + 5), 48 * (7 * 97 - 4 * 12)),
    "paper-swin": (5 * 6 * 8, 8 * (6 * 97 - 4 * 12 + 5 * 16 + 5), 8 * (6 * 97 - 4 * 12)),
    "paper-probes": (5 * 4 * 6 * 4, 16 * (6 * 97 - 4 * 12 + 5 * 16 + 5), 16 * (6 * 97 - 4 * 12)),
    # sal at 5, 10, 20 % (two sets) and 10, 20 % (three): rounds shared with b2 0, 1, 3 and 0, 2;
    # interpretability models 19, 18, 16 and 18, 16
    "paper-budget": (
        8 * (3 * 5 + 2 * 3 + 3 * 2),
        8 * (3 * 97 + 2 * (60 - 4 + 53) + 3 * (38 - 2 + 34)),
        8 * (3 * 97 + 2 * (60 - 4) + 3 * (38 - 2)),
    ),
    "paper-alpha": (6 * 8, 48 * 20, 48 * 20),
    "paper-segmenter": (5 * 4 * 8, 8 * (4 * 97 - 12 + 5 * 16), 8 * (4 * 97 - 12)),
}
PAPER = sorted(set(COUNTS) - {"small", "controls"})


def test_there_are_these() -> None:
    assert grid.preset_names() == sorted(COUNTS)
    assert COUNTS["paper"][0] == 1680


@pytest.mark.parametrize("name", COUNTS)
def test_plan_without_anything_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    if name not in ("paper", "paper-swin"):  # the others have the same networks
        monkeypatch.setattr(plan, "_check_network", lambda one: None)
    runs, trainings, rounds = COUNTS[name]
    assert main(["sweep", name, "--plan", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert (
        f"{name}: {runs} runs, into {tmp_path / 'out'}\n  trainings  {trainings}, in {rounds} rounds" in told
    )
    assert f"start (sal-fast sweep {name} --out {tmp_path / 'out'})" in told
    warnings = [line.removeprefix("warning: ") for line in told.splitlines() if line.startswith("warning: ")]
    missing = [line.split(":")[0] for line in warnings if not line.startswith(("the disk", "memory"))]
    sets = ["data cub200", "data flowers102", "data imagenet-s", "data ham10000", "data food201"]
    network = "swin_t" if name == "paper-swin" else "resnet50"
    weights = f"weights 'IMAGENET1K_V1' of {network} are not on this machine"
    expected = {
        "small": [],
        "controls": [],
        "paper-alpha": [sets[0], f"{weights}"],
        "paper-swin": [*sets, weights],
        "paper-probes": [*sets, weights],
    }.get(name, [*sets, weights, *sets])  # and the segmenter's masks
    assert [line.split(" are not")[0] for line in missing] == [line.split(" are not")[0] for line in expected]
    assert not (tmp_path / "out").exists()


def test_a_start_without_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "paper-alpha", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "data cub200: give --root DIR, with the official archives CUB_200_2011.tgz, " in said
    assert not (tmp_path / "out").exists()


def test_plan_with_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "masks/ham10000").mkdir(parents=True)
    (tmp_path / "w.pth").touch()
    words = ["--root", f"{tmp_path}/my sets", "--weights", f"{tmp_path}/w.pth"]
    words += ["--segmenter-masks", f"{tmp_path}/masks"]
    assert main(["sweep", "paper-segmenter", "--plan", *words]) == 0
    told = capsys.readouterr().out
    assert f"(sal-fast sweep paper-segmenter --root '{tmp_path}/my sets' --weights" in told
    assert f"warning: data food201: --root {tmp_path}/my sets/food201: no such folder" in told
    assert "weights '" not in told
    lacking = re.findall(r"warning: segmenter_masks: no such folder: \S+/masks/(\S+)", told)
    assert lacking == ["cub200", "flowers102", "imagenet-s", "food201"]


def test_one_folder_for_all_of_the_paper(tmp_path: Path) -> None:
    """A run that two presets have is the same run."""
    seen: dict[str, Config] = {}
    total = 0
    for name in PAPER:
        for config in grid.read_grid(name).configs(tmp_path, grid.Place("/sets", None, "/masks")):
            assert seen.setdefault(config.run_folder.name, config) == config
            total += 1
    # new beside paper: all of swin, three more probes, sal at 5 and 10 %, five more alphas
    assert len(seen) == 1680 + 240 + 5 * 3 * 6 * 4 + 8 * (2 * 2 + 3 * 1) + 5 * 8
    assert total == sum(COUNTS[name][0] for name in PAPER)


def test_the_paper_s_options(tmp_path: Path) -> None:
    for name in PAPER:
        for config in grid.read_grid(name).configs(tmp_path):
            late = config.data in ("flowers102", "imagenet-s", "food201")
            shares = (config.start_fraction, config.query_fraction, config.stop_fraction)
            assert shares == (0.1 if late else 0.05, 0.05, 1.0)
            assert config.human_budget == 0.2 or (name == "paper-budget" and config.regime == "sal")
            assert config.human_budget >= config.start_fraction
            assert config.weights == "IMAGENET1K_V1"
            assert config.image_size == 224
    budgets = grid.read_grid("paper-budget").configs(tmp_path)
    small = [(one.data, one.human_budget) for one in budgets if one.seed == 0 and one.human_budget < 0.2]
    assert sorted(small) == [
        ("cub200", 0.05), ("cub200", 0.1), ("flowers102", 0.1), ("food201", 0.1),
        ("ham10000", 0.05), ("ham10000", 0.1), ("imagenet-s", 0.1),
    ]  # fmt: skip


def test_docs_have_these_numbers() -> None:
    text = (Path(__file__).parents[2] / "docs/sweep.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    told = {name: (int(runs.replace(",", "")), int(trained.replace(",", ""))) for name, runs, trained in rows}
    assert told == {name: (runs, trained) for name, (runs, trained, _) in COUNTS.items()}
