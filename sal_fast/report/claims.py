"""The paper's six claims, tested on the runs at hand.

Every test is a paired difference over the finished seeds that both sides have (two at least), with its 95 %
confidence interval (differences.py):
* A > B: holds if the interval is above 0, does not hold if it is below 0, else too noisy.
* A no worse than B: holds if the interval is above -MARGIN, does not hold if it is below -MARGIN, else too
  noisy.
* Several differences at once (every round, every regime, every setting): holds if each does, does not hold if
  one does not, else too noisy; the smallest difference stands in the row.

Claims 1 to 4 are tested in one panel of each data set: that with most groups, of several the one nearest to
the paper's margin and CAM; with the runs of `sal` whose human budget is nearest to the paper's 20 % (claim 4:
the smallest). Claim 5 repeats the head of claims 1 and 2 in every panel. Claim 6 takes the lowest and the
highest alpha of each group.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sal_fast.report.differences import (
    MEASURES,
    Difference,
    couples,
    gains,
    interval,
    least_budget,
    paired,
)
from sal_fast.report.runs import Run, by_dataset, by_group, by_panel, main_panel, split, without_alpha_sweep

MARGIN = 0.03
PAPER_BUDGET = 0.2
HOLDS, FAILS, NOISY = "holds", "does not hold", "too noisy"
VARIANTS = ("tait", "sal-single", "no-ai-saliency")


@dataclass(frozen=True)
class Claim:
    number: int
    claim: str
    data: str
    compared: str
    difference: Difference
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """A claim that cannot be tested, and what to run for it."""

    number: int
    data: str
    run: str


def claims(runs: Sequence[Run]) -> tuple[list[Claim], list[Missing]]:
    """In the paper's order; `runs` with alpha sweeps and all."""
    runs = [run for run in runs if run.finished]
    main = without_alpha_sweep(runs)
    found: list[Claim | Missing] = []
    for part in by_dataset(main).values():
        for test in (_first, _second, _third, _fourth):
            found += test(main_panel(part))
    found += _fifth(main)
    for part in by_dataset(runs).values():
        found += _sixth(part)
    found.sort(key=lambda entry: entry.number)
    return [c for c in found if isinstance(c, Claim)], [m for m in found if isinstance(m, Missing)]


def table(found: Sequence[Claim]) -> list[dict[str, Any]]:
    named = ("number", "claim", "data", "compared")
    return [
        {name: getattr(claim, name) for name in named}
        | vars(claim.difference)
        | {"verdict": claim.verdict, "note": claim.note}
        for claim in found
    ]


def verdict(difference: Difference, margin: float = 0.0) -> str:
    if difference.low > -margin:
        return HOLDS
    return FAILS if difference.high < -margin else NOISY


def together(verdicts: Sequence[str]) -> str:
    if FAILS in verdicts:
        return FAILS
    return NOISY if NOISY in verdicts else HOLDS


def _first(panel: list[Run]) -> Iterator[Claim | Missing]:
    data = panel[0].dataset
    for regime in ("b2", "sal"):
        if not (pairs := _pairs(panel, regime, "b1")):
            yield _missing(1, panel, regime, "b1")
            continue
        rounds = _by_round(pairs)
        if rounds:
            at, least = min(rounds.items(), key=lambda entry: entry[1].mean)
            yield Claim(
                1,
                f"Dice: {regime} above b1 in every round",
                data,
                f"{_names(pairs)}, smallest of {len(rounds)} rounds",
                least,
                together([verdict(difference) for difference in rounds.values()]),
                f"smallest at {at} labelled; "
                f"above 0 in {sum(d.low > 0 for d in rounds.values())} of {len(rounds)} rounds",
            )
        else:
            yield _no_dice(1, data)
        if difference := interval(gains(pairs, MEASURES["aulc_accuracy"])):
            yield Claim(
                1,
                f"accuracy: {regime} no worse than b1",
                data,
                f"{_names(pairs)}, AULC accuracy",
                difference,
                verdict(difference, MARGIN),
            )


