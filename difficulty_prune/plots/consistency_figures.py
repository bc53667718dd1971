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
from .axes import count_in_integers, new_unless_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMPONENTS: Final = 20  # the rest explains next to nothing, and more bars would be too thin to tell apart
_NUMBERED: Final = 12  # more columns leave no room for numbers of two digits
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
    ax.fill_between(sizes, low, high, alpha=0.2, label=f"{reliability.level:.0%} interval")
    ax.plot(sizes, middle, label="Spearman-Brown")
    ax.plot(reliability.runs, reliability.value, "o", color="C0", label="measured")
    ax.plot(1, reliability.single_run, "s", color="C1", label="two single runs")
    ax.axhline(target, color="black", linestyle="--", label=f"target {target:g}")
    if few is not None and few <= last:
        ax.axvspan(few, min(many or last, last), color="black", alpha=0.05)
    if needed is not None and needed <= last:
        ax.axvline(needed, color="black", linestyle=":", label=f"{needed} needed")
    ax.set_ylim(min(0.0, reliability.value), 1.02)
    count_in_integers(ax)
    ax.set_xlabel("runs averaged")
    ax.set_ylabel("reliability (Spearman)")
    ax.set_title(text.replace("; ", ";\n").replace(": ", ":\n"), fontsize=9)
    ax.legend(loc="lower right")
    return ax


def rank_error_curve(rank_error: RankError, ax: Axes | None = None) -> Axes:
    """Rank error against the number of runs averaged, with its interval; dashed from half of the runs to all."""
    ax = new_unless_given(ax)
    sizes, error = rank_error.runs, 100 * rank_error.error
    label = f"{rank_error.level:.0%} interval"
    ax.fill_between(sizes, 100 * rank_error.low, 100 * rank_error.high, alpha=0.2, label=label)
    ax.plot(sizes[:-1], error[:-1], "o-", label="against the other runs")
    ax.plot(sizes[-2:], error[-2:], "--", color="C0")
    ax.plot(sizes[-1], error[-1], "o", color="C0", markerfacecolor="white", label="extrapolated")
    ax.set_ylim(bottom=0)
    count_in_integers(ax)
    ax.set_xlabel("runs averaged")
    ax.set_ylabel("ranks misplaced, % of all")
    ax.set_title(f"{rank_error.score}, compared with the ranking by very many runs")
    ax.legend()
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
    ax.set_title(f"Correlation between {correlation.between}" + (", single runs" if of == "runs" else ""))
    return ax


def explained_variance(pca: PCA, ax: Axes | None = None) -> Axes:
    """The share of the variance that each component explains, for the first 20."""
    ax = new_unless_given(ax)
    shown = pca.explained[:_COMPONENTS]
    ax.bar(np.arange(1, len(shown) + 1), shown)
    count_in_integers(ax)
    ax.set_ylim(0, 1)
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
    _heatmap(ax, shown, rows, pca.names)
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
    for part, label in (("example", "example"), ("architecture", "architecture"), ("run", "run"), ("rest", "noise")):
        widths = np.array([getattr(entry, part) for entry in listed])
        ax.barh(rows, widths, left=left, label=label)
        left += widths
    ax.set_yticks(rows, [entry.score for entry in listed])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of variance")
    ax.set_title("Where the variance of a score comes from")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4)  # below the label of the x axis
    return ax


def stability(stable: StableSubset, ax: Axes | None = None) -> Axes:
    """How often each example is kept over resampled sets of runs, in descending order.

    If every set keeps the same examples, the curve is a step.
    """
    ax = new_unless_given(ax)
    ax.plot(np.sort(stable.frequency)[::-1], drawstyle="steps-post", label="examples")
    ax.axhline(
        stable.share, color="black", linestyle="--", label=f"{len(stable.index):,} in {stable.share:.0%} of sets"
    )
    ax.axvline(stable.kept, color="black", linestyle=":", label=f"{stable.kept:,} in a plan")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("examples, most often kept first")
    ax.set_ylabel("share of resampled sets that keep it")
    ax.set_title(stable.policy)
    ax.legend()
    return ax


def _heatmap(ax: Axes, matrix: NDArray[Any], rows: Iterable[str], columns: Iterable[str]) -> None:
    ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.set_xticks(range(matrix.shape[1]), list(columns), rotation=45, ha="right")
    ax.set_yticks(range(matrix.shape[0]), list(rows))
    if matrix.shape[1] > _NUMBERED:
        ax.get_figure().colorbar(ax.images[0], ax=ax)  # type: ignore[union-attr]
        return
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if abs(value) > _DARK else "black"
        text = "" if math.isnan(value) else f"{value:.2f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
