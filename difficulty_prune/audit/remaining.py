"""How many wrong labels are left among the examples that nobody has decided yet.

The chance p of a wrong label is taken to depend on the score alone and never to rise from harder to easier examples.
Two things are made of the decisions: a curve, which gives the estimate, and an interval that trusts no curve. All steps
are loops and closed forms, so that the audit page computes the same numbers.

1. **Rank.** Only examples with a difficulty count, n of them. r is the number of harder ones plus half of those with
   the same difficulty, itself among these; x = log(r / (n - r)).
2. **Top.** Of all difficulties t, the one for which decided minus undecided examples with difficulty >= t is largest,
   if that is above 0 (the highest t on a tie). The top are the examples with difficulty >= t.
3. **Evidence.** The decisions that tell about others: those in the top, and those below it that were picked at random
   (if `sampled` is not given: all of them). Someone may have decided an example below because it looked wrong.
4. **Curve.** p = 1 / (1 + exp(-(a - b x))) with the a and b >= 0 that maximise
   sum over evidence of log p (wrong) or log(1 - p) (right), minus a^2 / 200, minus (b - 1)^2 / 2
   by Newton's method from a = 0, b = 1, where a step is halved until it does not lower the sum, but for rounding. If b
   comes out below 0, a alone is maximised with b = 0. The value is the sum of p over the undecided.
5. **Bins.** The evidence in the top is cut into 4 bins, and so is that below: an example is in bin floor(4 h / k) of
   its part, k being the part's evidence and h how much of that is harder. Empty bins are left out. Harder bins come
   first. Bin j has K[j] decisions, W[j] of them wrong.
6. **Upper end.** M[j] is the number of undecided examples that are at most as hard as the hardest of bin j, and harder
   than the hardest of bin j + 1 (all the easier ones for the last bin). Those harder than all evidence count as wrong.
   Half a decision, wrong, is added to the last bin. `largest_sum` gives T, the sum of M p that fits best, U, the
   largest that the decisions do not contradict, and V, the sum of M p (1 - p) there. The end is
   T + sqrt((U - T)^2 + z^2 V), at most the number of the undecided: V is for chance among these.
7. **Lower end.** The same for right labels, with the order of the bins turned round: M[j] is then of undecided examples
   at least as hard as the easiest of bin j, and those easier than all evidence count as right.
8. If the value is above the upper end, every p is multiplied so that their sum is the end; if below the lower, every
   1 - p.

`largest_sum` is isotonic regression (pool adjacent violators) with a Lagrange multiplier s >= 0: it maximises
sum of W log p + (K - W) log(1 - p) + s M p over p[0] >= p[1] >= ... In a pooled block p solves
s M p^2 + (K - s M) p - W = 0. s is raised, by bisection of log s, until the log-likelihood is z^2 / 2 + 1/2 below its
largest: the profile likelihood interval of sum M p under the order alone. The half is for the fit to the order, which a
score that ranks little has to pay for. Below the last decision the order allows any p from 0 to the last one's, so that
without examples picked at random the interval is wide, as it has to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..support.arrays import read_only, real_numbers
from ..support.checks import check_between, whole_number
from ..support.counted import counted
from ..support.plain import plain_fields

_BINS: Final = 4
"""Few: of many, the easiest that happen to hold no wrong label would stand for all below. With a score that ranks
nothing, 64 bins covered the truth in a third of simulated reviews."""

_FIT: Final = 0.5  # see the docstring

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Remaining:
    """What `remaining` estimates.

    Attributes:
        value: the number of wrong labels among the undecided examples.
        interval: its lower and upper end.
        level: of the interval.
        decided: the number of decisions.
        wrong: how many of these found a wrong label.
        undecided: examples with a difficulty and without a decision.
        unranked: examples without a difficulty and without a decision, of which nothing is said.
        reached: whether a decision tells about the undecided examples below those of which most are decided; if not,
            the value rests on the curve alone.
    """

    value: float
    interval: tuple[float, float]
    level: float
    decided: int
    wrong: int
    undecided: int
    unranked: int
    reached: bool
    _sums: Vector = field(repr=False, compare=False)

    def next(self, examples: int = 50) -> float:
        """How many wrong labels the hardest so many undecided examples will hold; all, if there are no more.

        Raises:
            TypeError, ValueError: not a whole number, or below 0.
        """
        return float(self._sums[min(whole_number(examples, "examples"), self.undecided)])

    def __str__(self) -> str:
        low, high = self.interval
        left = counted(round(self.value), "wrong label is", "wrong labels are")
        text = f"about {left} left ({100 * self.level:g} %: {math.floor(low):,} to "
        text += f"{math.ceil(high):,}); the next {min(50, self.undecided):,} will hold about {round(self.next(50)):,}"
        if not self.reached:
            text += "; no decision tells about the easier examples: decide some that are picked at random"
        if self.unranked:
            text += f"; {self.unranked:,} more without a difficulty are not counted"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them; `next_50` is `next(50)`."""
        return plain_fields(self, leave_out=["_sums"], next_50=self.next(50))


