"""Look at suspicious examples, decide, and know when to stop."""

from .write import write

__all__ = ["write"]
