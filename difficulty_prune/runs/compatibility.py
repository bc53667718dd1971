"""What runs must share to be averaged (data, labels, the options of a score), and that no run counts twice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..scores.catalogue import LATE, SCORES, TRACKED
from ..scores.temporal import TEMPORAL
from ..support.counted import counted
from ..support.ids import digest_of_ids
from .run import Run

_DATA: Final = "data"
_IDS: Final = "ids"
_OF_LOGITS: Final = tuple(name for name, score in SCORES.items() if score.needs in ("loss", "logits", "late logits"))
# Options of rows, which a run names unless they are usual, and the scores that depend on them.
_ROWS: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "target": ("classes", _OF_LOGITS),
    "right_from": (1.0, ("forgetting", "learning_time", "consistently_learned")),
    "half_life": (2.0, ("recent_loss",)),
}


class SharedFacts:
    """What all runs so far agree on, and every further one must: their data, labels, and the options of each score.

    Attributes:
        known: subject (the data or a score) -> field -> (value, the run that said so); plain data for JSON.
        labels: [N] int64, from the first run that knows them.
        labelled: that run.
    """

    def __init__(self) -> None:
        self.known: dict[str, dict[str, tuple[Any, str]]] = {}
        self.labels: NDArray[Any] | None = None
        self.labelled = ""
        self._same_labels: set[str] = set()  # digests, by which the labels of a file need not be read
        self._digests_of_ids: dict[tuple[str | None, ...], str] = {}

    def add(self, run: Run, scores: Iterable[str]) -> None:
        """Notes what the run says of its data and of these scores.

        Raises:
            ValueError: it contradicts an earlier run. Nothing is noted then.
        """
        facts = {_DATA: _data(run, self._digests_of_ids), **_options(run, scores)}
        for subject, fields in facts.items():
            known = self.known.get(subject, {})
            differing = {name: (*known[name], new) for name, new in fields.items() if name in known}
            differing = {name: found for name, found in differing.items() if found[0] != found[2]}
            if subject == _DATA and fields.get(_IDS) is not None and _IDS in known and _IDS not in differing:
                # which say as well as a fingerprint that the data are the same
                differing = {name: found for name, found in differing.items() if None not in (found[0], found[2])}
            if differing:
                raise ValueError(_contradiction(subject, differing, run))
        digest = run.stored_digest("labels") if run.has("labels") else None
        labels = None if digest in self._same_labels else run.labels
        if labels is not None and self.labels is not None and not np.array_equal(labels, self.labels):
            examples = counted(int((labels != self.labels).sum()), "example")
            raise ValueError(f"{self.labelled} and {run!r} have different labels for {examples}: different data")
        if labels is not None and self.labels is None:
            self.labels, self.labelled = np.array(labels), repr(run)
        if labels is not None and digest is not None:
            self._same_labels.add(digest)
        for subject, fields in facts.items():
            known = self.known.setdefault(subject, {})
            said = {name: value for name, value in fields.items() if known.get(name, (None,))[0] is None}
            known.update({name: (value, repr(run)) for name, value in said.items()})


def _data(run: Run, known: dict[tuple[str | None, ...], str] | None = None) -> dict[str, Any]:
    """What says of which data a run is; a digest of the ids, where it has any.

    Args:
        known: digests of ids by those of their arrays in a file, by which the ids of further files need not be read.
    """
    ids = {}
    if run.has("ids"):
        stored = run.stored_digests_of_ids()
        if known is not None and stored in known:
            ids[_IDS] = known[stored]
        else:
            ids[_IDS] = digest_of_ids(run.encoded_ids())
            if known is not None and None not in stored:
                known[stored] = ids[_IDS]
    return {"numbers of examples": len(run), **ids, "dataset fingerprints": run.dataset_fingerprint}


def _options(run: Run, scores: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The options of each score, as far as the run says: those that `tracker.finish` noted, and the layers."""
    options = run.metadata.get("options")
    result: dict[str, dict[str, Any]] = {}
    for name in scores:
        fields: dict[str, Any] = {}
        if isinstance(options, dict) and SCORES[LATE.get(name, name)].needs in TRACKED:
            fields["options.label"] = options.get("label")
            fields["options.since"] = options.get("since")  # presentations of each example before those that count
            if name in LATE:
                fields["options.late"] = options.get("late")  # likewise
            part = "temporal" if name in TEMPORAL else "gradient" if SCORES[name].needs == "input gradients" else ""
            for option, (usual, scores_of_option) in _ROWS.items():
                if name in scores_of_option:
                    fields[f"options.{option}"] = options.get(option, usual)
            if isinstance(options.get(part), dict):
                fields |= {f"options.{part}.{key}": value for key, value in options[part].items()}
        if name == "prediction_depth" and "layers" in run.metadata:
            fields[f"layers of {run.architecture}"] = run.metadata["layers"]
        result[name] = fields
    return result


