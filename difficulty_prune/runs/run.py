"""One training run: its scores, and what is known about it, in memory and on disk."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..scores.catalogue import SCORES, check_scores
from ..support.arrays import check_rows, read_only
from ..support.blocks import blocks
from ..support.checks import whole_number
from ..support.files import MALFORMED, open_vectors, save_vectors
from ..support.ids import ID_PARTS, check_encoded, check_ids, decode_ids, encode_ids, number_of_ids
from ..support.json_text import check_depth
from ..support.remote import Url, path_or_url
from ..support.safetensors_header import ArrayKind
from ..support.vector_file import VectorFile
from ..version import __version__

_FORMAT: Final = 3  # with ids; 2: with what training suggests; a file without these is of 1, which older versions read
_SUGGESTING: Final = ("suggested", "suggested_probability", "mean_probabilities")
_FACTS: Final = ("labels", "seen", "probabilities", "predictions", *_SUGGESTING)  # in a file, arrays beside the scores
_KEPT_AS: Final = {
    "labels": np.int64,
    "seen": np.bool_,
    "probabilities": np.float32,
    "predictions": np.int64,
    "suggested": np.int64,
    "suggested_probability": np.float32,
    "mean_probabilities": np.float32,
}
_FOLLOWS_FROM: Final = {
    "predictions": "probabilities",
    "suggested": "mean_probabilities",
    "suggested_probability": "mean_probabilities",
}
_NARROW: Final = ("predictions", "suggested")  # classes that a file keeps as int32
_SUM_TOLERANCE: Final = 1e-3
"""How far from 1 the probabilities of an example may sum. A softmax in float16 is off by up to 0.0004, measured with 2
to 50,000 classes. One in bfloat16 is off by up to 0.003 and refused: take the softmax in float32."""


class Run:
    """One training run: its scores, what was trained, and on what data. Read-only.

    A run made in Python holds its arrays in memory; a loaded one leaves them in its file, see `load`.

    Args:
        scores: name -> [N] float32 or float64; NaN for an example that was never presented.
        architecture, seed: what was trained.
        labels: [N] whole numbers, the true classes, if known.
        seen: [N] bool, whether the run trained on the example; default: on all.
        probabilities: [N, C] floating point, the softmax of the trained model in evaluation mode, for all examples,
            whether it trained on them or not. Kept in float32.
        predictions: [N] whole numbers, the classes that the trained model predicts; default: those with the largest
            probability, the lowest class on a tie. Where [N, C] is too large, give these instead.
        mean_probabilities: [N, C] floating point, the mean over the training of the probabilities at each presentation,
            from a tracker that keeps them; NaN for an example that was never presented. Kept in float32.
        suggested: [N] whole numbers, the labels that the training suggests: the class with the largest mean
            probability, the lowest on a tie; -1 for an example that was never presented. Default: those of the mean
            probabilities. Where [N, C] is too large, give these and their probabilities instead.
        suggested_probability: [N] floating point, the mean probability of the suggested label; NaN where there is none.
        ids: [N] texts or whole numbers, each once: what names an example for good, such as its path.
        class_names: the name of each class, of as many as there are at least in the labels.
        dataset_fingerprint: from `dp.dataset_fingerprint`.
        metadata: anything else that JSON can hold.

    Raises:
        TypeError, ValueError: an unknown score, scores of different lengths or of no length, values that are not
            numbers, an infinite score, a negative label, probabilities that do not sum to 1, predictions or suggested
            labels that do not have the largest probability, or metadata that JSON cannot hold.

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
        mean_probabilities: Any = None,
        suggested: Any = None,
        suggested_probability: Any = None,
        ids: Any = None,
        class_names: Iterable[str] | None = None,
        dataset_fingerprint: str | None = None,
        **metadata: Any,
    ) -> None:
        check_scores(scores)
        if not isinstance(scores, Mapping):
            raise TypeError(f"scores: got {type(scores).__name__}, expected name -> one number per example")
        facts = {"labels": labels, "seen": seen, "probabilities": probabilities, "predictions": predictions}
        of_training = suggested, suggested_probability, mean_probabilities
        facts |= dict(zip(_SUGGESTING, of_training, strict=True))
        given = {name: scores[name] for name in SCORES if name in scores} | facts
        arrays = {name: _array(name, values) for name, values in given.items() if values is not None}
        size = _check_kinds({name: ArrayKind(array.dtype, array.shape) for name, array in arrays.items()})
        with np.errstate(over="ignore", invalid="ignore"):  # of what is refused below
            vectors = {
                name: read_only(np.array(array, _kept_as(name, array.dtype), order="C"))
                for name, array in arrays.items()
            }
        if ids is not None:
            vectors |= {name: read_only(part) for name, part in encode_ids(check_ids(ids)).items()}
        more = {"dataset_fingerprint": dataset_fingerprint, **metadata}
        self._hold(vectors, size, _describe(architecture=architecture, seed=seed, **more), class_names)
        for name, source in _FOLLOWS_FROM.items():
            if source in vectors and name not in vectors:
                vectors[name] = self.read(name)

    def _hold(self, vectors: Mapping[str, NDArray[Any]], size: int, metadata: dict[str, Any], class_names: Any) -> None:
        """Takes what the run is made of, in memory or in a file, and checks the values block by block.

        Those of a file under a URL are checked when they are read.
        """
        self._vectors, self._size, self._metadata = vectors, size, metadata
        self._class_names = _check_class_names(class_names)
        self._names = tuple(name for name in SCORES if name in vectors)
        if isinstance(self.path, Url):
            self._check_number_of_ids()
        else:
            self._check_values()

    def _check_values(self) -> None:
        """ValueError for values that cannot be."""
        vectors = self._vectors
        for name in self._names:
            _check_finite(name, self._blocks(name))
        for name in ("labels", "predictions"):
            if name in vectors:
                _check_classes(name, self._blocks(name))
        if "seen" in vectors and not sum(int(block.sum()) for _, block in self._blocks("seen")):
            raise ValueError(f"seen: got {self._size} times False, expected some examples that the run trained on")
        if "probabilities" in vectors:
            for start, block in self._blocks("probabilities"):
                _check_probabilities(start, block)
                if "predictions" in vectors:
                    _check_predictions(start, self.read("predictions", slice(start, start + len(block))), block)
        self._check_suggested()
        if self._class_names is not None and "labels" in vectors:
            _check_named(self._blocks("labels"), len(self._class_names))
        if self.has("ids"):
            self._check_ids()

    def _check_ids(self) -> None:
        """ValueError for another number of ids than of examples, or text that is none."""
        self._check_number_of_ids()
        check_encoded(self.encoded_ids())

    def _check_number_of_ids(self) -> None:
        if not self.has("ids"):
            return
        shapes = {name: self._kind(name).shape for name in ID_PARTS if name in self._vectors}
        number = number_of_ids(shapes)
        if number != self._size:
            raise ValueError(f"ids: got {number}, expected {self._size}, one for each example")

    def _check_read(self, name: str, rows: slice | NDArray[Any] | None, values: NDArray[Any]) -> None:
        """ValueError for values of a file under a URL that cannot be; `_check_values` has seen those of others."""
        block = [(rows.indices(self._size)[0] if isinstance(rows, slice) else 0, values)]
        try:
            if name in self._names:
                _check_finite(name, block)
            elif name in ("labels", "predictions") and len(values):
                _check_classes(name, block)
                if name == "labels" and self._class_names is not None:
                    _check_named(block, len(self._class_names))
            elif name == "probabilities":
                _check_probabilities(*block[0])
            elif name == "mean_probabilities":
                _check_mean_probabilities(*block[0])
        except ValueError as error:
            raise ValueError(f"{self.path}: not a valid run file ({error})") from error

    def encoded_ids(self) -> dict[str, NDArray[Any]]:
        """The ids as the file holds them, see `support.ids.encode_ids`; nothing for a run without.

        Two runs have the same ids if these are the same, which takes less time to find out than to decode them.
        """
        return {name: self._vectors[name] for name in ID_PARTS if name in self._vectors}

    def _check_suggested(self) -> None:
        """ValueError for labels that training cannot have suggested, or not with these probabilities."""
        if self.has("suggested") != self.has("suggested_probability"):
            raise ValueError("suggested: expected suggested labels and suggested_probability together")
        for name in _SUGGESTING:
            if name in self._vectors:
                for start, block in self._blocks(name):
                    rows = slice(start, start + len(block))
                    if name == "mean_probabilities":
                        _check_mean_probabilities(start, block)
                    suggested, probability = self.read("suggested", rows), self.read("suggested_probability", rows)
                    _check_suggestion(start, suggested, probability, block if name == "mean_probabilities" else None)

    def has(self, name: str) -> bool:
        """Whether the run has a score of this name, or something else to `read`.

        Nothing is read from the run's file.

        >>> run = Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0, labels=[3, 5])
        >>> run.has("el2n"), run.has("labels"), run.has("probabilities")
        (True, True, False)
        """
        if name == "ids":
            return any(part in self._vectors for part in ID_PARTS)
        return name in self._vectors or _FOLLOWS_FROM.get(name) in self._vectors

    def read(self, name: str, examples: slice | NDArray[Any] | None = None) -> NDArray[Any]:
        """A score, or another array by the name of its property such as "labels", of all examples or of some.

        Of a loaded run only the span of the file that holds these examples is read.

        Args:
            name: one that the run has, see `has`.
            examples: a slice, positions [n], or a mask [N] of bool; default: all.

        Returns:
            [n] or, for the probabilities, [n, C]; read-only, and of the same dtype whatever the file holds.

        Raises:
            KeyError: the run does not have it.
            TypeError, IndexError: examples that are none of these, or outside the data.

        >>> run = Run({"el2n": [0.5, 1.0, 0.25]}, architecture="mlp", seed=0)
        >>> run.read("el2n", slice(1, 3)), run.read("el2n", np.array([2, 0]))
        (array([1.  , 0.25]), array([0.25, 0.5 ]))
        """
        if not self.has(name):
            raise KeyError(f"{self!r} has no {name!r}")
        rows = None if examples is None else check_rows(examples, self._size, "examples")
        if name == "ids":
            encoded = self.encoded_ids()
            if isinstance(self.path, Url):
                check_encoded(encoded)
            ids = decode_ids(encoded)
            return read_only(ids if rows is None else ids[rows])
        if name not in self._vectors:
            return read_only(self._most_probable(name, rows))
        if isinstance(self._vectors, VectorFile):
            stored = self._vectors.read(name, rows)
        else:
            stored = self._vectors[name] if rows is None else self._vectors[name][rows]
        with np.errstate(over="ignore"):  # of what the checks refuse
            values = stored.astype(_kept_as(name, stored.dtype), copy=False)
        if isinstance(self.path, Url):
            self._check_read(name, rows, values)
        return read_only(values)

    def kept(self, name: str) -> VectorFile | NDArray[Any]:
        """Where a score or another array of `read` is kept: the run's file, or the array itself."""
        return self._vectors if isinstance(self._vectors, VectorFile) else self.read(name)

    def stored_digest(self, name: str) -> str | None:
        """The digest of an array in the run's file; None in memory, and of older files, which have none."""
        return self._vectors.digest(name) if isinstance(self._vectors, VectorFile) else None

    def stored_digests_of_ids(self) -> tuple[str | None, ...]:
        """`stored_digest` of each array of `encoded_ids`."""
        return tuple(self.stored_digest(name) for name in ID_PARTS if name in self._vectors)

    def _most_probable(self, name: str, rows: slice | NDArray[Any] | None) -> NDArray[Any]:
        """What follows from probabilities, [n]; only a block of [n, C] is in memory."""
        source = _FOLLOWS_FROM[name]
        positions = np.arange(self._size) if rows is None else np.arange(self._size)[rows]
        found: NDArray[Any] = np.empty(len(positions), _KEPT_AS[name])
        for block in blocks(len(positions), self._width(source)):
            probabilities = self.read(source, positions[block])
            if name == "suggested_probability":
                found[block] = probabilities.max(1)
            else:
                found[block] = np.where(np.isnan(probabilities[:, 0]), -1, probabilities.argmax(1))
        return found

    def _width(self, name: str) -> int:
        """Numbers per example."""
        return math.prod(self._kind(name).shape[1:])

    def _kind(self, name: str) -> ArrayKind:
        if isinstance(self._vectors, VectorFile):
            return self._vectors.kinds[name]
        return ArrayKind(self._vectors[name].dtype, self._vectors[name].shape)

    def _blocks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Position of the first example of each block of an array, and the block; those of a file have its digest."""
        found: Iterable[tuple[int, NDArray[Any]]]
        if isinstance(self._vectors, VectorFile):
            found = self._vectors.blocks(name)
        else:
            array = self._vectors[name]
            found = ((rows.start, array[rows]) for rows in blocks(self._size, self._width(name)))
        for start, block in found:
            with np.errstate(over="ignore"):  # of what the checks refuse
                kept = block.astype(_kept_as(name, block.dtype), copy=False)
            yield start, kept

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
        return self.read("labels") if self.has("labels") else None

    @property
    def seen(self) -> NDArray[Any] | None:
        """[N] bool, whether the run trained on the example; None if it trained on all."""
        return self.read("seen") if self.has("seen") else None

    @property
    def probabilities(self) -> NDArray[Any] | None:
        """[N, C] float32, the softmax of the trained model in evaluation mode, or None if not known."""
        return self.read("probabilities") if self.has("probabilities") else None

    @property
    def predictions(self) -> NDArray[Any] | None:
        """[N] int64, the classes that the trained model predicts, or None if not known."""
        return self.read("predictions") if self.has("predictions") else None

    @property
    def suggested(self) -> NDArray[Any] | None:
        """[N] int64, the labels that the training suggests, -1 for never presented; or None if not recorded.

        The class of the largest probability in the mean over the training; `predictions` are those of its end.
        """
        return self.read("suggested") if self.has("suggested") else None

    @property
    def suggested_probability(self) -> NDArray[Any] | None:
        """[N] float32, mean probability of the suggested label, NaN for never presented; or None if not recorded."""
        return self.read("suggested_probability") if self.has("suggested_probability") else None

    @property
    def mean_probabilities(self) -> NDArray[Any] | None:
        """[N, C] float32, the mean over the training of the probabilities, NaN for never presented; None if not kept.

        Of the model while it trained; `probabilities` are those of the trained model.
        """
        return self.read("mean_probabilities") if self.has("mean_probabilities") else None

    @property
    def ids(self) -> NDArray[Any] | None:
        """[N] of Python texts (dtype object) or int64: what names each example for good; or None if not known.

        Decoded anew each time you ask: a million paths take a quarter of a second.

        >>> Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0, ids=["cat/1.png", "dog/1.png"]).ids
        array(['cat/1.png', 'dog/1.png'], dtype=object)
        """
        return self.read("ids") if self.has("ids") else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, or None if not known."""
        return self._class_names

    @property
    def path(self) -> Path | Url | None:
        """The file or the URL that holds the arrays; None if they are in memory."""
        return self._vectors.path if isinstance(self._vectors, VectorFile) else None

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
        """The same run with more scores, such as those of `dp.score_features`; they replace scores of the same name.

        Args:
            scores: name -> [N], as for a new run.
            metadata: what to note about them, such as layers=(...).

        >>> run = Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0)
        >>> list(run.with_scores({"prediction_depth": [1, 3]}).scores)
        ['el2n', 'prediction_depth']
        """
        if not isinstance(scores, Mapping):
            raise TypeError(f"scores: got {type(scores).__name__}, expected name -> one number per example")
        facts = {**self._facts(), "ids": self.ids, "class_names": self.class_names}
        return Run({**self.scores, **scores}, **facts, **{**self._metadata, **metadata})

    def _facts(self) -> dict[str, Any]:
        """What the run knows of its examples beside the scores."""
        return {name: getattr(self, name) for name in _FACTS}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all; also to a URL such as s3://bucket/runs/mlp-0.safetensors.

        Raises:
            ValueError: a URL where a file may be seen half written, such as of ssh.
            OSError: it cannot be written; the message names the file and says what to do.
            FileNotFoundError, ValueError: the file that the run was loaded from is gone or has changed.
        """
        facts = {name: values for name, values in self._facts().items() if values is not None}
        facts |= {name: facts[name].astype(np.int32) for name in _NARROW if name in facts}
        header: dict[str, Any] = {"metadata": self._metadata, "definitions": definitions(self._names)}
        if self._class_names is not None:  # older versions pass it over
            header["class_names"] = list(self._class_names)
        number = _FORMAT if self.has("ids") else 2 if "suggested" in facts else 1
        save_vectors(path, "run", number, {**self.scores, **facts, **self.encoded_ids()}, header)
        if self.path == path_or_url(path).absolute():
            self._vectors, _ = open_vectors(path, "run", _FORMAT)  # the same content, in the file that is there now

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Reads a run file once to check it, with its digests, and leaves the arrays in it.

        `run.scores[name]`, `run.labels` and the like read and check their array anew each time you ask, and `run.read`
        reads a part of one. Neither memory nor a file descriptor is held meanwhile, so you can load hundreds of runs. A
        file that has changed or vanished since is noticed on the next read: ValueError or FileNotFoundError.

        Of a URL that fsspec knows, such as s3://bucket/runs/mlp-0.safetensors, only the header is read now. An array is
        read and checked, with its digest, when you ask for it; a part of one by its range of bytes.

        Raises:
            FileNotFoundError: no such file.
            ValueError: cut short, damaged, not a run file, newer than this library, or of a version that defines a
                score in the other direction; the message names the file.
            ImportError: a URL whose file system needs a library that is missing, such as s3fs.
            OSError: it cannot be read; the message names the file and says what to do.

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
            check_scores(name for name in vectors if name not in (*_FACTS, *ID_PARTS))
            check_definitions(header.get("definitions", {}))
            names = header.get("class_names")
            run._hold(vectors, _check_kinds(vectors.kinds), _describe(**header["metadata"]), names)
        except MALFORMED as error:
            if not isinstance(vectors.path, Url):
                vectors.check()  # damage explains whatever else is wrong
            raise ValueError(f"{path}: not a valid run file ({error})") from error
        return run

    def __getstate__(self) -> dict[str, Any]:
        """With the values, so that a run can go to other processes and machines without its file."""
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
        return self._run.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._run._names  # without reading

    def __iter__(self) -> Iterator[str]:
        return iter(self._run._names)

    def __len__(self) -> int:
        return len(self._run._names)

    def __repr__(self) -> str:
        return repr(dict(self))


def definitions(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What a file says of its scores, so that people can read it without this library."""
    return {
        name: {"higher_is_harder": SCORES[name].higher_is_harder, "summary": SCORES[name].summary} for name in names
    }


