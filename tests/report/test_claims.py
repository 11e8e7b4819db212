"""Paired differences and the paper's claims, on curves that are worked out by hand."""

from pathlib import Path

import pytest
from report_folders import make_run

from sal_fast.errors import InputError
from sal_fast.report import differences
from sal_fast.report.claims import FAILS, HOLDS, MARGIN, NOISY, Difference, claims, together, verdict
from sal_fast.report.runs import Run, alike, by_panel, fullest, load, without_alpha_sweep
from sal_fast.report.tables import gains_table, people_table

FLAT = [0.6, 0.6, 0.6]
NOISE = {0: -0.01, 1: 0.0, 2: 0.01}  # by seed
DICE = {
    "b1": 0.3,
    "segmenter": 0.4,
    "no-ai-saliency": 0.45,
    "tait": 0.5,
    "sal-single": 0.5,
    "sal": 0.6,
    "b2": 0.6,
}


def make(root: Path, regime: str, *, dice: list[float] | None = None, seeds: int = 3, name: str = "", **more):
    """Runs of a regime: Dice flat but for sal's, which rises at the end; b2 and sal have noise."""
    for seed in range(seeds):
        noise = NOISE[seed] if regime in ("b2", "sal") else 0.0
        level = DICE[regime] + noise
        make_run(
            root / f"{regime}{name}-{seed}",
            regime=regime,
            seed=seed,
            labelled=[40, 80, 120],
            accuracy=FLAT,
            dice=dice or [level, level, level + (0.1 if regime == "sal" else 0.0)],
            examples=0,
            **more,
        )


def loaded(root: Path) -> list[Run]:
    return load([root])[0]


def test_interval_by_hand():
    # mean 2, sigma 1, t(2, .975) = 4.302653 -> 4.302653 / sqrt(3)
    found = differences.interval([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high - 2 == pytest.approx(2.484138, abs=1e-6)
    assert 2 - found.low == pytest.approx(2.484138, abs=1e-6)
    assert differences.interval([1.0]) is None


@pytest.mark.parametrize(
    ("low", "high", "above", "no_worse"),
    [
        (0.01, 0.02, HOLDS, HOLDS),
        (-0.02, 0.02, NOISY, HOLDS),
        (-0.02, -0.01, FAILS, HOLDS),
        (-0.05, -0.02, FAILS, NOISY),
        (-0.09, -0.04, FAILS, FAILS),
        (-0.09, 0.2, NOISY, NOISY),
        (0.0, 0.0, NOISY, HOLDS),
    ],
)
def test_verdicts(low, high, above, no_worse):
    difference = Difference((low + high) / 2, low, high, 3)
    assert verdict(difference) == above
    assert verdict(difference, MARGIN) == no_worse


def test_several_at_once():
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, NOISY]) == NOISY
    assert together([NOISY, FAILS, HOLDS]) == FAILS


