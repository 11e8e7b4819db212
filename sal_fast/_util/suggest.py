"""Find the nearest known name, for messages about an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most similar to `word`; None if no similarity reaches `cutoff` (0 to 1)."""
    close = get_close_matches(str(word), list(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def suggest(word: object, known: Iterable[str]) -> str:
    """The end of a message, such as `; did you mean 'margin'? (expected one of random, margin)`."""
    known = list(known)
    close = nearest(word, known)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"{hint} (expected one of {', '.join(known)})"
