"""The figures that a study leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import consistency, plots
from ..plots.axes import save_png
from ..runs.run_set import RunSet
from .study_data import StudyData

_SHOWN = 32


def write_figures(folder: Path, runs: RunSet, summary: dict[str, Any], data: StudyData) -> None:
    """Writes PNG files: agreement, score correlation, difficulty, extreme examples, accuracy against keep."""
    score = summary["difficulty"]
    difficulty = runs.difficulty(score)
    for model in runs.architectures:
        own = runs.where(architecture=model)
        save_png(plots.run_agreement_bars(own), folder / f"agreement-{model}.png")
        if summary["settings"]["keep"]:
            rows = [row for row in summary["comparison"] if row["model"] == model]
            axes = plots.accuracy_against_keep(rows)
            axes.set_title(f"{model}, pruned by {score}")
            save_png(axes, folder / f"accuracy-{model}.png")
    save_png(plots.correlation_heatmap(consistency.correlation(runs)), folder / "score-correlation.png")
    save_png(plots.difficulty_histogram(difficulty, score), folder / "difficulty.png")
    order = np.argsort(difficulty)
    for name, chosen in (("hardest", order[::-1][:_SHOWN]), ("easiest", order[:_SHOWN])):
        captions = [f"{data.train.labels[i]} | {difficulty[i]:.2f}" for i in chosen]
        title = f"The {len(chosen)} {name} examples: label | {score}, high = hard"
        save_png(plots.example_grid(_pictures(data, chosen), captions, 8, title), folder / f"{name}.png")


def _pictures(data: StudyData, positions: NDArray[Any]) -> NDArray[Any]:
    images = data.train.images[positions.copy()].float().numpy()
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
