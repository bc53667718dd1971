"""Figures: a function for each, which draws on the given `matplotlib` Axes, or on a new figure, and returns the Axes.

matplotlib is imported when a figure is drawn, and its global state (pyplot) is not used.
"""

from .consistency_figures import (
    correlation_heatmap,
    explained_variance,
    loadings,
    rank_error_curve,
    reliability_curve,
    stability,
    variance_bars,
)
from .example_captions import example_captions
from .fingerprint_figures import fingerprint_accuracy, manhattan
from .score_figures import accuracy_against_keep, difficulty_histogram, example_grid, run_agreement_bars

__all__ = [
    "accuracy_against_keep",
    "correlation_heatmap",
    "difficulty_histogram",
    "example_captions",
    "example_grid",
    "explained_variance",
    "fingerprint_accuracy",
    "loadings",
    "manhattan",
    "rank_error_curve",
    "reliability_curve",
    "run_agreement_bars",
    "stability",
    "variance_bars",
]
