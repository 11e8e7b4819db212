"""The entry `people` of a line of rounds.jsonl: counts, times, what was saved, and agreement."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sal_fast.people.agreement import agreement
from sal_fast.people.answers import Answers, tally
from sal_fast.people.saved import by_correcting, by_handing_over


def entry(answers: Sequence[Answers], first: int | None = None) -> dict[str, Any]:
    """The tally of several queries (`answers.tally`), with `saved`, `corrected` and `agreement`.

    These three are there only if the answers tell them: see `saved` and `agreement`.

    Args:
        answers: those of each query, in order.
        first: the first query that asked for no maps; None if all of them asked.
    """
    more = {
        "saved": by_handing_over(answers, first),
        "corrected": by_correcting(answers),
        "agreement": agreement(answers),
    }
    return tally(answers) | {name: asdict(one) for name, one in more.items() if one is not None}
