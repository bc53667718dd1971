"""The figures that a study leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..consistency.correlation import correlation
from ..plots.axes import save_png
from ..plots.consistency_figures import correlation_heatmap
from ..plots.example_captions import example_captions
from ..plots.score_figures import accuracy_against_keep, difficulty_histogram, example_grid, run_agreement_bars
from ..runs.run_set import RunSet
from .study_data import StudyData
from .tasks import slug

_SHOWN = 32
_COLUMNS = 8


def write_figures(folder: Path, runs: RunSet, summary: dict[str, Any], data: StudyData) -> None:
    """Writes PNG files: agreement, score correlation, difficulty, extreme examples, accuracy against keep."""
    score = summary["difficulty"]
    difficulty = runs.difficulty(score)
    for model in runs.architectures:
        own = runs.where(architecture=model)
        save_png(run_agreement_bars(own), folder / f"agreement-{slug(model)}.png")
        rows = [row for row in summary["comparison"] if row["model"] == model]
        if rows and not data.regression:
            axes = accuracy_against_keep(rows)
            axes.set_title(f"{model}, pruned by {score}")
            save_png(axes, folder / f"accuracy-{slug(model)}.png")
    save_png(correlation_heatmap(correlation(runs)), folder / "score-correlation.png")
    save_png(difficulty_histogram(difficulty, score), folder / "difficulty.png")
    if data.table:  # of which there is no picture
        return
    known = np.flatnonzero(~np.isnan(difficulty))
    order = known[np.argsort(difficulty[known])]
    for name, chosen in (("hardest", order[::-1][:_SHOWN]), ("easiest", order[:_SHOWN])):
        captions = example_captions(runs, chosen, score, data.train.class_names)
        title = f"The {len(chosen)} {name} examples, with label, {score} (high = hard) and place in the data"
        save_png(example_grid(_pictures(data, chosen), captions, _COLUMNS, title), folder / f"{name}.png")


def _pictures(data: StudyData, positions: NDArray[Any]) -> NDArray[Any]:
    """[K, H, W], or of colour images [K, H, W, 3]; of channels that are no colours, their mean."""
    images = data.train.at(positions.copy()).float().numpy()
    if images.shape[1] in (3, 4):  # a fourth is transparency
        return images[:, :3].transpose(0, 2, 3, 1)
    pictures: NDArray[Any] = images.mean(1)
    return pictures
