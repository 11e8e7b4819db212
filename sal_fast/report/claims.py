"""The paper's six claims, tested on the runs at hand.

Every test is a paired difference over the finished seeds that both sides have (at least two), with its 95 %
confidence interval (differences.py):
* "A above B" holds if the interval is above 0, and does not hold if it is below 0; otherwise it is too noisy
  to say.
* "A no worse than B" holds if the interval is above -MARGIN, and does not hold if it is below -MARGIN;
  otherwise it is too noisy to say.
* A claim about several differences (every round, every regime, every setting) holds if it holds for each, and
  does not hold if it fails for one; otherwise it is too noisy. Its row shows the smallest difference.

Claims 1 to 4 are tested in one panel of each data set (`main_panel`), with the runs of `sal` whose human
budget is nearest to the paper's 20 % (claim 4: the smallest). Claim 5 repeats the head of claims 1 and 2 in
every panel. Claim 6 takes the lowest and the highest alpha of each group.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

from sal_fast.experiment.regimes import REGIMES
from sal_fast.report import differences
from sal_fast.report.controls import is_control
from sal_fast.report.differences import BASELINE, NAMES, PAPER, Difference, Pairs, gains, interval
from sal_fast.report.runs import Run, by_dataset, by_group, by_panel, main_panel, split, without_alpha_sweep

MARGIN = 0.03
PAPER_BUDGET = 0.2
HOLDS, FAILS, NOISY = "holds", "does not hold", "too noisy"

Place = TypeVar("Place")


@dataclass(frozen=True)
class Claim:
    """A claim that was tested: what was compared, the mean difference, and the verdict."""

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
    """Test the claims on `runs`, alpha sweeps included; the results are in the paper's order.

    Runs whose maps are not people's (`--control-maps`) test no claim.
    """
    runs = [run for run in runs if run.finished and not is_control(run)]
    main = without_alpha_sweep(runs)
    found: list[Claim | Missing] = []
    for part in by_dataset(main).values():
        for test in (_first, _second, _third, _fourth):
            found += test(main_panel(part))
    found += _fifth(main)
    for part in by_dataset(runs).values():
        found += _sixth(part)
    found.sort(key=lambda entry: entry.number)
    missing = dict.fromkeys(entry for entry in found if isinstance(entry, Missing))
    return [entry for entry in found if isinstance(entry, Claim)], [*missing]


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
    for regime in ("b2", PAPER):
        yield _in_every_round(panel, regime)
        yield _compared(1, panel, regime, BASELINE, "aulc_accuracy", MARGIN)


def _in_every_round(panel: list[Run], regime: str) -> Claim | Missing:
    """The claim that Dice is above that of b1 at each labelled count that all runs have."""
    pairs = _pairs(panel, regime, BASELINE)
    if not pairs:
        return _missing(1, panel, regime, BASELINE)
    curves = [(a.curve("dice"), b.curve("dice")) for a, b in pairs]
    shared = [x for x in curves[0][0] if all(x in a and x in b for a, b in curves)]
    rounds = _intervals({x: [a[x] - b[x] for a, b in curves] for x in shared})
    if not rounds:
        return _no_dice(1, panel)
    at, least, verdicts = _smallest(rounds)
    above = sum(difference.low > 0 for difference in rounds.values())
    text = f"Dice: {regime} above {BASELINE} in every round"
    compared = f"{_names(pairs)}, smallest of {len(rounds)} rounds"
    note = f"smallest at {at} labelled; above 0 in {above} of {len(rounds)} rounds"
    return Claim(1, text, panel[0].dataset, compared, least, together(verdicts), note)


def _second(panel: list[Run]) -> Iterator[Claim | Missing]:
    yield _compared(2, panel, PAPER, "b2", margin=MARGIN, note=_spared)
    sal = _sal(panel)
    stops = [(run.last, run.rounds[i - 1]) for run in sal if (i := run.takes_over()) is not None]
    rises = [a.dice - b.dice for a, b in stops if a.dice is not None and b.dice is not None]
    if difference := interval(rises):
        counts = " or ".join(map(str, sorted({stop.labelled for _, stop in stops})))
        text = "Dice of sal still rises after people stop"
        compared = f"{sal[0].line}: last round − round at {counts} labelled"
        yield Claim(2, text, panel[0].dataset, compared, difference, verdict(difference))
    else:
        needed = "sal, two seeds or more with Dice, on after the human budget is spent"
        yield Missing(2, panel[0].dataset, needed)


def _spared(pairs: Pairs) -> str:
    human, most = (fmean(run.last.human_maps for run in side) for side in zip(*pairs, strict=True))
    if not most:
        return ""
    return f"{100 * (1 - human / most):.0f} % of the human maps spared ({human:.0f} of {most:.0f})"


def _third(panel: list[Run]) -> Iterator[Claim | Missing]:
    variants = [name for name, regime in REGIMES.items() if regime.variant_of == PAPER]
    for regime in variants:
        yield _compared(3, panel, PAPER, regime)
    against = {regime: _pairs(panel, regime, BASELINE) for regime in (PAPER, *variants)}
    found = _differences(against)
    if len(found) < len(against):
        lacking = [regime for regime in against if regime not in found]
        needed = f"{', '.join(lacking)} and {BASELINE}, two common seeds or more, with Dice"
        yield Missing(3, panel[0].dataset, needed)
    else:
        regime, least, verdicts = _smallest(found)
        text = f"Dice: all of them above {BASELINE}"
        compared = f"{_names(against[regime])}, AULC Dice, smallest of {len(found)} regimes"
        yield Claim(3, text, panel[0].dataset, compared, least, together(verdicts))


def _fourth(panel: list[Run]) -> Iterator[Claim | Missing]:
    yield _compared(4, panel, PAPER, "segmenter", least=True)
    yield _compared(4, panel, "segmenter", BASELINE)


def _fifth(runs: Sequence[Run]) -> Iterator[Claim | Missing]:
    panels = by_panel(runs)
    for other, margin, text in ((BASELINE, 0.0, "sal above b1"), ("b2", MARGIN, "sal no worse than b2")):
        tested = _differences({title: _pairs(panel, PAPER, other) for title, panel in panels.items()})
        if len(tested) < 2:
            needed = "with another criterion, probe, network or data set, two seeds or more"
            yield Missing(5, "all", f"sal and {other} {needed}")
            continue
        place, least, verdicts = _smallest(tested, margin)
        compared = f"sal − {other}, AULC Dice, smallest of {len(tested)} settings ({place})"
        count = Counter(verdicts)
        note = f"{count[HOLDS]} hold, {count[FAILS]} do not, {count[NOISY]} too noisy"
        yield Claim(5, f"Dice: {text} in every setting", "all", compared, least, together(verdicts), note)


def _sixth(runs: Sequence[Run]) -> Iterator[Claim | Missing]:
    data, tested = runs[0].dataset, False
    for line, swept in split(runs, lambda run: run.label("alpha")).items():
        alphas = split(swept, lambda run: f"{run.alpha:g}")
        low, high = min(alphas, key=float), max(alphas, key=float)
        for metric, side, a, b in (("Dice", "lower", low, high), ("accuracy", "higher", high, low)):
            pairs = differences.paired(alphas[a], alphas[b]) if low != high else []
            if found := interval(gains(pairs, metric.lower())):
                tested = True
                text, compared = f"{metric}: better at {side} alpha", f"{line}: alpha {a} − {b}, last round"
                yield Claim(6, text, data, compared, found, verdict(found))
    if not tested:
        yield Missing(6, data, "b2 with another --alpha, such as 0.1 (two finished seeds in common)")


def _compared(
    number: int,
    panel: list[Run],
    a: str,
    b: str,
    measure: str = "aulc_dice",
    margin: float = 0.0,
    least: bool = False,
    note: Callable[[Pairs], str] = lambda pairs: "",
) -> Claim | Missing:
    """The claim that a is above b, or with a margin no worse.

    With `least`, sal stands with its smallest human budget. `note` remarks on the pairs.
    """
    pairs = _pairs(panel, a, b, least)
    if not pairs:
        return _missing(number, panel, a, b)
    difference = interval(gains(pairs, measure))
    if difference is None:
        return _no_dice(number, panel)
    what, budget = NAMES[measure].removeprefix("AULC "), " at the smallest human budget" if least else ""
    text = f"{what}: {a}{budget} {'no worse than' if margin else 'above'} {b}"
    compared, reached = f"{_names(pairs)}, {NAMES[measure]}", verdict(difference, margin)
    return Claim(number, text, panel[0].dataset, compared, difference, reached, note(pairs))


def _differences(pairs: Mapping[Place, Pairs]) -> dict[Place, Difference]:
    """The differences of AULC Dice that two pairs or more have."""
    return _intervals({place: gains(some, "aulc_dice") for place, some in pairs.items()})


def _intervals(values: Mapping[Place, Sequence[float]]) -> dict[Place, Difference]:
    """The difference at each place that has two values or more."""
    return {place: found for place, some in values.items() if (found := interval(some))}


def _smallest(found: Mapping[Place, Difference], margin: float = 0.0) -> tuple[Place, Difference, list[str]]:
    """The smallest difference and where it is, and the verdicts on all."""
    place = min(found, key=lambda key: found[key].mean)
    return place, found[place], [verdict(difference, margin) for difference in found.values()]


def _sal(panel: Sequence[Run], least: bool = False) -> list[Run]:
    """The group of sal with the budget nearest to the paper's (or the least), else with one that it finds."""
    groups = [part for part in by_group(panel).values() if part[0].regime == PAPER]
    fixed = [part for part in groups if part[0].budget is not None]
    wanted = differences.least_budget(panel) if least else PAPER_BUDGET

    def far(part: list[Run]) -> float:
        return abs((part[0].budget or 0.0) - (wanted or 0.0))

    return min(fixed, key=far) if fixed else (groups[0] if groups else [])


def _pairs(panel: Sequence[Run], a: str, b: str, least: bool = False) -> Pairs:
    """Pairs of the first groups of a and b that differ in nothing else; [] for fewer than two seeds."""
    kept = [*_sal(panel, least), *(run for run in panel if run.regime != PAPER)]
    return next((pairs for pairs in differences.couples(kept, a, b) if len(pairs) > 1), [])


def _names(pairs: Pairs) -> str:
    return f"{pairs[0][0].line} − {pairs[0][1].line}"


def _missing(number: int, panel: Sequence[Run], a: str, b: str) -> Missing:
    there = {run.regime for run in panel}
    lacking = [regime for regime in (a, b) if regime not in there]
    what = " and ".join(lacking) if lacking else f"more seeds of {a} and {b}"
    return Missing(number, panel[0].dataset, f"{what} (two finished seeds in common, the same settings)")


def _no_dice(number: int, panel: Sequence[Run]) -> Missing:
    return Missing(number, panel[0].dataset, "test images with human masks: there is no Dice")
