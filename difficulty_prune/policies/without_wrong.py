"""A policy that first leaves out what is probably mislabelled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..support.arrays import as_tensor
from ..support.checks import check_number
from .around import Around
from .base import (
    Choice,
    Keeping,
    check_difficulty,
    check_plan_labels,
    default_generator,
    half_up,
    hardest_first,
    number_kept,
    warn_if_nothing_is_ranked,
)
from .compose import PerClass
from .everyone import Everyone
from .plan import Plan, make_plan


@dataclass(frozen=True, eq=False, repr=False)
class WithoutWrong(Around):
    """Leaves out as many examples as have a wrong label, and applies a policy to the others.

    Where labels are wrong, the hardest examples are often the mislabelled ones. On handwritten digits of which 20 %
    have a wrong label, the hardest half gave 0.501 test accuracy, a random half 0.871, a random half without the likely
    wrong ones 0.937, and all data 0.924 (`benchmarks/results/advice.json`, ten seeds).

    `keep` of the policy stays a fraction of the whole set: `WithoutWrong(Random(keep=0.6), wrong=0.19)` keeps 60 % of
    all, drawn from the 81 % that are left. Only `keep=1` means all that is left.

    Args:
        policy: for what is left: one of `dp.policies` with a `keep`, or a PerClass of one.
        wrong: the fraction of the examples to leave out, hardest first, in [0, 1): what the audit estimates to be
            wrong. Of examples whose difficulty is NaN none is left out. Or the positions of the examples to leave out
            [n], such as `dp.audit.label_issues(runs).index`, or a mask [N] of bool.

    Raises:
        TypeError, ValueError: a policy without `keep`, a fraction outside [0, 1), or positions that are repeated or
            negative; when called: positions outside the dataset, a class that would be left out whole, or fewer
            examples left than the policy keeps.

    >>> from difficulty_prune.policies import Hardest
    >>> WithoutWrong(Hardest(keep=0.5), wrong=0.25)(torch.tensor([4.0, 3.0, 2.0, 1.0])).index.tolist()
    [1, 2]
    >>> WithoutWrong(Hardest(keep=0.5), wrong=[1])(torch.tensor([4.0, 3.0, 2.0, 1.0])).index.tolist()
    [0, 2]
    """

    policy: Keeping | PerClass
    wrong: Any

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Keeping | PerClass):
            raise TypeError(
                f"policy: got {self.policy!r}, expected one of dp.policies with a keep, such as Random(keep=0.7)"
            )
        if isinstance(self.wrong, Real):
            check_number(self.wrong, "wrong", "[0, 1), the fraction of wrong labels, or the positions of the examples")
            if not 0 <= self.wrong < 1:  # type: ignore[operator]
                raise ValueError(
                    f"wrong: got {self.wrong}, expected a number in [0, 1): the fraction of wrong labels, which leaves "
                    "some examples; one example alone is [position]"
                )
        else:
            object.__setattr__(self, "wrong", _positions(self.wrong))

    def of(self, positions: Tensor, size: int) -> WithoutWrong:
        """The policy of a part of `size` examples, those at `positions` [n] int64."""
        wrong = self.wrong
        if isinstance(wrong, Tensor):
            mask = torch.zeros(size, dtype=torch.bool, device="cpu").index_fill_(0, self.given(size), True)
            wrong = mask[positions] & (positions >= 0)
        return replace(self, policy=self.policy.of(positions, size), wrong=wrong)

    def limits(self, difficulty: Tensor) -> tuple[int, int]:
        """The fewest and the most of the examples of known difficulty that it may keep, as its options are."""
        return self.policy.limits(difficulty[self._rest(difficulty, None, default_generator(None))])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WithoutWrong) or self.policy != other.policy:
            return False
        if isinstance(self.wrong, Tensor) and isinstance(other.wrong, Tensor):
            return torch.equal(self.wrong, other.wrong)
        return type(self.wrong) is type(other.wrong) and bool(self.wrong == other.wrong)

    def __hash__(self) -> int:
        return hash((self.policy, len(self.wrong) if isinstance(self.wrong, Tensor) else self.wrong))

    def __repr__(self) -> str:
        wrong = f"{len(self.wrong):,} examples" if isinstance(self.wrong, Tensor) else repr(self.wrong)
        return f"WithoutWrong({self.policy!r}, wrong={wrong})"

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`."""
        values, classes = self._checked(difficulty, labels)
        draw = default_generator(generator)
        rest = self._rest(values, classes, draw)
        inner = self._policy_of(values, rest)(values[rest], None if classes is None else classes[rest], draw)
        return make_plan(rest[inner.index], inner.weight, len(values), repr(self), classes, self.inside.drops_classes)

    def together(self, everyone: Everyone) -> Choice:
        """See `Keeping.together`; TypeError where `wrong` is no fraction, since positions are each process's own."""
        if isinstance(self.wrong, Tensor):
            raise TypeError(
                f"policy: {self!r} names examples by their positions, which differ between the processes of a "
                "partition; give the fraction that is wrong"
            )
        (known,) = everyone.sizes
        stays = ~everyone.hardest([half_up(self.wrong * known)])
        rest = everyone.only(stays)
        (left,) = rest.sizes
        places, weight = self._policy_for(self.policy, known, left, self.inside.limits_of(left)[1]).together(rest)
        return stays.nonzero()[places, 0], weight

    def inclusion(self, difficulty: Any, labels: Any = None) -> Tensor:
        """See the policies' own.

        Raises:
            ValueError: also where examples are tied at the fraction `wrong` that are not alike: of several classes,
                within whose shares a PerClass draws, or with a policy that knows more of each than its difficulty
                (`BetaSampling`, `Review`). Give the positions of what is wrong.

        >>> from difficulty_prune.policies import Random
        >>> WithoutWrong(Random(keep=0.5), wrong=0.25).inclusion([3.0, 1.0, 3.0, 2.0])
        tensor([0.3333, 0.6667, 0.3333, 0.6667], dtype=torch.float64)
        """
        values, classes = self._checked(difficulty, labels)
        rest = self._rest(values, classes, default_generator(None))
        # Called for what it has to say of the rest: a class that is lost, difficulty that ranks nothing.
        self._policy_of(values, rest).inclusion(values[rest], None if classes is None else classes[rest])
        return self.odds(values, classes)

    def odds(self, difficulty: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `inclusion` gives, of difficulty [N] and labels [N] that were checked, and without a word on them."""
        values, classes = difficulty, labels
        rest = self._rest(values, classes, default_generator(None))
        found = torch.zeros(len(values), dtype=torch.float64, device="cpu")
        found[rest] = self._policy_of(values, rest).odds(values[rest], None if classes is None else classes[rest])
        gone = torch.ones(len(values), dtype=torch.bool, device="cpu").index_fill_(0, rest, False)
        if not isinstance(self.wrong, Tensor) and bool(gone.any()):
            tied = values == values[gone].min()  # of which the generator leaves some out
            if bool((tied & ~gone).any()):
                self._check_ties(tied, classes)
                found[tied] = found[tied].sum() / int(tied.sum())
        return found

    def _check_ties(self, tied: Tensor, classes: Tensor | None) -> None:
        """ValueError unless it is all the same to the policy which of the tied examples are left out."""
        number = f"{self!r}: {int(tied.sum())} examples"
        if isinstance(self.policy, PerClass) and classes is not None and len(classes[tied].unique()) > 1:
            raise ValueError(
                f"{number} of several classes are tied at the fraction {self.wrong}, so how many of each class are "
                "left is random; give the positions of what is wrong"
            )
        if type(self.inside).of is not Keeping.of:
            raise ValueError(
                f"{number} are tied at the fraction {self.wrong}, and {self.inside!r} knows more of each than its "
                "difficulty, so that what it keeps depends on which are left; give the positions of what is wrong"
            )

    def _checked(self, difficulty: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
        values = check_difficulty(difficulty, self.unseen)
        if not isinstance(self.wrong, Tensor) and self.wrong > 0 and not self.inside.ranks:  # else the policy says so
            warn_if_nothing_is_ranked(values, self, 1 - self.wrong)
        return values, check_plan_labels(labels, len(values))

    def _rest(self, values: Tensor, classes: Tensor | None, generator: torch.Generator) -> Tensor:
        """Positions of what is left, ascending."""
        left = torch.ones(len(values), dtype=torch.bool, device="cpu")
        left[self._left_out(values, generator)] = False
        rest = left.nonzero()[:, 0]
        if len(rest) == 0:
            raise ValueError(f"{self!r} leaves none of {len(values)} examples")
        if classes is not None:
            self._check_classes(classes, classes[rest])
        return rest

    def _left_out(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if not isinstance(self.wrong, Tensor):
            known = (~values.isnan()).nonzero()[:, 0]
            return known[hardest_first(values[known], generator)[: half_up(self.wrong * len(known))]]
        return self.given(len(values))

    def given(self, size: int) -> Tensor:
        """The positions that were given, among `size` examples."""
        if self.wrong.dtype == torch.bool:
            if len(self.wrong) != size:
                raise ValueError(f"wrong: got a mask of {len(self.wrong)}, expected {size}, one per example")
            positions: Tensor = self.wrong.nonzero()[:, 0]
            return positions
        if len(self.wrong) and int(self.wrong[-1]) >= size:
            raise ValueError(f"wrong: got position {int(self.wrong[-1])}, expected 0..{size - 1}")
        given: Tensor = self.wrong
        return given

    def _policy_of(self, values: Tensor, rest: Tensor) -> Keeping | PerClass:
        """The policy of the rest, with another `keep`, so that it keeps as many of it as it would of all."""
        policy = self.policy.of(rest, len(values))
        known, left = int((~values.isnan()).sum()), int((~values[rest].isnan()).sum())
        return self._policy_for(policy, known, left, policy.limits(values[rest])[1])

    def _policy_for(self, policy: Keeping | PerClass, known: int, left: int, most: int) -> Keeping | PerClass:
        if known == 0 or self.keep == 1:  # unseen examples are all kept, if they may be kept at all
            return policy
        kept = number_kept(self.keep, known)
        if kept > left:
            raise ValueError(
                f"{self!r}: keeps {kept} of {known} examples, but only {left} are left; choose a keep of at most "
                f"{left / known:.4g}"
            )
        if kept > most:
            raise ValueError(
                f"{self!r}: keeps {kept} of {known} examples, but of the {left} that are left only {most} may be kept, "
                f"as {policy!r} is; choose a keep of at most {most / known:.4g}"
            )
        return policy.with_keep(kept / left)

    def _check_classes(self, all_classes: Tensor, left: Tensor) -> None:
        before, after = all_classes.bincount(), left.bincount(minlength=int(all_classes.max()) + 1)
        lost = ((before > 0) & (after == 0)).nonzero()[:, 0]
        if len(lost):
            raise ValueError(
                f"{self!r} would leave out all {int(before[lost[0]])} examples of class {int(lost[0])}: look whether "
                "it is its labels that are wrong, or pass no labels if you want to drop it"
            )


def _positions(wrong: Any) -> Tensor:
    """Ascending int64 positions, or a mask of bool."""
    found = as_tensor(wrong, "wrong", "a fraction in [0, 1), or the positions of the examples to leave out [n]").cpu()
    if found.dim() != 1 or (found.dtype.is_floating_point and len(found)):
        raise TypeError(
            f"wrong: got {found.dtype} of shape {list(found.shape)}, expected a fraction in [0, 1), positions [n] as "
            "whole numbers, or a mask [N] of bool"
        )
    if found.dtype == torch.bool:
        return found
    positions = found.long().sort().values
    repeated = positions[1:][positions[1:] == positions[:-1]]
    if len(positions) and (int(positions[0]) < 0 or len(repeated)):
        bad = int(positions[0]) if int(positions[0]) < 0 else int(repeated[0])
        raise ValueError(f"wrong: got position {bad}, expected each position once, 0 or more")
    return positions
