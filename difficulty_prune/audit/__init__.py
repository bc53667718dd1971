"""Looking at examples: the page for people, which labels are likely wrong, and when to stop looking."""

from .label_issues import LabelIssues, label_issues
from .remaining import Remaining, remaining
from .write import write

__all__ = ["LabelIssues", "Remaining", "label_issues", "remaining", "write"]