def check_definitions(found: Any) -> None:
    """ValueError for a score that a file of another version defines in the other direction."""
    for name, entry in dict(found).items():
        known = SCORES[name].higher_is_harder if name in SCORES else entry["higher_is_harder"]
        if entry["higher_is_harder"] != known:
            raise ValueError(
                f"definitions.{name}.higher_is_harder: {entry['higher_is_harder']} in the file and {known} in "
                f"difficulty_prune {__version__}; another version wrote it: read it with that, or score the run again"
            )


def _describe(
    *, architecture: str, seed: int, dataset_fingerprint: str | None = None, **metadata: Any
) -> dict[str, Any]:
    """The metadata of a run, as it comes back from a file."""
    facts = {
        "architecture": architecture,
        "seed": whole_number(seed, "seed", least=-sys.maxsize),
        "dataset_fingerprint": dataset_fingerprint,
        "library": __version__,
        "torch": str(torch.__version__),
        **metadata,
    }
    return {key: _plain(value, key) for key, value in facts.items()}


def _plain(value: Any, key: str) -> Any:
    """The value as it comes back from a file."""
    try:
        found = json.loads(json.dumps(value))
        check_depth(found, above=2)  # in the description of the file, and in its metadata
        return found
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata: {key}={value!r} cannot be written as JSON ({error})") from error


