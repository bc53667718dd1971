"""The pages of the documentation, and the code on them."""

from __future__ import annotations

import re

from places import ROOT

DOCS = ROOT / "docs"


def read(page: str) -> str:
    """The text of a page of docs, such as "start.md"."""
    return (DOCS / page).read_text()


def fenced(text: str) -> list[tuple[str, str]]:
    """The language and the content of each fenced block, in order."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str = "python", within: str | None = None) -> list[str]:
    """The blocks of code of that language on a page, or within a text of it, in order."""
    return [content for found, content in fenced(read(page) if within is None else within) if found == language]


def sections(page: str) -> dict[str, str]:
    """What stands below each heading of the second level, by heading."""
    parts = re.split(r"^## (.*)\n", read(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def code_and_output(page: str) -> list[tuple[str, str | None]]:
    """Each block of Python, with the block of text that comes next, which is what it prints; None where none does."""
    known = fenced(read(page))
    after = [*known[1:], ("", "")]
    return [
        (content, output if of_output == "text" else None)
        for (language, content), (of_output, output) in zip(known, after, strict=True)
        if language == "python"
    ]
