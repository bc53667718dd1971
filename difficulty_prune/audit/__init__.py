"""Looking at examples: which labels are likely wrong, and when to stop looking."""

from .remaining import Remaining, remaining

__all__ = ["Remaining", "remaining"]
