"""The agreement of several people on the same images: Cohen's kappa of classes, and Dice of maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from sal_fast._util.stats import kappa
from sal_fast.errors import InputError
from sal_fast.people.answers import Answers, Kept, png_mask
from sal_fast.people.question import one_person

BEGUN_BY_A_MODEL = ("corrected", "accepted")  # kinds of maps that resemble each other for that reason


@dataclass(frozen=True)
class Pair:
    """The agreement of two people on the images that both answered.

    images: to how many both gave a class. same: the share of them with the same class. kappa: of their
    classes; None if it is undefined. map_images: for how many both drew a map. dice: the mean over these.
    """

    one: str
    other: str
    images: int
    same: float | None
    kappa: float | None
    map_images: int
    dice: float | None


@dataclass(frozen=True)
class Agreement:
    """The agreement of several people on the images that two or more of them answered.

    people: how many of them have an image in common with someone. images: how many images have a class by two
    or more. same: the share of equal classes over all pairs of answers. kappa: the mean over the pairs of
    people that have one, weighted by their common images; with two people it is Cohen's kappa. no_kappa: the
    reason if there is none.

    dice: the mean over images of the mean Dice between each two maps. map_images: how many images have two
    maps or more. empty_images: on how many of them all maps are empty, which counts as a Dice of 1.
    own_dice, own_images: the same without pairs of maps that both began as a model's, since these are alike
    whatever people think. pairs: a row for each pair of people.
    """

    people: int
    images: int
    same: float | None
    kappa: float | None
    no_kappa: str
    dice: float | None
    map_images: int
    empty_images: int
    own_dice: float | None
    own_images: int
    pairs: list[Pair]


@dataclass(frozen=True)
class _Overlap:
    """The Dice of two people's maps of one image. own: False if both maps began as a model's."""

    image: tuple[int, str]
    people: tuple[str, str]
    dice: float
    empty: bool
    own: bool


def agreement(answers: Sequence[Answers]) -> Agreement | None:
    """The agreement of the people who answered several queries; None if no two have an image in common.

    Images that a person skipped do not count for them. Answers that settle a tie are left out, because
    whoever gave them knew what the others had said. Raises InputError if a map cannot be read.
    """
    names: dict[str, str] = {}
    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    overlaps: list[_Overlap] = []
    images = 0
    for number, query in enumerate(answers):
        for name, by_person in _by_image(query, names).items():
            labels = {person: one.label for person, one in by_person.items() if one.label is not None}
            images += len(labels) > 1
            for one, other in combinations(labels, 2):
                said.setdefault((one, other), []).append((labels[one], labels[other]))
            overlaps += _overlaps(query, (number, name), by_person)
    drawn: dict[tuple[str, str], list[float]] = {}
    for overlap in overlaps:
        drawn.setdefault(overlap.people, []).append(overlap.dice)
    couples = [couple for couple in combinations(names, 2) if couple in said or couple in drawn]
    if not couples:
        return None
    pairs = [
        _pair((names[one], names[other]), said.get((one, other), []), drawn.get((one, other), []))
        for one, other in couples
    ]
    own = [overlap for overlap in overlaps if overlap.own]
    mean = _weighted((pair.kappa, pair.images) for pair in pairs)
    return Agreement(
        people=len({person for couple in couples for person in couple}),
        images=images,
        same=_weighted((pair.same, pair.images) for pair in pairs),
        kappa=mean,
        no_kappa="" if mean is not None else _reason(images),
        dice=_mean_dice(overlaps),
        map_images=len({overlap.image for overlap in overlaps}),
        empty_images=_empty(overlaps),
        own_dice=_mean_dice(own),
        own_images=len({overlap.image for overlap in own}),
        pairs=pairs,
    )


def _by_image(query: Answers, names: dict[str, str]) -> dict[str, dict[str, Kept]]:
    """The answers to each image by person, in the order of `names`. New people are added there."""
    kept = [one for one in query.own if not one.skipped]
    for one in kept:
        names.setdefault(one_person(one.annotator), one.annotator)
    order = {person: place for place, person in enumerate(names)}
    found: dict[str, dict[str, Kept]] = {}
    for one in sorted(kept, key=lambda one: order[one_person(one.annotator)]):
        found.setdefault(one.id, {})[one_person(one.annotator)] = one
    return found


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """The Dice of two maps, uint8 [H, W] each: 2 |A and B| / (|A| + |B|) of the pixels above 127.

    It is 1 if both are empty: both people say that nothing in the picture shows the class.
    """
    a, b = one > 127, other > 127
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def _overlaps(query: Answers, image: tuple[int, str], by_person: dict[str, Kept]) -> list[_Overlap]:
    """The Dice of each two maps of an image. Raises InputError if a map cannot be read or compared."""
    with_map = {person: one for person, one in by_person.items() if one.mask is not None}
    if len(with_map) < 2:
        return []
    maps = {}
    for person, one in with_map.items():
        path = query.folder / str(one.mask)
        try:
            maps[person] = png_mask(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error}); restore it") from None
        first = next(iter(maps.values()))
        if maps[person].shape != first.shape:
            raise InputError(f"{path}: its size differs from that of another map of {image[1]!r}; restore it")
    return [
        _Overlap(
            image,
            (one, other),
            dice(maps[one], maps[other]),
            not (maps[one] > 127).any() and not (maps[other] > 127).any(),
            not {with_map[one].kind, with_map[other].kind} <= {*BEGUN_BY_A_MODEL},
        )
        for one, other in combinations(maps, 2)
    ]


def _pair(names: tuple[str, str], said: Sequence[tuple[str, str]], found: Sequence[float]) -> Pair:
    return Pair(
        *names,
        images=len(said),
        same=fmean(a == b for a, b in said) if said else None,
        kappa=kappa([a for a, _ in said], [b for _, b in said]),
        map_images=len(found),
        dice=fmean(found) if found else None,
    )


def _mean_dice(overlaps: Iterable[_Overlap]) -> float | None:
    """The mean over images of the mean over their pairs of maps."""
    by_image: dict[tuple[int, str], list[float]] = {}
    for overlap in overlaps:
        by_image.setdefault(overlap.image, []).append(overlap.dice)
    return fmean(map(fmean, by_image.values())) if by_image else None


def _empty(overlaps: Sequence[_Overlap]) -> int:
    """The number of images all of whose maps are empty."""
    return len({one.image for one in overlaps} - {one.image for one in overlaps if not one.empty})


def _weighted(values: Iterable[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _reason(images: int) -> str:
    if not images:
        return "no two people gave a class to the same image"
    return "each two people gave one single class to all images that they have in common"
