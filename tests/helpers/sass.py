"""Instructions of a kernel's innermost work, from what cuobjdump disassembles."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

EXPONENTIAL = "MUFU.EX2"


def functions(
    cuobjdump: str, library: Path, architecture: str, names: Sequence[str]
) -> dict[str, list[tuple[int, str]]]:
    """Instructions with their addresses, by mangled name."""
    command = [cuobjdump, "-sass", "-arch", architecture, "-fun", ",".join(names), library]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for part in printed.split("Function : ")[1:]:
        lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]+);", part)
        found[part.split()[0]] = [(int(address, 16), text.strip()) for address, text in lines]
    return found


def _target(text: str) -> int | None:
    found = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
    return int(found[1], 16) if found else None


def instructions_per_exponential(code: Sequence[tuple[int, str]]) -> float:
    """Of the loop that has most exponentials: the fewest instructions on a way through it that meets all of them."""
    place = {address: i for i, (address, _) in enumerate(code)}
    best = (0, 0)  # exponentials, and less instructions
    for end, (_, text) in enumerate(code):
        start = place.get(_target(text) or -1, len(code))
        if start < end:
            best = max(best, _way_through(code, place, start, end))
    exponentials, instructions = best
    return -instructions / exponentials if exponentials else 0.0


def _way_through(code: Sequence[tuple[int, str]], place: dict[int, int], start: int, end: int) -> tuple[int, int]:
    ways = {start: (EXPONENTIAL in code[start][1], -1)}
    for i in range(start, end):
        if i not in ways:
            continue
        text, target = code[i][1], _target(code[i][1])
        always = target is not None and not text.startswith("@") and not re.search(r"BRA\S* !?U?P\d", text)
        following = [] if always or re.match(r"(EXIT|RET)\b", text) else [i + 1]
        if target is not None:
            following.append(place.get(target, len(code)))
        for n in following:
            if i < n <= end:
                way = (ways[i][0] + (EXPONENTIAL in code[n][1]), ways[i][1] - 1)
                ways[n] = max(way, ways.get(n, (0, -len(code))))
    return ways.get(end, (0, 0))
