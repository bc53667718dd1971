"""The figures that a study leaves behind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plots
from ..files import Array, write_atomically
from ..runs import RunSet
from .data import StudyData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 32


def write_figures(folder: Path, runs: RunSet, summary: dict[str, Any], data: StudyData) -> None:
    """Writes PNG files: agreement, score correlation, difficulty, extreme examples, accuracy against keep."""
    score = summary["difficulty"]
    difficulty = runs.difficulty(score)
    for model in runs.architectures:
        own = runs.where(architecture=model)
        _save(folder / f"agreement-{model}.png", plots.run_agreement_bars(own))
        rows = [row for row in summary["comparison"] if row["model"] == model]
        axes = plots.accuracy_against_keep(rows)
        axes.set_title(f"{model}, pruned by {score}")
        _save(folder / f"accuracy-{model}.png", axes)
    _save(folder / "score-correlation.png", plots.score_heatmap(runs))
    _save(folder / "difficulty.png", plots.difficulty_histogram(difficulty, score))
    order = np.argsort(difficulty)
    for name, chosen in (("hardest", order[::-1][:_SHOWN]), ("easiest", order[:_SHOWN])):
        captions = [f"{data.train.labels[i]} | {difficulty[i]:.2f}" for i in chosen]
        title = f"The {len(chosen)} {name} examples: label | {score}, high = hard"
        _save(folder / f"{name}.png", plots.example_grid(_pictures(data, chosen), captions, 8, title))


def _pictures(data: StudyData, positions: Array) -> Array:
    images = data.train.images[positions.copy()].float().numpy()
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)


def _save(path: Path, axes: Axes) -> None:
    buffer = io.BytesIO()
    axes.get_figure().savefig(buffer, format="png", dpi=120)  # type: ignore[union-attr]
    write_atomically(path, buffer.getvalue())