def _second(panel: list[Run]) -> Iterator[Claim | Missing]:
    data = panel[0].dataset
    if not (pairs := _pairs(panel, "sal", "b2")):
        yield _missing(2, panel, "sal", "b2")
    elif difference := interval(gains(pairs, MEASURES["aulc_dice"])):
        human, all_maps = (fmean(side) for side in zip(*_human_maps(pairs), strict=True))
        yield Claim(
            2,
            "Dice: sal no worse than b2",
            data,
            f"{_names(pairs)}, AULC Dice",
            difference,
            verdict(difference, MARGIN),
            f"{100 * (1 - human / all_maps):.0f} % of the human maps spared ({human:.0f} of {all_maps:.0f})"
            if all_maps
            else "",
        )
    else:
        yield _no_dice(2, data)
    sal = _sal(panel)
    stops = [(run, run.rounds[i - 1]) for run in sal if (i := run.takes_over()) is not None]
    rises = [
        a - b for run, stop in stops if (a := run.last.dice) is not None and (b := stop.dice) is not None
    ]
    if difference := interval(rises):
        labelled = sorted({stop.labelled for _, stop in stops})
        yield Claim(
            2,
            "Dice of sal still rises after people stop",
            data,
            f"{sal[0].line}: last round − round at {' or '.join(map(str, labelled))} labelled",
            difference,
            verdict(difference),
        )
    else:
        yield Missing(2, data, "sal, two seeds or more with Dice, on after the human budget is spent")


def _third(panel: list[Run]) -> Iterator[Claim | Missing]:
    data = panel[0].dataset
    for regime in VARIANTS:
        yield _above(3, panel, "sal", regime)
    against = {regime: _pairs(panel, regime, "b1") for regime in ("sal", *VARIANTS)}
    found = {
        regime: difference
        for regime, pairs in against.items()
        if (difference := interval(gains(pairs, MEASURES["aulc_dice"])))
    }
    if len(found) < len(against):
        lacking = [regime for regime in against if regime not in found]
        yield Missing(3, data, f"{', '.join(lacking)} and b1, two common seeds or more, with Dice")
    else:
        regime, least = min(found.items(), key=lambda entry: entry[1].mean)
        yield Claim(
            3,
            "Dice: all of them above b1",
            data,
            f"{_names(against[regime])}, AULC Dice, smallest of {len(found)} regimes",
            least,
            together([verdict(difference) for difference in found.values()]),
        )


def _fourth(panel: list[Run]) -> Iterator[Claim | Missing]:
    yield _above(4, panel, "sal", "segmenter", least=True)
    yield _above(4, panel, "segmenter", "b1")


def _fifth(runs: Sequence[Run]) -> Iterator[Claim | Missing]:
    panels = by_panel(runs)
    for other, margin, text in (("b1", 0.0, "sal above b1"), ("b2", MARGIN, "sal no worse than b2")):
        tested = {
            name: difference
            for name, panel in panels.items()
            if (difference := interval(gains(_pairs(panel, "sal", other), MEASURES["aulc_dice"])))
        }
        if len(tested) < 2:
            yield Missing(
                5,
                "all",
                f"sal and {other} with another criterion, probe, network or data set, two seeds or more",
            )
            continue
        verdicts = [verdict(difference, margin) for difference in tested.values()]
        count = Counter(verdicts)
        place, least = min(tested.items(), key=lambda entry: entry[1].mean)
        yield Claim(
            5,
            f"Dice: {text} in every setting",
            "all",
            f"sal − {other}, AULC Dice, smallest of {len(tested)} settings ({place})",
            least,
            together(verdicts),
            f"{count[HOLDS]} hold, {count[FAILS]} do not, {count[NOISY]} too noisy",
        )


