"""The page: everything is in it, and every name is escaped."""

from __future__ import annotations

import base64
import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sal_fast._util import progress


def render(**parts: Any) -> str:
    """The HTML of the page; `parts` are the names that page.html reads."""
    environment = Environment(
        loader=PackageLoader("sal_fast.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    for filter_ in (number, signed, spread, gain, duration, setting, uri):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template("page.html").render(**parts)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def gain(row: dict[str, Any], name: str) -> str:
    """mean ± sigma, with the mean's sign."""
    return signed(row[f"{name}_mean"]) + _sigma(row, name, 3)


def spread(row: dict[str, Any], name: str, digits: int = 3) -> str:
    """mean ± sigma of a summary row; a single run has no sigma."""
    mean = row[f"{name}_mean"]
    return "–" if mean is None else f"{mean:.{digits}f}" + _sigma(row, name, digits)


def _sigma(row: dict[str, Any], name: str, digits: int) -> str:
    sigma = row[f"{name}_std"]
    return "" if sigma is None else f" ± {sigma:.{digits}f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else progress.duration(seconds)


def setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
