"""Looking at examples: the page for people, which labels are likely wrong, and when to stop looking."""

from .remaining import Remaining, remaining
from .write import write

__all__ = ["Remaining", "remaining", "write"]
