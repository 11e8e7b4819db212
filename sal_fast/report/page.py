"""The page: everything is in it, and every name is escaped."""

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
    for filter_ in (number, spread, duration, setting, uri):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template("page.html").render(**parts)


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A number with so many digits; a plus as the sign is written, too."""
    return "–" if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")


def spread(row: dict[str, Any], name: str, digits: int = 3, sign: str = "") -> str:
    """mean ± sigma of a row; a single run has no sigma."""
    mean, sigma = row[f"{name}_mean"], row[f"{name}_std"]
    return number(mean, digits, sign) + ("" if sigma is None else f" ± {sigma:.{digits}f}")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else progress.duration(seconds)


def setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
