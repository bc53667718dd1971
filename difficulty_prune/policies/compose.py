"""Policies made of policies: within each class, and within another plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .around import Around
from .base import (
    Choice,
    Keeping,
    Policy,
    check_difficulty,
    check_plan_labels,
    default_generator,
    equal_shares,
    include_unseen,
    keep_unseen,
    number_kept,
    of_part,
    of_seen,
    proportional_shares,
    warn_if_nothing_is_ranked,
)
from .everyone import Everyone
from .plan import Plan, make_plan


@dataclass(frozen=True)
class PerClass(Around):
    """Applies a policy within each class.

    Args:
        policy: any policy of `dp.policies` except PerClass.
        quota: "proportional" keeps the policy's fraction of every class. "equal" keeps the same number of every class;
            a class smaller than that keeps all its examples, even those that `Window` or `Stratified` would leave
            out, and larger classes make up the difference. Every class keeps at least one example.

    >>> from difficulty_prune.policies import Hardest
    >>> difficulty, labels = torch.arange(10.0), torch.tensor([0] * 8 + [1] * 2)
    >>> PerClass(Hardest(keep=0.5))(difficulty, labels).index.tolist()
    [4, 5, 6, 7, 9]
    """

    policy: Keeping
    quota: Literal["proportional", "equal"] = "proportional"

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Keeping):
            raise TypeError(
                f"policy: got {self.policy!r}, expected one of dp.policies, such as Hardest(keep=0.7); WithoutWrong "
                "goes around PerClass: WithoutWrong(PerClass(...), wrong=...)"
            )
        if self.quota not in ("proportional", "equal"):
            raise ValueError(f"quota: got {self.quota!r}, expected 'proportional' or 'equal'")

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`; labels are required here."""
        values, classes = self._checked(difficulty, labels)
        of_known, known_classes = of_seen(self, values), classes[~values.isnan()]
        draw = default_generator(generator)
        choice = keep_unseen(values, lambda known: of_known.choose(known, known_classes, draw))
        return make_plan(*choice, len(values), repr(self), classes)

    def inclusion(self, difficulty: Any, labels: Any = None) -> Tensor:
        """See the policies' own; labels are required here.

        >>> from difficulty_prune.policies import Hardest
        >>> PerClass(Hardest(keep=0.5)).inclusion([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])
        tensor([0., 0., 1., 1.], dtype=torch.float64)
        """
        values, classes = self._checked(difficulty, labels)
        return self.odds(values, classes)

    def odds(self, difficulty: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `inclusion` gives, of difficulty [N] and labels [N] that were checked, and without a word on them."""
        assert labels is not None
        of_known, known_classes = of_seen(self, difficulty), labels[~difficulty.isnan()]
        return include_unseen(difficulty, lambda known: of_known.chances(known, known_classes))

    def together(self, everyone: Everyone) -> Choice:
        """See `Keeping.together`."""
        classes = everyone.by_class()
        return self.policy.pick(classes, self._shares(classes.sizes))

    def chances(self, difficulty: Tensor, classes: Tensor) -> Tensor:
        """The probability that `choose` takes the example, [N] float64."""
        found = torch.empty(len(difficulty), dtype=torch.float64, device="cpu")
        for members, share in self._groups(classes):
            found[members] = self.policy.of(members, len(classes)).chances(difficulty[members], share)
        return found

    def _checked(self, difficulty: Any, labels: Any) -> tuple[Tensor, Tensor]:
        values = check_difficulty(difficulty, self.unseen)
        classes = check_plan_labels(labels, len(values))
        if classes is None:
            raise ValueError("PerClass: got no labels, expected the class of every example, [N]")
        if self.policy.ranks:
            warn_if_nothing_is_ranked(values, self, self.keep)
        return values, classes

    def choose(self, difficulty: Tensor, classes: Tensor, generator: torch.Generator) -> Choice:
        """Chooses examples by their difficulty [N], which has no NaN, and classes [N]."""
        positions, weights = [], []
        for members, share in self._groups(classes):
            chosen, weight = self.policy.of(members, len(classes)).choose(difficulty[members], share, generator)
            positions.append(members[chosen])
            weights.append(weight)
        return torch.cat(positions), torch.cat(weights)

    def _groups(self, classes: Tensor) -> Iterator[tuple[Tensor, int]]:
        """The positions of each class, and how many of them are kept."""
        _, sizes = classes.unique(return_counts=True)
        members = classes.argsort(stable=True).split(sizes.tolist())
        return zip(members, self._shares(sizes.tolist()), strict=True)

    def _shares(self, sizes: list[int]) -> list[int]:
        total = number_kept(self.keep, sum(sizes))
        if self.quota == "proportional":
            return proportional_shares(sizes, self.keep, total)
        return [max(1, share) for share in equal_shares(sizes, total)]


def within(
    plan: Plan, policy: Policy, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None
) -> Plan:
    """What `policy` keeps of the examples of `plan`; the weights of both are multiplied.

    Args:
        plan: a plan for the whole dataset.
        policy: its `keep` is a fraction of the plan's examples. A policy that draws anew or changes with the epoch
            (`SoftPrune`, `Importance`) gives one draw here, of an epoch before annealing. To redraw it, give your own
            policy the attributes `redrawn` and `at`; see `dp.policies.Policy`. Another plan keeps what both keep.
        difficulty, labels, generator: as for any policy, for the whole dataset.

    Raises:
        TypeError, ValueError: as the policy raises them, or the plan has a position outside 0..N-1, or two plans have
            no example in common.

    >>> from difficulty_prune.policies import Easiest, Hardest
    >>> difficulty = torch.arange(8.0)
    >>> within(Easiest(0.5)(difficulty), Hardest(0.5), difficulty).index.tolist()
    [2, 3]
    """
    values = check_difficulty(difficulty, unseen="keep")  # the policy decides
    classes = check_plan_labels(labels, len(values))
    if int(plan.index[-1]) >= len(values):
        raise ValueError(
            f"plan: got position {int(plan.index[-1])}, expected 0..{len(values) - 1}, the positions of the difficulty"
        )
    if isinstance(policy, Plan):
        return _both(plan, policy, len(values), classes)
    policy = of_part(policy, plan.index, len(values))
    inner = policy(values[plan.index], None if classes is None else classes[plan.index], generator)
    name = f"{inner.summary()['policy']} within {plan.summary()['policy']}"
    weight = plan.weight[inner.index] * inner.weight
    made = make_plan(plan.index[inner.index], weight, len(values), name, classes, may_drop_classes=True)
    return Plan(made.index, made.weight, made.summary(), ids_digest=plan.ids_digest)


def _both(plan: Plan, inner: Plan, size: int, classes: Tensor | None) -> Plan:
    """What two plans of the same data keep, with their weights multiplied."""
    if int(inner.index[-1]) >= size:
        raise ValueError(f"policy: got a plan with position {int(inner.index[-1])}, expected 0..{size - 1}")
    if None not in (plan.ids_digest, inner.ids_digest) and plan.ids_digest != inner.ids_digest:
        raise ValueError(
            "policy: got a plan of other data than that of the plan: their ids differ; make one of them anew"
        )
    weight = torch.zeros(size, dtype=torch.float32, device="cpu")
    weight[plan.index] = plan.weight
    common = inner.index[torch.isin(inner.index, plan.index)]
    if len(common) == 0:
        raise ValueError(f"policy: none of its {len(inner)} examples is among the {len(plan)} of the plan")
    kept = inner.weight[torch.isin(inner.index, common)] * weight[common]
    name = f"{inner.summary()['policy']} within {plan.summary()['policy']}"
    made = make_plan(common, kept, size, name, classes, may_drop_classes=True)
    return Plan(made.index, made.weight, made.summary(), ids_digest=plan.ids_digest or inner.ids_digest)