def _contradiction(subject: str, differing: Mapping[str, tuple[Any, str, Any]], run: Run) -> str:
    """`differing`: field -> value, the run that said so, value of this run."""
    first = next(iter(differing.values()))[1]
    if subject != _DATA:
        fields = ", ".join(f"{name}: {old!r} and {new!r}" for name, (old, _, new) in differing.items())
        return (
            f"{first} and {run!r} computed {subject!r} with different options, {fields}; such runs do not mix: "
            "make a set of each"
        )
    name, (old, _, new) = next(iter(differing.items()))
    do_not_mix = "runs of different data do not mix"
    if run.has("ids"):
        do_not_mix += (
            "; RunSet.load(..., join='ids') joins runs of several versions of a dataset, as does --join of the commands"
        )
    if name == _IDS:
        return f"{first} and {run!r} have different ids: {do_not_mix}"
    missing = "; one was finished without dataset_fingerprint=" if None in (old, new) else ""
    return f"{first} and {run!r} have different {name}, {old} and {new}{missing}: {do_not_mix}"


def check_same_data(first: Run, other: Run) -> None:
    """ValueError unless the two have the same length and dataset fingerprint."""
    for name, value in _data(first).items():
        if name in _data(other) and _data(other)[name] != value:
            raise ValueError(_contradiction(_DATA, {name: (value, repr(first), _data(other)[name])}, other))


def check_no_copies(runs: Sequence[Run]) -> None:
    """ValueError for two runs with the same architecture, seed and scores; reads no runs but those of one seed."""
    same: dict[tuple[str, int], list[int]] = {}
    for position, run in enumerate(runs):
        same.setdefault((run.architecture, run.seed), []).append(position)
    for positions in same.values():
        if len(positions) > 1:
            digests = {position: score_digests(runs[position].scores) for position in positions}
            for a, b in itertools.combinations(positions, 2):
                if are_equal(digests[a], digests[b]):
                    raise ValueError(
                        f"runs {a} and {b} are the same, {_named(runs[a])} and {_named(runs[b])}: same architecture, "
                        "seed and scores. A copy always agrees with its original; give each run once"
                    )


def unproven_data(runs: Sequence[Run]) -> str | None:
    """What to warn of if nothing shows that the runs are of the same data; None if something does, or for one run.

    A dataset fingerprint, ids or labels that all runs have show it, because runs that differ in these do not mix.
    """
    lacking = [run for run in runs if run.dataset_fingerprint is None and not (run.has("labels") or run.has("ids"))]
    return describe_unproven(len(runs), lacking) if len(runs) > 1 and lacking else None


def describe_unproven(number: int, lacking: Sequence[Run]) -> str:
    """What to warn of: that `lacking`, of this number of runs, may be of other data."""
    return (
        f"nothing shows that these {number} runs are of the same data in the same order: {len(lacking)} with neither a "
        f"dataset fingerprint nor labels, such as {_named(lacking[0])}. Means over runs of different data say nothing; "
        "give tracker.finish dataset_fingerprint=dp.dataset_fingerprint(dataset), or labels="
    )


def _named(run: Run) -> str:
    return repr(run) if run.path is None else f"{run!r} in {run.path}"


def score_digests(scores: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """A hash of the values of each score, 16 hexadecimal digits."""
    return {name: hashlib.blake2b(scores[name].data, digest_size=8).hexdigest() for name in scores}


def are_equal(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether runs with these digests share a score, and differ in none that they share."""
    shared = a.keys() & b.keys()
    return bool(shared) and all(a[name] == b[name] for name in shared)
