"""Runs over several versions of a dataset, put over the examples of all of them by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..decisions.decisions import Decisions
from ..support.counted import counted
from ..support.ids import as_objects
from ..support.name_some import name_some
from .run import Run

_NAMED: Final = 3  # in a message
_OF_ALL: Final = ("predictions", "probabilities")  # which a run has for each example, or for none


def join_by_id(runs: Sequence[Run], decisions: Decisions | None = None) -> tuple[list[Run], str | None]:
    """The runs over all ids that any of them has, in order of appearance, and what to warn of.

    In the examples that its data lacked a run is as if these were never presented: NaN. So it is where the label of an
    example was another than in the last run that knows one, or than decided. The result is in memory.

    Raises:
        ValueError: a run without ids; ids that are texts in one run and numbers in another; other class names; or a
            run all of whose labels are others.

    >>> facts = {"architecture": "mlp", "seed": 0}
    >>> old, new = Run({"aum": [1.0, 2.0]}, ids=[7, 8], **facts), Run({"aum": [4.0, 3.0]}, ids=[9, 8], **facts)
    >>> [run.scores["aum"].tolist() for run in join_by_id([old, new])[0]]
    [[1.0, 2.0, nan], [nan, 3.0, 4.0]]
    """
    ids = [_ids(run, runs[0]) for run in runs]
    class_names = _class_names(runs)
    places: dict[str | int, int] = {}
    for of_run in ids:
        for item in of_run.tolist():
            places.setdefault(item, len(places))
    where = [np.fromiter((places[item] for item in of_run.tolist()), np.int64, len(of_run)) for of_run in ids]
    labels = np.full(len(places), -1)
    for run, rows in zip(runs, where, strict=True):
        if run.labels is not None:
            labels[rows] = run.labels
    union = list(places)
    if decisions is not None:
        labels = decisions.relabel(labels, union, class_names)
        unlabelled = next((run for run in runs if run.labels is None), None)
        if unlabelled is not None and decisions.corrections(union, class_names):
            raise ValueError(f"decisions: {unlabelled!r} does not know its labels, so that it may have had others")
    of_all = {
        "ids": as_objects(union) if isinstance(union[0], str) else np.array(union, np.int64),  # type: ignore[arg-type]
        "labels": None if (labels < 0).any() else labels,
        "class_names": class_names,
        "dataset_fingerprint": None,
    }
    relabelled, joined, incomplete = np.zeros(len(union), bool), [], 0
    for run, rows in zip(runs, where, strict=True):
        same = np.ones(len(rows), bool) if run.labels is None else run.labels == labels[rows]
        relabelled[rows[~same]] = True
        if not same.any():
            raise ValueError(
                f"join: all {len(rows)} examples of {run!r} have other labels than in the last run that knows one: "
                "classes have other numbers there"
            )
        whole = len(rows) == len(union) and bool(same.all())
        incomplete += not whole and any(run.has(name) for name in _OF_ALL)
        joined.append(_spread(run, rows, same, whole, of_all))
    return joined, _warning(relabelled, union, incomplete, decided=decisions is not None)


def _ids(run: Run, first: Run) -> NDArray[Any]:
    ids = run.ids
    if ids is None:
        raise ValueError(
            f"join: {run!r} has no ids; give tracker.finish dataset= or ids=, or load the runs of each version alone"
        )
    if first.read("ids", slice(1)).dtype != ids.dtype:
        raise ValueError(f"join: the ids of {first!r} and {run!r} are of different kinds, text and numbers")
    return ids


def _class_names(runs: Sequence[Run]) -> tuple[str, ...] | None:
    """The longest list of names; ValueError unless it begins with every other one, so that labels mean the same."""
    known = [run for run in runs if run.class_names is not None]
    longest = max((run.class_names or () for run in known), key=len, default=None)
    for run in known:
        names = run.class_names or ()
        if longest is not None and names != longest[: len(names)]:
            place = next(i for i, (a, b) in enumerate(zip(names, longest, strict=False)) if a != b)
            raise ValueError(
                f"join: class {place} is {names[place]!r} in {run!r} and {longest[place]!r} in another: versions with "
                "other classes cannot be joined by their labels"
            )
    return longest


def _spread(run: Run, rows: NDArray[Any], same: NDArray[Any], whole: bool, of_all: dict[str, Any]) -> Run:
    """The run over all examples: its own in `rows`, of which those count that have the same label."""
    size = len(of_all["ids"])

    def spread(values: NDArray[Any], missing: Any) -> NDArray[Any]:
        found = np.full((size, *values.shape[1:]), missing, values.dtype)
        found[rows[same]] = values[same]
        return found

    facts: dict[str, Any] = {name: spread(run.read(name), 0) for name in _OF_ALL if whole and run.has(name)}
    if run.has("suggested"):
        facts["suggested"] = spread(run.read("suggested"), -1)
        facts["suggested_probability"] = spread(run.read("suggested_probability"), np.nan)
    if run.has("mean_probabilities"):
        facts["mean_probabilities"] = spread(run.read("mean_probabilities"), np.nan)
    seen = np.ones(len(rows), bool) if run.seen is None else run.seen
    if not whole or not seen.all():
        facts["seen"] = spread(seen, False)
    scores = {name: spread(values, np.nan) for name, values in run.scores.items()}
    return Run(scores, **facts, **{**run.metadata, **of_all})


def _warning(relabelled: NDArray[Any], union: list[str | int], incomplete: int, *, decided: bool) -> str | None:
    differ, of = "in different runs", "the last run that knows one"
    if decided:
        differ, of = "in different runs or in the decisions", f"the decisions, or of {of}"
    said = []
    if relabelled.any():
        first = [union[place] for place in relabelled.nonzero()[0]]
        said.append(
            f"{int(relabelled.sum())} of {len(union)} ids have different labels {differ} "
            f"({name_some(first, _NAMED)}); a run counts only where it had the label of {of}"
        )
    if incomplete:
        runs = counted(incomplete, "run is left out, which does", "runs are left out, which do")
        said.append(f"predictions and probabilities of {runs} not know all examples")
    return f"join: {'; '.join(said)}" if said else None
