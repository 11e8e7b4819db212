"""The form of a result of `sal-fast bench`. A document that does not have it is not written."""

from __future__ import annotations

from typing import Any

NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
VERSION = 2
HEAD: dict[str, Any] = {
    "schema": int,
    "bench": str,  # data, ops, step, score, select or run
    "version": str,
    "device": str,  # "cpu", or what the driver calls the GPU
    "machine": str,
    "torch": str,
    "threads": int,
    "load": list,  # 1-minute load average before and after
    "rounds": int,
    "options": dict,  # sizes and names the command was given
    "unit": str,  # what `per_second` counts
    "results": list,
    "ratios": list,
    "figures": dict,  # other numbers by name
}
RESULT: dict[str, Any] = {
    "variant": str,
    "items": NUMBER,  # how many of `unit` a call does
    "ms": NUMBER,  # of a call: the median of the rounds
    "ms_p10": NUMBER,
    "ms_p90": NUMBER,
    "per_second": NUMBER,  # items / the median
}
RATIO: dict[str, Any] = {
    "name": str,  # "a / b": the time of a over the time of b
    "value": NUMBER,  # the median of the rounds' ratios: a and b of one round met the same load
    "p10": NUMBER,
    "p90": NUMBER,
    "at_most": OPTIONAL,  # what is asked of it, if anything is
    "at_least": OPTIONAL,
}


def check_fields(record: dict[str, Any], form: dict[str, Any], where: str) -> None:
    if record.keys() != form.keys():
        raise ValueError(f"{where}: expected the fields {sorted(form)}, got {sorted(record)}")
    for field, types in form.items():
        if not isinstance(record[field], types):
            raise ValueError(f"{where}: {field} must be {types}, got {record[field]!r}")


def check(document: dict[str, Any]) -> None:
    """Raises ValueError unless the document has the form above."""
    check_fields(document, HEAD, "document")
    if document["schema"] != VERSION:
        raise ValueError(f"document: schema must be {VERSION}, got {document['schema']}")
    for name, form in (("results", RESULT), ("ratios", RATIO)):
        for i, record in enumerate(document[name]):
            check_fields(record, form, f"{name}[{i}]")
    for name, value in document["figures"].items():
        if not isinstance(value, NUMBER):
            raise ValueError(f"figures: {name} must be a number, got {value!r}")


def held(ratio: dict[str, Any]) -> bool | None:
    """Whether a ratio is what is asked; None where nothing is."""
    if ratio["at_most"] is not None:
        return bool(ratio["value"] <= ratio["at_most"])
    return None if ratio["at_least"] is None else bool(ratio["value"] >= ratio["at_least"])


def asked(ratio: dict[str, Any]) -> str:
    """`at most 1.15`, or nothing."""
    for word in ("at_most", "at_least"):
        if ratio[word] is not None:
            return f"{word.replace('_', ' ')} {ratio[word]:g}"
    return ""
