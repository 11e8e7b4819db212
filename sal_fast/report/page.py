"""The page: everything inline, every name escaped."""

import base64
import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(**parts: Any) -> str:
    environment = Environment(
        loader=PackageLoader("sal_fast.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        number=number,
        signed=signed,
        spread=spread,
        gain=gain,
        duration=duration,
        setting=setting,
        uri=uri,
        groupby_order=groupby_order,
    )
    return environment.get_template("page.html").render(**parts)


def groupby_order(
    rows: list[dict[str, Any]], *keys: str
) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Rows of one key together, in the order of their first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def gain(row: dict[str, Any], name: str) -> str:
    """mean ± sigma with the mean's sign."""
    mean, sigma = row[f"{name}_mean"], row[f"{name}_std"]
    return signed(mean) + ("" if sigma is None else f" ± {sigma:.3f}")


def spread(row: dict[str, Any], name: str, digits: int = 3) -> str:
    """mean ± sigma of a summary row; no sigma for one run."""
    mean, sigma = row[f"{name}_mean"], row[f"{name}_std"]
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if sigma is None else f" ± {sigma:.{digits}f}")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
