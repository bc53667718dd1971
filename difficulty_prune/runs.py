"""Runs over the same data: their mean, what they say together, and published tables beside them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from .files import Array
from .run import Run
from .scores import SCORES, Dichotomy, Estimate, Score, check_scores, ensembles
from .tables import open_table, read_table

__all__ = ["Run", "RunSet"]


class RunSet:
    """Runs over the same data: their mean difficulty, what they together say about an example, and published tables.

    `mean` and `difficulty` know three kinds of scores: those of each run, averaged; those of many runs together, such
    as "memorization"; and published ones, given by file with `with_table`.

    Args:
        runs: at least one; the same length, dataset fingerprint and labels.

    Raises:
        ValueError: no runs, or runs of different data.
        TypeError: something that is no run.

    >>> runs = RunSet(Run({"aum": [a, 3.0]}, architecture="mlp", seed=s) for s, a in enumerate([1.0, 2.0]))
    >>> runs.mean("aum"), runs.difficulty("aum")
    (array([1.5, 3. ]), array([-1.5, -3. ]))
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(runs)
        if not self._runs:
            raise ValueError("RunSet: got no runs, expected at least one")
        labelled = None
        for run in self._runs:
            if not isinstance(run, Run):
                raise TypeError(f"RunSet: got {run!r}, expected runs; RunSet.load reads files")
            _check_same_data(self._runs[0], run)
            labelled = labelled if labelled is not None or run.labels is None else run
            _check_same_labels(labelled, run)
        self._tables: dict[str, tuple[Score, Array]] = {}

    @classmethod
    def load(cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> RunSet:
        """Reads run files: a glob pattern, a folder, one path or several.

        Raises:
            FileNotFoundError: nothing matches.
            ValueError: a file that is no run, or runs of different data.
        """
        return cls(Run.load(path) for path in _expand(paths))

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __getitem__(self, position: int) -> Run:
        return self._runs[position]

    def __repr__(self) -> str:
        return f"RunSet({len(self)} runs of {self.num_examples} examples, architectures={list(self.architectures)})"

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self._runs[0])

    @property
    def labels(self) -> Array | None:
        """[N] int64 from the first run that knows them."""
        return next((run.labels for run in self._runs if run.labels is not None), None)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Different architectures, in order of appearance."""
        return tuple(dict.fromkeys(run.architecture for run in self._runs))

    @property
    def scores(self) -> tuple[str, ...]:
        """Scores that every run has, in the order of the first."""
        return tuple(name for name in self._runs[0].scores if all(name in run.scores for run in self._runs))

    def where(self, **metadata: Any) -> RunSet:
        """The runs whose metadata has these values, as in `runs.where(architecture="mlp")`.

        Raises:
            ValueError: no run has them.
        """
        chosen = [run for run in self._runs if all(run.metadata.get(k) == v for k, v in metadata.items())]
        if not chosen:
            known = {key: sorted({str(run.metadata.get(key)) for run in self._runs}) for key in metadata}
            fields = ", ".join(self._runs[0].metadata)
            raise ValueError(f"where: no run has {metadata}; the runs have {known} (known are {fields})")
        return self._with(chosen, self._tables)

    def matrix(self, score: str, examples: slice | Array | None = None) -> Array:
        """The score of every run, [R, N] float64, as stored.

        Args:
            score: one that every run has.
            examples: positions or a slice, to read only these columns; default: all.

        Raises:
            ValueError: an unknown score, or one that a run does not have, such as one of many runs together.
        """
        if self._needs_many_runs(score) or score in self._tables:
            raise ValueError(
                f"matrix: {score!r} is one number per example for all runs together, not one per run; "
                f"see runs.mean({score!r})"
            )
        for run in self._runs:
            if score not in run.scores:
                raise ValueError(f"{run!r} has no score {score!r}; all runs have {', '.join(self.scores) or 'none'}")
        chosen = slice(None) if examples is None else examples
        return np.stack([run.scores[score][chosen] for run in self._runs]).astype(np.float64)

    def mean(self, score: str) -> Array:
        """The score over all runs, [N] float64, as stored.

        That of a table, if `with_table` gave one; else the mean over the runs that presented the example, NaN where
        none did; or of a score that needs many runs, its value.

        Raises:
            ValueError: an unknown score, or one that the runs have not what is needed for.
        """
        if score in self._tables:
            return self._tables[score][1].copy()
        if self._needs_many_runs(score):
            return _OF_MANY_RUNS[score](self)
        return _nan_moment(self.matrix(score))

    def standard_error(self, score: str) -> Array:
        """Standard error of `mean`, [N] float64, from the spread between runs (ddof 1); NaN with fewer than two.

        Raises:
            ValueError: as for `mean`; or the score is that of a table or "agreement", of which no error is known.
        """
        if score in self._tables or (score == "agreement" and self._needs_many_runs(score)):
            raise ValueError(f"standard_error: none is known of {score!r}, which is not a mean over these runs")
        if self._needs_many_runs(score):
            return _ERROR_OF_MANY_RUNS[score](self)
        return _standard_error(self.matrix(score))

    def difficulty(self, score: str) -> Array:
        """`mean` turned so that high = hard, [N] float64."""
        mean = self.mean(score)
        return mean if self._definition(score).higher_is_harder else -mean

    def _definition(self, score: str) -> Score:
        if score in self._tables:
            return self._tables[score][0]
        check_scores((score,))
        return SCORES[score]

    def _needs_many_runs(self, score: str) -> bool:
        return self._definition(score).needs == "runs" and score not in self.scores

    # Many runs together

    @property
    def seen(self) -> Array:
        """Whether the run trained on the example, [R, N] bool."""
        everything = np.ones(self.num_examples, bool)
        return np.stack([everything if run.seen is None else run.seen for run in self._runs])

    def model_accuracy(self) -> Array:
        """Fraction of the runs that predict the label, [N] float64, whether they trained on the example or not.

        Raises:
            ValueError: a run without predictions, or no labels.

        >>> facts = dict(architecture="mlp", labels=[0, 1])
        >>> runs = RunSet(Run({"el2n": [0, 0]}, seed=s, predictions=[0, s], **facts) for s in range(2))
        >>> runs.model_accuracy()
        array([1. , 0.5])
        """
        return ensembles.model_accuracy(self._predictions(), self._known_labels())

    def dichotomy(self) -> Dichotomy:
        """Which examples no run, every run, or only some runs predict correctly (arXiv 2110.05922).

        Raises:
            ValueError: as for `model_accuracy`.
        """
        return ensembles.dichotomy(self.model_accuracy())

    def agreement(self) -> Array:
        """Jensen-Shannon divergence of the runs' probabilities, [N] float64 in nats; see `dp.scores.agreement`.

        Raises:
            ValueError: a run without probabilities, fewer than two runs, or different numbers of classes.
        """
        return ensembles.agreement(self._all("probabilities"))

    def ensemble_confidence(self) -> Array:
        """Mean over the runs of the largest probability, [N] float64; see `dp.scores.ensemble_confidence`.

        Raises:
            ValueError: a run without probabilities.
        """
        return ensembles.ensemble_confidence(self._all("probabilities"))

    def memorization(self) -> Estimate:
        """How much more often runs are right that trained on the example (arXiv 2008.03703).

        Value, standard error, and how many runs saw each example; as a score it is `runs.mean("memorization")`.

        Raises:
            ValueError: no run left examples out, a run without predictions, or no labels.

        >>> facts = dict(architecture="mlp", labels=[0, 1])
        >>> runs = RunSet(
        ...     Run({"el2n": [0, 0]}, seed=s, seen=[s < 2, True], predictions=[s // 2, 1], **facts) for s in range(4)
        ... )
        >>> runs.memorization().value
        array([ 1., nan])
        >>> print(runs.memorization())  # doctest: +ELLIPSIS
        1 of 2 examples have too few runs (1 have no value at all); standard error 0.000 (root mean square)...
        """
        return ensembles.memorization(self._correct(), self._seen_by_some("memorization"))

    def held_out_consistency(self) -> Estimate:
        """How often runs are right that did not train on the example (arXiv 2002.03206), as for `memorization`.

        As a score it is `runs.mean("c_score")`.

        Raises:
            ValueError: as for `memorization`.
        """
        return ensembles.held_out_consistency(self._correct(), self._seen_by_some("held_out_consistency"))

    def _all(self, what: Literal["predictions", "probabilities"]) -> list[Array]:
        known = [values for run in self._runs if (values := getattr(run, what)) is not None]
        if len(known) < len(self):
            lacking = next(run for run in self._runs if getattr(run, what) is None)
            raise ValueError(
                f"{len(self) - len(known)} of {len(self)} runs have no {what}, the first is {lacking!r}: give them to "
                f"tracker.finish({what}=...), or let `study` train it again"
            )
        return known

    def _predictions(self) -> Array:
        return np.stack(self._all("predictions"))

    def _known_labels(self) -> Array:
        if self.labels is None:
            raise ValueError(
                "no run knows the labels, with which predictions are compared; give labels= to one of them"
            )
        return self.labels

    def _correct(self) -> Array:
        correct: Array = self._predictions() == self._known_labels()
        return correct

    def _seen_by_some(self, name: str) -> Array:
        seen = self.seen
        if seen.all():
            raise ValueError(
                f"{name}: each of the {len(self)} runs trained on every example; it takes runs that left some out, as "
                "those of `study --hold-out 0.3`, or of tracker.finish(seen=...)"
            )
        return seen

    # Published tables

    @property
    def tables(self) -> Mapping[str, Array]:
        """Name -> [N] float64, the published scores that `with_table` gave."""
        return MappingProxyType({name: values for name, (_, values) in self._tables.items()})

    def with_table(
        self, path: str | os.PathLike[str], score: str | Score | None = None, *, column: str | None = None
    ) -> RunSet:
        """The same runs with a published score, which `mean` and `difficulty` then give.

        A column `labels` (`label`, `targets`, `tr_labels`) is compared with the runs' labels, so that a table in
        another order is noticed. With a column `index` (`idx`, `id`, or the nameless one that pandas writes) the rows
        may be in any order and be few, and the other examples are NaN; without it there must be one row for each
        example, in order.

        Args:
            path: `.npz`, `.npy`, `.csv` or `.tsv` with a header, or a run file, `.safetensors`.
            score: what it is: a name of the catalogue, or a `dp.Score` of your own. Default: what the name of a column
                says; `tr_mem` of Feldman and Zhang is "memorization". Another table of the same score is replaced.
            column: where it is; default: the column with the name of the score, or the only one there is.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no table, not just one column that it could be, values that are no numbers or infinite, other
                labels or another number of examples; or a score that the runs have of their own.

        >>> import tempfile
        >>> runs = RunSet([Run({"el2n": [0.1, 0.9]}, architecture="mlp", seed=0, labels=[3, 5])])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "cscores.npz")
        ...     np.savez(path, scores=[0.9, 0.2], labels=[3, 5])
        ...     runs = runs.with_table(path, "c_score", column="scores")
        >>> runs.difficulty("c_score")
        array([-0.9, -0.2])
        """
        if Path(path).suffix == ".safetensors":
            run = Run.load(path)
            _check_same_data(self._runs[0], run)
            columns: dict[str, Any] = dict(run.scores)
            if run.labels is not None:
                columns["labels"] = run.labels
            found, values = read_table(path, columns, score, column, self.labels, self.num_examples)
        else:
            with open_table(path) as table:
                found, values = read_table(path, table, score, column, self.labels, self.num_examples)
        if any(found.name in run.scores for run in self._runs):
            raise ValueError(
                f"{path}: the runs have a score {found.name!r} of their own; give the table's a name of its own, with "
                f"score=dp.Score(name=...)"
            )
        return self._with(self._runs, {**self._tables, found.name: (found, values)})

    def _with(self, runs: Iterable[Run], tables: Mapping[str, tuple[Score, Array]]) -> RunSet:
        other = RunSet(runs)
        other._tables = dict(tables)
        return other


_OF_MANY_RUNS: Final[Mapping[str, Callable[[RunSet], Array]]] = {
    "model_accuracy": RunSet.model_accuracy,
    "ensemble_confidence": RunSet.ensemble_confidence,
    "agreement": RunSet.agreement,
    "memorization": lambda runs: runs.memorization().value,
    "c_score": lambda runs: runs.held_out_consistency().value,
}
_ERROR_OF_MANY_RUNS: Final[Mapping[str, Callable[[RunSet], Array]]] = {
    "model_accuracy": lambda runs: _standard_error(runs._correct().astype(np.float64)),
    "ensemble_confidence": lambda runs: _standard_error(
        np.stack([p.max(1) for p in runs._all("probabilities")]).astype(np.float64)
    ),
    "memorization": lambda runs: runs.memorization().standard_error,
    "c_score": lambda runs: runs.held_out_consistency().standard_error,
}


def _standard_error(matrix: Array) -> Array:
    """Of the mean over the rows of [R, N] that are not NaN; NaN with fewer than two."""
    known = (~np.isnan(matrix)).sum(0)
    variance = _nan_moment((matrix - _nan_moment(matrix)) ** 2)
    return np.where(known > 1, np.sqrt(variance / np.maximum(known - 1, 1)), np.nan)


def _nan_moment(matrix: Array) -> Array:
    seen = (~np.isnan(matrix)).sum(0)
    total: Array = np.nansum(matrix, axis=0)
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Sequence[str]:
    if not isinstance(paths, (str, os.PathLike)):
        listed = [os.fspath(path) for path in paths]
    elif Path(paths).is_file():
        listed = [os.fspath(paths)]
    elif Path(paths).is_dir():
        listed = sorted(str(path) for path in Path(paths).glob("*.safetensors"))
    else:
        listed = sorted(glob.glob(os.fspath(paths)))
    if not listed:
        raise FileNotFoundError(f"{paths}: no run files there")
    return listed


def _check_same_data(first: Run, other: Run) -> None:
    for name, a, b in (
        ("numbers of examples", len(first), len(other)),
        ("dataset fingerprints", first.dataset_fingerprint, other.dataset_fingerprint),
    ):
        if a != b:
            missing = "; one was finished without dataset_fingerprint=" if None in (a, b) else ""
            raise ValueError(
                f"{first!r} and {other!r} have different {name}, {a} and {b}{missing}: "
                "runs of different data do not mix"
            )


def _check_same_labels(first: Run | None, other: Run) -> None:
    if first is None or first.labels is None or other.labels is None or np.array_equal(first.labels, other.labels):
        return
    differing = int((first.labels != other.labels).sum())
    raise ValueError(f"{first!r} and {other!r} have different labels for {differing} examples: different data")
