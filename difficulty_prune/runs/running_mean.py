"""The mean over runs that come one after the other."""

from __future__ import annotations

import os
import reprlib
import sys
import warnings
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..scores.catalogue import SCORES, check_scores
from ..support.checks import whole_number
from ..support.counted import counted
from ..support.files import MALFORMED, load_vectors, save_vectors
from .compatibility import SharedFacts, are_equal, describe_unproven, score_digests
from .run import Run, check_definitions, definitions
from .sums_over_runs import SumsOverRuns

_FORMAT: Final = 1
_KIND: Final = "running mean"


class RunningMean:
    """The mean over runs that come one by one, say one every night: a new run updates it without the old files.

    It gives the numbers of a `RunSet` of the same runs, and refuses what a `RunSet` refuses. It takes 20 bytes per
    example and score, however many runs there are.

    Args:
        scores: which to average; default: all those of the first run. Every run must have them.

    Raises:
        TypeError, ValueError: an unknown score, or none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "mean.safetensors")
    ...     RunningMean().save(path)
    ...     for seed, aum in enumerate([1.0, 2.0]):
    ...         mean = RunningMean.load(path)
    ...         mean.update(Run({"aum": [aum, 3.0]}, architecture="mlp", seed=seed, dataset_fingerprint="f00d"))
    ...         mean.save(path)
    >>> len(mean), mean.mean("aum"), mean.difficulty("aum")
    (2, array([1.5, 3. ]), array([-1.5, -3. ]))
    """

    def __init__(self, scores: Iterable[str] | None = None) -> None:
        self._scores = None if scores is None else check_scores(scores)
        self._sums: dict[str, SumsOverRuns] = {}
        self._runs: list[dict[str, Any]] = []  # architecture, seed, and a digest of each score
        self._shared = SharedFacts()

    def update(self, run: Run) -> None:
        """Adds a run; warns if nothing shows that it is of the same data, as `RunSet.load` does.

        Raises:
            TypeError: not a run.
            ValueError: a run without one of the scores; of other data, labels or options than those before; or one
                that was added before. The mean stays as it was.
        """
        if not isinstance(run, Run):
            raise TypeError(f"RunningMean.update: got {run!r}, expected a run; Run.load reads a file")
        names = tuple(run.scores) if self._scores is None else self._scores
        missing = [name for name in names if name not in run.scores]
        if missing:
            raise ValueError(f"{run!r} has no score {missing[0]!r}; the mean is of {', '.join(names)}")
        values = {name: run.scores[name] for name in names}
        added = {"architecture": run.architecture, "seed": run.seed, "scores": score_digests(values)}
        for position, other in enumerate(self._runs):
            if _same_run(added, other):
                raise ValueError(
                    f"{run!r} is in the mean already, as run {position} of {len(self)}: same architecture, seed and "
                    "scores. Update with each run once"
                )
        unproven = run.dataset_fingerprint is None and (not run.has("labels") or self._shared.labels is None)
        self._shared.add(run, names)
        self._scores = names
        self._runs.append(added)
        for name in names:
            self._sums.setdefault(name, SumsOverRuns(len(run))).update(values[name])
        if unproven and len(self) > 1:
            warnings.warn(describe_unproven(len(self), [run]), stacklevel=2)

    def mean(self, score: str) -> NDArray[Any]:
        """The mean over the runs that presented the example, [N] float64, as stored; NaN where none did.

        Raises:
            ValueError: a score that is not averaged here, or no runs yet.
        """
        return self._of(score).mean()

    def standard_error(self, score: str) -> NDArray[Any]:
        """Standard error of `mean`, [N] float64, from the spread between runs (ddof 1); NaN as in a `RunSet`.

        Raises:
            ValueError: as for `mean`.
        """
        return self._of(score).standard_error()

    def difficulty(self, score: str) -> NDArray[Any]:
        """`mean` turned so that high = hard, [N] float64."""
        mean = self.mean(score)
        return mean if SCORES[score].higher_is_harder else -mean

    def _of(self, score: str) -> SumsOverRuns:
        if not self._runs:
            raise ValueError("RunningMean: got no runs yet; update it with one")
        if score not in self._sums:
            raise ValueError(f"RunningMean: got score {score!r}, expected one of {', '.join(self._sums)}")
        return self._sums[score]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self._runs)

    def __repr__(self) -> str:
        runs, scores = counted(len(self), "run"), list(self.scores)
        return f"RunningMean({runs}, scores={scores}, architectures={list(self.architectures)})"

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores that are averaged; none before the first run, unless they were given."""
        return self._scores or ()

    @property
    def architectures(self) -> tuple[str, ...]:
        """Different architectures, in order of appearance."""
        return tuple(dict.fromkeys(run["architecture"] for run in self._runs))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all.

        Raises:
            OSError: it cannot be written; the message names the file and says what to do.
        """
        vectors = {} if self._shared.labels is None else {"labels": self._shared.labels}
        for name, sums in self._sums.items():
            vectors |= {f"{name}.{part}": values for part, values in vars(sums).items()}
        header = {
            "scores": self._scores,
            "definitions": definitions(self.scores),
            "runs": self._runs,
            "common": self._shared.known,
            "labelled": self._shared.labelled,
        }
        save_vectors(path, _KIND, _FORMAT, vectors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunningMean:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, damaged, not a running mean, newer than this library, or of a version that defines a
                score in the other direction; the message names the file.
            OSError: it cannot be read; the message names the file and says what to do.
        """
        vectors, header = load_vectors(path, _KIND, _FORMAT)
        try:
            check_definitions(header["definitions"])
            running = cls(header["scores"])
            running._runs = [_run_of(entry, running.scores) for entry in _list_of(header["runs"], "runs")]
            running._shared.known = _known_of(header["common"])
            running._restore(vectors, _text_of(header["labelled"], "labelled"))
        except MALFORMED as error:
            raise ValueError(f"{path}: not a valid {_KIND} file ({error})") from error
        return running

    def _restore(self, vectors: dict[str, NDArray[Any]], labelled: str) -> None:
        """Takes the sums and labels, if they are those of these runs and scores, and no others."""
        if not self._runs and vectors:
            raise ValueError(f"got no runs, but {reprlib.repr(sorted(vectors))}")
        if self._runs and not self.scores:
            raise ValueError(f"got {counted(len(self), 'run')}, but no scores")
        size = whole_number(self._shared.known["data"]["numbers of examples"][0], "examples", 1) if self._runs else 0
        for name in self.scores if self._runs else ():
            sums = self._sums[name] = SumsOverRuns(0)
            for part, empty in vars(sums).items():
                values = _checked(f"{name}.{part}", vectors.pop(f"{name}.{part}"), size, empty.dtype)
                setattr(sums, part, values)
            if sums.count.max() > len(self._runs) or sums.count.min() < 0 or sums.spread.min() < 0:
                raise ValueError(
                    f"{name}: counts outside 0..{len(self._runs)}, the number of runs, or a negative spread"
                )
        if "labels" in vectors:
            self._shared.labels = _checked("labels", vectors.pop("labels"), size, np.dtype(np.int64))
            self._shared.labelled = labelled
        if vectors:
            raise ValueError(f"got {reprlib.repr(sorted(vectors))} besides the sums of its scores and the labels")


def _same_run(a: dict[str, Any], b: dict[str, Any]) -> bool:
    same = all(a[name] == b[name] for name in ("architecture", "seed"))
    return same and are_equal(a["scores"], b["scores"])


def _run_of(entry: Any, scores: Iterable[str]) -> dict[str, Any]:
    digests = dict(entry["scores"])
    for name in scores:
        _text_of(digests[name], f"digest of {name}")
    return {
        "architecture": _text_of(entry["architecture"], "architecture"),
        "seed": whole_number(entry["seed"], "seed", least=-sys.maxsize),
        "scores": digests,
    }


def _known_of(known: Any) -> dict[str, dict[str, tuple[Any, str]]]:
    return {
        subject: {field: (value, str(run)) for field, (value, run) in dict(fields).items()}
        for subject, fields in dict(known).items()
    }


def _list_of(found: Any, name: str) -> list[Any]:
    if not isinstance(found, list):
        raise TypeError(f"{name}: got {reprlib.repr(found)}, expected a list")
    return found


def _text_of(found: Any, name: str) -> str:
    if not isinstance(found, str):
        raise TypeError(f"{name}: got {reprlib.repr(found)}, expected text")
    return found


def _checked(name: str, values: NDArray[Any], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if values.shape != (size,) or values.dtype != dtype:
        raise ValueError(f"{name}: got {values.dtype} {values.shape}, expected {dtype} [{size}]")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: got {values[~np.isfinite(values)][0]}, expected finite numbers")
    return values
