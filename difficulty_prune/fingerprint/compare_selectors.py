"""Which way of choosing examples recognises architectures best, and with how many (arXiv 2401.01867, section 5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.checks import whole_number
from ..support.pieces import check_executor
from ..support.plain import plain_fields
from ..support.randomness import generator_from
from .accuracy import Accuracy
from .architecture_fingerprint import check_size
from .classifier import standard
from .groups import Groups, group_runs, name_all
from .held_out import Ranking, always, choose, recognise_held_out, split_runs
from .selection import Select, check_select, rank_examples

Protocol = Literal["held-out runs", "held-out architectures"]

_ALL: Final[tuple[Select, ...]] = get_args(Select)


@dataclass(frozen=True)
class Row:
    """One way of choosing, with one number of examples.

    Attributes:
        select, examples: which and how many.
        accuracy: share of held-out runs whose architecture was recognised.
        interval: its 95% confidence interval, Wilson's.
        clustering: share of runs in the right cluster of k-means, under the best matching of clusters to architectures.
            With few runs chance alone lifts it far above 1 / G.
    """

    select: Select
    examples: int
    accuracy: float
    interval: tuple[float, float]
    clustering: float

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)


@dataclass(frozen=True)
class Comparison:
    """How well architectures are recognised by examples chosen in different ways.

    Attributes:
        rows: one for each way and number of examples.
        score, protocol: as asked for.
        architectures: their names, sorted.
        answers: how many held-out runs each accuracy is a share of.
        chance: the accuracy of always naming the architecture with the most runs.
    """

    rows: tuple[Row, ...]
    score: str
    protocol: Protocol
    architectures: tuple[str, ...]
    answers: int
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return plain_fields(self)

    def __str__(self) -> str:
        best = max(self.rows, key=lambda row: (row.accuracy, -row.examples))
        examples = f"{best.examples:,} {best.select} example{'s' if best.examples > 1 else ''}"
        found = f"{name_all(self.architectures)} are told apart best by {examples}"
        if best.interval[0] <= self.chance:
            found = f"Nothing shows that examples tell {name_all(self.architectures)} apart, at best {examples}"
        lines = [
            f"{found}: {best.accuracy:.0%} of {self.answers:,} answers right, chance {self.chance:.0%} "
            f"({self.score}, {self.protocol}).",
            f"{'chosen':<10} {'examples':>8} {'accuracy':>8} {'95% interval':>13} {'k-means':>8}",
        ]
        for row in self.rows:
            interval = "{:.0%} to {:.0%}".format(*row.interval)
            line = f"{row.select:<10} {row.examples:>8,} {row.accuracy:>8.0%} {interval:>13} {row.clustering:>8.0%}"
            lines.append(line)
        return "\n".join(lines)


def compare_selectors(
    runs: RunSet,
    score: str,
    *,
    examples: int | Iterable[int] = (1, 10, 100, 1000),
    select: Iterable[Select] = _ALL,
    protocol: Protocol = "held-out runs",
    seed: int = 0,
    executor: Executor | None = None,
) -> Comparison:
    """Recognises architectures by different numbers of examples, chosen in different ways (arXiv 2401.01867).

    "held-out runs": each run is held out once, and the others choose the examples; for the clustering, one half of the
    runs chooses them and the other half is clustered. "held-out architectures": each pair of architectures is told
    apart by examples that the runs of all other architectures choose. All pairs count together; since a run takes part
    in several, the interval is too narrow.

    Args:
        runs: at least four of each architecture. "held-out architectures" needs three of each, and at least four
            architectures, or three if neither "sensitive" nor "pca" is among the ways, as these compare two others.
        score: one that every run has.
        examples: how many to choose, one or several numbers.
        select: the ways, as in `ArchitectureFingerprint.fit`.
        protocol: "held-out runs" or "held-out architectures".
        seed: of folds, permutations, random choices and k-means.
        executor: as for `ArchitectureFingerprint.fit`.

    Raises:
        TypeError: `runs` is not a RunSet, not an executor, a string or something else instead of several ways, or
            numbers of examples that are not whole.
        ValueError: an unknown score, way or protocol, too few architectures or runs of one, or more examples than
            every run presented.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(
    ...     Run({"el2n": [0.1 * s, 0.1 * s + far, 0.9]}, architecture=name, seed=s)
    ...     for name, far in (("cnn", 0), ("mlp", 5)) for s in range(6)
    ... )
    >>> print(compare_selectors(runs, "el2n", examples=[1], select=["sensitive", "hardest"]))
    cnn and mlp are told apart best by 1 sensitive example: 100% of 12 answers right, chance 50% (el2n, held-out runs).
    chosen     examples accuracy  95% interval  k-means
    sensitive         1     100%   76% to 100%     100%
    hardest           1     100%   76% to 100%     100%
    """
    if isinstance(select, str) or not isinstance(select, Iterable):
        raise TypeError(f"select: got {select!r}, expected several ways such as ('sensitive', 'random')")
    numbers = list(examples) if isinstance(examples, Iterable) else [examples]
    sizes = tuple(dict.fromkeys(whole_number(number, "examples", least=1) for number in numbers))
    asked = list(select)
    for way in asked:
        check_select(way)
    ways = tuple(dict.fromkeys(asked))
    if not ways or not sizes:
        raise ValueError(f"got {len(ways)} ways and {len(sizes)} numbers of examples, expected one or more of each")
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol: got {protocol!r}, expected one of {', '.join(map(repr, get_args(Protocol)))}")
    whole_number(seed, "seed")
    check_executor(executor)
    groups = group_runs(runs, score, at_least=4 if protocol == "held-out runs" else 3)
    if protocol == "held-out architectures":
        _check_others(groups, ways)
    known = groups.known()
    for size in sizes:
        check_size(size, known, "examples")

    measure = _by_runs if protocol == "held-out runs" else _by_architectures
    rows: list[Row] = []
    for way in ways:
        ranking = partial(rank_examples, select=way, seed=seed, executor=executor)
        for size, (accuracy, clustering) in measure(groups, ranking, sizes, known, seed).items():
            rows.append(Row(way, size, accuracy.value, accuracy.interval, clustering))
    pairs = [(a, b) for a, b in itertools.combinations(groups.sizes, 2)]
    tasks = [groups.sizes] if protocol == "held-out runs" else pairs
    answers = sum(map(sum, tasks))
    chance = sum(map(max, tasks)) / answers
    return Comparison(tuple(rows), score, protocol, groups.architectures, answers, chance)


Measured = Mapping[int, tuple[Accuracy, float]]
"""Number of examples -> accuracy and clustering."""


def _by_runs(groups: Groups, ranking: Ranking, sizes: Sequence[int], known: NDArray[Any], seed: int) -> Measured:
    half = split_runs(groups, 2, seed) == 0
    clustered = groups.subset(~half)
    x = clustered.matrix(choose(ranking, groups.subset(half), max(sizes), known))
    outcomes = recognise_held_out(groups, ranking, sizes, known, seed)
    return {
        k: (
            Accuracy.of(int(outcomes[k].correct.sum()), len(half)),
            float(_cluster(x[:, :k], clustered.members, seed).mean()),
        )
        for k in sizes
    }


def _by_architectures(
    groups: Groups, ranking: Ranking, sizes: Sequence[int], known: NDArray[Any], seed: int
) -> Measured:
    recognised: dict[int, list[NDArray[Any]]] = {k: [] for k in sizes}
    clustered: dict[int, list[NDArray[Any]]] = {k: [] for k in sizes}
    for pair in itertools.combinations(range(len(groups.sizes)), 2):
        in_pair = np.isin(groups.members, pair)
        chosen, both = choose(ranking, groups.subset(~in_pair), max(sizes), known), groups.subset(in_pair)
        x = both.matrix(chosen)
        outcomes = recognise_held_out(both, always(chosen), sizes, known, seed)
        for k in sizes:
            recognised[k].append(outcomes[k].correct)
            clustered[k].append(_cluster(x[:, :k], both.members, seed))
    return {k: (_accuracy(recognised[k]), float(np.concatenate(clustered[k]).mean())) for k in sizes}


def _accuracy(correct: Sequence[NDArray[Any]]) -> Accuracy:
    together = np.concatenate(correct)
    return Accuracy.of(int(together.sum()), len(together))


def _cluster(x: NDArray[Any], group: NDArray[Any], seed: int) -> NDArray[Any]:
    """Whether each of the runs x [R, k] is in the cluster that best matches its group [R]; [R] bool."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    mean, scale = standard(x)
    z = (x - mean) / scale
    clusters = min(
        int(group.max()) + 1, len(np.unique(z, axis=0))
    )  # k-means warns if there are more clusters than points
    state = int(torch.randint(2**31, (), generator=generator_from(seed, 2), device="cpu"))
    # Of ten random starts the best is kept: a single one often ends in a poor local optimum.
    cluster = KMeans(clusters, n_init=10, random_state=state).fit(z).labels_
    counts = np.zeros((clusters, int(group.max()) + 1), np.int64)
    np.add.at(counts, (cluster, group), 1)
    matching = dict(zip(*linear_sum_assignment(counts, maximize=True), strict=True))
    return np.array([matching.get(c) == g for c, g in zip(cluster, group, strict=True)])


def _check_others(groups: Groups, ways: Sequence[Select]) -> None:
    comparing = [way for way in ways if way in ("sensitive", "pca")]
    needed = 4 if comparing else 3
    if len(groups.architectures) < needed:
        why = f"{comparing[0]!r} chooses by comparing two others" if comparing else "others choose the examples"
        raise ValueError(
            f"held-out architectures: got {name_all(groups.architectures)}, expected at least {needed} of them: a pair "
            f"is told apart, and {why}; take protocol='held-out runs'"
        )
