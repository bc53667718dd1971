"""Figures of consistency, drawn on the axes given or on their own."""

from __future__ import annotations

import pytest
from noisy_runs import RESULTS, run_set, two_scores

import difficulty_prune as dp

FIGURES = {
    "reliability_curve": lambda ax: dp.plots.reliability_curve(RESULTS["reliability"](), ax=ax),
    "reliability_curve of noise": lambda ax: dp.plots.reliability_curve(
        dp.consistency.reliability(run_set([[1.0, 2.0, 3.0], [2.0, 2.5, 1.0]]), "el2n"), 0.8, ax=ax
    ),
    "rank_error_curve": lambda ax: dp.plots.rank_error_curve(RESULTS["rank_error"](), ax=ax),
    "correlation_heatmap": lambda ax: dp.plots.correlation_heatmap(RESULTS["correlation"](), ax=ax),
    "correlation_heatmap of runs": lambda ax: dp.plots.correlation_heatmap(RESULTS["architectures"](), "runs", ax=ax),
    "explained_variance": lambda ax: dp.plots.explained_variance(RESULTS["pca"](), ax=ax),
    "loadings": lambda ax: dp.plots.loadings(RESULTS["pca"](), ax=ax),
    "variance_bars": lambda ax: dp.plots.variance_bars(RESULTS["variance_shares"](), ax=ax),
    "stability": lambda ax: dp.plots.stability(RESULTS["stable_subset"](), ax=ax),
    "run_agreement_bars": lambda ax: dp.plots.run_agreement_bars(two_scores(), ax=ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_on_the_axes_given_or_on_their_own_and_leave_pyplot_alone(name):
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    given_axes = Figure().add_subplot()
    assert FIGURES[name](given_axes) is given_axes
    own = FIGURES[name](None)
    own.get_figure().canvas.draw()
    assert own.get_title()
    if "heatmap" not in name and name != "loadings":
        assert own.get_xlabel()
    assert own.has_data()
    assert pyplot.get_fignums() == []


def test_the_curve_marks_the_runs_that_the_target_takes():
    found = RESULTS["reliability"]()
    labels = dp.plots.reliability_curve(found, target=0.9).get_legend_handles_labels()[1]
    assert {"95% interval", "measured", "two single runs", "target 0.9", f"{found.runs_needed(0.9)} needed"} <= {
        *labels
    }


def test_bars_of_several_scores_are_stacked_to_one():
    ax = dp.plots.variance_bars(dp.consistency.variance_shares(two_scores(), s) for s in ("el2n", "confidence"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["el2n", "confidence"]
    ends = {bar.get_x() + bar.get_width() for bar in ax.patches}
    assert max(ends) == pytest.approx(1)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="target: got 2"):
        dp.plots.reliability_curve(RESULTS["reliability"](), target=2)
    with pytest.raises(ValueError, match="of: got 'runs', expected 'means'"):
        dp.plots.correlation_heatmap(dp.consistency.correlation(two_scores(1)), of="runs")
    with pytest.raises(ValueError, match="components: got 0"):
        dp.plots.loadings(RESULTS["pca"](), 0)
    with pytest.raises(ValueError, match="got no shares"):
        dp.plots.variance_bars([])
