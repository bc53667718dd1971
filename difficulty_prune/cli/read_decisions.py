"""The decisions that a command was given, checked against today's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..decisions.decisions import Decisions
from ..policies.plan import Plan
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
            f"{check.by_index} of {check.decisions} decisions name their example by its index alone, but the data "
            "changed since the runs, and the indices with it: name them by id"
        )
    corrections = decisions.corrections(today.source, today.class_names)  # first: where all ids are missing, it raises
    if check.missing:
        warn(command, str(check))
    return corrections


def facts_of_decisions(decisions: Decisions, plan: Plan) -> dict[str, int]:
    """How many there are, and what they do to the examples of the data, for JSON; `plan` is what they leave."""
    return {"number": len(decisions), **plan.summary()["decisions"]}


def decisions_in_words(facts: dict[str, Any], path: Path) -> str:
    """A part of a sentence."""
    done = {"left": "left out", "relabelled": "relabelled", "weighted": "weighted", "missing": "not in the data"}
    said = [f"{facts[name]:,} {words}" for name, words in done.items() if facts[name]]
    return f"by the {facts['number']:,} decisions in {path}: {', '.join(said) if said else 'nothing changes'}"