def remaining(difficulty: Any, index: Any, wrong: Any, *, sampled: Any = None, level: float = 0.95) -> Remaining:
    """How many wrong labels are left among the undecided examples, and how many the next ones will hold.

    The chance of a wrong label is estimated from the decisions so far; it never rises from harder to easier examples.
    Only the order of the difficulties matters. Decide the hardest examples, and among them some that are picked at
    random from all: the first find wrong labels, the second say how many are left. If none are picked at random, the
    interval is wide.

    The module's docstring says how it is computed. In 400 reviews of each of many kinds, with 100 to 1,000 decisions,
    the interval at 95 % held the true number in 97 % or more of those with labels that people gave, and in 91 % or more
    of simulated ones; see docs/wrong_labels.md.

    Args:
        difficulty: [N] numbers, high = hard, by which the examples were put in order. NaN for an example that was never
            presented: it is left out of the estimate, and counted in `unranked`.
        index: [k] whole numbers in 0..N-1, the examples that were decided, each once and in any order.
        wrong: [k] bool, whether the label was found to be wrong.
        sampled: [k] bool, which of them were picked at random. The others count as found by going down the order. Those
            of them that lie where less than half is decided tell nothing of their neighbours: they may have been looked
            at because they are odd. Without it every decision counts as typical of its difficulty.
        level: of the interval, in (0, 1).

    Raises:
        TypeError: not numbers, whole numbers or bool.
        ValueError: arrays of other shapes, no decisions, an example that is decided twice, no difficulty that is known,
            no decision that tells about others, or a level outside (0, 1).
        IndexError: an index outside 0..N-1.

    >>> rng = np.random.default_rng(0)
    >>> label_is_wrong = rng.random(2000) < 0.1
    >>> difficulty = rng.normal(size=2000) + 2.5 * label_is_wrong
    >>> hardest, picked = np.argsort(-difficulty)[:150], rng.permutation(2000)[:100]
    >>> index = np.union1d(hardest, picked)
    >>> left = remaining(difficulty, index, label_is_wrong[index], sampled=np.isin(index, picked))
    >>> print(left)
    about 71 wrong labels are left (95 %: 16 to 185); the next 50 will hold about 22
    """
    values = real_numbers(difficulty, "difficulty")
    if values.ndim != 1 or not len(values):
        raise ValueError(f"difficulty: got the shape {values.shape}, expected [N], one number per example")
    positions = _positions(index, len(values))
    found = _flags(wrong, len(positions), "wrong")
    _refuse_repeated(positions, found)
    random = None if sampled is None else _flags(sampled, len(positions), "sampled")
    check_between(level, "level")

    ranked = ~np.isnan(values)
    if not ranked.any():
        raise ValueError(f"difficulty: got {len(values)} NaN, expected the difficulty of at least one example")
    decided = np.zeros(len(values), np.bool_)
    decided[positions] = True
    facts: dict[str, Any] = {
        "level": float(level),
        "decided": len(positions),
        "wrong": int(found.sum()),
        "undecided": int((ranked & ~decided).sum()),
        "unranked": int((~ranked & ~decided).sum()),
    }
    if not facts["undecided"]:
        return Remaining(0.0, (0.0, 0.0), **facts, reached=True, _sums=read_only(np.zeros(1)))

    order = np.flatnonzero(ranked)
    order = order[np.argsort(-values[order], kind="stable")]
    rank, group = _ranks(values[order])
    place = np.full(len(values), -1)
    place[order] = np.arange(len(order))
    end_of_top = _end_of_top(group, decided[order])
    at = place[positions]
    in_top = at < end_of_top
    used = (at >= 0) & (in_top | (True if random is None else random))
    if not used.any():
        raise ValueError(
            f"index: got {len(positions)} decisions of which none tells about other examples, expected the hardest "
            "examples, or some that were picked at random (sampled)"
        )
    evidence = _Evidence(rank[at[used]], found[used].astype(np.float64), in_top[used])
    left = rank[~decided[order]]
    low, high = _interval(evidence, left, NormalDist().inv_cdf((1 + level) / 2))
    chance = _within(_curve(evidence, left, len(order)), low, high)
    sums = np.concatenate([[0.0], np.cumsum(chance)])
    reached = bool((~in_top[used]).any()) or end_of_top == len(order)
    return Remaining(float(min(max(sums[-1], low), high)), (low, high), **facts, reached=reached, _sums=read_only(sums))


