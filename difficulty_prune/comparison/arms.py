"""What is trained: each policy, and what it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..policies.around import Around
from ..policies.base import (
    Keeping,
    Policy,
    at_epoch,
    check_difficulty,
    check_plan_labels,
    default_generator,
    number_kept,
)
from ..policies.beta_sampling import BetaSampling
from ..policies.budget import Budget
from ..policies.compose import PerClass
from ..policies.easy_to_hard import EasyToHard
from ..policies.plan import Plan, make_plan
from ..policies.review import Review
from ..policies.stratified import Stratified
from ..policies.uniform import Easiest, Hardest, Random, Window
from ..policies.weighted import SoftPrune
from ..policies.without_wrong import WithoutWrong

Kind = Literal["all", "chance", "few", "policy"]
"""All data; a random part of the same size; all data in as few steps; a policy."""

EVERYTHING = Random(1.0, unseen="keep")
_FAR = 10**9  # an epoch by which every policy that changes has changed


@dataclass(frozen=True)
class SameSize:
    """As many examples as a policy keeps, in every epoch, but drawn at random, with weight 1: what it has to beat.

    A random subset that the training keeps to, or, of a policy that draws anew in every epoch, another one each time.

    >>> len(SameSize(Hardest(keep=0.5))(torch.arange(8.0)))
    4
    """

    policy: Policy

    @property
    def redrawn(self) -> bool:
        return bool(getattr(self.policy, "redrawn", False))

    @property
    def unseen(self) -> str:
        return str(getattr(self.policy, "unseen", "refuse"))

    def at(self, epoch: int) -> SameSize:
        """The policy of an epoch."""
        return SameSize(at_epoch(self.policy, epoch))

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`; a class may be missing, as chance will have it."""
        draw = default_generator(generator)
        twin = torch.Generator().set_state(draw.get_state())  # so that of Random it is Random itself
        kept = len(self.policy(difficulty, labels, generator=twin))
        size = len(check_difficulty(difficulty, "keep"))
        index = torch.randperm(size, generator=draw, device="cpu")[:kept]
        weight = torch.ones(kept, dtype=torch.float64, device="cpu")
        return make_plan(index, weight, size, repr(self), check_plan_labels(labels, size), may_drop_classes=True)


@dataclass(frozen=True)
class Arm:
    """One way to train, for every seed.

    Attributes:
        name: in words, and no other arm's: "the hardest 70 %".
        kind: what it is there for.
        policy: what is visited.
        cut_to: the arm whose plan says how many positions an epoch has; None for as many as this one's own.
        against: for a policy, the names of the arms that it is compared with: kind -> name.
    """

    name: str
    kind: Kind
    policy: Policy
    cut_to: Policy | None = None
    against: Mapping[Kind, str] | None = None


ALL = Arm("all data", "all", EVERYTHING)


def make_arms(policies: Mapping[str, Policy], sizes: Mapping[str, int], examples: int) -> list[Arm]:
    """All data, and for each policy what it has to beat, and the policy itself; nothing twice.

    Args:
        policies: name -> policy.
        sizes: how many examples each of them keeps.
        examples: N.

    Raises:
        ValueError: a policy has the name of another arm.
    """
    arms = {ALL.name: ALL}
    visits: dict[str, Any] = {ALL.name: ("random", examples)}
    for name, policy in policies.items():
        chance, few = _baselines(name, policy, sizes[name], examples)
        against: dict[Kind, str] = {"chance": chance.name, "all": ALL.name, "few": few.name}
        for arm in (chance, few, Arm(name, "policy", policy, against=against)):
            arms.setdefault(arm.name, arm)  # of the same name are the same: random ones of the same size
            own = _visits(arm, sizes[name])
            if visits.setdefault(arm.name, own) != own:
                raise ValueError(
                    f"policies: {arm.name!r} is the name of {policy_name(policy)} or of what it is compared with, and "
                    "of another training too; give each policy a name of its own: policies={'mine': policy, ...}"
                )
    return list(arms.values())


def _visits(arm: Arm, size: int) -> Any:
    """What an arm visits, where the policy that it is made for keeps so many; equal for equal ones."""
    if arm.cut_to is not None:
        return "in each epoch", size
    if isinstance(arm.policy, SameSize):
        return ("random", size) if not in_epochs(arm.policy.policy) else ("as many as", arm.policy.policy)
    return ("random", size) if type(arm.policy) is Random else ("policy", arm.policy)


def _baselines(name: str, policy: Policy, size: int, examples: int) -> tuple[Arm, Arm]:
    """What chance gives, and all data in as few steps; of a policy that draws anew in each epoch they are the same."""
    share = percent(size / examples)
    exact = share if number_kept(float(f"{size / examples:.3g}"), examples) == size else f"{share} ({size:,})"
    if in_epochs(policy):
        same = Arm(f"all data, cut like {name}", "few", SameSize(policy))
        return same, same
    few = Arm(f"all data, a random {exact} in each epoch", "few", EVERYTHING, cut_to=policy)
    return few if changes(policy) else Arm(f"a random {exact}", "chance", SameSize(policy)), few


def changes(policy: Policy) -> bool:
    """Whether the plan differs from epoch to epoch."""
    return bool(getattr(policy, "redrawn", False)) or in_epochs(policy)


