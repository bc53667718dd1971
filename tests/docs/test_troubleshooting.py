"""Every message that the page quotes can still come: some text of the package has all its parts, in order."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from pages import read
from places import ROOT

import difficulty_prune as dp

SOURCES = [*Path(dp.__file__).parent.rglob("*.py"), ROOT / "setup.py"]
MESSAGES = re.findall(r"^> `(.+)`$", read("troubleshooting.md"), flags=re.MULTILINE)
UNKNOWN = "\0"
"""What stands in a text for a value that is put in."""
ENOUGH = 15
LONGEST = 1500  # no message; a docstring may be


def text_of(node: ast.AST) -> str:
    """What is known of a text in the source."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else UNKNOWN for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return UNKNOWN


@cache
def texts() -> tuple[str, ...]:
    """Those of the package and its setup."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())))
    found = {text_of(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)}
    return tuple(text for text in found if len(text) < LONGEST)


def known_parts(message: str) -> list[str]:
    """What stands between the dots, which are for what is different each time."""
    return re.split(r"\.{3,}", message)


def can_be_equal(one: str, other: str) -> bool:
    """Whether there is a text that is both, each with anything in place of what is unknown."""
    ends = [all(letter == UNKNOWN for letter in other[j:]) for j in range(len(other) + 1)]
    for letter in reversed(one):
        row = [letter == UNKNOWN and ends[-1]]
        for j in range(len(other) - 1, -1, -1):
            if UNKNOWN in (letter, other[j]):
                row.append(ends[j] or row[-1])
            else:
                row.append(letter == other[j] and ends[j + 1])
        ends = row[::-1]
    return ends[0]


def occurs(message: str) -> bool:
    """Whether a text of the source can be this message; they share at least so many letters in a row."""
    longest = max(known_parts(message), key=len)
    assert len(longest) >= ENOUGH, "too little is quoted to be found"
    anchors = {longest[i : i + ENOUGH] for i in range(len(longest) - ENOUGH + 1)}
    quoted = UNKNOWN.join(known_parts(message))
    return any(can_be_equal(text, quoted) for text in texts() if any(anchor in text for anchor in anchors))


def test_the_page_has_messages_and_each_once() -> None:
    assert len(MESSAGES) > 40
    assert len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_package(message: str) -> None:
    assert occurs(message)


def test_a_message_that_nobody_gives_is_noticed() -> None:
    assert not occurs("index: got ..., expected a banana; convert with .long() if the values are whole")