def _sixth(runs: Sequence[Run]) -> Iterator[Claim | Missing]:
    data, tested = runs[0].dataset, False
    for swept in split((run for run in runs if run.alpha is not None), lambda r: r.label("alpha")).values():
        alphas = split(swept, lambda run: f"{run.alpha:g}")
        low, high = min(alphas, key=float), max(alphas, key=float)
        pairs = paired(alphas[low], alphas[high]) if low != high else []
        line = swept[0].label("alpha")
        if dice := interval(gains(pairs, MEASURES["dice"])):
            text = f"{line}: alpha {low} − {high}, last round"
            yield Claim(6, "Dice: better at lower alpha", data, text, dice, verdict(dice))
        if accuracy := interval(gains([(b, a) for a, b in pairs], MEASURES["accuracy"])):
            tested = True
            text = f"{line}: alpha {high} − {low}, last round"
            yield Claim(6, "accuracy: better at higher alpha", data, text, accuracy, verdict(accuracy))
    if not tested:
        yield Missing(6, data, "b2 with another --alpha, such as 0.1 (two finished seeds in common)")


def _above(number: int, panel: list[Run], a: str, b: str, least: bool = False) -> Claim | Missing:
    if not (pairs := _pairs(panel, a, b, least)):
        return _missing(number, panel, a, b)
    if (difference := interval(gains(pairs, MEASURES["aulc_dice"]))) is None:
        return _no_dice(number, panel[0].dataset)
    budget = " at the smallest human budget" if least else ""
    return Claim(
        number,
        f"Dice: {a}{budget} above {b}",
        panel[0].dataset,
        f"{_names(pairs)}, AULC Dice",
        difference,
        verdict(difference),
    )


def _sal(panel: Sequence[Run], least: bool = False) -> list[Run]:
    """The runs of sal at the budget nearest to the paper's (or the least), else at the one they find."""
    groups = [part for part in by_group(panel).values() if part[0].regime == "sal"]
    fixed = [part for part in groups if part[0].budget is not None]
    wanted = least_budget(panel) if least else PAPER_BUDGET

    def far(part: list[Run]) -> float:
        return abs((part[0].budget or 0.0) - (wanted or 0.0))

    return min(fixed, key=far) if fixed else (groups[0] if groups else [])


def _pairs(panel: Sequence[Run], a: str, b: str, least: bool = False) -> list[tuple[Run, Run]]:
    """Pairs of the first groups of a and b that differ in nothing else; [] for fewer than two seeds."""
    sal = _sal(panel, least)
    kept = [run for run in panel if run.regime != "sal" or any(run is one for one in sal)]
    return next((pairs for x, y in couples(kept, a, b) if len(pairs := paired(x, y)) > 1), [])


def _by_round(pairs: Sequence[tuple[Run, Run]]) -> dict[int, Difference]:
    """Labelled count -> difference of Dice, at the counts that all runs have."""
    curves = [(a.curve("dice"), b.curve("dice")) for a, b in pairs]
    shared = [x for x in curves[0][0] if all(x in a and x in b for a, b in curves)]
    found = {x: interval([a[x] - b[x] for a, b in curves]) for x in shared}
    return {x: difference for x, difference in found.items() if difference}


def _human_maps(pairs: Sequence[tuple[Run, Run]]) -> list[tuple[int, int]]:
    return [(a.last.human_maps, b.last.human_maps) for a, b in pairs]


def _names(pairs: Sequence[tuple[Run, Run]]) -> str:
    return f"{pairs[0][0].line} − {pairs[0][1].line}"


def _missing(number: int, panel: Sequence[Run], a: str, b: str) -> Missing:
    there = {run.regime for run in panel}
    lacking = [regime for regime in (a, b) if regime not in there]
    what = " and ".join(lacking) if lacking else f"more seeds of {a} and {b}"
    return Missing(number, panel[0].dataset, f"{what} (two finished seeds in common, the same settings)")


def _no_dice(number: int, data: str) -> Missing:
    return Missing(number, data, "test images with human masks: there is no Dice")
