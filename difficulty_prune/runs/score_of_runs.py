"""One score of several runs, as pieces of work take it: to another process or machine it goes as paths of files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..support.blocks import BLOCK, blocks
from ..support.pieces import in_threads
from ..support.remote import Url
from ..support.vector_file import VectorFile
from .compatibility import score_digests
from .run_set import RunSet

_PIECE: Final = 32
"""Runs of a piece of work, whatever does it, so that sums over runs are the same to the last bit."""

_EXAMPLES: Final = 1 << 17
"""Examples of a block. Opening a file takes as long as reading 100 kB of it, so that a block has 512 kB of each."""

_RUNS: Final = 16
"""Runs whose values of a block are in memory at once, 16 MB of float64."""


class _File(NamedTuple):
    """What another process is told of a file: its absolute path or URL, and the digest of the score in it."""

    path: str
    digest: str | None


class _Kept(NamedTuple):
    """Where the score of a run is.

    Attributes:
        name: of the score in a file.
        values: the file, or the values [N].
        dtype: that of `run.scores[name]`.
        run: for messages.
    """

    name: str
    values: VectorFile | NDArray[Any] | _File
    dtype: np.dtype[Any]
    run: str

    def read(self, rows: slice | None = None) -> NDArray[Any]:
        assert not isinstance(self.values, _File)  # which nobody has but a pickle
        if isinstance(self.values, VectorFile):
            values = self.values.read(self.name, rows).astype(self.dtype, copy=False)
            if isinstance(self.values.path, Url) and np.isinf(values).any():  # files of this machine were checked
                raise ValueError(f"{self.values.path}: not a valid run file ({self.name} is infinite for some example)")
            return values
        return self.values if rows is None else self.values[rows]

    def to_send(self) -> _Kept:
        """The same without an open file."""
        if not isinstance(self.values, VectorFile):
            return self
        return self._replace(values=_File(str(self.values.path), self.values.digest(self.name)))

    def received(self, size: int) -> _Kept:
        """The same with the file, if it is there and has the same values."""
        if not isinstance(self.values, _File):
            return self
        path, digest = self.values
        try:
            file = VectorFile(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: a worker does not find this run file; put the files of runs where all workers reach them "
                "under the same path or URL"
            ) from error
        if self.name not in file or file.kinds[self.name].shape != (size,) or file.digest(self.name) != digest:
            raise ValueError(f"{path}: a worker finds other values of {self.name} there than those of {self.run}")
        return self._replace(values=file)


class ScoreOfRuns:
    """One score of R runs of N examples, read from their files or from memory.

    Pickled, it names the files and has the digests of the score in them, by which a process elsewhere knows that it
    reads the same values. Runs in memory take their values along.

    Attributes:
        num_examples: N.

    Raises:
        FileNotFoundError, ValueError: at the first use of what was unpickled, a file is not there, or holds other
            values. Not before, because a process that fails to unpickle its work ends without saying why.
    """

    def __init__(self, runs: RunSet, score: str) -> None:
        self._sent = [_Kept(score, run.kept(score), run.read(score, slice(0)).dtype, repr(run)) for run in runs]
        self.num_examples = runs.num_examples

    def __len__(self) -> int:
        return len(self._sent)

    @cached_property
    def _kept(self) -> list[_Kept]:
        """With the files that were sent, once they are needed."""
        return [kept.received(self.num_examples) for kept in self._sent]

    def some(self, runs: slice) -> ScoreOfRuns:
        """The score of some of the runs."""
        chosen = ScoreOfRuns.__new__(ScoreOfRuns)
        chosen._sent, chosen.num_examples = self._kept[runs], self.num_examples
        return chosen

    def read(self, run: int) -> NDArray[Any]:
        """The score of one run as stored, [N] float64."""
        return np.asarray(self._kept[run].read(), np.float64)

    def matrix(self, examples: slice) -> NDArray[Any]:
        """The score of every run, [R, n] float64, of these examples."""
        return np.stack([kept.read(examples) for kept in self._kept], dtype=np.float64)

    def digests(self) -> Iterator[str]:
        """Of each run, the same for the same values: those of the files, which were checked when these were loaded."""
        if len({kept.dtype for kept in self._kept}) == 1:
            known = [kept.values.digest(kept.name) for kept in self._kept if isinstance(kept.values, VectorFile)]
            if len(known) == len(self) and None not in known:
                return (digest or "" for digest in known)
        return (score_digests({"": self.read(run)})[""] for run in range(len(self)))

    def means(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Weighted means over the runs that presented the example, [K, N] float64; NaN where none did.

        Each file is read once.

        Args:
            weights: [K, R], 0 or more, how much each run counts in each of the means.
        """
        weights = weights.astype(np.float64)
        means = np.empty((len(weights), self.num_examples))

        def fill(examples: slice) -> None:
            means[:, examples] = self._means_of_block(weights, examples)

        for _ in in_threads(fill, blocks(self.num_examples, width=BLOCK // _EXAMPLES)):
            pass
        return means

    def _means_of_block(self, weights: NDArray[Any], examples: slice) -> NDArray[Any]:
        total = np.zeros((len(weights), examples.stop - examples.start))
        missing: NDArray[Any] = np.zeros(1)  # the weight of the runs that did not present an example
        for start in range(0, len(self), _RUNS):
            some = slice(start, start + _RUNS)
            values = np.stack([kept.read(examples) for kept in self._kept[some]], dtype=np.float64)
            unknown = np.isnan(values)
            if unknown.any():
                missing = missing + weights[:, some] @ unknown
                values[unknown] = 0
            total += weights[:, some] @ values
        count = weights.sum(1, keepdims=True) - missing
        with np.errstate(invalid="ignore"):
            means: NDArray[Any] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return means

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": [kept.to_send() for kept in self._sent], "num_examples": self.num_examples}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_examples = state["num_examples"]
        self._sent = state["kept"]


def pieces_of(kept: ScoreOfRuns) -> Iterator[tuple[int, ScoreOfRuns]]:
    """A few runs at a time, with the position of the first."""
    return ((start, kept.some(slice(start, start + _PIECE))) for start in range(0, len(kept), _PIECE))
