"""What all policies share: how many examples they keep, what they do with unseen examples, how they break ties."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

import torch
from torch import Tensor

from ..support.arrays import as_tensor
from ..support.checks import check_fraction, check_number, whole_number
from .everyone import Everyone
from .plan import Plan, make_plan, refuse_lost_class

if TYPE_CHECKING:  # Python 3.10 has none
    from typing import Self

Unseen = Literal["refuse", "keep"]
_MOST_CLASSES: Final = 2**24


def check_left_out(value: float, keep: float, name: str) -> None:
    """TypeError or ValueError unless the value is a fraction in [0, 1) that leaves room for `keep`."""
    check_number(value, name, "[0, 1), the fraction of examples to leave out, hardest first")
    if not 0 <= value < 1:
        raise ValueError(f"{name}: got {value}, expected a number in [0, 1): the fraction to leave out, hardest first")
    if value + keep > 1 + 1e-9:
        raise ValueError(f"{name}: got {name} {value} and keep {keep}, expected a sum of at most 1")


def check_unseen(unseen: str) -> None:
    """ValueError unless `unseen` is "refuse" or "keep"."""
    if unseen not in ("refuse", "keep"):
        raise ValueError(f"unseen: got {unseen!r}, expected 'refuse' or 'keep': what to do about NaN difficulty")


def check_difficulty(difficulty: Any, unseen: Unseen = "refuse") -> Tensor:
    """Difficulty as [N] float64 on the CPU.

    Raises:
        ValueError: another shape, no examples, or NaN where unseen examples are refused.
        TypeError: values that are not numbers.
    """
    values = as_tensor(
        difficulty, "difficulty", "numbers [N], such as runs.difficulty('el2n'), or tracker.source('loss')"
    ).cpu()
    values = values.double()
    if values.dim() != 1 or len(values) == 0:
        raise ValueError(f"difficulty: got shape {tuple(values.shape)}, expected one number per example, [N], N >= 1")
    unknown = values.isnan()
    if unseen == "refuse" and bool(unknown.any()):
        raise ValueError(
            f"difficulty: {int(unknown.sum())} of {len(values)} examples are NaN, the first at "
            f"{int(unknown.int().argmax())}: they were never presented, or too rarely for this score, or are new "
            "or scored under another label. Score them first, or give the policy unseen='keep' to keep them all"
        )
    return values


def ranks_nothing(difficulty: Tensor) -> bool:
    """Whether all known difficulties, of two or more examples, are the same."""
    if len(difficulty) > 1 and bool((difficulty[0] - difficulty[-1]).abs() > 0):
        return False  # without a look at the others, since nearly all difficulty ends here
    known = difficulty[~difficulty.isnan()]
    return len(known) > 1 and bool((known == known[0]).all())


def warn_if_nothing_is_ranked(difficulty: Tensor, policy: object, keep: float) -> None:
    """Warns of difficulty [N] that is the same for all examples, where the policy has to leave some out."""
    if keep < 1 and ranks_nothing(difficulty):
        known = difficulty[~difficulty.isnan()]
        warnings.warn(
            f"difficulty: all {len(known)} examples have the same value, {float(known[0]):g}, which ranks nothing: "
            f"what {policy!r} keeps is random. Perhaps the score needs more presentations or checkpoints (vog_loss "
            "needs two); otherwise take another score, or say what you mean with Random",
            stacklevel=3,
        )


def finite_range(difficulty: Tensor, policy: str) -> tuple[float, float]:
    """The lowest and the highest difficulty; ValueError if any is infinite, because the policy needs differences."""
    lowest, highest = (float(bound) for bound in difficulty.aminmax())
    if math.isinf(lowest) or math.isinf(highest):
        raise ValueError(
            f"difficulty: {int(difficulty.isinf().sum())} of {len(difficulty)} examples are infinite, but {policy} "
            "computes differences: clamp them, or take ranks (difficulty.argsort().argsort())"
        )
    return lowest, highest


def finite_ranges(everyone: Everyone, policy: str) -> tuple[Tensor, Tensor]:
    """`finite_range` of each group of the examples of all processes, [groups] float64 each."""
    lowest, highest = everyone.range()
    if bool((lowest == -torch.inf).any()) or bool((highest == torch.inf).any()):
        raise ValueError(
            f"difficulty: some are infinite, but {policy} computes differences: clamp them in every process"
        )
    return lowest, highest


def check_plan_labels(labels: Any, size: int) -> Tensor | None:
    """Labels as [N] int64 on the CPU, or None."""
    if labels is None:
        return None
    values = as_tensor(labels, "labels", "whole numbers [N]").cpu()
    if values.dtype.is_floating_point or values.dtype == torch.bool:
        raise TypeError(f"labels: got {values.dtype}, expected whole numbers")
    if tuple(values.shape) != (size,):
        raise ValueError(f"labels: got shape {tuple(values.shape)}, expected [{size}], one per example")
    if int(values.min()) < 0:
        raise ValueError(
            f"labels: got {int(values.min())}, expected 0 or more; leave labels out where some have no class"
        )
    if int(values.max()) >= _MOST_CLASSES:  # something is counted for each number up to the largest
        raise ValueError(
            f"labels: got {int(values.max())}, expected classes numbered from 0, below {_MOST_CLASSES:,}; number them "
            "with np.unique(labels, return_inverse=True)[1]"
        )
    return values.long()


Choice = tuple[Tensor, Tensor]
"""Positions [K] int64 and the weight of each, [K] float64."""


class Policy(Protocol):
    """A rule that turns difficulty into a plan.

    A policy of your own may have attributes that a sampler reads: `redrawn = True` for a new draw in every epoch, even
    if the difficulty is fixed; `at(epoch) -> Policy` if the policy changes over time; `of(positions, size) -> Policy`
    if it knows more of each example than its difficulty; `unseen = "keep"` if it accepts NaN.
    """

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """difficulty [N] -> plan; see `dp.policies`."""
        ...


class Keeping(ABC):
    """A policy that keeps a given fraction of the examples.

    Attributes:
        keep: the fraction to keep, in (0, 1].
        unseen: what happens to examples whose difficulty is NaN.
        redrawn: whether a sampler draws anew in every epoch, even if the difficulty stays the same.
        drops_classes: whether a plan may drop a class, because every class comes up over the epochs.
        ranks: whether a plan without differences in difficulty deserves a warning, because the policy ranks examples.
        unbiased: whether examples weigh 1 / inclusion probability, so that weighted sums are those of the whole data.
    """

    keep: float
    unseen: Unseen
    redrawn: ClassVar[bool] = False
    drops_classes: ClassVar[bool] = False
    ranks: ClassVar[bool] = True
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction(self.keep, "keep")
        check_unseen(self.unseen)

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`. Warns if the difficulty is the same for all examples, and so ranks nothing.

        Raises:
            TypeError, ValueError: difficulty is empty or NaN (unless unseen="keep"), labels have another length, or
                a class would be dropped.
        """
        values = check_difficulty(difficulty, self.unseen)
        classes = check_plan_labels(labels, len(values))
        if self.ranks:
            warn_if_nothing_is_ranked(values, self, self.keep)
        draw, of_known = default_generator(generator), of_seen(self, values)
        choice = keep_unseen(values, lambda known: of_known.choose(known, number_kept(self.keep, len(known)), draw))
        return make_plan(*choice, len(values), repr(self), classes, self.drops_classes)

    def at(self, epoch: int) -> Keeping:
        """The policy of an epoch."""
        return self

    def of(self, positions: Tensor, size: int) -> Self:
        """The policy of a part of `size` examples, those at `positions` [n] int64; -1 is none of them, but a new one.

        It is another one where a policy knows more of each example than its difficulty.
        """
        return self

    def with_keep(self, keep: float) -> Self:
        """The same policy with another `keep`, within its `limits`."""
        return self if keep == self.keep else replace(self, keep=keep)  # type: ignore[type-var]

    def limits(self, difficulty: Tensor) -> tuple[int, int]:
        """The fewest and the most of the examples of known difficulty that it may keep, as its options are."""
        return self.limits_of(int((~difficulty.isnan()).sum()))

    def limits_of(self, known: int) -> tuple[int, int]:
        """The same of so many examples of known difficulty."""
        return 1, known

    def dearest(self, cost: Tensor, left: Tensor, known: int) -> float:
        """The most that the fewest examples may cost that an epoch has to visit, whatever their difficulty is then.

        Args:
            cost: [N], of each example.
            left: [N] bool, whose difficulty is known, and which are not left out as wrong.
            known: how many examples have known difficulty, left out or not; `keep` is a fraction of these.
        """
        return 0.0

    def inclusion(self, difficulty: Any, labels: Any = None) -> Tensor:
        """The probability that an epoch's plan has the example, [N] float64, over all generators.

        It is 0 or 1 where difficulty decides, and in between where the policy draws, or breaks ties. The sum is the
        number of examples that a plan keeps. A policy that changes over time has that of an epoch as
        `policy.at(epoch).inclusion(difficulty)`. Unseen examples that are kept have 1.

        Raises:
            TypeError, ValueError, warnings: as when the policy is called; a class is dropped where all its examples
                have 0.

        >>> from difficulty_prune.policies import Hardest, SoftPrune
        >>> Hardest(keep=0.5).inclusion([0.1, 0.9, 0.5, 0.5])
        tensor([0.0000, 1.0000, 0.5000, 0.5000], dtype=torch.float64)
        >>> SoftPrune(keep=0.75).inclusion([4.0, 1.0, 2.0, 3.0])
        tensor([1.0000, 0.5000, 0.5000, 1.0000], dtype=torch.float64)
        """
        values = check_difficulty(difficulty, self.unseen)
        classes = check_plan_labels(labels, len(values))
        if self.ranks:
            warn_if_nothing_is_ranked(values, self, self.keep)
        chances = self.odds(values)
        if classes is not None and not self.drops_classes:
            refuse_lost_class(chances, classes, repr(self))
        return chances

    def odds(self, difficulty: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `inclusion` gives, of difficulty [N] that was checked, and without a word on it."""
        of_known = of_seen(self, difficulty)
        return include_unseen(difficulty, lambda known: of_known.chances(known, number_kept(self.keep, len(known))))

    @abstractmethod
    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        """Chooses `kept` examples, 1 <= kept <= N, by their difficulty [N], which has no NaN."""

    @abstractmethod
    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        """The probability that `choose` takes the example, over all generators; [N] float64, adding up to `kept`."""

    def together(self, everyone: Everyone) -> Choice:
        """Chooses from the examples of all processes, whose difficulty is known: this process's share of the choice."""
        return self.pick(everyone, [number_kept(self.keep, size) for size in everyone.sizes])

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        """What `choose` does, for the examples of all processes; `kept` of each group.

        Raises:
            TypeError: this policy cannot be planned by many processes.
        """
        raise TypeError(
            f"policy: {self!r} cannot be planned by the processes of a partition, since it does not say how; take "
            "another of dp.policies, or a tracker with process_group= in place of partition="
        )


def at_epoch(policy: Policy, epoch: int) -> Policy:
    """What `policy.at(epoch)` gives, or the policy itself if it never changes."""
    at: Callable[[int], Policy] | None = getattr(policy, "at", None)
    return policy if at is None else at(epoch)


def of_part(policy: Any, positions: Tensor, size: int) -> Any:
    """What `policy.of(positions, size)` gives, or the policy itself if it knows nothing of single examples."""
    of = getattr(policy, "of", None)
    return policy if of is None else of(positions, size)


def of_seen(policy: Any, difficulty: Tensor) -> Any:
    """The policy of the examples of known difficulty."""
    unseen = difficulty.isnan()
    return policy.of((~unseen).nonzero()[:, 0], len(difficulty)) if bool(unseen.any()) else policy


def check_anneal(anneal: float, epochs: int | None) -> None:
    """TypeError or ValueError unless `anneal` is a fraction, and `epochs` a number of epochs or None."""
    check_number(anneal, "anneal", "[0, 1], the last fraction of the epochs")
    if not 0 <= anneal <= 1:
        raise ValueError(f"anneal: got {anneal}, expected a number in [0, 1]: the last fraction of the epochs")
    if epochs is not None and whole_number(epochs, "epochs") == 0:
        raise ValueError(f"epochs: got {epochs}, expected at least 1")


def first_full_epoch(anneal: float, epochs: int | None, policy: str) -> int | None:
    """The first epoch that belongs to the last fraction `anneal`, which is rounded up; None if none does.

    >>> first_full_epoch(0.25, 10, "SoftPrune(keep=0.5"), first_full_epoch(0, None, "")
    (7, None)
    """
    if anneal == 0:
        return None
    if epochs is None:
        raise ValueError(
            f"epochs: got None beside anneal {anneal}; say how many epochs the training has, as in "
            f"{policy}, anneal={anneal}, epochs=30)"
        )
    return epochs - math.ceil(round(anneal * epochs, 9))


def keep_unseen(difficulty: Tensor, choose: Callable[[Tensor], Choice]) -> Choice:
    """What `choose` picks from the examples of known difficulty, and all the others."""
    unseen = difficulty.isnan()
    if not bool(unseen.any()):
        return choose(difficulty)
    known, others = (~unseen).nonzero()[:, 0], unseen.nonzero()[:, 0]
    if len(known) == 0:
        return equal_weights(others)
    kept, weight = choose(difficulty[known])
    return torch.cat([others, known[kept]]), torch.cat(
        [torch.ones(len(others), dtype=weight.dtype, device="cpu"), weight]
    )


def include_unseen(difficulty: Tensor, chances: Callable[[Tensor], Tensor]) -> Tensor:
    """What `chances` says of the examples of known difficulty, and 1 for all the others; [N] float64."""
    unseen = difficulty.isnan()
    if not bool(unseen.any()):
        return chances(difficulty)
    found = torch.ones(len(difficulty), dtype=torch.float64, device="cpu")
    if not bool(unseen.all()):
        found[~unseen] = chances(difficulty[~unseen])
    return found


def share_of_ends(difficulty: Tensor, count: int) -> Tensor:
    """The probability that an example is among the first `count` of `hardest_first`: ties share what is left of it.

    >>> share_of_ends(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2)
    tensor([1.0000, 0.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    size = len(difficulty)
    if count in (0, size):
        return torch.full((size,), float(count > 0), dtype=torch.float64, device="cpu")
    last = difficulty.kthvalue(size - count + 1).values
    share = (difficulty > last).double()
    ties = difficulty == last
    share[ties] = (count - int(share.sum())) / int(ties.sum())
    return share


def chosen(mask: Tensor) -> Choice:
    """Those of a mask [n], each with weight 1."""
    return equal_weights(mask.nonzero()[:, 0])


def equal_weights(positions: Tensor) -> Choice:
    """The positions, each with weight 1."""
    return positions, torch.ones(len(positions), dtype=torch.float64, device="cpu")


def number_kept(keep: float, size: int) -> int:
    """`keep * size` rounded half up, at least 1."""
    return max(1, min(size, half_up(keep * size)))


def half_up(x: float) -> int:
    """The nearest whole number; halves are rounded up."""
    return math.floor(round(x, 9) + 0.5)  # 0.29 * 50 is 14.499999999999998, but means 14.5


def hardest_first(difficulty: Tensor, generator: torch.Generator) -> Tensor:
    """Positions from the hardest to the easiest; the generator breaks ties."""
    shuffled = torch.randperm(len(difficulty), generator=generator, device="cpu")
    return shuffled[difficulty[shuffled].argsort(descending=True, stable=True)]


def default_generator(generator: torch.Generator | None) -> torch.Generator:
    """The given generator, or one with a fixed seed."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def equal_shares(groups: list[int], total: int) -> list[int]:
    """The same number from every group, adding up to `total`; the others make up for what a small group lacks.

    >>> equal_shares([10, 1, 10], 9)
    [4, 1, 4]
    """
    shares = [0] * len(groups)
    for turn, g in enumerate(sorted(range(len(groups)), key=groups.__getitem__)):  # smallest group first
        shares[g] = min(groups[g], total // (len(groups) - turn))
        total -= shares[g]
    return shares


def proportional_shares(groups: list[int], keep: float, total: int) -> list[int]:
    """`keep` of every group, at least 1 of each, adding up to `total`; the largest remainders are rounded up.

    >>> proportional_shares([900, 100], 0.5, 500)
    [450, 50]
    """
    exact = [round(keep * size, 9) for size in groups]
    shares = [max(1, math.floor(share)) for share in exact]
    by_remainder = sorted(range(len(groups)), key=lambda g: shares[g] - exact[g])
    for g in by_remainder[: max(0, total - sum(shares))]:
        shares[g] += 1
    return shares
