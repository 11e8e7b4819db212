"""The verdict on all mask files of a set: what is refused, and what people should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from sal_fast.data.meaning.rule import Rule
from sal_fast.data.meaning.seen import Seen

DARK = 64  # of 255: a set of pictures whose brightest pixel is darker was scaled wrongly
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
    notes = [
        *_summary(found, rule), *_silent(found, rule), *_inverted(found, rule), *_marked(found),
        *_deep(found, rule),
    ]  # fmt: skip
    return Verdict(problems, notes)


def useless(files: Iterable[Named]) -> list[str]:
    """Say that no mask of a set is of use, if that is so. Runs refuse it where their regime needs maps."""
    found = list(files)
    kinds = Counter(seen.kind for _, seen in found)
    if not kinds or kinds.keys() & {"binary", "graded"}:
        return []
    return [
        f"no mask says anything: {_tally(kinds)} (full: one grey everywhere, empty: nothing but 0), for "
        f"example {found[0][0]}; a run needs masks with foreground and background (only the regime b1 does "
        f"without)"
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
    few = [(name, seen) for name, seen in found if seen.looks_labelled]
    if not few or rule.grades or rule.foreground:
        return []
    others = [seen.values[-1] for _, seen in found if seen.kind == "binary" and seen.values]
    values = sorted({value for _, seen in few for value in seen.values})
    palette = " (indices of a palette)" if any("palette" in seen.marks for _, seen in few) else ""
    void = next((value for value in values if value == 255), None)
    classes = [value for value in values if value not in (0, void)]
    said = (
        f"{len(few)} of {len(found)} masks have few values, {_listed(values)}{palette}, for example "
        f"{few[0][0]}: they look like labels of classes or regions, not like degrees; "
    )
    if void and 2 * others.count(void) > len(found):
        advice = "255 is foreground in most masks: save these as those are, with 0 and 255"
    else:
        wanted = ",".join(f"{value:g}" for value in sorted({classes[0], *others} - {void}))
        neither = void or (classes[-1] if len(classes) > 1 else None)
        advice = f"say which values are foreground, as in --foreground {wanted}"
        advice += f", and perhaps which are neither, as in --ignore {neither:g}" if neither else ""
    return [f"{said}{advice}, or say --foreground grades if they are degrees of grey"]


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


def _summary(found: Sequence[Named], rule: Rule) -> list[str]:
    """Values, coverage and polarity of the set in one sentence."""
    labels = [seen.looks_labelled and not rule.grades for _, seen in found]
    kinds = Counter(
        "of few values" if one else seen.kind for one, (_, seen) in zip(labels, found, strict=True)
    )
    said = f"masks: {_tally(kinds)}"
    ones = sorted({seen.values[-1] for _, seen in found if seen.kind == "binary" and seen.values})
    if ones:
        said += f"; every value but 0 is foreground ({_listed(ones)})"
    useful = [seen for one, (_, seen) in zip(labels, found, strict=True) if seen.useful and not one]
    if useful:
        covered = median(seen.coverage for seen in useful)
        border = median(seen.border for seen in useful)
        said += f"; foreground covers {covered:.0%} of the picture and {border:.0%} of its border (medians)"
    if ignored := [(name, seen.ignored) for name, seen in found if seen.ignored]:
        share = sum(one for _, one in ignored) / len(found)
        said += f"; {share:.1%} of the pixels are ignored, in {_masks([name for name, _ in ignored])}"
    return [said]


def _silent(found: Sequence[Named], rule: Rule) -> list[str]:
    """Say which masks have no foreground, or nothing else."""
    full = [name for name, seen in found if seen.kind == "full"]
    empty = [name for name, seen in found if seen.kind == "empty"]
    lines = []
    if full:
        lines.append(
            f"{_masks(full)}: one grey everywhere, which says nothing of any place; it counts as an empty "
            f"map, unless another of the same image says more"
        )
    if empty:
        asked = "--foreground" if rule.foreground else "--foreground-colour" if rule.colours else ""
        why = f"no pixel is of {asked}" if asked else "nothing is foreground"
        lines.append(f"{_masks(empty)}: empty, because {why}; nothing is learned from it of where to look")
    return lines


def _inverted(found: Sequence[Named], rule: Rule) -> list[str]:
    names = [name for name, seen in found if seen.looks_inverted]
    if not names:
        return []
    advice = "they may be inverted: look at them with --preview PAGE.html"
    if rule.own is None and 2 * len(names) > sum(seen.useful for _, seen in found):
        advice = (
            "they look inverted, and training would learn the background; if the black pixels are the "
            "object, say --foreground 0"
        )
    elif rule.own is None:
        advice += ", and save those that are again, white on black"
    return [f"{_masks(names)}: most of the border is foreground; {advice}"]


def _marked(found: Sequence[Named]) -> list[str]:
    said = {
        "turned": "drawn on the stored pixels of a photograph that its EXIF turns; turned as that is",
        "undecidable": "their photographs are turned by EXIF, and nobody can tell whether they were drawn on "
        "the turned pixels; they are taken to be; look at them with --preview",
        "many": "they have many values or are JPEGs, and --foreground takes their values for labels",
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
            (least, first), (peak, name) = min(peaks), max(peaks)
            usual = {"16 bits": 65535.0, "fractions": 1.0}.get(depth)
            white = usual if rule.white is None else rule.white
            others = f"; in {first} the largest is {least:g}" if least < peak / 2 else ""
            lines.append(
                f"{len(peaks)} masks of {depth}: {white:g} is white, the largest is {peak:g} ({name}){others}"
            )
    return lines


def _masks(names: Sequence[str]) -> str:
    return f"{len(names)} mask{'s' * (len(names) != 1)}, for example {names[0]}"


def _tally(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")
