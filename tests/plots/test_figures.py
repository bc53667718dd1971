"""What every figure must have: words for what is drawn, colours that all can tell apart, and nothing over anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from noisy_runs import RESULTS, two_scores

import difficulty_prune as dp
from difficulty_prune.plots.axes import COLOURS, GREY

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCURACIES = {"hardest": (0.78, 0.83), "random": (0.79, 0.83), "easiest": (0.70, 0.82)}


def comparison_rows(**more: Any) -> list[dict[str, Any]]:
    """As a study's summary has them; policies meet at 70 %."""
    of_policies = [
        {"policy": policy, "keep": keep, "test_accuracy": value, "spread": 0.004, "seeds": 2}
        | {"range": [value - 0.003, value + 0.003]}
        for policy, values in ACCURACIES.items()
        for keep, value in zip((0.3, 0.7), values, strict=True)
    ]
    full = {"policy": "full", "keep": 1.0, "test_accuracy": 0.85, "spread": 0.01, "seeds": 2, "range": [0.84, 0.86]}
    return [row | more for row in (*of_policies, full)]


@cache
def runs_of_two() -> dp.RunSet:
    """Of two architectures, that some examples tell apart."""
    hard = np.random.default_rng(0).normal(size=40)
    return dp.RunSet(
        dp.Run(
            {"el2n": hard + k * (np.arange(40) < 10) + 0.1 * np.random.default_rng([k, seed]).normal(size=40)},
            architecture=name,
            seed=seed,
        )
        for k, name in enumerate(("cnn", "mlp"))
        for seed in range(4)
    )


@cache
def selectors() -> Any:
    return dp.fingerprint.compare_selectors(runs_of_two(), "el2n", examples=(1, 10), select=("sensitive", "random"))


def digits() -> Any:
    """32 images with four lines of text under each."""
    facts = {"labels": np.arange(32) % 10, "suggested": (np.arange(32) + 3) % 10, "class_names": NAMES}
    facts |= {"suggested_probability": np.full(32, 0.9), "ids": [f"photos/number-{k:05}.png" for k in range(32)]}
    runs = dp.RunSet([dp.Run({"el2n": np.linspace(0, 1, 32)}, architecture="mlp", seed=0, **facts)])
    captions = dp.plots.example_captions(runs, range(32), "el2n")
    return dp.plots.example_grid(np.random.default_rng(0).random((32, 8, 8)), captions, 8, "The 32 hardest examples")


FIGURES: dict[str, Callable[[], Any]] = {
    "reliability_curve": lambda: dp.plots.reliability_curve(RESULTS["reliability"]()),
    "rank_error_curve": lambda: dp.plots.rank_error_curve(RESULTS["rank_error"]()),
    "correlation_heatmap": lambda: dp.plots.correlation_heatmap(RESULTS["correlation"]()),
    "explained_variance": lambda: dp.plots.explained_variance(RESULTS["pca"]()),
    "loadings": lambda: dp.plots.loadings(RESULTS["pca"]()),
    "variance_bars": lambda: dp.plots.variance_bars(RESULTS["variance_shares"]()),
    "stability": lambda: dp.plots.stability(RESULTS["stable_subset"]()),
    "run_agreement_bars": lambda: dp.plots.run_agreement_bars(two_scores()),
    "difficulty_histogram": lambda: dp.plots.difficulty_histogram(np.append(np.arange(9.0), np.nan), "el2n"),
    "accuracy_against_keep": lambda: dp.plots.accuracy_against_keep(comparison_rows()),
    "manhattan": lambda: dp.plots.manhattan(dp.fingerprint.sensitive_examples(runs_of_two(), "el2n", test="welch")),
    "fingerprint_accuracy": lambda: dp.plots.fingerprint_accuracy(selectors()),
    "example_grid": digits,
}