@dataclass(frozen=True)
class _Evidence:
    """Decisions that tell about others: rank [k], 1.0 where wrong [k], and whether they are in the top [k]."""

    rank: Vector
    wrong: Vector
    in_top: Mask


def _positions(index: Any, size: int) -> NDArray[np.int64]:
    """The index as int64 [k], each in 0..size-1."""
    given = np.asarray(index)
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        got = f"{given.dtype} {given.shape}" if given.ndim else repr(index)
        raise TypeError(f"index: got {got}, expected the positions of the decided examples as whole numbers [k]")
    if not len(given):
        raise ValueError("index: got no decisions, expected at least one; some hundred say something")
    outside = (given < 0) | (given >= size)
    if outside.any():
        raise IndexError(f"index: got {given[outside][0]}, expected 0 to {size - 1}")
    return given.astype(np.int64)


def _flags(given: Any, size: int, name: str) -> Mask:
    """The values as bool [size]; numbers other than 0 and 1 are none."""
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got {array.dtype} {array.shape}, expected bool [{size}]")
    if array.shape != (size,):
        raise ValueError(f"{name}: got the shape {array.shape}, expected ({size},), one for each index")
    other = (array != 0) & (array != 1)
    if other.any():
        raise ValueError(f"{name}: got {array[other][0]}, expected True or False")
    return array.astype(np.bool_)


def _refuse_repeated(positions: NDArray[np.int64], found: Mask) -> None:
    order = np.argsort(positions, kind="stable")
    again = np.flatnonzero(positions[order][1:] == positions[order][:-1])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        said = "as wrong and as right" if found[first] != found[second] else "the same way"
        raise ValueError(
            f"index: got {positions[first]} twice, decided {said}, expected each example once; keep its last decision"
        )


def _ranks(descending: Vector) -> tuple[Vector, NDArray[np.int64]]:
    """Rank r of each, as in step 1, and the place after the last one with the same difficulty; of values in order."""
    starts = np.flatnonzero(np.concatenate([[True], descending[1:] != descending[:-1]]))
    ends = np.concatenate([starts[1:], [len(descending)]])
    size = ends - starts
    return np.repeat(starts + size / 2, size), np.repeat(ends, size)


