"""Figures of sensitive examples, and of how well these recognise architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..fingerprint.compare_selectors import Comparison
from ..fingerprint.groups import name_all
from ..fingerprint.sensitive_examples import SensitiveExamples
from .axes import new_unless_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def manhattan(sensitive: SensitiveExamples, rate: float = 0.05, ax: Axes | None = None) -> Axes:
    """-log10 of the p-value of each example against its position: the higher, the more sensitive to architecture.

    Args:
        rate: the false-discovery rate at which examples are called sensitive. The line is at the largest p-value of
            these; without any, at the p-value that a single example would need.
    """
    found = sensitive.significant(rate)
    ax = new_unless_given(ax)
    height = -np.log10(np.maximum(sensitive.p_value, np.finfo(np.float64).tiny))  # Welch's p may be 0
    others = np.setdiff1d(sensitive.index, found)
    threshold = sensitive.p_value[found].max() if len(found) else rate / len(sensitive.index)
    ax.plot(others, height[others], ".", markersize=3, color="0.7", label=f"{len(others):,} others", rasterized=True)
    ax.plot(found, height[found], ".", markersize=4, color="C3", label=f"{len(found):,} sensitive", rasterized=True)
    ax.axhline(-np.log10(threshold), color="black", linestyle="--", label=f"false-discovery rate {rate:g}")
    ax.set_xlabel("example")
    ax.set_ylabel("-log10 p")
    ax.set_title(f"{sensitive.score}: {name_all(sensitive.architectures)}")
    ax.legend()
    return ax


def fingerprint_accuracy(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Share of held-out runs recognised, against the number of examples: a line for each way to choose them."""
    ax = new_unless_given(ax)
    for select in dict.fromkeys(row.select for row in comparison.rows):
        rows = sorted((row for row in comparison.rows if row.select == select), key=lambda row: row.examples)
        below = [row.accuracy - row.interval[0] for row in rows]
        above = [row.interval[1] - row.accuracy for row in rows]
        sizes, accuracy = [row.examples for row in rows], [row.accuracy for row in rows]
        ax.errorbar(sizes, accuracy, yerr=np.maximum([below, above], 0), marker="o", capsize=3, label=select)
    ax.axhline(comparison.chance, color="black", linestyle="--", label="chance")
    ax.set_xscale("log")
    ax.set_ylim(0, 1.05)
    ax.set_xlabel("examples")
    ax.set_ylabel("accuracy")
    ax.set_title(f"{name_all(comparison.architectures)} told apart by {comparison.score}, {comparison.protocol}")
    ax.legend()
    return ax