@cache
def drawn(name: str) -> Any:
    """The Axes of a figure of 720 x 480 pixels, laid out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ax = FIGURES[name]()
    figure = ax.get_figure()
    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert canvas.get_width_height() == (720, 480)
    return ax


def numbers(ax: Any) -> list[Any]:
    """The texts along the axes that are drawn: matplotlib holds more, beyond the ends."""
    if not ax.axison:
        return []
    ends = {axis: sorted(axis.get_view_interval()) for axis in (ax.xaxis, ax.yaxis)}
    ticks = [(tick, *ends[axis]) for axis in ends for tick in axis.get_major_ticks()]
    return [tick.label1 for tick, low, high in ticks if low <= tick.get_loc() <= high]


def boxes_of_texts(ax: Any) -> dict[str, Any]:
    """Where each text stands, in pixels: title, labels, numbers of the axes, the legend as a whole, texts within."""
    labels = [ax.xaxis.label, ax.yaxis.label] if ax.axison else []
    texts = [text for text in (ax.title, *labels, *numbers(ax), *ax.texts) if text.get_text() and text.get_visible()]
    texts = [text for text in texts if text.get_rotation() % 90 == 0]  # the boxes of slanting texts overlap
    boxes = {f"{k} {text.get_text()!r}": text.get_window_extent() for k, text in enumerate(texts)}
    return boxes | ({"the legend": ax.get_legend().get_window_extent()} if ax.get_legend() else {})


def test_no_figure_is_forgotten() -> None:
    assert {*FIGURES} == {*dp.plots.__all__} - {"example_captions"}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_figure(name: str) -> None:
    ax = drawn(name)
    boxes = boxes_of_texts(ax)
    for (first, one), (second, other) in itertools.combinations(boxes.items(), 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) < 1.0, f"{first} and {second}"
    for text, box in boxes.items():
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= 721, text
        assert box.y1 <= 481, text


@pytest.mark.parametrize("name", FIGURES)
def test_letters_are_large_enough(name: str) -> None:
    ax = drawn(name)
    legend = ax.get_legend().get_texts() if ax.get_legend() else []
    assert min(text.get_fontsize() for text in (ax.title, *numbers(ax), *ax.texts, *legend)) >= 7


@pytest.mark.parametrize("name", FIGURES)
def test_colours_are_those_that_all_can_tell_apart(name: str) -> None:
    from matplotlib.colors import to_hex

    ax = drawn(name)
    safe = {*map(str.lower, COLOURS), GREY, "#000000", "#ffffff"}
    patches = [to_hex(patch.get_facecolor()) for patch in ax.patches]
    bands = [to_hex(colour) for band in ax.collections for colour in band.get_facecolor()]
    assert {*(to_hex(line.get_color()) for line in ax.lines), *patches, *bands} <= safe


@pytest.mark.parametrize("name", sorted({*FIGURES} - {"correlation_heatmap", "loadings", "example_grid"}))
def test_axes_have_words_and_start_near_the_data(name: str) -> None:
    ax = drawn(name)
    assert ax.get_title() or name == "accuracy_against_keep"  # whose caller knows the model
    assert ax.get_xlabel()
    if name in ("variance_bars", "run_agreement_bars"):
        assert [label.get_text() for label in ax.get_yticklabels()]
    else:
        assert ax.get_ylabel()
    if name in ("reliability_curve", "rank_error_curve", "accuracy_against_keep", "fingerprint_accuracy"):
        drawn_lines = [line for line in ax.lines if list(line.get_ydata()) != [0, 1]]  # those are from edge to edge
        heights = [y for line in drawn_lines for y in np.ravel(line.get_ydata()) if np.isfinite(y)]
        heights += [y for band in ax.collections for path in band.get_paths() for y in path.vertices[:, 1]]
        if name == "accuracy_against_keep":
            heights += [patch.get_y() + patch.get_height() for patch in ax.patches]
        low, high = ax.get_ylim()
        data = max(heights) - min(heights)
        assert 0 <= min(heights) - low <= 0.1 * data
        assert 0 <= high - max(heights) <= 0.1 * data


def test_error_bars_say_what_they_are() -> None:
    def title(ax: Any) -> str:
        return ax.get_legend().get_title().get_text()

    assert title(drawn("fingerprint_accuracy")) == "bars: 95% interval"
    assert title(drawn("accuracy_against_keep")) == "bars and band: range over 2 seeds"
    rows = [{key: value for key, value in row.items() if key not in ("range", "seeds")} for row in comparison_rows()]
    assert title(dp.plots.accuracy_against_keep(rows)) == "bars and band: standard deviation over seeds"
    for name in ("reliability_curve", "rank_error_curve"):
        assert "95% interval" in drawn(name).get_legend_handles_labels()[1]


def test_each_series_is_drawn_once_and_random_apart() -> None:
    for name, series in (("accuracy_against_keep", [*ACCURACIES]), ("fingerprint_accuracy", ["sensitive", "random"])):
        ax = drawn(name)
        bars = {container.get_label(): container.lines[0] for container in ax.containers}
        assert [*bars] == series
        looks = {label: (line.get_color(), line.get_marker(), line.get_linestyle()) for label, line in bars.items()}
        assert looks["random"] == (GREY, "D", "--")
        for label, look in looks.items():
            assert label == "random" or not {*look} & {GREY, "D", "--"}
        assert len({*looks.values()}) == len(series)


def test_series_that_meet_stand_beside_each_other_and_near_their_place() -> None:
    ax = drawn("accuracy_against_keep")
    ends = [container.lines[0].get_xdata()[-1] for container in ax.containers]
    assert len({*ends}) == 3
    assert max(abs(end - 0.7) for end in ends) < 0.03
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["30%", "70%"]
    ax = drawn("fingerprint_accuracy")
    assert len({container.lines[0].get_xdata()[-1] for container in ax.containers}) == 2
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "10"]


def test_full_data_has_a_line_and_a_band_of_its_spread() -> None:
    ax = drawn("accuracy_against_keep")
    (line,) = (line for line in ax.lines if line.get_label() == "full data")
    (band,) = ax.patches
    assert line.get_ydata()[0] == 0.85
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.84, 0.86))


def test_examples_never_scored_are_counted() -> None:
    assert drawn("difficulty_histogram").get_title() == "Difficulty of 9 examples (1 never scored)"


def test_images_have_words_under_them() -> None:
    ax = drawn("example_grid")
    assert len(ax.texts) == 32
    assert ax.texts[0].get_text() == "zero\n→ three?\nel2n 0.00\n…-00000.png"
    image = ax.images[0].get_array()
    for text in ax.texts:
        x, y = text.get_position()
        assert 0 < x < image.shape[1]
        assert image[int(y) - 1, round(x)] < 1 or image[int(y) - 1, round(x) + 1] < 1  # the image ends above
        assert (image[int(y), :] == 1).all()  # where the text begins, there is none


def test_captions_say_what_is_known_and_no_more() -> None:
    bare = dp.RunSet([dp.Run({"el2n": [0.5, 0.25]}, architecture="mlp", seed=0)])
    assert dp.plots.example_captions(bare, [1], "el2n") == ["el2n 0.25\n#1"]
    labelled = dp.RunSet([dp.Run({"el2n": [0.5, 0.25]}, architecture="mlp", seed=0, labels=[1, 0])])
    assert dp.plots.example_captions(labelled, [0], "el2n") == ["1\nel2n 0.50\n#0"]
    assert dp.plots.example_captions(labelled, [0], "el2n", class_names=["cat", "a very long dog"]) == [
        "a very lon…\nel2n 0.50\n#0"
    ]
    with pytest.raises(IndexError, match=r"index: got 2, expected 0\.\.1"):
        dp.plots.example_captions(bare, [2], "el2n")
    with pytest.raises(ValueError, match="aum"):
        dp.plots.example_captions(bare, [0], "aum")
