"""One training run: its scores, and what is known about it, in memory and on disk."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..scores.catalogue import SCORES, check_scores
from ..support.files import VectorFile, open_vectors, parts, read_only, save_vectors
from ..version import __version__

_FORMAT: Final = 1
_FACTS: Final = ("labels", "seen", "probabilities", "predictions")  # in a file, arrays beside the scores
_KEPT_AS: Final = {"labels": np.int64, "seen": np.bool_, "probabilities": np.float32, "predictions": np.int64}
_PART: Final = 1 << 20  # numbers of an array that are looked at together
_SUM_TOLERANCE: Final = 1e-3


class Run:
    """One training run: its scores, what was trained, and on what data. Read-only.

    A run that was made holds its arrays in memory; one that was loaded leaves them in its file, see `load`.

    Args:
        scores: name -> [N] float32 or float64; NaN for an example that was never presented.
        architecture, seed: what was trained.
        labels: [N] whole numbers, the true classes, if known.
        seen: [N] bool, whether the run trained on the example; default: on all.
        probabilities: [N, C] floating point, the softmax of the trained model in evaluation mode, for all examples
            whether it trained on them or not. Kept in float32.
        predictions: [N] whole numbers, the classes that the trained model predicts; default: those of the largest
            probability, the lowest class where several are. They serve alone where [N, C] is too large.
        dataset_fingerprint: from `dp.dataset_fingerprint`.
        metadata: anything else that JSON can hold.

    Raises:
        TypeError, ValueError: an unknown score, scores of different lengths or of no length, values that are not
            numbers, an infinite score, a negative label, probabilities that do not sum to 1, predictions that are not
            of the largest probability, or metadata that JSON cannot hold.

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
        seen: Any = None,
        probabilities: Any = None,
        predictions: Any = None,
        dataset_fingerprint: str | None = None,
        **metadata: Any,
    ) -> None:
        check_scores(scores)
        facts = {"labels": labels, "seen": seen, "probabilities": probabilities, "predictions": predictions}
        given = {name: scores[name] for name in SCORES if name in scores} | facts
        arrays = {name: _array(values) for name, values in given.items() if values is not None}
        size = _check_kinds(arrays)
        with np.errstate(over="ignore", invalid="ignore"):  # of what is refused below
            vectors = {name: read_only(np.array(x, _kept_as(name, x), order="C")) for name, x in arrays.items()}
        more = {"dataset_fingerprint": dataset_fingerprint, **metadata}
        self._hold(vectors, size, _describe(architecture=architecture, seed=seed, **more))
        if probabilities is not None and predictions is None:
            vectors["predictions"] = self._read("predictions")

    def _hold(self, vectors: Mapping[str, NDArray[Any]], size: int, metadata: dict[str, Any]) -> None:
        """Takes what the run is made of, in memory or in a file, and checks the values in parts."""
        self._vectors, self._size, self._metadata = vectors, size, metadata
        self._names = tuple(name for name in SCORES if name in vectors)
        for name in self._names:
            _check_finite(name, self._parts(name))
        for name in ("labels", "predictions"):
            if name in vectors:
                _check_classes(name, self._parts(name))
        if "seen" in vectors and not any(part.any() for _, part in self._parts("seen")):
            raise ValueError(f"seen: got {size} times False, expected some examples that the run trained on")
        if "probabilities" in vectors:
            _check_probabilities(self._parts("probabilities"))
            if "predictions" in vectors:
                _check_predictions(self._parts("predictions", "probabilities"))

    def _knows(self, name: str) -> bool:
        """Whether there is an array of this name; asking costs no reading."""
        return name in self._vectors or (name == "predictions" and "probabilities" in self._vectors)

    def _read(self, name: str, examples: slice | NDArray[Any] = slice(None)) -> NDArray[Any]:
        """An array, or these rows of it, as the run gives it to others: read-only, of the same type from any file."""
        if name == "predictions" and name not in self._vectors:
            return read_only(self._vectors["probabilities"][examples].argmax(1))
        stored = self._vectors[name][examples]
        return read_only(stored.astype(_kept_as(name, stored), copy=False))

    def _parts(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Position of the first example, and these examples' rows of each array."""
        width = max(self._vectors[name][:1].size for name in names)
        for part in parts(self._size, max(1, _PART // width)):
            yield part.start, *(self._read(name, part) for name in names)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"Run({self.architecture!r}, seed={self.seed}, examples={len(self)}, scores={list(self._names)})"

    @property
    def scores(self) -> Mapping[str, NDArray[Any]]:
        """Name -> [N], as the literature defines the score."""
        return _Scores(self)

    @property
    def labels(self) -> NDArray[Any] | None:
        """[N] int64, or None if not known."""
        return self._read("labels") if self._knows("labels") else None

    @property
    def seen(self) -> NDArray[Any] | None:
        """[N] bool, whether the run trained on the example; None if it trained on all."""
        return self._read("seen") if self._knows("seen") else None

    @property
    def probabilities(self) -> NDArray[Any] | None:
        """[N, C] float32, the softmax of the trained model in evaluation mode, or None if not known."""
        return self._read("probabilities") if self._knows("probabilities") else None

    @property
    def predictions(self) -> NDArray[Any] | None:
        """[N] int64, the class that the trained model predicts, or None if not known."""
        return self._read("predictions") if self._knows("predictions") else None

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

    def with_scores(self, scores: Mapping[str, Any], **metadata: Any) -> Run:
        """The same run with more scores, such as those of `dp.score_features`; one of the same name is replaced.

        Args:
            scores: name -> [N], as for a new run.
            metadata: what is to be known about them, such as layers=(...).

        >>> run = Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0)
        >>> list(run.with_scores({"prediction_depth": [1, 3]}).scores)
        ['el2n', 'prediction_depth']
        """
        return Run({**self.scores, **scores}, **self._facts(), **{**self._metadata, **metadata})

    def _facts(self) -> dict[str, Any]:
        """What is known of the examples beside the scores."""
        return {name: getattr(self, name) for name in _FACTS}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all."""
        facts = {name: values for name, values in self._facts().items() if values is not None}
        if "predictions" in facts:
            facts["predictions"] = facts["predictions"].astype(np.int32)
        header = {"metadata": self._metadata, "definitions": definitions(self._names)}
        save_vectors(path, "run", _FORMAT, {**self.scores, **facts}, header)
        if isinstance(self._vectors, VectorFile) and self._vectors.path == Path(path).absolute():
            self._vectors, _ = open_vectors(path, "run", _FORMAT)  # the same content, in the file that is there now

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Reads a run file through once, checks it, and leaves the arrays in it.

        `run.scores[name]`, `run.labels` and the like map their array into memory each time they are asked for; it
        takes memory and a file descriptor as long as the array is in use. Hundreds of runs can so be loaded. A file
        that has changed or is gone since is noticed and refused then: ValueError or FileNotFoundError.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, not a run file, newer than this library, or of a version that defines a score in
                the other direction; the message names the file.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "mlp-0.safetensors")
        ...     Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0).save(path)
        ...     Run.load(path).scores["el2n"]
        array([0.5, 1. ])
        """
        vectors, header = open_vectors(path, "run", _FORMAT)
        run = cls.__new__(cls)
        try:
            check_scores(name for name in vectors if name not in _FACTS)
            check_definitions(header.get("definitions", {}))
            run._hold(vectors, _check_kinds(vectors), _describe(**header["metadata"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a valid run file ({error})") from error
        return run

    def __getstate__(self) -> dict[str, Any]:
        """With the values, so that a run goes to other processes and machines without its file."""
        return {**self.__dict__, "_vectors": {name: np.array(values) for name, values in self._vectors.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for values in self._vectors.values():
            read_only(values)


class _Scores(Mapping[str, NDArray[Any]]):
    """The scores of a run by name, in the order of the catalogue."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._run._names:
            raise KeyError(name)
        return self._run._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._run._names  # without reading

    def __iter__(self) -> Iterator[str]:
        return iter(self._run._names)

    def __len__(self) -> int:
        return len(self._run._names)

    def __repr__(self) -> str:
        return repr(dict(self))


def definitions(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What a file says of its scores, so that it can be read without this library."""
    return {
        name: {"higher_is_harder": SCORES[name].higher_is_harder, "summary": SCORES[name].summary} for name in names
    }


def check_definitions(found: Any) -> None:
    """ValueError for a score that a file, as of another version, defines in the other direction."""
    for name, entry in dict(found).items():
        known = SCORES[name].higher_is_harder if name in SCORES else entry["higher_is_harder"]
        if entry["higher_is_harder"] != known:
            raise ValueError(
                f"definitions.{name}.higher_is_harder: {entry['higher_is_harder']} in the file and {known} in "
                f"difficulty_prune {__version__}; another version wrote it, read it with that or score the run again"
            )


def _describe(
    *, architecture: str, seed: int, dataset_fingerprint: str | None = None, **metadata: Any
) -> dict[str, Any]:
    """The metadata of a run, as it comes back from a file."""
    facts = {
        "architecture": architecture,
        "seed": operator.index(seed),
        "dataset_fingerprint": dataset_fingerprint,
        "library": __version__,
        "torch": str(torch.__version__),
        **metadata,
    }
    return {key: _plain(value, key) for key, value in facts.items()}


def _plain(value: Any, key: str) -> Any:
    """The value as it comes back from a file."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata: {key}={value!r} cannot be written as JSON ({error})") from error


def _array(values: Any) -> NDArray[Any]:
    """An array of what may be a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _kept_as(name: str, array: NDArray[Any]) -> Any:
    """The dtype in which a run holds the array."""
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    return _KEPT_AS.get(name, np.float64 if wide else np.float32)


def _check_kinds(arrays: Mapping[str, NDArray[Any]]) -> int:
    """N, if dtypes and shapes are those of a run; reads no values."""
    sizes = {}
    for name in (name for name in SCORES if name in arrays):
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise ValueError(f"scores: {name!r} got {array.dtype} {array.shape}, expected one number per example, [N]")
        sizes[name] = len(array)
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ValueError(
            f"scores: got lengths {sizes}, expected the same length for all, at least 1 (for a part of the data, "
            "score_features and trackers take the num_examples of the whole)"
        )
    size = next(iter(sizes.values()))
    for name in (name for name in _FACTS if name in arrays):
        _check_kind(name, arrays[name], size)
    return size


def _check_kind(name: str, array: NDArray[Any], size: int) -> None:
    if name == "probabilities":
        good = array.ndim == 2 and len(array) == size and array.shape[1] >= 2 and array.dtype.kind == "f"
        expected = f"floating point [{size}, C], at least 2 classes"
    elif name == "seen":
        good = array.shape == (size,) and array.dtype == np.bool_
        expected = f"bool [{size}]: whether the run trained on the example"
    else:
        good = array.shape == (size,) and array.dtype.kind in "iu"
        expected = f"whole numbers [{size}]"
    if not good:
        raise ValueError(f"{name}: got {array.dtype} {array.shape}, expected {expected}")


def _check_finite(name: str, score: Iterable[tuple[int, NDArray[Any]]]) -> None:
    for start, part in score:
        infinite = np.isinf(part)
        if infinite.any():
            raise ValueError(
                f"scores: {name!r} is infinite at example {start + int(infinite.argmax())}; did training diverge?"
            )


def _check_classes(name: str, classes: Iterable[tuple[int, NDArray[Any]]]) -> None:
    for _, part in classes:
        if part.min() < 0:
            raise ValueError(f"{name}: got {part.min()}, expected 0 or more")


def _check_probabilities(probabilities: Iterable[tuple[int, NDArray[Any]]]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # of what is refused here
        for start, part in probabilities:
            sums = part.sum(1, dtype=np.float64)
            good = (part >= 0).all(1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)  # NaN is neither
            if not good.all():
                row = int(good.argmin())
                raise ValueError(
                    f"probabilities: those of example {start + row} sum to {sums[row]:.6g}, the smallest is "
                    f"{part[row].min():.6g}; expected 0 or more each with sum 1. Of logits take softmax(1); NaN means "
                    "that training diverged"
                )


def _check_predictions(both: Iterable[tuple[int, NDArray[Any], NDArray[Any]]]) -> None:
    for start, predictions, probabilities in both:
        classes = probabilities.shape[1]
        chosen = probabilities[np.arange(len(predictions)), np.minimum(predictions, classes - 1)]
        wrong = (predictions >= classes) | (chosen < probabilities.max(1))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"predictions: got {predictions[row]} for example {start + row}, whose largest probability is that of "
                f"class {probabilities[row].argmax()}; leave predictions out, they follow from the probabilities"
            )
