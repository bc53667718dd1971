"""The fingerprint of architectures: a few examples whose scores tell which architecture trained a run."""

from __future__ import annotations

import dataclasses
import math
import os
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.checks import check_number, whole_number
from ..support.files import MALFORMED, load_vectors, save_vectors
from ..support.pieces import check_executor
from ..support.plain import plain_fields
from .accuracy import Accuracy
from .classifier import Classifier
from .groups import group_runs, name_all
from .held_out import Ranking, always, choose, recognise_held_out
from .selection import Select, check_select, rank_examples
from .sensitive_examples import SensitiveExamples

_FORMAT: Final = 1
_LEVEL: Final = 0.995
"""Share of further runs of a known architecture within the limit. In simulations of 10 runs of each of three
architectures, 0.9 % of further runs were refused and 4 % of the runs of a fourth were taken for a known one; with 0.95
it was 6.7 % and 0.6 %, with 0.999 it was 0.2 % and 8 %."""


@dataclass(frozen=True, eq=False, repr=False)
class ArchitectureFingerprint:
    """Recognises the architecture of a run by its scores of k examples (arXiv 2401.01867, section 5).

    Logistic regression, L2-regularised, reads the standardised scores. A run is unlike any known architecture if it is
    further from the mean of the predicted one than held-out runs were from the mean of their own. Distances are in
    units of the spread between runs of an architecture, and 99.5% of further runs would be within the limit if the cube
    root of the squared distance were normal (Wilson and Hilferty 1931). With one example, two architectures or few runs
    the limit is wide, and an unknown architecture is often taken for a known one.

    Attributes:
        examples: [k] int64 positions.
        architectures: G names, sorted.
        score: the one that is compared.
        accuracy: on runs held out in cross-validation, with the examples chosen anew from the other runs. Its interval
            takes the answers as independent, which they are not quite: in simulations of 8 to 20 runs that did not
            differ, it was above chance in 6 to 10 % of cases instead of 2.5 %.
        limit: the largest distance at which a run is like a known one.
        num_examples, dataset_fingerprint: of the data, to refuse runs of other data.
        classifier: what was learned.
        chance: the accuracy of always naming the architecture with the most runs; None in one that was loaded.

    >>> runs = RunSet(
    ...     Run({"el2n": [0.1 * s, 0.1 * s + far, 0.5]}, architecture=name, seed=s)
    ...     for name, far in (("cnn", 0), ("mlp", 5)) for s in range(6)
    ... )
    >>> fingerprint = ArchitectureFingerprint.fit(runs, "el2n", examples=1)
    >>> print(fingerprint)
    1 example tells cnn and mlp apart by el2n: 12 of 12 held-out runs recognised (100%, 76% to 100%).
    >>> fingerprint.predict(Run({"el2n": [0.2, 5.2, 0.5]}, architecture="?", seed=0))
    'mlp'
    >>> print(fingerprint.predict(Run({"el2n": [0.2, 50.0, 0.5]}, architecture="?", seed=0)))
    None
    """

    examples: NDArray[Any]
    architectures: tuple[str, ...]
    score: str
    accuracy: Accuracy
    limit: float
    num_examples: int
    dataset_fingerprint: str | None
    classifier: Classifier
    chance: float | None = None

    @classmethod
    def fit(
        cls,
        runs: RunSet,
        score: str = "el2n",
        examples: Any = 10,
        *,
        select: Select = "sensitive",
        seed: int = 0,
        executor: Executor | None = None,
    ) -> ArchitectureFingerprint:
        """Learns from runs of known architectures.

        Args:
            runs: at least three of each of at least two architectures.
            score: one that every run has.
            examples: how many to choose; or their positions [k], if they were chosen without these runs.
            select: how to choose: "sensitive" (to the architecture), "random", "hardest", or "pca" (those with most of
                their variance in the first principal components of the runs).
            seed: of folds, permutations and random choices.
            executor: does the tests of "sensitive" in pieces, as for `sensitive_examples`: one of all runs, and one
                for each of up to ten folds.

        Raises:
            TypeError: `runs` is not a RunSet, not an executor, or positions that are not whole numbers.
            ValueError: an unknown score or way to choose, too few architectures or runs of one, more examples than
                every run presented, or positions that are repeated, outside the data, or not presented in every run.
        """
        check_select(select)
        whole_number(seed, "seed")
        check_executor(executor)
        groups = group_runs(runs, score, at_least=3)
        known = groups.known()
        ways = partial(rank_examples, select=select, seed=seed, executor=executor)
        ranking, size = _how_to_choose(examples, ways, known)

        outcome = recognise_held_out(groups, ranking, (size,), known, seed)[size]
        chosen = choose(ranking, groups, size, known)
        return cls(
            examples=chosen,
            architectures=groups.architectures,
            score=score,
            accuracy=Accuracy.of(int(outcome.correct.sum()), len(outcome.correct)),
            limit=_limit(outcome.distance),
            num_examples=runs.num_examples,
            dataset_fingerprint=runs[0].dataset_fingerprint,
            classifier=Classifier.fit(groups.matrix(chosen), groups.members),
            chance=max(groups.sizes) / sum(groups.sizes),
        )

    def predict(self, run: Run) -> str | None:
        """The architecture of the run; None if it is unlike any known one.

        Raises:
            TypeError: not a Run.
            ValueError: a run of other data, without the score, or that did not present all of the examples.
        """
        x = self._read(run)
        return self.architectures[self._nearest(x)] if self._distance(x) <= self.limit else None

    def predict_proba(self, run: Run) -> dict[str, float]:
        """How probable each known architecture is, given that it is one of them; they sum to 1.

        Raises:
            TypeError, ValueError: as for `predict`.
        """
        return dict(zip(self.architectures, self.classifier.probabilities(self._read(run))[0].tolist(), strict=True))

    def distance(self, run: Run) -> float:
        """How far the run is from the mean of the architecture it resembles most; compare it with `limit`.

        Raises:
            TypeError, ValueError: as for `predict`.
        """
        return self._distance(self._read(run))

    def describe(self, sensitive: SensitiveExamples | None = None) -> str:
        """The answer in words.

        Args:
            sensitive: the test of each example, for a fingerprint of sensitive examples. With it the answer says if
                chance may explain what these examples are on their own.
        """
        single = len(self.examples) == 1
        told = f"{len(self.examples):,} example{' tells' if single else 's tell'}"
        (low, high), chance = self.accuracy.interval, self.chance or 1 / len(self.architectures)
        found = len(self.examples) if sensitive is None else np.isin(self.examples, sensitive.significant()).sum()
        start = "Nothing shows that " if low <= chance else "" if found else "Together, "
        text = (
            f"{start}{told} {name_all(self.architectures)} apart by {self.score}: {self.accuracy.correct:,} of "
            f"{self.accuracy.total:,} held-out runs recognised ({self.accuracy.value:.0%}, {low:.0%} to {high:.0%})"
        )
        if low <= chance:
            text += f", where guessing gives {chance:.0%}"
        if found == len(self.examples):
            return text + "."
        if single:
            return text + ". It is not significant: it merely has the smallest p-value, and chance may explain it."
        if found:
            return text + f". {found:,} of them are significant; the others merely have the next smallest p-values."
        return text + (
            ". None of them is significant on its own: they merely have the smallest p-values, and chance may explain "
            "each."
        )

    def __str__(self) -> str:
        return self.describe()

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """What it compares and how well, as JSON can hold it."""
        return plain_fields(self, leave_out=("num_examples", "dataset_fingerprint", "classifier", "chance"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all.

        Raises:
            OSError: it cannot be written; the message names the file and says what to do.
        """
        header = {
            "architectures": self.architectures,
            "score": self.score,
            "accuracy": {"correct": self.accuracy.correct, "total": self.accuracy.total},
            "limit": self.limit,
            "num_examples": self.num_examples,
            "dataset_fingerprint": self.dataset_fingerprint,
        }
        arrays = {field.name: getattr(self.classifier, field.name) for field in dataclasses.fields(Classifier)}
        save_vectors(path, "fingerprint", _FORMAT, {"examples": self.examples, **arrays}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ArchitectureFingerprint:
        """Reads a fingerprint file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, damaged, not a fingerprint, or newer than this library; the message names the file.
            OSError: it cannot be read; the message names the file and says what to do.
        """
        arrays, header = load_vectors(path, "fingerprint", _FORMAT)
        try:
            if not isinstance(header["architectures"], list):
                raise TypeError(f"architectures: got {header['architectures']!r}, expected a list of names")
            found = cls(
                examples=arrays.pop("examples"),
                architectures=tuple(header["architectures"]),
                score=header["score"],
                accuracy=Accuracy.of(*(whole_number(header["accuracy"][name], name) for name in ("correct", "total"))),
                limit=header["limit"],
                num_examples=header["num_examples"],
                dataset_fingerprint=header["dataset_fingerprint"],
                classifier=Classifier(**arrays),
            )
            _check_content(found)
        except MALFORMED as error:
            raise ValueError(f"{path}: not a valid fingerprint file ({error})") from error
        return found

    def _nearest(self, x: NDArray[Any]) -> int:
        return int(self.classifier.probabilities(x)[0].argmax())

    def _distance(self, x: NDArray[Any]) -> float:
        return float(self.classifier.distance(x, np.array([self._nearest(x)]))[0])

    def _read(self, run: Run) -> NDArray[Any]:
        """The run's scores of the examples, [1, k]."""
        if not isinstance(run, Run):
            raise TypeError(f"got {type(run).__name__}, expected a Run; from a RunSet take one such as runs[0]")
        for what, ours, theirs in (
            ("number of examples", self.num_examples, len(run)),
            ("dataset_fingerprint", self.dataset_fingerprint, run.dataset_fingerprint),
        ):
            if ours != theirs and None not in (ours, theirs):
                raise ValueError(
                    f"{run!r} is of other data than this architecture fingerprint: {what} {theirs}, expected {ours}; "
                    "fit one to runs of that data"
                )
        if self.score not in run.scores:
            raise ValueError(f"{run!r} has no score {self.score!r}, by which this fingerprint recognises runs")
        x = run.read(self.score, self.examples).astype(np.float64)
        if np.isnan(x).any():
            raise ValueError(
                f"{run!r} did not present {int(np.isnan(x).sum())} of the fingerprint's {len(x)} examples, the first "
                f"is {self.examples[np.isnan(x)][0]}: let the run score them, or fit without them (examples=positions)"
            )
        return x[None]


def check_size(size: int, known: NDArray[Any], name: str) -> None:
    """TypeError or ValueError unless this many examples can be chosen from the known ones [N]."""
    if not 1 <= whole_number(size, name) <= known.sum():
        raise ValueError(f"{name}: got {size}, expected 1 to {known.sum():,}, the examples that every run presented")


def _how_to_choose(examples: Any, ranking: Ranking, known: NDArray[Any]) -> tuple[Ranking, int]:
    """The ranking of examples, or the one that was given, and how many of the first to take."""
    if np.ndim(examples) == 0:
        check_size(examples, known, "examples")
        return ranking, int(examples)
    given = np.asarray(examples)
    if given.ndim != 1 or len(given) == 0 or given.dtype.kind not in "iu":
        raise TypeError(
            f"examples: got {given.dtype} {given.shape}, expected a number, or positions [k] as whole numbers"
        )
    if given.min() < 0 or given.max() >= len(known) or len(np.unique(given)) < len(given):
        raise ValueError(f"examples: got {given}, expected different positions from 0 to {len(known) - 1}")
    if not known[given].all():
        raise ValueError(f"examples: a run did not present example {given[~known[given]][0]}; choose others")
    return always(given.astype(np.int64)), len(given)


def _limit(distance: NDArray[Any]) -> float:
    """Upper prediction bound for a further run, from distances [R]; at least the spread between runs, which is 1."""
    from scipy.stats import t

    root = np.cbrt(distance**2)
    bound = root.mean() + t.ppf(_LEVEL, len(root) - 1) * root.std(ddof=1) * np.sqrt(1 + 1 / len(root))
    return float(np.maximum(bound, 1) ** 1.5)


def _check_content(fingerprint: ArchitectureFingerprint) -> None:
    """TypeError or ValueError unless the arrays fit the examples and architectures, and all else is of its kind."""
    size = whole_number(fingerprint.num_examples, "num_examples", least=1)
    check_number(fingerprint.limit, "limit", "(0, inf)")
    if not 0 < fingerprint.limit < math.inf:
        raise ValueError(f"limit: got {fingerprint.limit}, expected a number in (0, inf)")
    if not isinstance(fingerprint.score, str) or not isinstance(fingerprint.dataset_fingerprint, str | None):
        got = f"score {fingerprint.score!r}, dataset_fingerprint {fingerprint.dataset_fingerprint!r}"
        raise TypeError(f"got {got}, expected text")
    names = fingerprint.architectures
    if not all(isinstance(name, str) for name in names) or len(set(names)) < max(len(names), 2):
        raise ValueError(f"architectures: got {names}, expected different names, at least two")
    examples = fingerprint.examples
    if examples.dtype != np.int64 or examples.ndim != 1 or not ((examples >= 0) & (examples < size)).all():
        raise ValueError(f"examples: got {examples}, expected positions below {size}")
    if not 0 < len(examples) == len(np.unique(examples)):
        raise ValueError(f"examples: got {examples}, expected different positions, at least one")
    _check_arrays(fingerprint.classifier, len(names), len(examples))


def _check_arrays(classifier: Classifier, groups: int, k: int) -> None:
    shapes = {"coefficient": (groups, k), "centre": (groups, k), "intercept": (groups,)}
    for field in dataclasses.fields(Classifier):
        array, shape = getattr(classifier, field.name), shapes.get(field.name, (k,))
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{field.name}: got {array.dtype} {array.shape}, expected finite numbers {shape}")
    for name in ("scale", "spread"):
        if not (getattr(classifier, name) > 0).all():
            raise ValueError(f"{name}: got {getattr(classifier, name).min()}, expected numbers above 0")
