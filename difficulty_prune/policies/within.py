"""One policy after another."""

from __future__ import annotations

from typing import Any

import torch

from ..plan import Plan, make_plan
from .base import Policy
from .checks import check_difficulty, check_plan_labels


def within(
    plan: Plan, policy: Policy, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None
) -> Plan:
    """The plan of `policy` among the examples of `plan`; weights multiply.

    Args:
        plan: of the whole dataset.
        policy: its `keep` is a fraction of the plan's examples. Of one that draws anew or changes with the epoch
            (`SoftPrune`, `Importance`), this gives one draw of an epoch before annealing: a policy that is made of it
            needs the attributes `redrawn` and `at`, see `dp.policies.Policy`.
        difficulty, labels, generator: as for any policy, of the whole dataset.

    Raises:
        TypeError, ValueError: see the policy; or the plan has a position outside 0..N-1.

    >>> from difficulty_prune.policies import Easiest, Hardest
    >>> difficulty = torch.arange(8.0)
    >>> within(Easiest(0.5)(difficulty), Hardest(0.5), difficulty).index.tolist()
    [2, 3]
    """
    values = check_difficulty(difficulty, unseen="keep")  # the policy decides
    classes = check_plan_labels(labels, len(values))
    if int(plan.index[-1]) >= len(values):
        raise ValueError(
            f"plan: got position {int(plan.index[-1])}, expected 0..{len(values) - 1}, as the difficulty has"
        )
    inner = policy(values[plan.index], None if classes is None else classes[plan.index], generator)
    name = f"{inner.summary()['policy']} within {plan.summary()['policy']}"
    weight = plan.weight[inner.index] * inner.weight
    return make_plan(plan.index[inner.index], weight, len(values), name, classes, may_drop_classes=True)
