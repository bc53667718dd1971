"""The decisions that a command was given, checked against today's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..decisions.decisions import Decisions
from ..decisions.entry import Entry
from ..support.counted import counted
from ..support.remote import Url
from .load_runs import warn
from .todays_data import TodaysData


def check_decisions(decisions: Decisions, today: TodaysData, command: str) -> dict[int, int]:
    """Position -> corrected class of the examples that are wrong and have their right label.

    Warns of decisions on ids that the data lacks.

    Raises:
        ValueError: see `Decisions.corrections`; or decisions by position alone, and the positions are others now.
    """
    check = decisions.check(today.source)
    if check.by_index and today.changed:
        raise ValueError(
            f"{check.by_index} of {counted(check.decisions, 'decision')} name an example by its index alone, but the "
            "data changed since the runs, and the indices with it: name them by id"
        )
    corrections = decisions.corrections(today.source, today.class_names)  # first: where all ids are missing, it raises
    if check.missing:
        warn(command, str(check))
    return corrections


def entries_of(decisions: Decisions, today: TodaysData) -> list[tuple[int, Entry]]:
    """The decisions on examples of the data, each with the position of its example."""
    positions = decisions.check(today.source).position.tolist()
    return [(place, entry) for place, entry in zip(positions, decisions, strict=True) if place >= 0]


def facts_of_decisions(decisions: Decisions, today: TodaysData) -> dict[str, int]:
    """How many there are, and what they do to the examples of the data, for JSON."""
    of_data = entries_of(decisions, today)
    each = dict(of_data)  # two decisions may be of the same example, by id and by index
    stay = [entry for entry in each.values() if not entry.leaves]
    return {
        "number": len(decisions),
        "left": len(each) - len(stay),
        "relabelled": sum(entry.decision == "wrong" for entry in stay),
        "weighted": sum(entry.weight != 1 for entry in stay),
        "missing": len(decisions) - len(of_data),
    }


def decisions_in_words(facts: dict[str, Any], path: Path | Url) -> str:
    """A part of a sentence."""
    done = {"left": "left out", "relabelled": "relabelled", "weighted": "weighted", "missing": "not in the data"}
    said = [f"{facts[name]:,} {words}" for name, words in done.items() if facts[name]]
    return f"by the {counted(facts['number'], 'decision')} in {path}: {', '.join(said) if said else 'nothing changes'}"
