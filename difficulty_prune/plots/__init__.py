"""Figures: one function each, drawn on the given `matplotlib` Axes or on a new figure of its own, which it returns.

matplotlib is imported when a figure is drawn, and its global state (pyplot) is not used.
"""

from .scores import accuracy_against_keep, difficulty_histogram, example_grid, run_agreement_bars, score_heatmap

__all__ = ["accuracy_against_keep", "difficulty_histogram", "example_grid", "run_agreement_bars", "score_heatmap"]
