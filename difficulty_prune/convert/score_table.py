"""Scores as a table: a row for each example, and what is known of it in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..runs.sums_over_runs import SumsOverRuns
from ..scores.catalogue import SCORES
from ..support.blocks import blocks
from ..support.counted import counted
from ..support.ranks import rank_rows
from ..support.spool import Spool

WHOLE: Final = ("index", "label", "suggested")
TEXT: Final = ("id", "path")
OF_A_SCORE: Final = ("_percentile", "_standard_error", "_runs")
ROWS: Final = 1 << 16
"""Rows in memory at once."""


class ScoreTable:
    """One row for each example. `dp.convert.to_csv` and its like write one, `from_csv` and its like read one.

    Columns, where known: `id`, `path`, `index`, `label`, `suggested` (-1: none), `suggested_probability`,
    `label_quality` (the mean probability of the label, as cleanlab defines it), and for each score its mean over the
    runs as stored, `<score>_percentile` (of its difficulty: the hardest example is near 100), `<score>_standard_error`
    (NaN with one run), and `<score>_runs`, how many runs presented the example. A file may have others.

    Numbers are in temporary files and read when asked for; texts are in memory.

    >>> table = ScoreTable.of(Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0, labels=[3, 5]))
    >>> table.columns
    ('index', 'label', 'el2n', 'el2n_percentile', 'el2n_standard_error', 'el2n_runs')
    >>> table["el2n_percentile"]
    array([25., 75.])
    """

    def __init__(self) -> None:
        self._spool, self._texts, self._order = Spool(), dict[str, list[Any]](), dict[str, None]()
        self._words: dict[str, tuple[str, NDArray[Any]]] = {}
        self.class_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, runs: RunSet | Run, *, scores: Iterable[str] | None = None, paths: Any = None) -> ScoreTable:
        """The scores of runs.

        Args:
            runs: one or several.
            scores: those to give, also scores of many runs together; default: all that every run has.
            paths: [N] texts, such as those of files, for tools that find examples by them.

        Raises:
            ValueError: an unknown score, another number of paths, or what `RunSet.mean` raises.
        """
        together = RunSet([runs]) if isinstance(runs, Run) else runs
        if not isinstance(together, RunSet):
            raise TypeError(f"runs: got {type(runs).__name__}, expected a dp.Run or a dp.RunSet")
        table, size = cls(), together.num_examples
        ids = together.ids
        if ids is not None:
            table.append("id", ids)
        if paths is not None:
            given = [str(path) for path in paths]
            if len(given) != size:
                raise ValueError(f"paths: got {len(given)}, expected {size}, one per example")
            table.append("path", np.array(given, dtype=object))
        table.append("index", np.arange(size))
        if together.labels is not None:
            table.append("label", together.labels)
        _add_suggested(table, together)
        for name in together.scores if scores is None else scores:
            _add_score(table, together, name)
        table.class_names = together.class_names
        return table

    def declare(self, name: str) -> None:
        """Gives a column its place among the columns before it has values."""
        self._order[name] = None

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Adds values [n] at the end of a column."""
        self._order[name] = None
        if values.dtype.kind in "iufb" and name not in self._texts:
            self._spool.append(name, values)
            return
        if name in self._spool:
            raise ValueError(f"column {name!r} holds numbers, and then {values[0]!r}")
        self._texts.setdefault(name, []).extend(values.tolist())

    def append_words(self, name: str, numbers: NDArray[Any], words: Sequence[str]) -> None:
        """Adds a column of texts, `words[number]` [N]; None where the number is that of no word.

        The texts are looked up when read, so that none is in memory.
        """
        self._spool.append(f"{name} by number", numbers)
        self._add_words(name, f"{name} by number", words)

    def name_classes(self) -> None:
        """Adds the names of classes as `label_name` and `suggested_name`, as far as these are known."""
        for column in ("label", "suggested"):
            if self.class_names is not None and column in self:
                self._add_words(f"{column}_name", column, self.class_names)

    def _add_words(self, name: str, column: str, words: Sequence[str]) -> None:
        self._words[name] = column, np.array([*words, None], dtype=object)
        self.declare(name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._order)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of those columns that hold texts."""
        return (*self._texts, *self._words)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores of the catalogue that the table holds."""
        return tuple(name for name in self._order if name in SCORES)

    def __len__(self) -> int:
        name = next(iter(self._order), None)
        return 0 if name is None else self._length(name)

    def _length(self, name: str) -> int:
        if name in self._words:
            name = self._words[name][0]
        return len(self._texts[name]) if name in self._texts else self._spool.length(name)

    def __contains__(self, name: object) -> bool:
        return name in self._order

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, [N]."""
        return self.read(name)

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Some rows of a column; KeyError if there is no such column."""
        if name not in self._order:
            raise KeyError(f"{name!r}: there are the columns {', '.join(self.columns)}")
        if name in self._words:
            column, words = self._words[name]
            numbers, none = self._spool.read(column, rows), len(words) - 1
            return np.asarray(words[np.where((numbers >= 0) & (numbers < none), numbers, none)])
        if name in self._texts:
            return np.array(self._texts[name][rows] + [None], dtype=object)[:-1]  # one dimension, whatever it holds
        return self._spool.read(name, rows)

    def __repr__(self) -> str:
        return f"ScoreTable({counted(len(self), 'example')}, columns={list(self.columns)})"

    def blocks(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The columns by name, of `ROWS` rows after another."""
        for start in range(0, len(self), ROWS):
            yield {name: self.read(name, slice(start, start + ROWS)) for name in self._order}

    def to_run(self, architecture: str = "table", seed: int = 0, **metadata: Any) -> Run:
        """The scores as a run, in the order of the index; that of the rows if there is none.

        What a run cannot hold stays in the table: standard errors, numbers of runs, and paths.

        Raises:
            ValueError: the table lacks some of the examples 0..N-1, or holds no score of the catalogue.

        >>> run = Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0)
        >>> ScoreTable.of(run).to_run().scores["el2n"]
        array([0.5, 1. ])
        """
        if not self.scores:
            raise ValueError(f"got the columns {', '.join(self.columns) or 'none'}, none of which is a score")
        order = self._by_index()
        facts: dict[str, Any] = {"labels": "label", "ids": "id", "suggested": "suggested"}
        facts |= {"suggested_probability": "suggested_probability"}
        known = {fact: self[name][order] for fact, name in facts.items() if name in self}
        if "suggested" not in known or "suggested_probability" not in known:
            known = {name: values for name, values in known.items() if not name.startswith("suggested")}
        scores = {name: self[name][order] for name in self.scores}
        more: dict[str, Any] = {**known, "class_names": self.class_names, **metadata}
        return Run(scores, architecture=architecture, seed=seed, **more)

    def _by_index(self) -> NDArray[np.int64]:
        """The row of each example, [N]."""
        if "index" not in self:
            return np.arange(len(self))
        index = self["index"]
        order = np.argsort(index, kind="stable")
        wrong = index[order] != np.arange(len(index))
        if wrong.any():
            lacking = int(wrong.argmax())
            raise ValueError(
                f"the table has {len(self)} rows, but none or several of index {lacking}; expected 0..{len(self) - 1}, "
                "each once: join what is of some examples by its ids"
            )
        return order

    def check(self, source: str) -> ScoreTable:
        """The table; ValueError if an id or an index is there twice, or columns differ in length."""
        lengths = {name: self._length(name) for name in self._order}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{source}: columns of different lengths, {lengths}")
        for name in ("id", "index"):
            if name in self:
                twice = _first_twice(self[name])
                if twice is not None:
                    raise ValueError(f"{source}: {name} {twice} is there more than once")
        return self


def _first_twice(values: NDArray[Any]) -> Any:
    """The smallest value that is there more than once, or None."""
    if values.dtype == object:
        values = values.astype(str)
    values.sort()  # in place: a column is read anew each time
    same = values[1:] == values[:-1]
    return values[1:][same][0] if same.any() else None


def _add_suggested(table: ScoreTable, runs: RunSet) -> None:
    """What the training suggests, and how well it goes with the label."""
    if all(run.has("mean_probabilities") for run in runs):
        width, known_labels = runs[0].read("mean_probabilities", slice(1)).shape[1], runs.labels
        for rows in blocks(runs.num_examples, width * len(runs)):
            means = _mean_probabilities(runs, rows)
            known = ~np.isnan(means[:, 0])
            table.append("suggested", np.where(known, np.nan_to_num(means).argmax(1), -1))
            table.append("suggested_probability", means.max(1))
            if known_labels is not None:
                labels = known_labels[rows]
                if int(labels.max()) >= width:
                    raise ValueError(f"labels: got class {labels.max()}, but the mean probabilities are of {width}")
                table.append("label_quality", means[np.arange(len(labels)), labels])
    elif all(run.has("suggested") for run in runs):
        chosen = runs.suggested()
        table.append("suggested", chosen)
        for rows in blocks(runs.num_examples, len(runs)):
            table.append("suggested_probability", _share_of_votes(runs, chosen[rows], rows))


def _mean_probabilities(runs: RunSet, rows: slice) -> NDArray[Any]:
    """Over the runs that presented the example, [n, C] float64; NaN where none did."""
    total, count = np.zeros(1), np.zeros(1)
    for run in runs:
        means = run.read("mean_probabilities", rows)
        presented = ~np.isnan(means[:, :1])
        total = total + np.where(presented, means, 0)
        count = count + presented
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count)


def _share_of_votes(runs: RunSet, chosen: NDArray[Any], rows: slice) -> NDArray[Any]:
    """Mean over the runs that presented the example of the probability with which they suggest this label, [n]."""
    total, count = np.zeros(len(chosen)), np.zeros(len(chosen))
    for run in runs:
        suggested = run.read("suggested", rows)
        total += np.where(suggested == chosen, np.nan_to_num(run.read("suggested_probability", rows)), 0)
        count += suggested >= 0
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count)


def _add_score(table: ScoreTable, runs: RunSet, name: str) -> None:
    """Block by block but for the ranks, so that little beside one vector of length N is in memory."""
    for suffix in ("", *OF_A_SCORE):
        table.declare(f"{name}{suffix}")
    size = runs.num_examples
    if name in runs.scores and name not in runs.tables:
        for rows in blocks(size):
            sums = SumsOverRuns(len(range(size)[rows]))
            for run in runs:
                sums.update(run.read(name, rows))
            _append(table, name, sums.mean(), sums.standard_error(), sums.count)
    else:
        mean = runs.mean(name)
        try:
            error = runs.standard_error(name)
        except ValueError:  # a published table, or a score whose error nobody knows
            error = np.full(size, np.nan)
        _append(table, name, mean, error, np.full(size, 0 if name in runs.tables else len(runs)))
    difficulty = table[name]
    if not runs.higher_is_harder(name):
        np.negative(difficulty, out=difficulty)
    table.append(f"{name}_percentile", percentile(difficulty))


def _append(table: ScoreTable, name: str, mean: NDArray[Any], error: NDArray[Any], number: NDArray[Any]) -> None:
    table.append(name, mean)
    table.append(f"{name}_standard_error", error)
    table.append(f"{name}_runs", number.astype(np.int64))


def percentile(difficulty: NDArray[Any]) -> NDArray[np.float64]:
    """100 (rank - 0.5) / n of the n numbers that are not NaN, [N] float64; ties share their average rank.

    >>> percentile(np.array([0.5, np.nan, 0.1, 0.5]))
    array([66.66666667,         nan, 16.66666667, 66.66666667])
    """
    known = ~np.isnan(difficulty)
    if not known.all():
        found = np.full(len(difficulty), np.nan)
        if known.any():
            found[known] = percentile(difficulty[known])
        return found
    if not len(difficulty):
        return np.empty(0)
    ranks: NDArray[np.float64] = rank_rows(difficulty[None])[0]
    ranks -= 0.5
    ranks *= 100 / len(ranks)
    return ranks
