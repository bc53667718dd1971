"""Runs and sets of runs: scores on disk, and their mean over runs."""

from __future__ import annotations

import glob
import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from .files import Array, load_vectors, save_vectors
from .scores import SCORES, check_scores
from .version import __version__

_FORMAT: Final = 1
_LABELS: Final = "labels"


class Run:
    """One training run: its scores, what was trained, and on what data. Read-only.

    Args:
        scores: name -> [N] float32 or float64; NaN for an example that was never presented.
        architecture, seed: what was trained.
        labels: [N] whole numbers, the true classes, if known.
        dataset_fingerprint: from `dp.dataset_fingerprint`.
        metadata: anything else that JSON can hold.

    Raises:
        TypeError, ValueError: an unknown score, scores of different lengths or of no length, values that are not
            numbers, an infinite score, a negative label, or metadata that JSON cannot hold.

    >>> run = Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0, epochs=3)
    >>> len(run), run.metadata["epochs"]
    (2, 3)
    """

    def __init__(
        self,
        scores: Mapping[str, Any],
        *,
        architecture: str,
        seed: int,
        labels: Any = None,
        dataset_fingerprint: str | None = None,
        **metadata: Any,
    ) -> None:
        check_scores(scores)
        self._scores = {name: _vector(scores[name], name) for name in SCORES if name in scores}
        sizes = {name: len(values) for name, values in self._scores.items()}
        if len(set(sizes.values())) > 1 or 0 in sizes.values():
            raise ValueError(f"scores: got lengths {sizes}, expected the same length for all, at least 1")
        self._labels = None if labels is None else _labels(labels, len(self))
        facts = {
            "architecture": architecture,
            "seed": operator.index(seed),
            "dataset_fingerprint": dataset_fingerprint,
            "library": __version__,
            "torch": str(torch.__version__),
            **metadata,
        }
        self._metadata = {key: _plain(value, key) for key, value in facts.items()}

    def __len__(self) -> int:
        return len(next(iter(self._scores.values())))

    def __repr__(self) -> str:
        return f"Run({self.architecture!r}, seed={self.seed}, examples={len(self)}, scores={list(self._scores)})"

    @property
    def scores(self) -> Mapping[str, Array]:
        """Name -> [N], as the literature defines the score."""
        return MappingProxyType(self._scores)

    @property
    def labels(self) -> Array | None:
        """[N] int64, or None if not known."""
        return self._labels

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Architecture, seed, dataset fingerprint, versions and whatever else the run was given."""
        return MappingProxyType(self._metadata)

    @property
    def architecture(self) -> str:
        return str(self._metadata["architecture"])

    @property
    def seed(self) -> int:
        return int(self._metadata["seed"])

    @property
    def dataset_fingerprint(self) -> str | None:
        value: str | None = self._metadata["dataset_fingerprint"]
        return value

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all."""
        definitions = {
            name: {"higher_is_harder": SCORES[name].higher_is_harder, "summary": SCORES[name].summary}
            for name in self._scores
        }
        vectors = dict(self._scores) if self._labels is None else {**self._scores, _LABELS: self._labels}
        save_vectors(path, "run", _FORMAT, vectors, {"metadata": self._metadata, "definitions": definitions})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Reads a run file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, not a run file, or newer than this library; the message names the file.
        """
        vectors, header = load_vectors(path, "run", _FORMAT)
        labels = vectors.pop(_LABELS, None)
        try:
            return cls(vectors, labels=labels, **header["metadata"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a valid run file ({error})") from error


class RunSet:
    """Runs over the same data: their mean difficulty, and how they agree.

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
            raise ValueError(f"where: no run has {metadata}; the runs have {known}")
        return RunSet(chosen)

    def matrix(self, score: str) -> Array:
        """The score of every run, [R, N] float64, as stored.

        Raises:
            ValueError: an unknown score, or one that a run does not have.
        """
        check_scores((score,))
        for run in self._runs:
            if score not in run.scores:
                raise ValueError(f"{run!r} has no score {score!r}; all runs have {', '.join(self.scores) or 'none'}")
        return np.stack([run.scores[score] for run in self._runs]).astype(np.float64)

    def mean(self, score: str) -> Array:
        """Mean over the runs that presented the example, [N] float64, as stored; NaN where none did."""
        return _nan_moment(self.matrix(score))

    def standard_error(self, score: str) -> Array:
        """Standard error of `mean`, [N] float64, from the spread between runs (ddof 1); NaN with fewer than two."""
        matrix = self.matrix(score)
        seen = (~np.isnan(matrix)).sum(0)
        variance = _nan_moment((matrix - _nan_moment(matrix)) ** 2)
        return np.where(seen > 1, np.sqrt(variance / np.maximum(seen - 1, 1)), np.nan)

    def difficulty(self, score: str) -> Array:
        """Mean over runs, turned so that high = hard, [N] float64."""
        mean = self.mean(score)
        return mean if SCORES[score].higher_is_harder else -mean


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
            raise ValueError(
                f"{first!r} and {other!r} have different {name}, {a} and {b}: runs of different data do not mix"
            )


def _check_same_labels(first: Run | None, other: Run) -> None:
    if first is None or first.labels is None or other.labels is None or np.array_equal(first.labels, other.labels):
        return
    differing = int((first.labels != other.labels).sum())
    raise ValueError(f"{first!r} and {other!r} have different labels for {differing} examples: different data")


def _plain(value: Any, key: str) -> Any:
    """The value as it comes back from a file."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata: {key}={value!r} cannot be written as JSON ({error})") from error


def _vector(values: Any, name: str) -> Array:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"scores: {name!r} got {array.dtype} {array.shape}, expected one number per example, [N]")
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    kept = np.array(array, dtype=np.float64 if wide else np.float32)
    if np.isinf(kept).any():
        raise ValueError(
            f"scores: {name!r} is infinite at example {int(np.isinf(kept).argmax())}; did training diverge?"
        )
    kept.setflags(write=False)
    return kept


def _labels(values: Any, size: int) -> Array:
    array = np.asarray(values)
    if array.shape != (size,) or array.dtype.kind not in "iu":
        raise ValueError(f"labels: got {array.dtype} {array.shape}, expected whole numbers [{size}]")
    if array.min() < 0:
        raise ValueError(f"labels: got {array.min()}, expected 0 or more")
    kept = array.astype(np.int64)
    kept.setflags(write=False)
    return kept