def in_epochs(policy: Policy) -> bool:
    """Whether the policy itself differs from epoch to epoch, as with `anneal`."""
    first = at_epoch(policy, 0)
    return any(at_epoch(policy, epoch) != first for epoch in (1, _FAR))


def keeps_as_many_in_each_epoch(policy: Policy) -> bool:
    """Whether the policy is known to keep the same number whatever the epoch: its share does not change."""
    shares = {getattr(at_epoch(policy, epoch), "keep", None) for epoch in (0, 1, _FAR)}
    return isinstance(policy, Keeping) and len(shares) == 1


def policy_name(policy: Policy) -> str:
    """How a policy writes itself; a function by its name."""
    return str(getattr(policy, "__qualname__", None) or repr(policy))


def name_policies(policies: Any, keep: Iterable[float] | None, by: str | None) -> dict[str, Policy]:
    """Words -> policy, from one policy, several, or names of them; with `keep`, functions of a share.

    Raises:
        TypeError, ValueError: no policy, or one that is given twice.
    """
    given: Sequence[tuple[str | None, Any]]
    if not (callable(policies) or isinstance(policies, Iterable)) or isinstance(policies, str | bytes):
        raise TypeError(
            f"policies: got {policies!r}, expected policies such as dp.policies.Hardest(keep=0.7), or a dict of them"
        )
    if isinstance(policies, Mapping):
        given = [(str(name), policy) for name, policy in policies.items()]
    elif callable(policies):
        given = [(None, policies)]
    else:
        given = [(None, policy) for policy in policies]
    named: dict[str, Policy] = {}
    for name, policy in given:
        if keep is not None and isinstance(policy, Keeping | Around | Plan):
            raise TypeError(
                f"policies: got {policy!r} beside keep, expected functions of a share such as Hardest; leave keep out "
                "where policies have their own"
            )
        for made in [policy] if keep is None else [policy(share) for share in keep]:
            if not callable(made) or isinstance(made, type):
                raise TypeError(
                    f"policies: got {made!r}, expected policies such as Hardest(keep=0.7), or keep=[0.5, 0.7] and "
                    "functions of a share such as Hardest"
                )
            words = name if name is not None and keep is None else in_words(made, by, name)
            if words in named and named[words] != made:
                words = f"{words} as {policy_name(made)}"
            if words in named:
                raise ValueError(f"policies: got {policy_name(made)} twice, expected each one once")
            named[words] = made
    if not named:
        raise ValueError("policies: got none, expected at least one, such as dp.policies.Hardest(keep=0.7)")
    return named


def in_words(policy: Policy, by: str | None = None, name: str | None = None) -> str:
    """What a policy keeps, to stand after "Keeping".

    >>> in_words(Hardest(0.7), by="el2n")
    'the hardest 70 % by el2n'
    >>> in_words(WithoutWrong(Random(0.6), wrong=0.19), by="margin")
    'a random 60 % without the hardest 19 % by margin'
    """
    text, share = _words(policy), percent(keep) if isinstance(keep := getattr(policy, "keep", None), float) else None
    if name is not None:
        text = f"{share} by {name}" if share else f"what {name} keeps"
    elif text is None:
        text = f"{share} by {policy_name(policy)}" if share else f"what {policy_name(policy)} keeps"
    return f"{text} by {by}" if by is not None and _ranks(policy) else text


_WORDS: dict[type, Callable[[Any], str]] = {
    Hardest: lambda p: f"the hardest {percent(p.keep)}",
    Easiest: lambda p: f"the easiest {percent(p.keep)}",
    Random: lambda p: f"a random {percent(p.keep)}",
    Window: lambda p: f"the hardest {percent(p.keep)} after the first {percent(p.start)}",
    Stratified: lambda p: (
        f"a stratified {percent(p.keep)}"
        + (f" without the hardest {percent(p.drop_hardest)}" if p.drop_hardest else "")
    ),
    BetaSampling: lambda p: f"a Beta-sampled {percent(p.keep)}",
    SoftPrune: lambda p: f"a soft {percent(p.keep)} of each epoch",
    EasyToHard: lambda p: f"{percent(p.keep)} from easy to hard",
    Review: lambda p: f"the hardest {percent(p.keep)} with reviews within {p.gap} epochs",
    PerClass: lambda p: f"{_words(p.policy) or policy_name(p.policy)} of each class",
    Budget: lambda p: f"{_words(p.policy) or policy_name(p.policy)} of the cost",
    WithoutWrong: lambda p: f"{_words(p.policy) or policy_name(p.policy)}{_without(p.wrong)}",
}


def _ranks(policy: Policy) -> bool:
    """Whether what is kept depends on the difficulty."""
    if isinstance(policy, WithoutWrong) and not isinstance(policy.wrong, Tensor):
        return True
    return _ranks(policy.policy) if isinstance(policy, Around) else not isinstance(policy, Random)


def _words(policy: Policy) -> str | None:
    make = _WORDS.get(type(policy))
    return None if make is None else make(policy)


def _without(wrong: Any) -> str:
    if isinstance(wrong, Tensor):
        number = int(wrong.sum()) if wrong.dtype == torch.bool else len(wrong)
        return f" without {number:,} likely mislabelled" if number else ", of which no label is likely wrong"
    return f" without the hardest {percent(wrong)}"


def percent(share: float) -> str:
    """
    >>> percent(0.7), percent(1 / 3)
    ('70 %', '33.3 %')
    """
    return f"{100 * share:.3g} %"
