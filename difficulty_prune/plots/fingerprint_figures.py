"""Figures of sensitive examples, and of how well these recognise architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..fingerprint.compare_selectors import Comparison
from ..fingerprint.groups import name_all
from ..fingerprint.sensitive_examples import SensitiveExamples
from .axes import COLOURS, GREY, legend_below, new_unless_given, offset, style, y_near

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BESIDE: Final = 0.03  # of a power of ten, between two lines


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
    ax.plot(
        others,
        height[others],
        ".",
        markersize=3,
        color=GREY,
        alpha=0.5,
        label=f"{len(others):,} others",
        rasterized=True,
    )
    ax.plot(
        found, height[found], ".", markersize=4, color=COLOURS[1], label=f"{len(found):,} sensitive", rasterized=True
    )
    ax.axhline(-np.log10(threshold), color="black", linestyle="--", label=f"false-discovery rate {rate:g}")
    ax.set_xlabel("example")
    ax.set_ylabel("-log10 p")
    ax.set_title(f"{sensitive.score}: {name_all(sensitive.architectures)}")
    legend_below(ax, 3)
    return ax


def fingerprint_accuracy(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Share of held-out runs recognised, against the number of examples: a line for each way to choose them.

    Where several lines meet, they stand a little beside each other. The bars are Wilson's 95 % intervals.
    """
    ax = new_unless_given(ax)
    selects = list(dict.fromkeys(row.select for row in comparison.rows))
    for place, select in enumerate(selects):
        rows = sorted((row for row in comparison.rows if row.select == select), key=lambda row: row.examples)
        below = [row.accuracy - row.interval[0] for row in rows]
        above = [row.interval[1] - row.accuracy for row in rows]
        beside = 10 ** offset(place, len(selects), _BESIDE)  # the axis is logarithmic
        sizes, accuracy = [row.examples * beside for row in rows], [row.accuracy for row in rows]
        bars = np.maximum([below, above], 0)
        ax.errorbar(sizes, accuracy, yerr=bars, capsize=3, label=select, **style(place, select))
    ax.axhline(comparison.chance, color="black", linestyle=":", label="chance")
    ax.set_xscale("log")
    sizes = sorted({row.examples for row in comparison.rows})
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ends = [end for row in comparison.rows for end in row.interval]
    y_near(ax, min(*ends, comparison.chance), max(*ends, comparison.chance), 0, 1)
    ax.set_xlabel("examples")
    ax.set_ylabel("held-out runs recognised")
    ax.set_title(
        f"{name_all(comparison.architectures)} told apart by {comparison.score}, {comparison.protocol}", fontsize=10
    )
    legend_below(ax, len(selects) + 1, "bars: 95% interval")
    return ax
