"""Runs over the same data: their mean, what they say together, and published tables beside them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..decisions.decisions import Decisions, expect_decisions
from ..matched_ids import Match, identity_of, match_ids
from ..scores import ensembles
from ..scores.catalogue import SCORES, Score, check_scores
from ..scores.ensembles import Dichotomy, Estimate
from ..support.blocks import blocks
from ..support.counted import counted
from ..support.ranks import rank_rows
from .compatibility import SharedFacts, check_no_copies, check_same_data, unproven_data
from .join import join_by_id
from .run import Run
from .run_files import EXPECTED, find_run_files
from .set_aside import set_aside
from .sums_over_runs import SumsOverRuns
from .tables import open_table, read_table

__all__ = ["Run", "RunSet"]


class RunSet:
    """Runs over the same data: their mean difficulty, what they together say about an example, and published tables.

    `mean` and `difficulty` know three kinds of scores: those of each run, averaged; those of many runs together, such
    as "memorization"; and published ones, given by file with `with_table`.

    Loaded runs stay in their files and are read one after the other, or in blocks of examples: to compute one number
    per example takes memory for a few vectors of length N, however many runs there are.

    Args:
        runs: at least one; with the same length, dataset fingerprint, labels, and options of the scores they share.

    Raises:
        ValueError: no runs, runs of different data or options, or a run and its copy.
        TypeError: not runs.

    >>> runs = RunSet(Run({"aum": [a, 3.0]}, architecture="mlp", seed=s) for s, a in enumerate([1.0, 2.0]))
    >>> runs.mean("aum"), runs.difficulty("aum")
    (array([1.5, 3. ]), array([-1.5, -3. ]))
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        if not isinstance(runs, Iterable):
            raise TypeError(f"RunSet: got {runs!r}, expected several runs, as in RunSet([run])")
        self._runs = tuple(runs)
        if not self._runs:
            raise ValueError("RunSet: got no runs, expected at least one")
        shared = SharedFacts()
        for run in self._runs:
            if not isinstance(run, Run):
                raise TypeError(f"RunSet: got {run!r}, expected runs; RunSet.load reads files")
            shared.add(run, run.scores)
        check_no_copies(self._runs)
        self._tables: dict[str, tuple[Score, NDArray[Any]]] = {}

    @classmethod
    def load(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        join: Literal["ids"] | None = None,
        decisions: Decisions | None = None,
    ) -> RunSet:
        """Reads run files: one or several of a file, a folder, a glob pattern, or the folder of a study.

        The same file is read once, however often it is named. `find_run_files` says exactly what stands for what.
        Warns if nothing shows that the runs are of the same data, because some have no dataset fingerprint or labels.

        Args:
            paths: see above.
            join: "ids" for runs over several versions of a dataset. The set is then over all ids that any run has, in
                order of appearance. A run whose data lacked an example is as if it was never presented: means are over
                the runs that know it, and so are their standard errors. A warning counts the ids whose label differs
                between runs; a run counts only where it had the label of the last run that knows one. Joined runs are
                held in memory.
            decisions: of people, for runs with ids, which are joined. Labels are then the corrected ones, and a run
                counts only where it had these: the scores of an example under another label are left out, and a
                warning counts such examples.

        Raises:
            TypeError: not a path.
            FileNotFoundError: a name that stands for no file.
            ValueError: a file that is not a run, or runs that do not mix; with `join`, a run without ids, or versions
                with other class names.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0).save(os.path.join(folder, "mlp-0.safetensors"))
        ...     RunSet.load(folder)
        RunSet(1 run of 2 examples, architectures=['mlp'])
        """
        if decisions is not None:
            expect_decisions(decisions)
        files = find_run_files(paths)
        if not files:
            raise FileNotFoundError(f"RunSet.load: got no paths; expected {EXPECTED}")
        if join not in (None, "ids"):
            raise ValueError(f"join: got {join!r}, expected 'ids' or None")
        loaded = [Run.load(path) for path in files]
        if join == "ids" or decisions is not None:
            check_no_copies(loaded)
            loaded, noticed = join_by_id(loaded, decisions)
            if noticed is not None:
                warnings.warn(noticed, stacklevel=2)
        runs = cls(loaded)
        unproven = unproven_data(runs._runs)
        if unproven is not None:
            warnings.warn(unproven, stacklevel=2)
        return runs

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __getitem__(self, position: int) -> Run:
        return self._runs[position]

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'run')} of {counted(self.num_examples, 'example')}"
        return f"RunSet({size}, architectures={list(self.architectures)})"

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self._runs[0])

    @property
    def labels(self) -> NDArray[Any] | None:
        """[N] int64 from the first run that knows them."""
        return next((run.labels for run in self._runs if run.has("labels")), None)

    @property
    def ids(self) -> NDArray[Any] | None:
        """[N] of Python texts (dtype object) or int64 from the first run that has them, or None."""
        return next((run.ids for run in self._runs if run.has("ids")), None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, from the first run that knows them, or None."""
        return next((run.class_names for run in self._runs if run.class_names is not None), None)

    def match(self, dataset: Any) -> Match:
        """Where each example of today's dataset is among these, by id; with a report of those that vanished or are new.

        Args:
            dataset: of M examples: an `IndexedDataset` with ids (or what it may wrap), or an array of ids [M].

        Raises:
            ValueError: runs or a dataset without ids, or none that matches; or ids that are numbers of rows, of
                examples whose labels agree hardly more often than by chance.

        >>> facts = dict(architecture="mlp", ids=["a", "b"], labels=[0, 1])
        >>> runs = RunSet([Run({"el2n": [0.5, 1.0]}, seed=0, **facts)])
        >>> print(runs.match(np.array(["b", "c"])).report)
        1 of 2 examples match; 1 vanished ('a'); 1 is new ('c')
        """
        ids = self.ids
        if ids is None:
            raise ValueError(
                "no run has ids, so that a dataset cannot be compared with these runs; give tracker.finish dataset="
            )
        match = match_ids(ids, dataset, labels=self.labels, class_names=self.class_names, name="runs")
        return self._tell_of_test_data(match, dataset) if match.report.new else match

    def _tell_of_test_data(self, match: Match, dataset: Any) -> Match:
        """The same match, whose report says how many of the new examples a study set aside for testing."""
        aside = set_aside(self._runs)
        if not isinstance(aside, frozenset):
            return match
        new = np.asarray(identity_of(dataset).ids)[match.positions < 0].tolist()
        number = sum(name in aside for name in new)
        if not number:
            return match
        of_new = f"{number} of the new ones {'is' if number == 1 else 'are'}"
        text = f"{match.report}; {of_new} test data of the study, not to be trained on"
        return match._replace(report=dataclasses.replace(match.report, text=text))

    @property
    def architectures(self) -> tuple[str, ...]:
        """Different architectures, in order of appearance."""
        return tuple(dict.fromkeys(run.architecture for run in self._runs))

    @property
    def scores(self) -> tuple[str, ...]:
        """Scores that every run has, in the order of the catalogue."""
        return tuple(name for name in self._runs[0].scores if all(run.has(name) for run in self._runs))

    def where(self, **metadata: Any) -> RunSet:
        """The runs whose metadata has these values, as in `runs.where(architecture="mlp")`.

        Raises:
            ValueError: no run has them.
        """
        chosen = [run for run in self._runs if all(run.metadata.get(k) == v for k, v in metadata.items())]
        if not chosen:
            known = {key: sorted({str(run.metadata.get(key)) for run in self._runs}) for key in metadata}
            raise ValueError(f"where: no run has {metadata}; the runs have {known}, and the fields {self._fields()}")
        return self._with(chosen, self._tables)

    def group_by(self, key: str) -> dict[Any, RunSet]:
        """The runs by a field of their metadata, in order of appearance; those without it under None.

        Raises:
            ValueError: no run has the field, or its values are lists or dicts.

        >>> names = "mlp", "cnn", "mlp"
        >>> runs = RunSet(Run({"aum": [1.0]}, architecture=name, seed=s) for s, name in enumerate(names))
        >>> runs.group_by("architecture")  # doctest: +NORMALIZE_WHITESPACE
        {'mlp': RunSet(2 runs of 1 example, architectures=['mlp']),
         'cnn': RunSet(1 run of 1 example, architectures=['cnn'])}
        """
        if not any(key in run.metadata for run in self._runs):
            raise ValueError(f"group_by: no run has a field {key!r}; the runs have {self._fields()}")
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
            examples: a slice, positions [n], or a mask [N] of bool, to read only these columns; default: all.

        Raises:
            ValueError: an unknown score, or one that a run lacks, such as one of many runs together.
            TypeError, IndexError: examples that are none of these, or outside the data.
        """
        self._check_of_each_run("matrix", score)
        return self._matrix(score, examples)

    def _matrix(
        self, score: str, examples: slice | NDArray[Any] | None, order: Literal["C", "F"] = "C"
    ) -> NDArray[Any]:
        return self._stacked((run.read(score, examples) for run in self._runs), np.float64, order)

    def median(self, score: str) -> NDArray[Any]:
        """Median over the runs that presented the example, [N] float64, as stored; NaN where none did.

        Unlike the mean it does not follow a single run that went astray.

        Raises:
            ValueError: as for `matrix`.

        >>> runs = RunSet(Run({"loss": [a, 1.0]}, architecture="mlp", seed=s) for s, a in enumerate([1.0, 2.0, 99.0]))
        >>> runs.median("loss")
        array([2., 1.])
        """
        self._check_of_each_run("median", score)
        return np.concatenate([_median_of_columns(self._matrix(score, block, "F")) for block in self._blocks()])

    def rank_mean(self, score: str) -> NDArray[Any]:
        """Mean over the runs of the example's rank within the run, as a fraction in (0, 1), [N] float64.

        Of the n examples that a run presented, the one with the lowest score as stored has rank 1, and ties share
        their average rank; as a fraction it is (rank - 0.5) / n. NaN where no run presented the example. All runs
        count alike, whatever the scale of their scores.

        Raises:
            ValueError: as for `matrix`.

        >>> runs = RunSet(Run({"aum": [s, 9 * s, 5]}, architecture="mlp", seed=s) for s in (1, 100))
        >>> runs.rank_mean("aum")
        array([0.33333333, 0.83333333, 0.33333333])
        """
        self._check_of_each_run("rank_mean", score)
        return self._summed(_rank_fractions(run.scores[score]) for run in self._runs).mean()

    def _check_of_each_run(self, what: str, score: str) -> None:
        if self._needs_many_runs(score) or score in self._tables:
            raise ValueError(
                f"{what}: {score!r} is one number per example for all runs together, not one per run; "
                f"see runs.mean({score!r})"
            )
        for run in self._runs:
            if not run.has(score):
                raise ValueError(f"{run!r} has no score {score!r}; all runs have {', '.join(self.scores) or 'none'}")

    def _blocks(self) -> Iterator[slice]:
        """Slices of the examples, for work on [R, n]."""
        return blocks(self.num_examples, width=len(self))

    def _stacked(self, rows: Iterable[NDArray[Any]], dtype: Any, order: Literal["C", "F"] = "C") -> NDArray[Any]:
        """[R, n] of one row per run, each copied as it comes, so that only one is in memory beside the result."""
        stacked = np.empty(0)
        for position, row in enumerate(rows):
            if position == 0:
                stacked = np.empty((len(self), *row.shape), dtype, order)
            stacked[position] = row
        return stacked

    # One number per example

    def mean(self, score: str) -> NDArray[Any]:
        """The score over all runs, [N] float64, as stored.

        If `with_table` gave a table of the score, its values; if the score needs many runs, what they say together;
        else the mean over the runs that presented the example, NaN where none did.

        Raises:
            ValueError: an unknown score, or one whose inputs the runs lack.
        """
        needs_many = self._needs_many_runs(score)  # first, as it refuses what is not a score
        if score in self._tables:
            return self._tables[score][1].copy()
        if needs_many:
            return _OF_MANY_RUNS[score](self)
        return self._sums(score).mean()

    def standard_error(self, score: str) -> NDArray[Any]:
        """Standard error of `mean`, [N] float64, from the spread between runs (ddof 1).

        NaN, not known, with fewer than two runs, or where all runs have the same value: a few that happen to agree, as
        counts often do, showed no spread, which does not mean that there is none.

        Raises:
            ValueError: as for `mean`; or the score comes from a table or is "agreement", whose error is not known.
        """
        needs_many = self._needs_many_runs(score)  # first, as it refuses what is not a score
        if score in self._tables or (score == "agreement" and needs_many):
            raise ValueError(f"standard_error: none is known for {score!r}, which is not a mean over these runs")
        if needs_many:
            return _ERROR_OF_MANY_RUNS[score](self)
        return self._sums(score).standard_error()

    def _sums(self, score: str) -> SumsOverRuns:
        self._check_of_each_run("mean", score)
        return self._summed(run.scores[score] for run in self._runs)

    def _summed(self, rows: Iterable[NDArray[Any]]) -> SumsOverRuns:
        sums = SumsOverRuns(self.num_examples)
        for row in rows:
            sums.update(row)
        return sums

    def difficulty(self, score: str, *, dataset: Any = None) -> NDArray[Any]:
        """`mean` turned so that high = hard, [N] float64.

        Args:
            score: see `mean`.
            dataset: today's, of M examples, which may be another version: the result is then [M], in its order, by id.
                New examples are NaN. A warning counts those that vanished, are new or moved to another class.

        Raises:
            ValueError: as for `mean`; or see `match`.
        """
        mean = self.mean(score)
        difficulty = mean if self._definition(score).higher_is_harder else -mean
        if dataset is None:
            return difficulty
        match = self.match(dataset)
        match.warn_of_others(stacklevel=2)
        return match.align(difficulty)

    def higher_is_harder(self, score: str) -> bool:
        """Whether high values of the score, as stored, are those of hard examples.

        Raises:
            ValueError: an unknown score.
        """
        return self._definition(score).higher_is_harder

    def _definition(self, score: str) -> Score:
        if not isinstance(score, str):
            raise TypeError(f"score: got {score!r}, expected one name such as 'el2n'")
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
        rows = (run.read("seen", examples) if run.has("seen") else everything for run in self._runs)
        return self._stacked(rows, np.bool_)

    def model_accuracy(self) -> NDArray[Any]:
        """Fraction of the runs that predict the label, [N] float64, whether they trained on the example or not.

        Raises:
            ValueError: a run lacks predictions, or no run knows the labels.

        >>> facts = dict(architecture="mlp", labels=[0, 1])
        >>> runs = RunSet(Run({"el2n": [0, 0]}, seed=s, predictions=[0, s], **facts) for s in range(2))
        >>> runs.model_accuracy()
        array([1. , 0.5])
        """
        labels = self._check_predicted()
        known = [ensembles.model_accuracy(self._predictions(block), labels[block]) for block in self._blocks()]
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
            ValueError: a run lacks probabilities, fewer than two runs, or different numbers of classes.
        """
        return ensembles.agreement(self._all("probabilities"))

    def ensemble_confidence(self) -> NDArray[Any]:
        """Mean over the runs of the largest probability, [N] float64; see `dp.scores.ensemble_confidence`.

        Raises:
            ValueError: a run lacks probabilities.
        """
        return ensembles.ensemble_confidence(self._all("probabilities"))

    def memorization(self) -> Estimate:
        """How much more often runs that trained on the example are right than runs that did not (arXiv 2008.03703).

        Gives the value, its standard error, and how many runs saw each example. As a score it is
        `runs.mean("memorization")`.

        Raises:
            ValueError: no run left examples out, a run lacks predictions, or no run knows the labels.

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
        """How often runs that did not train on the example are right (arXiv 2002.03206).

        Gives what `memorization` gives. As a score it is `runs.mean("c_score")`.

        Raises:
            ValueError: as for `memorization`.
        """
        return self._estimate("held_out_consistency", ensembles.held_out_consistency)

    def _estimate(self, name: str, estimate: Callable[[NDArray[Any], NDArray[Any]], Estimate]) -> Estimate:
        labels = self._check_predicted()
        if all(not run.has("seen") or run.read("seen").all() for run in self._runs):
            raise ValueError(
                f"{name}: each of the {len(self)} runs trained on every example; it takes runs that left some out, "
                "from `study --hold-out 0.3` or tracker.finish(seen=...)"
            )
        known = [estimate(self._predictions(block) == labels[block], self._seen(block)) for block in self._blocks()]
        fields = (field.name for field in dataclasses.fields(Estimate))
        return Estimate(*(np.concatenate([getattr(of_block, field) for of_block in known]) for field in fields))

    def _all(self, what: Literal["predictions", "probabilities"]) -> Iterator[NDArray[Any]]:
        """Those of each run, one after the other."""
        lacking = [run for run in self._runs if not run.has(what)]
        if lacking:
            raise ValueError(
                f"{len(lacking)} of {len(self)} runs have no {what}, the first is {lacking[0]!r}: give them to "
                f"tracker.finish({what}=...), or let `study` train these runs again"
            )
        return (run.read(what) for run in self._runs)

    def _predictions(self, examples: slice) -> NDArray[Any]:
        return self._stacked((run.read("predictions", examples) for run in self._runs), np.int64)

    def _check_predicted(self) -> NDArray[Any]:
        """The labels, after a check that every run has predictions to compare with them."""
        self._all("predictions")
        labels = self.labels
        if labels is None:
            raise ValueError(
                "no run knows the labels, which predictions are compared with; give labels= to one of the runs"
            )
        return labels

    def _correct(self) -> Iterator[NDArray[Any]]:
        labels = self._check_predicted()
        return (predictions == labels for predictions in self._all("predictions"))

    # What the training suggests

    def mean_probabilities(self) -> NDArray[Any]:
        """Mean over the runs, and their trainings, of the probabilities of each class, [N, C] float64.

        What cleanlab calls `pred_probs`. Over the runs that presented the example; NaN where none did.

        Raises:
            ValueError: a run does not keep its mean probabilities, or runs of different numbers of classes.

        >>> facts = dict(architecture="mlp", mean_probabilities=[[0.5, 0.5], [0.25, 0.75]])
        >>> runs = RunSet(Run({"el2n": [s, 0.5]}, seed=s, **facts) for s in range(2))
        >>> runs.mean_probabilities()
        array([[0.5 , 0.5 ],
               [0.25, 0.75]])
        """
        widths = {run.read("mean_probabilities", slice(1)).shape[1] for run in self._suggesting("mean_probabilities")}
        if len(widths) > 1:
            raise ValueError(f"mean_probabilities: the runs have different numbers of classes, {sorted(widths)}")
        total = np.zeros((self.num_examples, widths.pop()))
        count = np.zeros((self.num_examples, 1), np.int64)
        for run in self._runs:
            means = run.read("mean_probabilities")
            presented = ~np.isnan(means[:, :1])
            np.add(total, means, out=total, where=presented)
            count += presented
        with np.errstate(invalid="ignore"):
            return total / count

    def suggested(self) -> NDArray[Any]:
        """The labels that the runs together suggest, [N] int64; -1 where no run presented the example.

        Where every run keeps its mean probabilities, the class with the largest mean over the runs. Else each run votes
        for the label that it suggests, and the vote weighs its mean probability. The lowest class wins a tie.

        Raises:
            ValueError: a run did not record mean probabilities.

        >>> facts = dict(architecture="mlp", suggested=[1, -1], suggested_probability=[0.75, float("nan")])
        >>> RunSet([Run({"el2n": [0.1, 0.5]}, seed=0, **facts)]).suggested()
        array([ 1, -1])
        """
        self._suggesting("suggested")
        if all(run.has("mean_probabilities") for run in self._runs):
            means = self.mean_probabilities()
            return np.where(np.isnan(means[:, 0]), -1, means.argmax(1))
        return np.concatenate([self._voted(block) for block in self._blocks()])

    def _voted(self, examples: slice) -> NDArray[Any]:
        """The class of the largest sum of votes, [n] int64."""
        chosen = self._stacked((run.read("suggested", examples) for run in self._runs), np.int64)
        weight = self._stacked((run.read("suggested_probability", examples) for run in self._runs), np.float64)
        weight = np.nan_to_num(weight)
        best, most = np.full(chosen.shape[1], -1), np.zeros(chosen.shape[1])
        for vote in chosen:
            votes = np.where(chosen == vote, weight, 0).sum(0)
            better = (vote >= 0) & ((best < 0) | (votes > most) | ((votes == most) & (vote < best)))
            best, most = np.where(better, vote, best), np.where(better, votes, most)
        return best

    def _suggesting(self, what: str) -> tuple[Run, ...]:
        """The runs, if all have it."""
        lacking = [run for run in self._runs if not run.has(what)]
        if lacking:
            how = "make the tracker with DifficultyTracker(..., mean_probabilities=True)"
            if what == "mean_probabilities":
                how += ", and end the run with tracker.finish(..., mean_probabilities=True)"
            raise ValueError(f"{len(lacking)} of {len(self)} runs have no {what}, the first is {lacking[0]!r}: {how}")
        return self._runs

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
        another order is noticed. With a column `id`, where the runs have ids, rows are found by it, and a warning
        counts those of ids that the runs lack. With a column `index` (`idx`, `id`, or the nameless one that pandas
        writes) of positions the rows may come in any order too. Examples without a row are NaN. Without such a column
        there must be one row for each example, in order.

        Args:
            path: `.npz`, `.npy`, `.csv` or `.tsv` with a header, `.parquet`, or a run file, `.safetensors`.
            score: what it is: a name of the catalogue, or a `dp.Score` of your own. Default: what the name of a column
                says; `tr_mem` of Feldman and Zhang is "memorization". It replaces an earlier table of the same score.
            column: where it is; default: the column with the name of the score, or the only one there is.

        Raises:
            FileNotFoundError: no such file.
            ImportError: `.parquet` without pyarrow.
            ValueError: not a table, no column or several that it could be, values that are infinite or not numbers,
                other labels or another number of examples; or a score that the runs already have.

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
                found, values = read_table(path, table, score, column, self.labels, self.num_examples, self.ids)
        if any(found.name in run.scores for run in self._runs):
            raise ValueError(
                f"{path}: the runs already have a score {found.name!r}; give the table's another name, with "
                "score=dp.Score(name=...)"
            )
        return self._with(self._runs, {**self._tables, found.name: (found, values)})

    def _with(self, runs: Iterable[Run], tables: Mapping[str, tuple[Score, NDArray[Any]]]) -> RunSet:
        other = RunSet.__new__(RunSet)  # runs that mix need no second check
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
    "model_accuracy": lambda runs: runs._summed(runs._correct()).standard_error(),
    "ensemble_confidence": lambda runs: runs._summed(p.max(1) for p in runs._all("probabilities")).standard_error(),
    "memorization": lambda runs: runs.memorization().standard_error,
    "c_score": lambda runs: runs.held_out_consistency().standard_error,
}


def _median_of_columns(matrix: NDArray[Any]) -> NDArray[Any]:
    """Of what is not NaN in each column of [R, n]; sorts it in place, which is fast in Fortran's order."""
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
