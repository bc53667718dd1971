"""Figures of scores, of the examples behind them, and of what pruning achieved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ..consistency.run_agreement import run_agreement
from ..runs.run_set import RunSet
from .axes import new_unless_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS: Final = 60  # about ten pixels each


def run_agreement_bars(runs: RunSet, scores: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Spearman correlation of each run with the mean of the runs: a dot per run, a row per score."""
    ax = new_unless_given(ax)
    names = runs.scores if scores is None else tuple(scores)
    for row, score in enumerate(names):
        values = run_agreement(runs, score)
        ax.plot(values, np.full(len(values), row), "o", alpha=0.6)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(right=1.0)
    ax.set_xlabel("Spearman of a run with the mean of the runs")
    ax.set_title(f"How well {len(runs)} runs agree")
    return ax


def difficulty_histogram(difficulty: NDArray[Any], name: str, ax: Axes | None = None) -> Axes:
    """A histogram of difficulty [N]; NaN is left out."""
    ax = new_unless_given(ax)
    ax.hist(difficulty[~np.isnan(difficulty)], bins=_BINS)
    ax.set_yscale("log")  # the few very hard examples are the ones to see
    ax.set_xlabel(f"{name}, hard to the right")
    ax.set_ylabel("examples")
    ax.set_title("Distribution of difficulty")
    return ax


def accuracy_against_keep(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Test accuracy against the fraction kept, a line per policy.

    Args:
        rows: the "comparison" of a study's summary, of one model.
    """
    ax = new_unless_given(ax)
    full = [row for row in rows if row["policy"] == "full"]
    for policy in dict.fromkeys(row["policy"] for row in rows if row["policy"] != "full"):
        own = sorted((row for row in rows if row["policy"] == policy), key=lambda row: float(row["keep"]))
        ax.errorbar(
            [row["keep"] for row in own],
            [row["test_accuracy"] for row in own],
            yerr=[row["spread"] for row in own],
            marker="o",
            capsize=3,
            label=policy,
        )
    for row in full:
        ax.axhline(row["test_accuracy"], color="black", linestyle="--", label="full data")
    shares = sorted({row["keep"] for row in rows if row["policy"] != "full"})
    ax.set_xticks(shares, [f"{share:.0%}" for share in shares])
    ax.set_xlabel("examples kept")
    ax.set_ylabel("test accuracy")
    ax.legend()
    return ax


def example_grid(
    images: NDArray[Any], captions: Sequence[str], columns: int, title: str, ax: Axes | None = None
) -> Axes:
    """Images in a grid, each below its caption.

    Args:
        images: [K, H, W] or [K, H, W, 3], all shown on one scale of brightness, from the smallest value to the largest.
        captions: K of them.
    """
    ax = new_unless_given(ax)
    low, high = images.min(), images.max()
    scaled = (images - low) / max(high - low, 1e-12)  # images of a single value are black
    height, width = scaled.shape[1:3]
    # Room between images, and above them for captions of 7 points with 8 columns in a figure.
    gap, head = max(1, width // 8), max(2, height // 3)
    rows = math.ceil(len(scaled) / columns)
    sheet = np.ones((rows * (height + head), columns * (width + gap), *scaled.shape[3:]))
    for k, (image, caption) in enumerate(zip(scaled, captions, strict=True)):
        top, left = (k // columns) * (height + head) + head, (k % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
        ax.text(left + width / 2 - 0.5, top - 0.5 - head / 2, caption, ha="center", va="center", fontsize=7)
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    ax.set_title(title)
    return ax