def _end_of_top(group_end: NDArray[np.int64], decided: Mask) -> int:
    """How many examples are the top, as in step 2."""
    lead = np.cumsum(np.where(decided, 1, -1))[group_end - 1]
    best = int(lead.argmax())
    return int(group_end[best]) if lead[best] > 0 else 0


def _curve(evidence: _Evidence, left: Vector, size: int) -> Vector:
    """The chance of a wrong label at the ranks `left`, as in step 4."""
    a, b = fit_curve(np.log(evidence.rank / (size - evidence.rank)), evidence.wrong)
    return _chance(a - b * np.log(left / (size - left)))


def _chance(z: Vector) -> Vector:
    return 1 / (1 + np.exp(-np.clip(z, -700, 700)))


def fit_curve(x: Vector, wrong: Vector) -> tuple[float, float]:
    """The a and b of step 4.

    Args:
        x: [k] of the evidence.
        wrong: [k], 1.0 where wrong, else 0.0.

    >>> a, b = fit_curve(np.array([-2.0, -1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    >>> round(a, 3), round(b, 3)
    (-0.772, 1.57)
    """

    def goodness(a: float, b: float) -> float:
        z = a - b * x
        return float((wrong * z - np.logaddexp(0, z)).sum()) - a * a / 200 - (b - 1) ** 2 / 2

    a, b = 0.0, 1.0
    best = goodness(a, b)
    for _ in range(100):
        p = _chance(a - b * x)
        v = p * (1 - p)
        slope_a = float((wrong - p).sum()) - a / 100
        slope_b = float((x * (p - wrong)).sum()) - (b - 1)
        aa, ab, bb = float(v.sum()) + 0.01, -float((x * v).sum()), float((x * x * v).sum()) + 1
        step_a = (bb * slope_a - ab * slope_b) / (aa * bb - ab * ab)
        step_b = (aa * slope_b - ab * slope_a) / (aa * bb - ab * ab)
        part, least = 1.0, best - 1e-10 * (1 + abs(best))  # less is rounding, which would end the steps too early
        while part > 1e-9 and goodness(a + part * step_a, b + part * step_b) < least:
            part /= 2
        a, b = a + part * step_a, b + part * step_b
        best = goodness(a, b)
        if abs(step_a) + abs(step_b) < 1e-10:
            break
    return (a, b) if b >= 0 else (_flat(float(wrong.sum()), len(wrong)), 0.0)


def _flat(wrong: float, decisions: int) -> float:
    """The a of step 4 with b = 0: the root of wrong - decisions p - a / 100, which falls in a; by bisection."""
    low, high = -100.0 * decisions - 1, 100.0 * decisions + 1
    for _ in range(200):
        a = (low + high) / 2
        p = 1 / (1 + math.exp(-min(max(a, -700.0), 700.0)))
        low, high = (a, high) if wrong - decisions * p - a / 100 > 0 else (low, a)
    return (low + high) / 2


def _interval(evidence: _Evidence, left: Vector, z: float) -> tuple[float, float]:
    """The ends of steps 5 to 7; `left` are the ranks of the undecided, in order."""
    wrong, decisions, hardest, easiest = _bins(evidence)
    above = np.searchsorted(left, hardest, "left")  # undecided that are harder than the bin's hardest
    of_bin = np.diff(np.concatenate([above, [len(left)]]))
    most = int(above[0]) + _end(wrong, decisions, of_bin, z)
    down_to = np.searchsorted(left, easiest, "right")
    of_bin = np.diff(np.concatenate([[0], down_to]))
    right = len(left) - int(down_to[-1]) + _end((decisions - wrong)[::-1], decisions[::-1], of_bin[::-1], z)
    return max(0.0, len(left) - right), min(float(len(left)), most)