def _array(name: str, values: Any) -> NDArray[Any]:
    """An array from anything array-like, also from a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: not an array ({error})") from error


def _kept_as(name: str, given: np.dtype[Any]) -> Any:
    """The dtype in which a run gives out an array of the given one."""
    wide = given.kind == "f" and given.itemsize >= 8
    return _KEPT_AS.get(name, np.float64 if wide else np.float32)


def _check_kinds(kinds: Mapping[str, ArrayKind]) -> int:
    """N, if dtypes and shapes are those of a run."""
    sizes = {}
    for name in (name for name in SCORES if name in kinds):
        dtype, shape = kinds[name]
        if len(shape) != 1 or dtype.kind not in "fiu":
            raise ValueError(f"scores: {name!r} got {dtype} {shape}, expected one number per example, [N]")
        sizes[name] = shape[0]
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ValueError(
            f"scores: got lengths {sizes}, expected the same length for all, at least 1 (to score a part of the data, "
            "give trackers and score_features the num_examples of the whole)"
        )
    size = next(iter(sizes.values()))
    for name in (name for name in _FACTS if name in kinds):
        _check_kind(name, kinds[name], size)
    for name, kept_as in zip(ID_PARTS, (np.int64, np.uint8, np.uint32), strict=True):
        if name in kinds and kinds[name].dtype != kept_as:
            raise ValueError(f"{name}: got {kinds[name].dtype}, expected {np.dtype(kept_as)}")
    return size


def _check_kind(name: str, kind: ArrayKind, size: int) -> None:
    dtype, shape = kind
    if name in ("probabilities", "mean_probabilities"):
        good = len(shape) == 2 and shape[0] == size and shape[1] >= 2 and dtype.kind == "f"
        expected = f"floating point [{size}, C], at least 2 classes"
    elif name == "suggested_probability":
        good = shape == (size,) and dtype.kind == "f"
        expected = f"floating point [{size}]"
    elif name == "seen":
        good = shape == (size,) and dtype == np.bool_
        expected = f"bool [{size}]: whether the run trained on the example"
    else:
        good = shape == (size,) and dtype.kind in "iu"
        expected = f"whole numbers [{size}]"
    if not good:
        raise ValueError(f"{name}: got {dtype} {shape}, expected {expected}")


def _check_class_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"class_names: got {names!r}, expected a name for each class, such as dataset.classes")
    found = tuple(names)
    for position, name in enumerate(found):
        if not isinstance(name, str):
            raise TypeError(f"class_names: got {name!r} for class {position}, expected text")
    return tuple(map(str, found))


def _check_named(labels: Iterable[tuple[int, NDArray[Any]]], number: int) -> None:
    for start, block in labels:
        if block.max() >= number:
            row = int((block >= number).argmax())
            raise ValueError(
                f"class_names: got {number}, but example {start + row} has the label {block[row]}; expected a name for "
                "each class, from class 0 on"
            )


def _check_finite(name: str, score: Iterable[tuple[int, NDArray[Any]]]) -> None:
    for start, block in score:
        infinite = np.isinf(block)
        if infinite.any():
            raise ValueError(
                f"scores: {name!r} is infinite at example {start + int(infinite.argmax())}; did training diverge?"
            )


def _check_classes(name: str, classes: Iterable[tuple[int, NDArray[Any]]]) -> None:
    for _, block in classes:
        if block.min() < 0:
            raise ValueError(
                f"{name}: got {block.min()}, expected 0 or more; leave {name} out where some examples have none"
            )


def _check_probabilities(start: int, block: NDArray[Any]) -> None:
    row, sum_of_row = _no_probabilities(block)
    if row is not None:
        raise ValueError(
            f"probabilities: those of example {start + row} sum to {sum_of_row:.6g}, the smallest is "
            f"{block[row].min():.6g}; expected numbers from 0 on with sum 1. Of logits take softmax(1); NaN "
            "means that training diverged"
        )


def _check_mean_probabilities(start: int, block: NDArray[Any]) -> None:
    presented = ~np.isnan(block).all(1)
    row, sum_of_row = _no_probabilities(block[presented])
    if row is not None:
        raise ValueError(
            f"mean_probabilities: those of example {start + int(presented.nonzero()[0][row])} sum to {sum_of_row:.6g}; "
            "expected numbers from 0 on with sum 1, or all NaN for an example that was never presented"
        )


def _no_probabilities(block: NDArray[Any]) -> tuple[int | None, float]:
    """The first row of [n, C] that is no distribution, and its sum; None if all are."""
    with np.errstate(over="ignore", invalid="ignore"):  # of what is refused here
        sums = block.sum(1, dtype=np.float64)
        good = (block >= 0).all(1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)  # NaN is neither
    row = None if good.all() else int(good.argmin())
    return row, 1 if row is None else float(sums[row])


def _check_predictions(start: int, predictions: NDArray[Any], probabilities: NDArray[Any]) -> None:
    classes = probabilities.shape[1]
    chosen = probabilities[np.arange(len(predictions)), np.minimum(predictions, classes - 1)]
    wrong = (predictions >= classes) | (chosen < probabilities.max(1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"predictions: got {predictions[row]} for example {start + row}, whose largest probability is that of "
            f"class {probabilities[row].argmax()}; leave predictions out: they follow from the probabilities"
        )


def _check_suggestion(
    start: int, suggested: NDArray[Any], probability: NDArray[Any], means: NDArray[Any] | None
) -> None:
    """ValueError unless suggested labels [n] and their probabilities [n] go together, and with the means [n, C]."""
    wrong = (suggested < -1) | (np.isnan(probability) != (suggested == -1)) | (probability < 0) | (probability > 1.001)
    expected = "a class and its probability, or -1 and NaN for an example that was never presented"
    if means is not None:
        presented, means = ~np.isnan(means[:, 0]), np.nan_to_num(means)
        wrong |= suggested != np.where(presented, means.argmax(1), -1)
        wrong |= np.abs(means.max(1) - np.nan_to_num(probability)) > _SUM_TOLERANCE
        expected = "the class of the largest mean probability; leave suggested labels out: they follow from these"
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"suggested: got {suggested[row]} with probability {probability[row]:g} for example {start + row}, "
            f"expected {expected}"
        )
