"""The main job of the command line: score over several runs, average, prune, and see whether it paid."""

from .settings import Settings
from .study import run_study
from .train import Recipe, train

__all__ = ["Recipe", "Settings", "run_study", "train"]