def _bins(evidence: _Evidence) -> tuple[Vector, Vector, Vector, Vector]:
    """Of each bin of step 5: wrong decisions, decisions, rank of the hardest and of the easiest."""
    found = []
    for part in (evidence.in_top, ~evidence.in_top):
        rank, wrong = evidence.rank[part], evidence.wrong[part]
        harder = np.searchsorted(np.sort(rank), rank, "left")
        number = _BINS * harder // max(len(rank), 1)
        for bin_ in np.unique(number):
            own = number == bin_
            found.append((wrong[own].sum(), own.sum(), rank[own].min(), rank[own].max()))
    wrong, decisions, hardest, easiest = np.array(found, np.float64).T
    return wrong, decisions, hardest, easiest


def _end(wrong: Vector, decisions: Vector, undecided: NDArray[np.int64], z: float) -> float:
    """The upper end of the number of wrong labels among the undecided of each bin, as in step 6."""
    w, k, m = wrong.tolist(), decisions.tolist(), undecided.astype(np.float64).tolist()
    w[-1] += 0.5
    k[-1] += 0.5
    estimate, largest, variance = largest_sum(w, k, m, z * z / 2 + _FIT)
    return estimate + math.sqrt((largest - estimate) ** 2 + z * z * variance)


def largest_sum(
    wrong: list[float], decisions: list[float], undecided: list[float], drop: float
) -> tuple[float, float, float]:
    """The sum of undecided * p that fits the decisions best under p[0] >= p[1] >= ..., and the largest that still fits.

    Args:
        wrong, decisions: of each bin; decisions above 0.
        undecided: 0 or more.
        drop: by how much the log-likelihood may fall short of the largest.

    Returns:
        The sum that fits best, the largest, and the sum of undecided * p * (1 - p) for the largest.

    >>> [round(number, 3) for number in largest_sum([3.0, 1.0], [4.0, 10.0], [0.0, 100.0], drop=2.0)]
    [10.0, 37.839, 23.521]
    """

    def blocks_for(weight: float) -> list[_Block]:
        blocks: list[_Block] = []
        for block in zip(wrong, decisions, undecided, strict=True):
            w, k, m = block
            p = _chance_of_block(w, k, weight * m)
            while blocks and blocks[-1][3] <= p:
                before = blocks.pop()
                w, k, m = w + before[0], k + before[1], m + before[2]
                p = _chance_of_block(w, k, weight * m)
            blocks.append((w, k, m, p))
        return blocks

    best = blocks_for(0.0)
    least = _log_likelihood(best) - drop
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        fits = _log_likelihood(blocks_for(math.exp(middle))) >= least
        low, high = (middle, high) if fits else (low, middle)
    widest = blocks_for(math.exp(low))
    variance = sum(m * p * (1 - p) for _, _, m, p in widest)
    return sum(m * p for _, _, m, p in best), sum(m * p for _, _, m, p in widest), variance


_Block = tuple[float, float, float, float]  # wrong, decisions, undecided, p


def _chance_of_block(wrong: float, decisions: float, pull: float) -> float:
    """The p in [0, 1] with pull p^2 + (decisions - pull) p - wrong = 0, by the form that does not cancel."""
    d = decisions - pull
    root = math.sqrt(d * d + 4 * pull * wrong)
    return min(1.0, 2 * wrong / (d + root) if d > 0 else (root - d) / (2 * pull))


def _log_likelihood(blocks: list[_Block]) -> float:
    total = 0.0
    for wrong, decisions, _, p in blocks:
        if wrong > 0:
            total += wrong * math.log(p) if p > 0 else -math.inf
        if decisions > wrong:
            total += (decisions - wrong) * math.log1p(-p) if p < 1 else -math.inf
    return total


def _within(chance: Vector, low: float, high: float) -> Vector:
    """The same chances, moved as in step 8 if their sum is outside the interval."""
    total = float(chance.sum())
    if total > high:
        return chance * (high / total)
    if total < low:
        return 1 - (1 - chance) * ((len(chance) - low) / (len(chance) - total))
    return chance
