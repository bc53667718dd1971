"""Figures that show how far a ranking can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..consistency.correlation import Correlation
from ..consistency.pca import PCA
from ..consistency.rank_error import RankError
from ..consistency.reliability import Reliability
from ..consistency.spearman_brown import step_up
from ..consistency.stable_subset import StableSubset
from ..consistency.variance_shares import VarianceShares
from .axes import COLOURS, GREY, count_in_integers, legend_below, new_unless_given, y_near

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMPONENTS: Final = 20  # the rest explains next to nothing, and more bars would be too thin to tell apart
_NUMBERED: Final = 12  # more columns leave no room for numbers of two digits
_LABELLED: Final = 8  # bars with their share above; further ones are too narrow
_DARK: Final = 0.6  # correlations beyond +-0.6 have a colour on which black cannot be read
_FARTHEST: Final = 10  # times the runs there are: further to the right, what was measured would be a dot at the edge
_POINTS: Final = 100  # a curve of so many looks smooth


def reliability_curve(reliability: Reliability, target: float = 0.95, ax: Axes | None = None) -> Axes:
    """Reliability against the number of runs: the formula with its interval, what was measured, and the runs needed.

    The runs needed are a line within the range that the interval gives; the range is all there is if it is too wide.

    Raises:
        ValueError: the target is outside (0, 1).
    """
    text = reliability.describe(target)
    needed = reliability.to_dict(target)["runs_needed"]
    few, many = reliability.runs_needed_interval(target)
    ax = new_unless_given(ax)
    last = max(2 * reliability.runs, min(needed or 0, _FARTHEST * reliability.runs) + 1)
    sizes = np.unique(np.linspace(1, last, min(last, _POINTS)).round())
    middle, low, high = (
        [step_up(value, size / reliability.runs) for size in sizes]
        for value in (reliability.value, *reliability.interval)
    )
    level = f"{reliability.level:.0%} interval"
    ax.fill_between(sizes, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label=level)
    ax.plot(sizes, middle, color=COLOURS[0], label="Spearman-Brown")
    ax.plot(reliability.runs, reliability.value, "o", color=COLOURS[0], label="measured", zorder=3)
    ax.plot(1, reliability.single_run, "s", color=COLOURS[1], label="two single runs", zorder=3)
    ax.axhline(target, color="black", linestyle="--", label=f"target {target:g}")
    if few is not None and few <= last:
        label = f"{few} to {many} needed ({level})" if many else f"{few} or more needed ({level})"
        ax.axvspan(few, min(many or last, last), color=GREY, alpha=0.15, linewidth=0, label=label)
    if needed is not None and needed <= last:
        ax.axvline(needed, color="black", linestyle=":", label=f"{needed} needed")
    y_near(ax, min(*low, reliability.single_run, target), max(*high, target), -1, 1)
    count_in_integers(ax)
    ax.set_xlabel("runs averaged")
    ax.set_ylabel("reliability (Spearman)")
    ax.set_title(text.replace("; ", ";\n").replace(": ", ":\n"), fontsize=9)
    legend_below(ax, 3)
    return ax


def rank_error_curve(rank_error: RankError, ax: Axes | None = None) -> Axes:
    """Rank error against the number of runs averaged, with its interval; dashed from half of the runs to all."""
    ax = new_unless_given(ax)
    sizes, error = rank_error.runs, 100 * rank_error.error
    label = f"{rank_error.level:.0%} interval"
    low, high, blue = 100 * rank_error.low, 100 * rank_error.high, COLOURS[0]
    ax.fill_between(sizes, low, high, color=blue, alpha=0.2, linewidth=0, label=label)
    ax.plot(sizes[:-1], error[:-1], "o-", color=blue, label="against the other runs")
    ax.plot(sizes[-2:], error[-2:], "--", color=blue)
    ax.plot(sizes[-1], error[-1], "o", color=blue, markerfacecolor="white", label="extrapolated")
    y_near(ax, float(np.nanmin([low, error])), float(np.nanmax([high, error])), 0)
    count_in_integers(ax)
    ax.set_xlabel("runs averaged")
    ax.set_ylabel("ranks misplaced, % of all")
    ax.set_title(f"{rank_error.score}, compared with the ranking by very many runs")
    legend_below(ax, 3)
    return ax


def correlation_heatmap(
    correlation: Correlation, of: Literal["means", "runs"] = "means", ax: Axes | None = None
) -> Axes:
    """Spearman correlations between scores or architectures.

    Args:
        of: "means", between mean difficulties; or "runs", between single runs, where the diagonal is the agreement of
            two runs.

    Raises:
        ValueError: `of` is neither, or the correlations of single runs are not known.
    """
    matrix = {"means": correlation.of_means, "runs": correlation.of_runs}.get(of)
    if matrix is None:
        raise ValueError(f"of: got {of!r}, expected 'means', or 'runs' where there are several runs of every score")
    ax = new_unless_given(ax)
    _heatmap(ax, matrix, correlation.names, correlation.names)
    ax.set_title(f"Spearman correlation between {correlation.between}" + (", single runs" if of == "runs" else ""))
    return ax


def explained_variance(pca: PCA, ax: Axes | None = None) -> Axes:
    """The share of the variance that each component explains, for the first 20."""
    ax = new_unless_given(ax)
    shown = pca.explained[:_COMPONENTS]
    bars = ax.bar(np.arange(1, len(shown) + 1), shown, color=COLOURS[0])
    ax.bar_label(bars, [f"{share:.0%}" if k < _LABELLED else "" for k, share in enumerate(shown)], fontsize=8)
    count_in_integers(ax)
    ax.set_xlim(0.4, len(shown) + 0.6)
    ax.set_ylim(0, min(1.0, 1.15 * float(max(shown))))
    ax.set_xlabel("component")
    ax.set_ylabel("share of variance")
    ax.set_title(f"Components of {len(pca.names)} mean difficulties")
    return ax


def loadings(pca: PCA, components: int = 4, ax: Axes | None = None) -> Axes:
    """What the first components are made of: a row per component, a column per score.

    Raises:
        ValueError: `components` is less than 1.
    """
    if components < 1:
        raise ValueError(f"components: got {components}, expected 1 or more")
    ax = new_unless_given(ax)
    shown = pca.loadings[:components]
    rows = [f"{k + 1} ({share:.0%})" for k, share in enumerate(pca.explained[:components])]
    _heatmap(ax, shown, rows, pca.names, aspect="auto")
    ax.set_ylabel("component (share of variance)")
    ax.set_title("Loadings")
    return ax


def variance_bars(shares: VarianceShares | Iterable[VarianceShares], ax: Axes | None = None) -> Axes:
    """Shares of variance, as a stacked bar for each score.

    Raises:
        ValueError: there are no shares.
    """
    listed = [shares] if isinstance(shares, VarianceShares) else list(shares)
    if not listed:
        raise ValueError("variance_bars: got no shares, expected at least one")
    ax = new_unless_given(ax)
    rows, left = np.arange(len(listed)), np.zeros(len(listed))
    colours = (*COLOURS[:3], GREY)
    parts = (("example", "example"), ("architecture", "architecture"), ("run", "run"), ("rest", "noise"))
    for (part, label), colour in zip(parts, colours, strict=True):
        widths = np.array([getattr(entry, part) for entry in listed])
        ax.barh(rows, widths, left=left, label=label, color=colour, edgecolor="white")
        left += widths
    ax.set_yticks(rows, [entry.score for entry in listed])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of variance")
    ax.set_title("Where the variance of a score comes from")
    legend_below(ax, 4)
    return ax


def stability(stable: StableSubset, ax: Axes | None = None) -> Axes:
    """How often each example is kept over resampled sets of runs, in descending order.

    If every set keeps the same examples, the curve is a step.
    """
    ax = new_unless_given(ax)
    ax.plot(np.sort(stable.frequency)[::-1], drawstyle="steps-post", color=COLOURS[0], label="examples")
    ax.axhline(
        stable.share, color="black", linestyle="--", label=f"{len(stable.index):,} in {stable.share:.0%} of sets"
    )
    ax.axvline(stable.kept, color="black", linestyle=":", label=f"{stable.kept:,} in a plan")
    ax.set_xlim(0, len(stable.frequency))
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("examples, most often kept first")
    ax.set_ylabel("share of resampled sets that keep it")
    ax.set_title(f"How often each example is in the plan of {stable.policy}", fontsize=10)
    legend_below(ax, 3)
    return ax


def _heatmap(
    ax: Axes,
    matrix: NDArray[Any],
    rows: Iterable[str],
    columns: Iterable[str],
    aspect: Literal["equal", "auto"] = "equal",
) -> None:
    ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", aspect=aspect)
    ax.set_xticks(range(matrix.shape[1]), list(columns), rotation=45, ha="right")
    ax.set_yticks(range(matrix.shape[0]), list(rows))
    if matrix.shape[1] > _NUMBERED:
        ax.get_figure().colorbar(ax.images[0], ax=ax)  # type: ignore[union-attr]
        return
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if abs(value) > _DARK else "black"
        text = "" if math.isnan(value) else f"{value:.2f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
