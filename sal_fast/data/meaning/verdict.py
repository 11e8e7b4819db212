"""The verdict on all mask files of a set: what is refused, and what people should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sal_fast.data.meaning.rule import Rule
from sal_fast.data.meaning.seen import Seen

DARK = 64  # of 255: a set of pictures whose brightest pixel is darker was scaled wrongly
INVERTED = 0.5  # the share of foreground along the border, and in the picture, of a mask that looks inverted
SHOWN = 12  # values that a message names

Named = tuple[str, Seen]  # a mask file's path, or its sample's id, and what was seen in it


@dataclass(frozen=True)
class Verdict:
    """problems: what a run refuses, and what to do. notes: what it takes, and what people should know."""

    problems: list[str]
    notes: list[str]


def judge(files: Iterable[Named], rule: Rule) -> Verdict:
    """Look at all mask files of a set together."""
    found = list(files)
    if not found:
        return Verdict([], [])
    problems = [*([] if rule.own is not None else _labels(found, rule)), *_instances(found)]
    notes = [*_summary(found), *_full(found), *_inverted(found), *_marked(found), *_deep(found, rule)]
    return Verdict(problems, notes)


def useless(files: Iterable[Named]) -> list[str]:
    """Say that no mask of a set is of use, if that is so. Runs refuse it where their regime needs maps."""
    kinds = Counter(seen.kind for _, seen in files)
    if not kinds or kinds.keys() & {"binary", "graded"}:
        return []
    return [
        f"no mask says anything: {_tally(kinds)}; a run needs masks with foreground and background (only "
        f"the regime b1 does without)"
    ]


def of_deep_images(brightest: Sequence[int], rule: Rule) -> list[str]:
    """Say how images of more than 8 bits were scaled, given the brightest channel of each, 0 to 255."""
    if not brightest:
        return []
    white = "65535 (1 for fractions)" if rule.white is None else f"{rule.white:g}"
    said = f"{len(brightest)} images of more than 8 bits a channel: {white} is white"
    if max(brightest) < DARK:
        said += (
            f"; they come out dark, as no pixel of any is above {max(brightest)} of 255: for 12 bits say "
            f"--white 4095"
        )
    return [said]


def _labels(found: Sequence[Named], rule: Rule) -> list[str]:
    """Refuse label maps that would be taken for degrees of grey."""
    few = [(name, seen) for name, seen in found if seen.kind == "graded" and seen.values]
    if not few or rule.grades or rule.foreground:
        return []
    values = sorted({value for _, seen in few for value in seen.values})
    palette = " (indices of a palette)" if any("palette" in seen.marks for _, seen in few) else ""
    void = next((value for value in values if value == 255), None)
    classes = [value for value in values if value not in (0, void)]
    advice = f"--foreground {classes[0]:g}" + (" --ignore 255" if void else "")
    return [
        f"{len(few)} of {len(found)} masks have few values, {_listed(values)}{palette}, for example "
        f"{few[0][0]}: they look like labels of classes or regions, not like degrees; say which values are "
        f"foreground, as in {advice}, or --foreground grades if they are degrees of grey"
    ]


def _instances(found: Sequence[Named]) -> list[str]:
    """Refuse masks of several objects that would be averaged, as those of several annotators are."""
    apart = [name for name, seen in found if "apart" in seen.marks]
    overlapping = sum("overlapping" in seen.marks for _, seen in found)
    if len(apart) <= overlapping:
        return []
    return [
        f"{_masks(apart)}: several in one folder, which never overlap, so that they look like one object "
        f"each; a folder holds several annotators' masks, which are averaged. Name them <image>_0, <image>_1 "
        f"beside each other, and they are united"
    ]


def _summary(found: Sequence[Named]) -> list[str]:
    kinds = Counter(seen.kind for _, seen in found)
    useful = sorted(seen.coverage for _, seen in found if seen.useful)
    said = f"masks: {_tally(kinds)}"
    if useful:
        said += f"; their foreground covers {useful[len(useful) // 2]:.0%} of the picture (median)"
    ones = sorted({seen.values[-1] for _, seen in found if seen.kind == "binary" and seen.values})
    if len(ones) > 1 and ones != [1, 255]:
        said += f"; every value but 0 is foreground ({_listed(ones)})"
    if ignored := [seen.ignored for _, seen in found if seen.ignored]:
        share = sum(ignored) / len(found)
        said += f"; {share:.1%} of the pixels are ignored, in {len(ignored)} masks"
    return [said]


def _full(found: Sequence[Named]) -> list[str]:
    names = [name for name, seen in found if seen.kind == "full"]
    if not names:
        return []
    return [
        f"{_masks(names)}: one grey everywhere, which says nothing of any place; it counts as an empty map, "
        f"unless another of the same image says more"
    ]


def _inverted(found: Sequence[Named]) -> list[str]:
    useful = [(name, seen) for name, seen in found if seen.useful]
    names = [name for name, seen in useful if min(seen.border, seen.coverage) > INVERTED]
    if not names:
        return []
    advice = "look at them with --preview: they may be inverted"
    if 2 * len(names) > len(useful):
        advice = "they look inverted, and training would learn the background; take --foreground 0"
    return [f"{_masks(names)}: most of the border is foreground; {advice}"]


def _marked(found: Sequence[Named]) -> list[str]:
    said = {
        "turned": "drawn on the stored pixels of a photograph that its EXIF turns; turned as that is",
        "undecidable": "their photographs are turned by EXIF, and nobody can tell whether they were drawn on "
        "the turned pixels; they are taken to be; look at them with --preview",
        "alpha": "one colour, and transparent in parts; the transparency is the map",
    }
    lines = []
    for mark, why in said.items():
        names = [name for name, seen in found if mark in seen.marks]
        if names:
            lines.append(f"{_masks(names)}: {why}")
    return lines


def _deep(found: Sequence[Named], rule: Rule) -> list[str]:
    lines = []
    for depth in sorted({seen.depth for _, seen in found} - {"8 bits"}):
        peaks = [(seen.peak, name) for name, seen in found if seen.depth == depth and seen.kind == "graded"]
        if peaks:
            peak, name = max(peaks)
            usual = {"16 bits": 65535.0, "fractions": 1.0}.get(depth)
            white = usual if rule.white is None else rule.white
            lines.append(
                f"{len(peaks)} masks of {depth}: {white:g} is white, the largest is {peak:g} ({name})"
            )
    return lines


def _masks(names: Sequence[str]) -> str:
    return f"{len(names)} mask{'s' * (len(names) != 1)}, for example {names[0]}"


def _tally(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")
