"""The command line `difficulty-prune`."""

from .main import main

__all__ = ["main"]
