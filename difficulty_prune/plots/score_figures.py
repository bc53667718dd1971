"""Figures of scores, of the examples behind them, and of what pruning achieved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ..consistency.run_agreement import run_agreement
from ..runs.run_set import RunSet
from .axes import COLOURS, legend_below, new_unless_given, offset, style, y_near

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS: Final = 60  # about ten pixels each
_POINTS: Final = 7  # of captions: 11 letters fit below an image, where 8 stand in a row of a figure
_LINE: Final = 1.2  # from one line of a caption to the next, in heights of a letter


def run_agreement_bars(runs: RunSet, scores: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Spearman correlation of each run with the mean of the runs: a dot per run, a row per score."""
    ax = new_unless_given(ax)
    names = runs.scores if scores is None else tuple(scores)
    found = [run_agreement(runs, score) for score in names]
    for row, values in enumerate(found):
        label = "one run" if row == 0 else None
        ax.plot(values, np.full(len(values), row), "o", color=COLOURS[0], alpha=0.5, label=label)
        label = "mean" if row == 0 else None
        ax.plot(np.mean(values), row, "|", color=COLOURS[1], markersize=12, markeredgewidth=2, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    low = float(np.nanmin(found))
    ax.set_xlim(low - 0.06 * (1 - low) - 0.005, 1 + 0.03 * (1 - low) + 0.005)
    ax.set_xlabel("Spearman of a run with the mean of the runs")
    ax.set_title(f"How well {len(runs)} runs agree")
    legend_below(ax, 2)
    return ax


def difficulty_histogram(difficulty: NDArray[Any], name: str, ax: Axes | None = None) -> Axes:
    """A histogram of difficulty [N]; NaN is left out, and counted in the title."""
    ax = new_unless_given(ax)
    unknown = np.isnan(difficulty)
    ax.hist(difficulty[~unknown], bins=_BINS, color=COLOURS[0])
    ax.set_yscale("log")  # the few very hard examples are the ones to see
    ax.set_xlabel(f"{name}, hard to the right")
    ax.set_ylabel("examples")
    left_out = f" ({unknown.sum():,} never scored)" if unknown.any() else ""
    ax.set_title(f"Difficulty of {(~unknown).sum():,} examples{left_out}")
    return ax


def accuracy_against_keep(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Test accuracy against the fraction kept, a line per policy; full data is a line with a band.

    Bars and band are the range over the seeds, where the rows have one, else the standard deviation. Lines that meet
    stand a little beside each other.

    Args:
        rows: the "comparison" of a study's summary, of one model.
    """
    ax = new_unless_given(ax)
    pruned = [row for row in rows if row["policy"] != "full"]
    policies = list(dict.fromkeys(row["policy"] for row in pruned))
    shares = sorted({float(row["keep"]) for row in pruned})
    room = min(np.diff(shares), default=0.2) / 30
    for place, policy in enumerate(policies):
        own = sorted((row for row in pruned if row["policy"] == policy), key=lambda row: float(row["keep"]))
        means = np.array([row["test_accuracy"] for row in own])
        ends = np.array([_ends(row) for row in own]).T
        beside = [float(row["keep"]) + offset(place, len(policies), room) for row in own]
        bars = np.abs(ends - means)
        ax.errorbar(beside, means, yerr=bars, capsize=3, label=policy, **style(place, policy))
    for row in rows:
        if row["policy"] == "full":
            ax.axhspan(*_ends(row), color="black", alpha=0.12, linewidth=0)
            ax.axhline(row["test_accuracy"], color="black", label="full data")
    every = [end for row in rows for end in _ends(row)]
    y_near(ax, min(every), max(every), 0, 1)
    ax.set_xticks(shares, [f"{share:.0%}" for share in shares])
    ax.set_xlabel("examples kept")
    ax.set_ylabel("test accuracy")
    spread = "range over" if all("range" in row for row in rows) else "standard deviation over"
    seeds = {row["seeds"] for row in rows if "seeds" in row}
    legend_below(ax, 3, f"bars and band: {spread} {f'{seeds.pop()} ' if len(seeds) == 1 else ''}seeds")
    return ax


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    """From where to where the test accuracy lies: the range, or one standard deviation to each side."""
    low, high = row.get("range") or (row["test_accuracy"] - row["spread"], row["test_accuracy"] + row["spread"])
    return float(low), float(high)


def example_grid(
    images: NDArray[Any], captions: Sequence[str], columns: int, title: str, ax: Axes | None = None
) -> Axes:
    """Images in a grid, each above its caption.

    Args:
        images: [K, H, W] or [K, H, W, 3], all shown on one scale of brightness, from the smallest value to the largest.
        captions: K of them, each of one or several lines, such as those of `example_captions`.
    """
    ax = new_unless_given(ax)
    low, high = images.min(), images.max()
    scaled = (images - low) / max(high - low, 1e-12)  # images of a single value are black
    height, width = scaled.shape[1:3]
    rows = math.ceil(len(scaled) / columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    tall, wide = _cell(ax, lines, (rows, columns), (height, width))
    sheet = np.ones((rows * tall, columns * wide, *scaled.shape[3:]))
    for k, (image, caption) in enumerate(zip(scaled, captions, strict=True)):
        top, left = (k // columns) * tall, (k % columns) * wide + (wide - width) // 2
        sheet[top : top + height, left : left + width] = image
        place = left + width / 2 - 0.5, top + height
        ax.text(*place, caption, ha="center", va="top", fontsize=_POINTS, linespacing=_LINE)
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return ax


def _cell(ax: Axes, lines: int, grid: tuple[int, int], image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a cell, in pixels of the images, so that the grid fills the figure and its texts fit."""
    inches = ax.get_figure().get_size_inches()  # type: ignore[union-attr]
    across, down = 72 * inches[0] * 0.98, 72 * inches[1] * 0.92  # points; the rest is for the title and the edges
    text = 1.05 * _LINE * _POINTS * lines + _POINTS / 2
    (rows, columns), (height, width) = grid, image
    gap = max(1, width // 8)
    scale = min(across / (columns * (width + gap)), (down - rows * text) / (rows * height))
    scale = max(scale, 0.1)  # points per pixel; an image stays an image where there is no room for all lines
    return height + math.ceil(text / scale), max(width + gap, round(across / columns / scale))
