"""Looking at examples: which labels are likely wrong, and when to stop looking."""

from .label_issues import LabelIssues, label_issues
from .remaining import Remaining, remaining

__all__ = ["LabelIssues", "Remaining", "label_issues", "remaining"]
