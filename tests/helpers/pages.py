"""The pages of the documentation, and the code on them."""

from __future__ import annotations

import re

from places import ROOT

DOCS = ROOT / "docs"


def read(page: str) -> str:
    """The text of a page of docs, such as "start.md"."""
    return (DOCS / page).read_text()


def blocks(page: str, language: str = "python") -> list[str]:
    """The blocks of code of that language on a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), flags=re.DOTALL | re.MULTILINE)


def sections(page: str) -> dict[str, str]:
    """What stands below each heading of the second level, by heading."""
    parts = re.split(r"^## (.*)\n", read(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
