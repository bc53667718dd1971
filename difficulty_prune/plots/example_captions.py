"""What stands under the image of an example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from ..runs.run_set import RunSet

LETTERS: Final = 11
"""As many as fit under an image, where 8 stand in a row of a figure."""


def example_captions(
    runs: RunSet, index: Iterable[int], score: str, class_names: Sequence[str] | None = None
) -> list[str]:
    """For each example, what is known: its label and the one that the runs suggest, its difficulty, its name.

    The label in words where classes have names, the suggestion where the runs kept one, the end of the id where there
    are ids, else the position. Each stands in a line of at most 11 letters.

    Args:
        index: positions of the examples.
        score: any that `runs.difficulty` knows.
        class_names: default: those of the runs.

    Raises:
        ValueError: the runs lack the score.
        IndexError: a position outside the data.

    >>> from difficulty_prune import Run
    >>> facts = dict(labels=[0, 1], suggested=[1, 1], suggested_probability=[0.9, 0.8], class_names=["cat", "dog"])
    >>> paths = ["photos/0007.png", "photos/0008.png"]
    >>> runs = RunSet([Run({"el2n": [0.5, 0.25]}, architecture="mlp", seed=0, ids=paths, **facts)])
    >>> print(example_captions(runs, [0], "el2n")[0])
    cat
    → dog?
    el2n 0.50
    …s/0007.png
    """
    positions = np.asarray(list(index), dtype=np.int64)
    outside = positions[(positions < 0) | (positions >= runs.num_examples)]
    if len(outside):
        raise IndexError(f"index: got {outside[0]}, expected 0..{runs.num_examples - 1}")
    names = runs.class_names if class_names is None else class_names
    difficulty = runs.difficulty(score)
    suggested = runs.suggested() if all(run.has("suggested") for run in runs) else None
    return ["\n".join(_lines(runs, i, f"{score} {difficulty[i]:.2f}", names, suggested)) for i in positions]


def _lines(runs: RunSet, i: int, value: str, names: Sequence[str] | None, suggested: Any) -> list[str]:
    def word(label: int) -> str:
        return str(label) if names is None or not 0 <= label < len(names) else names[label]

    lines = []
    if runs.labels is not None:
        lines.append(_short(word(int(runs.labels[i]))))
        if suggested is not None and suggested[i] >= 0:
            lines.append(_short(f"→ {word(int(suggested[i]))}?"))
    name = f"#{i}" if runs.ids is None else str(runs.ids[i])
    return [*lines, _short(value), name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"]


def _short(text: str) -> str:
    """The beginning of the text."""
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