def test_all_claims_of_the_paper(tmp_path):
    for regime in DICE:
        make(tmp_path, regime)
    make(tmp_path, "sal", name="-5", human_budget=0.1, dice=[0.55] * 3)
    make(tmp_path, "b2", name="-low", alpha=0.1, dice=[0.7] * 3)
    for regime in ("b1", "b2", "sal"):
        make(tmp_path, regime, name="-e", criterion="entropy")
    found, missing = claims(loaded(tmp_path))
    assert missing == []
    rows = {(c.number, c.claim): c for c in found}
    assert [c.number for c in found] == [1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6]

    first = rows[1, "Dice: sal above b1 in every round"]
    assert first.verdict == HOLDS
    assert first.difference.mean == pytest.approx(0.3)  # 0.3, 0.3, 0.4
    assert first.note == "smallest at 40 labelled; above 0 in 3 of 3 rounds"
    assert rows[1, "accuracy: sal no worse than b1"].difference == Difference(0, 0, 0, 3)

    second = rows[2, "Dice: sal no worse than b2"]
    assert second.note == "33 % of the human maps spared (80 of 120)"
    assert second.difference.mean == pytest.approx(0.1 / 4)  # a triangle on the last half
    rise = rows[2, "Dice of sal still rises after people stop"]
    assert rise.compared == "sal, 20 % human: last round − round at 80 labelled"
    assert rise.difference.mean == pytest.approx(0.1)

    assert rows[3, "Dice: sal above tait"].difference.mean == pytest.approx(0.125)
    least = rows[3, "Dice: all of them above b1"]
    assert least.compared == "no-ai-saliency − b1, AULC Dice, smallest of 4 regimes"
    assert least.difference.mean == pytest.approx(0.15)
    fourth = rows[4, "Dice: sal at the smallest human budget above segmenter"]
    assert fourth.compared == "sal, 10 % human − segmenter, AULC Dice"
    assert fourth.difference.mean == pytest.approx(0.15)
    assert rows[5, "Dice: sal above b1 in every setting"].note == "2 hold, 0 do not, 0 too noisy"
    assert rows[6, "Dice: better at lower alpha"].compared == "b2, margin: alpha 0.1 − 0.9, last round"
    assert rows[6, "Dice: better at lower alpha"].difference.mean == pytest.approx(0.1)
    assert rows[6, "accuracy: better at higher alpha"].verdict == NOISY  # no difference at all


def test_a_claim_may_fail(tmp_path):
    make(tmp_path, "b1", dice=[0.3, 0.9, 0.3])
    make(tmp_path, "sal")
    first = next(c for c in claims(loaded(tmp_path))[0] if c.claim == "Dice: sal above b1 in every round")
    assert first.verdict == FAILS
    assert first.difference.mean == pytest.approx(-0.3)
    assert first.note == "smallest at 80 labelled; above 0 in 2 of 3 rounds"


def test_what_is_missing_is_said(tmp_path):
    make(tmp_path, "b1")
    make(tmp_path, "sal", seeds=1)
    found, missing = claims(loaded(tmp_path))
    assert found == []
    said = {(m.number, m.run) for m in missing}
    assert (1, "b2 (two finished seeds in common, the same settings)") in said
    assert (1, "more seeds of sal and b1 (two finished seeds in common, the same settings)") in said
    assert {m.number for m in missing} == {1, 2, 3, 4, 5, 6}


def test_unfinished_runs_prove_nothing(tmp_path):
    make(tmp_path, "b1")
    make(tmp_path, "b2", finished=False)
    assert claims(loaded(tmp_path))[0] == []
    assert differences.table(loaded(tmp_path)) == []


def test_differences_pair_the_seeds_of_one_panel(tmp_path):
    make(tmp_path, "b1")
    make(tmp_path, "b1", name="-e", criterion="entropy", seeds=1)
    make(tmp_path, "b2", seeds=2)
    make(tmp_path, "sal", name="-e", criterion="entropy")
    (row,) = differences.table(loaded(tmp_path))  # sal - b1 has one seed in common
    assert (row["pair"], row["n"], row["criterion"]) == ("b2 − b1", 2, "margin")
    assert row["aulc_dice_mean"] == pytest.approx(0.295)
    # values 0.29, 0.30: sigma 0.01 / sqrt 2, t(1, .975) = 12.7062, over sqrt 2
    assert row["aulc_dice_high"] - row["aulc_dice_mean"] == pytest.approx(0.0635310, abs=1e-6)
    assert row["accuracy_mean"] == 0.0


def test_runs_that_differ_in_more_are_no_pair(tmp_path):
    make(tmp_path, "b1", epochs=10)
    make(tmp_path, "b2", epochs=20)
    make(tmp_path, "segmenter", epochs=10, segmenter_masks="masks", store="stream")
    assert [row["pair"] for row in differences.table(loaded(tmp_path))] == ["segmenter − b1"]


