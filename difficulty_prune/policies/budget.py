"""A policy whose `keep` is a share of what the examples cost: tokens, seconds or bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .around import Around
from .base import Keeping, check_difficulty, check_plan_labels, default_generator, warn_if_nothing_is_ranked
from .compose import PerClass
from .per_example import PerExample
from .plan import Plan, refuse_lost_class
from .without_wrong import WithoutWrong

_COST = "what each example costs [N], such as its tokens: finite, 0 or more, not all 0"


class Solved(NamedTuple):
    """Two policies that keep one example more or less, and the chance of the one that keeps more."""

    fewer: Any
    more: Any
    chance: float


@dataclass(frozen=True)
class Budget(Around):
    """Keeps what costs a share of the whole: `keep` of all tokens, seconds or bytes in place of all examples.

    The policy stays what it is. Only how many examples it keeps follows from their cost: of the numbers of examples the
    largest is taken at which what it keeps is expected to cost no more than `keep` of the total. So `Hardest` keeps the
    hardest that fit, and never costs more than the budget, unless difficulty has ties; `Random`, and whatever else
    draws, costs no more on average.

    A policy with weights (`SoftPrune`, `Importance`) costs the budget exactly, on average over the epochs: with the
    chance that makes it so, an epoch keeps one example more. Its weights are 1 / inclusion probability in either case,
    so weighted sums are those of the full data.

    Args:
        policy: one of `dp.policies` with a `keep`, or a PerClass or a WithoutWrong of one. Examples whose difficulty is
            NaN are kept on top, as everywhere; `keep` is a share of the cost of the others.
        cost: [N], what each example costs: finite, 0 or more.

    Raises:
        TypeError, ValueError: no such policy or costs; when called: costs of another number of examples than the
            difficulty, or a budget that no number of examples meets, as its options are.

    >>> from difficulty_prune.policies import Hardest
    >>> tokens = [10, 70, 10, 10, 50, 50]
    >>> plan = Budget(Hardest(keep=0.5), cost=tokens)([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    >>> plan.index.tolist(), plan.summary()["kept_cost"], plan.summary()["cost"]
    ([0, 1, 2, 3], 100.0, 200.0)
    """

    varies: ClassVar[bool] = True
    """Whether the number of examples depends on more than `keep`."""
    policy: Keeping | PerClass | WithoutWrong
    cost: Any

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Keeping | PerClass | WithoutWrong):
            raise TypeError(
                f"policy: got {self.policy!r}, expected one of dp.policies with a keep, such as Hardest(keep=0.7)"
            )
        cost = PerExample(self.cost, "cost", _COST)
        bad = ~(cost.values.isfinite() & (cost.values >= 0))
        if bool(bad.any()):
            first = int(bad.int().argmax())
            raise ValueError(f"cost: got {float(cost.values[first])} at {first}, expected {_COST}")
        if not 0 < float(cost.values.sum()) < torch.inf:
            raise ValueError(f"cost: got the sum {float(cost.values.sum()):g}, expected {_COST}, with a finite sum")
        object.__setattr__(self, "cost", cost)

    def of(self, positions: Tensor, size: int) -> Budget:
        """The policy of a part of `size` examples, those at `positions` [n] int64."""
        if bool((positions < 0).any()):
            raise ValueError(
                f"cost: {int((positions < 0).sum())} of {len(positions)} examples are new, and what they cost is not "
                "known; match the difficulty yourself, runs.difficulty(score, dataset=train), and give costs of train"
            )
        return Budget(self.policy.of(positions, size), self.cost.of(positions, size))

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`. The plan's summary has "cost", of all examples, and "kept_cost"."""
        values, classes = self._checked(difficulty, labels)
        draw = default_generator(generator)
        solved = self._solve(values, classes)
        chosen = solved.more if solved.chance > 0 and _chance(draw) < solved.chance else solved.fewer
        plan = chosen(values, classes, draw)
        cost = self.cost.values
        said = {"policy": repr(self), "cost": float(cost.sum()), "kept_cost": float(cost[plan.index].sum())}
        return Plan(plan.index, plan.weight, {**plan.summary(), **said})

    def inclusion(self, difficulty: Any, labels: Any = None) -> Tensor:
        """See the policies' own. Times the cost, they add up to what a plan costs on average.

        >>> from difficulty_prune.policies import SoftPrune
        >>> chance = Budget(SoftPrune(keep=0.6, easy_keep=0.5), cost=[1, 2, 3, 4]).inclusion([1.0, 2.0, 3.0, 4.0])
        >>> float((chance * torch.tensor([1, 2, 3, 4])).sum())
        6.0
        """
        values, classes = self._checked(difficulty, labels)
        if self.inside.ranks:
            warn_if_nothing_is_ranked(values, self, self.keep)
        found = self.odds(values, classes)
        if classes is not None and not self.inside.drops_classes:
            refuse_lost_class(found, classes, repr(self))
        return found

    def odds(self, difficulty: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `inclusion` gives, of difficulty [N] and labels [N] that were checked, and without a word on them."""
        solved = self._solve(difficulty, labels)
        fewer: Tensor = solved.fewer.odds(difficulty, labels)
        if solved.chance == 0:
            return fewer
        more: Tensor = solved.more.odds(difficulty, labels)
        return fewer + (more - fewer) * solved.chance

    def _checked(self, difficulty: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
        values = check_difficulty(difficulty, self.unseen)
        self.cost.check(len(values))
        classes = check_plan_labels(labels, len(values))
        if classes is None and isinstance(self._within_classes, PerClass):
            raise ValueError("PerClass: got no labels, expected the class of every example, [N]")
        return values, classes

    @property
    def _within_classes(self) -> Any:
        return self.policy.policy if isinstance(self.policy, WithoutWrong) else self.policy

    def _solve(self, values: Tensor, classes: Tensor | None) -> Solved:
        """The policy with the number of examples that the budget allows, and with one more.

        Raises:
            ValueError: the budget is less than the fewest examples cost, or more than the most do.
        """
        known = ~values.isnan()
        size, cost = int(known.sum()), self.cost.values * known
        budget = self.keep * float(cost.sum())
        if size == 0 or self.keep == 1:
            return Solved(self.policy, self.policy, 0.0)
        least, most = self.policy.limits(values)

        def expected(number: int) -> float:
            return float((self.policy.with_keep(number / size).odds(values, classes) * cost).sum())

        self._check_epochs(budget, cost, known)
        self._check_budget(budget, least, expected(least), most, expected(most), size)
        few = most_within(expected, least, most, budget * (1 + 1e-12))
        fewer, costs = self.policy.with_keep(few / size), expected(few)
        if not self.unbiased or few == most or costs >= budget:
            return Solved(fewer, fewer, 0.0)
        return Solved(fewer, self.policy.with_keep((few + 1) / size), (budget - costs) / (expected(few + 1) - costs))

    def _check_epochs(self, budget: float, cost: Tensor, known: Tensor) -> None:
        """ValueError where the budget of a later epoch would not do, so that it is known before a training."""
        left = known
        if isinstance(self.policy, WithoutWrong):
            if not isinstance(self.policy.wrong, Tensor):
                return  # which of what is due is left out, the difficulty of that epoch says
            left = known.index_fill(0, self.policy.given(len(known)), False)
        dearest = self.inside.dearest(cost, left, int(known.sum()))
        if dearest > budget * (1 + 1e-12):
            raise ValueError(
                f"{self!r}: the budget is {budget:g}, but what is due in one of the epochs may cost {dearest:g}; "
                "choose a larger keep, or a longer gap"
            )

    def _check_budget(self, budget: float, least: int, lowest: float, most: int, highest: float, size: int) -> None:
        if lowest > budget * (1 + 1e-12):
            raise ValueError(
                f"{self!r}: the budget is {budget:g}, but the fewest examples that may be kept, {least} of {size}, "
                f"cost {lowest:g}; choose a larger keep"
            )
        if highest < budget * (1 - 1e-9):
            share = self.keep * highest / budget
            raise ValueError(
                f"{self!r}: the budget is {budget:g}, but the most examples that may be kept, {most} of {size}, cost "
                f"only {highest:g}; choose a keep of at most {share:.4g}"
            )


def most_within(cost: Callable[[int], float], least: int, most: int, budget: float) -> int:
    """A number from `least` to `most` whose cost is within the budget, and that of the next one is not.

    That of `least` is within. Where costs grow with the number it is the largest one; it is found by halving.

    >>> most_within(lambda number: number**2, 0, 100, 50)
    7
    """
    if cost(most) <= budget:
        return most
    while most - least > 1:
        middle = (least + most) // 2
        if cost(middle) <= budget:
            least = middle
        else:
            most = middle
    return least


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=generator, device="cpu"))
