"""One training run: its scores, and what is known about it, in memory and on disk."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from .files import Array, load_vectors, save_vectors
from .scores import SCORES, check_scores
from .version import __version__

_FORMAT: Final = 1
_FACTS: Final = ("labels", "seen", "probabilities", "predictions")  # in a file, arrays beside the scores
_SUM_TOLERANCE: Final = 1e-3


class Run:
    """One training run: its scores, what was trained, and on what data. Read-only.

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
        self._scores = {name: _vector(scores[name], name) for name in SCORES if name in scores}
        sizes = {name: len(values) for name, values in self._scores.items()}
        if len(set(sizes.values())) > 1 or 0 in sizes.values():
            raise ValueError(
                f"scores: got lengths {sizes}, expected the same length for all, at least 1 (for a part of the data, "
                "score_features and trackers take the num_examples of the whole)"
            )
        size = len(self)
        self._labels = None if labels is None else _classes(labels, size, "labels")
        self._seen = None if seen is None else _seen(seen, size)
        self._probabilities = None if probabilities is None else _probabilities(probabilities, size)
        self._predictions = None if predictions is None else _classes(predictions, size, "predictions")
        if self._probabilities is not None and self._predictions is None:
            self._predictions = _classes(self._probabilities.argmax(1), size, "predictions")
        elif self._probabilities is not None and self._predictions is not None:
            _check_predictions(self._predictions, self._probabilities)
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
    def seen(self) -> Array | None:
        """[N] bool, whether the run trained on the example; None if it trained on all."""
        return self._seen

    @property
    def probabilities(self) -> Array | None:
        """[N, C] float32, the softmax of the trained model in evaluation mode, or None if not known."""
        return self._probabilities

    @property
    def predictions(self) -> Array | None:
        """[N] int64, the class that the trained model predicts, or None if not known."""
        return self._predictions

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
        return Run({**self._scores, **scores}, **self._facts(), **{**self._metadata, **metadata})

    def _facts(self) -> dict[str, Any]:
        """What is known of the examples beside the scores."""
        return {name: getattr(self, name) for name in _FACTS}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all."""
        definitions = {
            name: {"higher_is_harder": SCORES[name].higher_is_harder, "summary": SCORES[name].summary}
            for name in self._scores
        }
        facts = {name: values for name, values in self._facts().items() if values is not None}
        if "predictions" in facts:
            facts["predictions"] = facts["predictions"].astype(np.int32)
        header = {"metadata": self._metadata, "definitions": definitions}
        save_vectors(path, "run", _FORMAT, {**self._scores, **facts}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Reads a run file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, not a run file, or newer than this library; the message names the file.
        """
        vectors, header = load_vectors(path, "run", _FORMAT)
        facts: dict[str, Any] = {name: vectors.pop(name, None) for name in _FACTS}
        try:
            return cls(vectors, **facts, **header["metadata"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a valid run file ({error})") from error


def _plain(value: Any, key: str) -> Any:
    """The value as it comes back from a file."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata: {key}={value!r} cannot be written as JSON ({error})") from error


def _array(values: Any) -> Array:
    """An array of what may be a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _vector(values: Any, name: str) -> Array:
    array = _array(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"scores: {name!r} got {array.dtype} {array.shape}, expected one number per example, [N]")
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    kept = np.array(array, dtype=np.float64 if wide else np.float32)
    if np.isinf(kept).any():
        raise ValueError(
            f"scores: {name!r} is infinite at example {int(np.isinf(kept).argmax())}; did training diverge?"
        )
    return _read_only(kept)


def _classes(values: Any, size: int, name: str) -> Array:
    array = _array(values)
    if array.shape != (size,) or array.dtype.kind not in "iu":
        raise ValueError(f"{name}: got {array.dtype} {array.shape}, expected whole numbers [{size}]")
    if array.min() < 0:
        raise ValueError(f"{name}: got {array.min()}, expected 0 or more")
    return _read_only(array.astype(np.int64))


def _seen(values: Any, size: int) -> Array:
    array = _array(values)
    if array.shape != (size,) or array.dtype != np.bool_:
        raise ValueError(
            f"seen: got {array.dtype} {array.shape}, expected bool [{size}]: whether the run trained on the example"
        )
    if not array.any():
        raise ValueError(f"seen: got {size} times False, expected some examples that the run trained on")
    return _read_only(array.copy())


def _probabilities(values: Any, size: int) -> Array:
    array = _array(values)
    if array.ndim != 2 or len(array) != size or array.shape[1] < 2 or array.dtype.kind != "f":
        raise ValueError(
            f"probabilities: got {array.dtype} {array.shape}, expected floating point [{size}, C], at least 2 classes"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # of what is refused below
        kept = np.array(array, dtype=np.float32)
        sums = kept.sum(1, dtype=np.float64)
        good = (kept >= 0).all(1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)  # NaN is neither
    if not good.all():
        row = int(good.argmin())
        raise ValueError(
            f"probabilities: those of example {row} sum to {sums[row]:.6g}, the smallest is {kept[row].min():.6g}; "
            "expected 0 or more each with sum 1. Of logits take softmax(1); NaN means that training diverged"
        )
    return _read_only(kept)


def _check_predictions(predictions: Array, probabilities: Array) -> None:
    classes = probabilities.shape[1]
    chosen = probabilities[np.arange(len(predictions)), np.minimum(predictions, classes - 1)]
    wrong = (predictions >= classes) | (chosen < probabilities.max(1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"predictions: got {predictions[row]} for example {row}, whose largest probability is that of class "
            f"{probabilities[row].argmax()}; leave predictions out, they follow from the probabilities"
        )


def _read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array
