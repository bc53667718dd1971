"""Keeps samples of a stream by their ids alone: no plan, no communication, the same samples in every process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..dataset_facts import describe_sample, key_of
from ..support.checks import whole_number
from ..support.hashing import pack_unsigned, seed_of, uniform, xxh3
from ..support.ids import id_of
from .inclusion_table import InclusionTable

_PROCESSES: Final = 4096  # that count each on its own, by their numbers; two that count in one row would lose some
_PLAIN: Final = (str, int)
_MADE: Final = ("_rows", "_look_up", "_name_of", "_seeds")  # in each process
_EVERY: Final = 1024  # samples, after which a worker's counts are added


class StreamCounts(NamedTuple):
    """How many samples came, were kept, and were not in the table."""

    seen: int
    kept: int
    unknown: int


class StreamPruner:
    """Decides sample by sample: one is kept if a hash of its id, the epoch and the seed lies below its probability.

    Whoever reads a sample decides the same of it: any worker, any process, before or after a restart. What is kept of a
    weighted table (`SoftPrune`, `Importance`) weighs 1 / probability, so that sums over the epoch are unbiased; of any
    other table it weighs 1, ties too. A sample whose id the table does not know is kept, weighs 1, and is counted.

    The epoch is set with `set_epoch`, which workers of a `DataLoader` see, persistent ones too, or given in a call. A
    plan keeps the same number of examples in every epoch; here it varies by about the square root of what is left out.

    Args:
        table: an `InclusionTable`, or the path of its file.
        key: what names a sample: the name of a field of mappings or named tuples, a place in tuples, or a function.
        seed: another one gives other draws.
        weight_key: the name of the weight in samples that are mappings.
        ahead: how many samples are read before the first of them is handed on. One by one a sample takes two
            microseconds; with 256 it takes half of that, but as many samples are in memory.

    Raises:
        TypeError: a key that is none of these.

    >>> import tempfile
    >>> from difficulty_prune.policies import Hardest
    >>> stream = [{"id": name} for name in ("a", "b", "c", "new")]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = InclusionTable.build(f"{folder}/table", ["a", "b", "c"], Hardest(0.34), [0.1, 0.9, 0.5])
    ...     [(sample["id"], weight) for sample, weight in StreamPruner(table, key="id")(stream, epoch=0)]
    [('b', 1.0), ('new', 1.0)]
    """

    def __init__(
        self,
        table: InclusionTable | str | os.PathLike[str],
        key: str | int | Callable[[Any], Any],
        *,
        seed: int = 0,
        weight_key: str = "weight",
        ahead: int = 1,
    ) -> None:
        if isinstance(key, bool) or not (isinstance(key, str | int) or callable(key)):
            raise TypeError(f"key: got {key!r}, expected a name, a place in the sample, or a function of it")
        self.table = table if isinstance(table, InclusionTable) else InclusionTable(table)
        self.key = key
        self.seed = whole_number(seed, "seed")
        self.weight_key = weight_key
        self.ahead = whole_number(ahead, "ahead", least=1)
        # Workers see the same memory: in the first row the epoch and how often it was set, then each process's counts.
        self._shared = torch.zeros((1 + _PROCESSES, 3), dtype=torch.int64, device="cpu")
        self._shared[0, 0] = -1
        self._start()

    def _start(self) -> None:
        self._shared.share_memory_()  # of a copy that was pickled as a file is, it is not; elsewhere nothing happens
        self._rows = self._shared.numpy()
        self._look_up = self.table.lookup()
        self._name_of = self._namer()
        self._seeds: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """The epoch, from 0 on, in which `keeps`, `pipe`, `prune` and calls without an epoch decide."""
        self._rows[0, :2] = whole_number(epoch, "epoch"), self.times_set + 1

    @property
    def epoch(self) -> int | None:
        """The epoch that was set last; None before."""
        return None if self._rows[0, 0] < 0 else int(self._rows[0, 0])

    @property
    def times_set(self) -> int:
        """How often `set_epoch` was called, here or in a worker."""
        return int(self._rows[0, 1])

    @property
    def epochs_differ(self) -> bool:
        """Whether it depends on the epoch what is kept."""
        return self.table.redrawn or self.table.full_from is not None

    @property
    def scale(self) -> float:
        """What the mean of weighted losses is multiplied by, for steps as large as those of a training on all samples.

        In expectation it is 1 over the mean weight of what the epoch that is set keeps: `table.share` where weights are
        1 / probability, and 1 where they are 1, as in epochs that keep all. Samples that the table does not know are
        left out of account.

        Raises:
            RuntimeError: as a call.
        """
        _, full = self._draws(None)
        return self.table.share if self.table.weighted and not full else 1.0

    @property
    def counts(self) -> StreamCounts:
        """What this process and the workers of its loaders have seen so far."""
        return StreamCounts(*self._rows[1:].sum(0).tolist())

    def reset_counts(self) -> None:
        """Counts from 0 again, as for an epoch of their own; not while workers read."""
        self._rows[1:] = 0

    def __call__(self, stream: Iterable[Any], epoch: int | None = None) -> Iterator[tuple[Any, float]]:
        """The samples that are kept, each with the weight of its loss.

        Raises:
            RuntimeError: no epoch was given or set, and the table's draws depend on it.
            ValueError, TypeError: a sample without the key, or with an id of another kind than the table's.
        """
        if self.ahead > 1:
            yield from self._by_parts(stream, epoch)
            return
        seed, full = self._draws(epoch)
        look_up, name_of, weighted = self._look_up, self._name_of, self.table.weighted
        hasher, pack = xxh3(), pack_unsigned
        seen = kept = unknown = 0
        try:
            for sample in stream:
                seen += 1
                hashed, p = look_up(name_of(sample))
                if p is None:
                    unknown += 1
                    p = 1.0
                elif full:
                    p = 1.0
                if p == 1.0 or (p and (hasher(pack(hashed), seed) >> 11) * 2.0**-53 < p):
                    kept += 1
                    yield sample, 1 / p if weighted else 1.0
                if seen == _EVERY:
                    self._count(seen, kept, unknown)
                    seen = kept = unknown = 0
        finally:
            self._count(seen, kept, unknown)

    def _by_parts(self, stream: Iterable[Any], epoch: int | None) -> Iterator[tuple[Any, float]]:
        samples, name_of, draws = iter(stream), self._name_of, self._draws(epoch)
        while part := list(islice(samples, self.ahead)):
            keep, weight = self._decide([name_of(sample) for sample in part], *draws)
            places = keep.nonzero()[0]
            yield from zip((part[i] for i in places.tolist()), weight[places].tolist(), strict=True)

    def pipe(self, stream: Iterable[Any]) -> Iterator[Any]:
        """The samples that are kept, each with its weight: mappings under `weight_key`, tuples as last element.

        A stage of a pipeline, such as `webdataset.WebDataset(urls).compose(pruner.pipe)`.
        """
        return (self._with(sample, weight) for sample, weight in self(stream))

    def keeps(self, sample: Any) -> bool:
        """Whether a sample is kept in the epoch that is set: a filter for pipelines that take one."""
        seed, full = self._draws(None)
        hashed, p = self._look_up(self._name_of(sample))
        keep = p is None or full or (xxh3()(pack_unsigned(hashed), seed) >> 11) * 2.0**-53 < p
        self._count(1, int(keep), int(p is None))
        return keep

    def weight(self, sample: Any) -> float:
        """What the loss of a sample weighs where it is kept; 0 for one that never is."""
        _, full = self._draws(None)
        p = self._look_up(self._name_of(sample))[1]
        if p is None or full:
            return 1.0
        return 1 / p if self.table.weighted else float(p > 0)

    def attach(self, sample: Any) -> Any:
        """The sample with its weight, as in `pipe`: a map for pipelines that filter with `keeps`."""
        return self._with(sample, self.weight(sample))

    def prune(self, samples: Sequence[Any]) -> list[Any]:
        """Those of some samples that are kept, with their weights, as in `pipe`; faster than one at a time."""
        keep, weight = self.decide([self._name_of(sample) for sample in samples])
        return [self._with(samples[i], float(weight[i])) for i in keep.nonzero()[0].tolist()]

    def decide(self, ids: Any, epoch: int | None = None) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Of many ids at once, whether each is kept, [n] bool, and what it then weighs, [n] float64.

        Raises:
            RuntimeError, TypeError: as a call.
        """
        return self._decide(ids, *self._draws(epoch))

    def _decide(self, ids: Any, seed: int, full: bool) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        hashes = self.table.hashes(ids)
        found = self.table.of_hashes(hashes).astype(np.float64)
        unknown = np.isnan(found)
        p = np.ones_like(found) if full else np.where(unknown, 1.0, found)
        keep = uniform(hashes, seed) < p
        weight = (p > 0).astype(np.float64)
        if self.table.weighted:
            weight /= p
        self._count(len(keep), int(keep.sum()), int(unknown.sum()))
        return keep, weight

    def _draws(self, epoch: int | None) -> tuple[int, bool]:
        """The seed of an epoch's draws, and whether the epoch has all samples."""
        now = int(self._rows[0, 0]) if epoch is None else whole_number(epoch, "epoch")
        known = self._seeds  # which another thread may replace, of another epoch
        if known is None or known[0] != now:
            if now < 0 and self.epochs_differ:
                raise RuntimeError("epoch: got none, but the samples depend on it; call pruner.set_epoch(epoch) first")
            known = self._seeds = now, seed_of(self.seed, now) if self.table.redrawn else seed_of(self.seed)
        return known[1], self.table.full_from is not None and now >= self.table.full_from

    def _namer(self) -> Callable[[Any], str | int]:
        """A function of a sample that returns its id."""
        key = self.key
        plain = () if callable(key) else (dict,) if isinstance(key, str) else (tuple, list)

        def name_of(sample: Any) -> str | int:
            try:
                name = sample[key] if type(sample) in plain else key_of(sample, key)
            except (KeyError, IndexError) as error:
                if callable(key):
                    raise  # an error of its own
                raise ValueError(f"key: got {key!r}, but a sample is {describe_sample(sample)}") from error
            return name if type(name) in _PLAIN else id_of(name, f"key {key!r}", "a sample")

        return name_of

    def _count(self, seen: int, kept: int, unknown: int) -> None:
        row = self._rows[1 + os.getpid() % _PROCESSES]
        row += (seen, kept, unknown)

    def _with(self, sample: Any, weight: float) -> Any:
        if type(sample) is tuple:
            return (*sample, weight)
        if isinstance(sample, Mapping):
            if self.weight_key in sample:
                raise ValueError(
                    f"the sample has a key {self.weight_key!r} already; choose another name with weight_key=..."
                )
            return {**sample, self.weight_key: weight}
        return [*sample, weight] if isinstance(sample, list) else (sample, weight)

    def __repr__(self) -> str:
        return f"StreamPruner({self.table!r}, key={self.key!r}, seed={self.seed})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __deepcopy__(self, memo: Any) -> StreamPruner:
        return self  # so that pipelines that copy their functions see set_epoch
