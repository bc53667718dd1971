"""What policies have in common that are made of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .base import Keeping, Unseen

if TYPE_CHECKING:  # Python 3.10 has none
    from typing import Self


class Around:
    """A policy made of another one, in whose words it is told how much to keep, and when."""

    policy: Any

    @property
    def keep(self) -> float:
        keep: float = self.policy.keep
        return keep

    @property
    def unseen(self) -> Unseen:
        unseen: Unseen = self.policy.unseen
        return unseen

    @property
    def redrawn(self) -> bool:
        return bool(self.policy.redrawn)

    @property
    def unbiased(self) -> bool:
        return bool(self.policy.unbiased)

    @property
    def full_from(self) -> int | None:
        """The first epoch that sees all that may be kept, as the policy says; None if it says none."""
        return getattr(self.policy, "full_from", None)

    @property
    def inside(self) -> Keeping:
        """The innermost policy."""
        found: Keeping = self.policy.inside if isinstance(self.policy, Around) else self.policy
        return found

    def at(self, epoch: int) -> Self:
        """The policy of an epoch."""
        return self._with(self.policy.at(epoch))

    def of(self, positions: Tensor, size: int) -> Self:
        """The policy of a part of `size` examples, those at `positions` [n] int64."""
        return self._with(self.policy.of(positions, size))

    def with_keep(self, keep: float) -> Self:
        """The same policy with another `keep`, within its `limits`."""
        return self._with(self.policy.with_keep(keep))

    def limits(self, difficulty: Tensor) -> tuple[int, int]:
        """The fewest and the most of the examples of known difficulty that it may keep, as its options are."""
        limits: tuple[int, int] = self.policy.limits(difficulty)
        return limits

    def _with(self, policy: Any) -> Self:
        return self if policy is self.policy or policy == self.policy else replace(self, policy=policy)  # type: ignore[type-var]
