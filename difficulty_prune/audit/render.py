"""The audit page as HTML: a template whose data cannot break out of it, and a policy that shuts the net out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HERE: Final = Path(__file__).parent / "page"
SCRIPTS: Final = ("remaining.js", "table.js", "decisions.js", "views.js", "page.js")


def render(title: str, data: Mapping[str, Any], contents: Any, beside: bool) -> str:
    """One HTML file.

    Args:
        title: of the page.
        data: what the scripts read, as JSON can hold it.
        contents: of the cards, read by the scripts when the rest stands.
        beside: whether images come from files beside the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        title=title,
        policy=policy(scripts, style, beside),
        style=style,
        scripts=scripts,
        data=script_json(data),
        contents=script_json(contents),
    )


def policy(scripts: list[str], style: str, beside: bool) -> str:
    """The Content-Security-Policy: these scripts and this style by their hashes, images of the page, nothing else."""
    images = "data: 'self' file:" if beside else "data:"
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(_hash(script) for script in scripts)}",
            f"style-src {_hash(style)}",
            f"img-src {images}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def script_json(value: Any) -> str:
    """JSON that stays inside a script element, whatever texts it holds.

    >>> print(script_json("</script><!--"))
    "\\u003c/script\\u003e\\u003c!--"
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(values: NDArray[Any]) -> str:
    """Numbers as base64 of little-endian int32, uint8, float32 or float64, which the page reads at once."""
    array = np.ascontiguousarray(values)
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).decode()