def test_an_older_run_lacks_a_setting(tmp_path):
    """What it does not record is the default."""
    make_run(tmp_path / "old", regime="b1", examples=0)
    make_run(tmp_path / "new", regime="b1", seed=1, warm_start=False, compile=False, examples=0)
    make_run(tmp_path / "warm", regime="b1", seed=2, warm_start=True, examples=0)
    old, warm = (next(r for r in loaded(tmp_path) if r.name == name) for name in ("old", "warm"))
    assert [run.group for run in loaded(tmp_path)] == [
        "b1, warm start False", "b1, warm start False", "b1, warm start True"
    ]  # fmt: skip
    assert not alike(old, warm)


def test_alpha_sweeps_stand_by_themselves(tmp_path):
    for alpha in (None, 0.1, 0.5):
        make(tmp_path, "b2", name=f"-{alpha}", alpha=alpha, seeds=1)
    make(tmp_path, "b2", name="-given", alpha=0.9, seeds=2)
    make(tmp_path, "tait", alpha=0.3, seeds=1)
    runs, _ = load([tmp_path])
    assert sorted({run.group for run in runs}) == ["b2", "b2, alpha 0.1", "b2, alpha 0.5", "tait"]
    # alpha 0.9 is b2's own, so that seed 0 of both is one run; tait has no other alpha than 0.3
    assert [run.group for run in without_alpha_sweep(runs)] == ["b2", "b2", "tait"]


def test_gains_by_hand_and_the_fullest_panel(tmp_path):
    for regime in ("b1", "b2"):
        make(tmp_path, regime)
    make(tmp_path, "b2", name="-e", criterion="entropy")
    runs = loaded(tmp_path)
    assert fullest(by_panel(runs)) == ["builtin, margin"]
    (row,) = gains_table(runs).to_dicts()
    assert (row["panel"], row["line"], row["n"], row["human_maps"]) == ("builtin, margin", "b2", 3, 120.0)
    assert row["aulc_dice_mean"] == pytest.approx(0.3)
    assert row["aulc_dice_std"] == pytest.approx(0.01)
    assert row["people_seconds"] is None


def test_people_by_hand(tmp_path):
    make(tmp_path, "sal", people=True, seeds=1)
    make(tmp_path, "b1", seeds=1)
    (row,) = people_table(loaded(tmp_path)).to_dicts()
    # 80 images with a map at 25 s, 40 without at 10 s
    assert (row["labelled"], row["maps"], row["seconds"]) == (120, 80, 2400.0)
    assert (row["seconds_per_item"], row["seconds_per_map"], row["seconds_per_label"]) == (20.0, 25.0, 10.0)
    assert row["seconds_saved"] == 600.0


def test_people_without_a_clock(tmp_path):
    make(tmp_path, "sal", people=True, seeds=1)
    file = tmp_path / "sal-0" / "rounds.jsonl"
    text = file.read_text()
    for name in ("label_seconds", "map_seconds", "seconds"):
        text = text.replace(f'"{name}": 2400.0', f'"{name}": null')
        text = text.replace(f', "{name}": 400.0', "").replace(f', "{name}": 2000.0', "")
    file.write_text(text)
    (row,) = people_table(loaded(tmp_path)).to_dicts()
    assert (row["seconds"], row["seconds_per_item"], row["seconds_saved"]) == (None, None, None)
    file.write_text(text.replace('"maps": 80, "skipped"', '"skipped"'))
    with pytest.raises(InputError, match="line 2: not the line of a round"):
        loaded(tmp_path)


def test_an_auto_budget_is_found_by_each_run(tmp_path):
    make(tmp_path, "sal", human_budget="auto", seeds=2)
    runs = loaded(tmp_path)
    assert [run.budget for run in runs] == [None, None]
    assert [run.takes_over() for run in runs] == [2, None]  # human maps 40, 80, 80 and 40, 80, 100
    assert runs[0].curve("trial_dice") == {80: pytest.approx(0.4)}
