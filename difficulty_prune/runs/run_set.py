"""Runs over the same data: their mean, what they say together, and published tables beside them."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import ensembles
from ..scores.catalogue import SCORES, Score, check_scores
from ..scores.ensembles import Dichotomy, Estimate
from ..support.files import parts
from ..support.ranks import rank_rows
from .compatibility import Common, check_no_copies, check_same_data
from .run import Run
from .running_mean import Moments
from .tables import open_table, read_table

__all__ = ["Run", "RunSet"]

_PART: Final = 1 << 20  # numbers of [R, n] that are in memory together


class RunSet:
    """Runs over the same data: their mean difficulty, what they together say about an example, and published tables.

    `mean` and `difficulty` know three kinds of scores: those of each run, averaged; those of many runs together, such
    as "memorization"; and published ones, given by file with `with_table`.

    Loaded runs stay in their files and are read one after the other, or in parts of the examples: what is one number
    per example takes memory for some vectors of length N, however many runs there are.

    Args:
        runs: at least one; the same length, dataset fingerprint, labels, and options of the scores that several have.

    Raises:
        ValueError: no runs, runs of different data or options, or a run and its copy.
        TypeError: something that is no run.

    >>> runs = RunSet(Run({"aum": [a, 3.0]}, architecture="mlp", seed=s) for s, a in enumerate([1.0, 2.0]))
    >>> runs.mean("aum"), runs.difficulty("aum")
    (array([1.5, 3. ]), array([-1.5, -3. ]))
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(runs)
        if not self._runs:
            raise ValueError("RunSet: got no runs, expected at least one")
        common = Common()
        for run in self._runs:
            if not isinstance(run, Run):
                raise TypeError(f"RunSet: got {run!r}, expected runs; RunSet.load reads files")
            common.add(run, run.scores)
        check_no_copies(self._runs)
        self._tables: dict[str, tuple[Score, NDArray[Any]]] = {}

    @classmethod
    def load(cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> RunSet:
        """Reads run files: a glob pattern, a folder, one path or several.

        Raises:
            FileNotFoundError: nothing matches.
            ValueError: a file that is no run, or runs that do not mix.
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
    def labels(self) -> NDArray[Any] | None:
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
            raise ValueError(f"where: no run has {metadata}; the runs have {known} (known are {self._fields()})")
        return self._with(chosen, self._tables)

    def group_by(self, key: str) -> dict[Any, RunSet]:
        """The runs by a field of their metadata, in order of appearance; those without it under None.

        Raises:
            ValueError: no run has the field, or its values are lists or dicts.

        >>> names = "mlp", "cnn", "mlp"
        >>> runs = RunSet(Run({"aum": [1.0]}, architecture=name, seed=s) for s, name in enumerate(names))
        >>> runs.group_by("architecture")  # doctest: +NORMALIZE_WHITESPACE
        {'mlp': RunSet(2 runs of 1 examples, architectures=['mlp']),
         'cnn': RunSet(1 runs of 1 examples, architectures=['cnn'])}
        """
        if not any(key in run.metadata for run in self._runs):
            raise ValueError(f"group_by: no run has a field {key!r}; known are {self._fields()}")
        groups: dict[Any, list[Run]] = {}
        for run in self._runs:
            value = run.metadata.get(key)
            if isinstance(value, list | dict):
                raise ValueError(f"group_by: {key!r} of {run!r} is {value}, expected text or a number to group by")
            groups.setdefault(value, []).append(run)
        return {value: self._with(chosen, self._tables) for value, chosen in groups.items()}

    def _fields(self) -> str:
        return ", ".join(dict.fromkeys(field for run in self._runs for field in run.metadata))

    # One number per example and run

    def matrix(self, score: str, examples: slice | NDArray[Any] | None = None) -> NDArray[Any]:
        """The score of every run, [R, N] float64, as stored.

        Args:
            score: one that every run has.
            examples: positions or a slice, to read only these columns; default: all.

        Raises:
            ValueError: an unknown score, or one that a run does not have, such as one of many runs together.
        """
        self._check_of_each_run("matrix", score)
        return self._matrix(score, slice(None) if examples is None else examples)

    def _matrix(self, score: str, examples: slice | NDArray[Any], order: Literal["C", "F"] = "C") -> NDArray[Any]:
        return self._stacked((run.scores[score][examples] for run in self._runs), np.float64, order)

    def median(self, score: str) -> NDArray[Any]:
        """Median over the runs that presented the example, [N] float64, as stored; NaN where none did.

        Unlike the mean it does not follow a run that went astray.

        Raises:
            ValueError: as for `matrix`.

        >>> runs = RunSet(Run({"loss": [a, 1.0]}, architecture="mlp", seed=s) for s, a in enumerate([1.0, 2.0, 99.0]))
        >>> runs.median("loss")
        array([2., 1.])
        """
        self._check_of_each_run("median", score)
        return np.concatenate([_median_of_columns(self._matrix(score, part, "F")) for part in self._parts()])

    def rank_mean(self, score: str) -> NDArray[Any]:
        """Mean over the runs of the example's rank within the run, as a fraction in (0, 1), [N] float64.

        The rank among the n examples that the run presented, from 1 for the lowest score as stored, is
        (rank - 0.5) / n as a fraction; ties share their average rank. NaN where no run presented the example. Runs
        count alike, whatever the scale of their scores.

        Raises:
            ValueError: as for `matrix`.

        >>> runs = RunSet(Run({"aum": [s, 9 * s, 5]}, architecture="mlp", seed=s) for s in (1, 100))
        >>> runs.rank_mean("aum")
        array([0.33333333, 0.83333333, 0.33333333])
        """
        self._check_of_each_run("rank_mean", score)
        return self._accumulated(_rank_fractions(run.scores[score]) for run in self._runs).mean()

    def _check_of_each_run(self, what: str, score: str) -> None:
        if self._needs_many_runs(score) or score in self._tables:
            raise ValueError(
                f"{what}: {score!r} is one number per example for all runs together, not one per run; "
                f"see runs.mean({score!r})"
            )
        for run in self._runs:
            if score not in run.scores:
                raise ValueError(f"{run!r} has no score {score!r}; all runs have {', '.join(self.scores) or 'none'}")

    def _parts(self) -> Iterator[slice]:
        """Slices of the examples, for work on [R, n]."""
        return parts(self.num_examples, max(1, _PART // len(self)))

    def _stacked(self, rows: Iterable[NDArray[Any]], dtype: Any, order: Literal["C", "F"] = "C") -> NDArray[Any]:
        """[R, n] of one row per run, each copied as it comes, so that one file at a time is open."""
        stacked = np.empty(0)
        for position, row in enumerate(rows):
            if position == 0:
                stacked = np.empty((len(self), *row.shape), dtype, order)
            stacked[position] = row
        return stacked

    # One number per example

    def mean(self, score: str) -> NDArray[Any]:
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
        return self._moments(score).mean()

    def standard_error(self, score: str) -> NDArray[Any]:
        """Standard error of `mean`, [N] float64, from the spread between runs (ddof 1); NaN with fewer than two.

        Raises:
            ValueError: as for `mean`; or the score is that of a table or "agreement", of which no error is known.
        """
        if score in self._tables or (score == "agreement" and self._needs_many_runs(score)):
            raise ValueError(f"standard_error: none is known of {score!r}, which is not a mean over these runs")
        if self._needs_many_runs(score):
            return _ERROR_OF_MANY_RUNS[score](self)
        return self._moments(score).standard_error()

    def _moments(self, score: str) -> Moments:
        self._check_of_each_run("mean", score)
        return self._accumulated(run.scores[score] for run in self._runs)

    def _accumulated(self, rows: Iterable[NDArray[Any]]) -> Moments:
        moments = Moments(self.num_examples)
        for row in rows:
            moments.update(row)
        return moments

    def difficulty(self, score: str) -> NDArray[Any]:
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
    def seen(self) -> NDArray[Any]:
        """Whether the run trained on the example, [R, N] bool."""
        return self._seen(slice(None))

    def _seen(self, examples: slice) -> NDArray[Any]:
        everything = np.ones(self.num_examples, bool)[examples]
        rows = (run._read("seen", examples) if run._knows("seen") else everything for run in self._runs)
        return self._stacked(rows, np.bool_)

    def model_accuracy(self) -> NDArray[Any]:
        """Fraction of the runs that predict the label, [N] float64, whether they trained on the example or not.

        Raises:
            ValueError: a run without predictions, or no labels.

        >>> facts = dict(architecture="mlp", labels=[0, 1])
        >>> runs = RunSet(Run({"el2n": [0, 0]}, seed=s, predictions=[0, s], **facts) for s in range(2))
        >>> runs.model_accuracy()
        array([1. , 0.5])
        """
        labels = self._check_predicted()
        known = [ensembles.model_accuracy(self._predictions(part), labels[part]) for part in self._parts()]
        return np.concatenate(known)

    def dichotomy(self) -> Dichotomy:
        """Which examples no run, every run, or only some runs predict correctly (arXiv 2110.05922).

        Raises:
            ValueError: as for `model_accuracy`.
        """
        return ensembles.dichotomy(self.model_accuracy())

    def agreement(self) -> NDArray[Any]:
        """Jensen-Shannon divergence of the runs' probabilities, [N] float64 in nats; see `dp.scores.agreement`.

        Raises:
            ValueError: a run without probabilities, fewer than two runs, or different numbers of classes.
        """
        return ensembles.agreement(self._all("probabilities"))

    def ensemble_confidence(self) -> NDArray[Any]:
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
        return self._estimate("memorization", ensembles.memorization)

    def held_out_consistency(self) -> Estimate:
        """How often runs are right that did not train on the example (arXiv 2002.03206), as for `memorization`.

        As a score it is `runs.mean("c_score")`.

        Raises:
            ValueError: as for `memorization`.
        """
        return self._estimate("held_out_consistency", ensembles.held_out_consistency)

    def _estimate(self, name: str, estimate: Callable[[NDArray[Any], NDArray[Any]], Estimate]) -> Estimate:
        labels = self._check_predicted()
        if all(run.seen is None or run.seen.all() for run in self._runs):
            raise ValueError(
                f"{name}: each of the {len(self)} runs trained on every example; it takes runs that left some out, as "
                "those of `study --hold-out 0.3`, or of tracker.finish(seen=...)"
            )
        known = [estimate(self._predictions(part) == labels[part], self._seen(part)) for part in self._parts()]
        fields = (field.name for field in dataclasses.fields(Estimate))
        return Estimate(*(np.concatenate([getattr(part, field) for part in known]) for field in fields))

    def _all(self, what: Literal["predictions", "probabilities"]) -> Iterator[NDArray[Any]]:
        """Those of each run, one after the other."""
        lacking = [run for run in self._runs if not run._knows(what)]
        if lacking:
            raise ValueError(
                f"{len(lacking)} of {len(self)} runs have no {what}, the first is {lacking[0]!r}: give them to "
                f"tracker.finish({what}=...), or let `study` train it again"
            )
        return (run._read(what) for run in self._runs)

    def _predictions(self, examples: slice) -> NDArray[Any]:
        return self._stacked((run._read("predictions", examples) for run in self._runs), np.int64)

    def _check_predicted(self) -> NDArray[Any]:
        """The labels, with which the predictions of every run can be compared."""
        self._all("predictions")
        labels = self.labels
        if labels is None:
            raise ValueError(
                "no run knows the labels, with which predictions are compared; give labels= to one of them"
            )
        return labels

    def _correct(self) -> Iterator[NDArray[Any]]:
        labels = self._check_predicted()
        return (predictions == labels for predictions in self._all("predictions"))

    # Published tables

    @property
    def tables(self) -> Mapping[str, NDArray[Any]]:
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
            check_same_data(self._runs[0], run)
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

    def _with(self, runs: Iterable[Run], tables: Mapping[str, tuple[Score, NDArray[Any]]]) -> RunSet:
        other = RunSet.__new__(RunSet)  # what mixes in this set mixes in a part of it
        other._runs, other._tables = tuple(runs), dict(tables)
        return other


_OF_MANY_RUNS: Final[Mapping[str, Callable[[RunSet], NDArray[Any]]]] = {
    "model_accuracy": RunSet.model_accuracy,
    "ensemble_confidence": RunSet.ensemble_confidence,
    "agreement": RunSet.agreement,
    "memorization": lambda runs: runs.memorization().value,
    "c_score": lambda runs: runs.held_out_consistency().value,
}
_ERROR_OF_MANY_RUNS: Final[Mapping[str, Callable[[RunSet], NDArray[Any]]]] = {
    "model_accuracy": lambda runs: runs._accumulated(runs._correct()).standard_error(),
    "ensemble_confidence": lambda runs: runs._accumulated(
        p.max(1) for p in runs._all("probabilities")
    ).standard_error(),
    "memorization": lambda runs: runs.memorization().standard_error,
    "c_score": lambda runs: runs.held_out_consistency().standard_error,
}


def _median_of_columns(matrix: NDArray[Any]) -> NDArray[Any]:
    """Of what is not NaN in each column of [R, n], which is sorted in place (and fast in Fortran's order)."""
    known = len(matrix) - np.isnan(matrix).sum(0)
    matrix.sort(axis=0)  # NaN last
    middle = np.stack([np.maximum(known - 1, 0) // 2, known // 2])
    median: NDArray[Any] = np.take_along_axis(matrix, middle, axis=0).mean(0)
    return median


def _rank_fractions(values: NDArray[Any]) -> NDArray[Any]:
    """(rank - 0.5) / n within the n values that are not NaN, [N] float64."""
    fractions = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    if known.any():
        fractions[known] = (rank_rows(values[known][None])[0] - 0.5) / known.sum()
    return fractions


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
