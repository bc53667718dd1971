"""Draws the committed results of the studies: a figure each, beside the numbers.

    python benchmarks/studies/figures.py benchmarks/results

Reads the JSON files of a folder and writes `figures/*.png` into it. Trains nothing, and takes seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difficulty_prune.plots.axes import legend_below, offset, save_png, style

Json = dict[str, Any]
POLICIES: Final = ("without wrong", "easiest", "stratified", "soft", "hardest")
LABELS: Final = {"first": "17 % wrong", "majority": "9 % wrong", "clean": "clean"}
METHODS: Final = {
    "one run: el2n": "el2n of one run",
    "one run: margin": "margin of one run",
    "one run: aum": "aum of one run",
    "5 folds: cleanlab": "cleanlab's best, five folds",
    "one run: forgetting": "forgetting of one run",
}


def new_axes(title: str) -> Axes:
    axes: Axes = Figure(figsize=(7, 4.5), layout="constrained").add_subplot()
    axes.set_title(title, fontsize=10)
    return axes


def prune(result: Json) -> Axes:
    """Points over a random part of the same size, against the share that is kept."""
    axes = new_axes(f"{result['size']:,} photographs, as many epochs for all: policies against chance")
    blocks = {
        (block["labels"], block["keep"]): block["rows"]
        for block in result["blocks"]
        if (block["equal"], block["runs"], block["score"]) == ("epochs", 2, "el2n")
    }
    ticks = sorted(blocks, key=lambda key: (list(LABELS).index(key[0]), key[1]))
    for place, policy in enumerate(POLICIES):
        rows = [next(row for row in blocks[key] if policy in row["names"]) for key in ticks]
        found = [row["against"]["chance"] for row in rows]
        points = np.array([each["points"] for each in found])
        around = [points - [each["low"] for each in found], [each["high"] for each in found] - points]
        x = np.arange(len(ticks)) + offset(place, len(POLICIES), 0.12)
        axes.errorbar(x, points, around, label=policy, capsize=2, **{**style(place, policy), "linestyle": "none"})
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(ticks)), [f"{LABELS[labels]}\nkeep {keep:g}" for labels, keep in ticks], fontsize=8)
    axes.set_ylabel("points of accuracy over chance, 95 %")
    legend_below(axes, 5)
    return axes


def dynamic(result: Json) -> Axes:
    """Steps until an accuracy is reached, for each way to train."""
    axes = new_axes(f"{result['size']:,} photographs, {result['epochs']} epochs: steps to an accuracy")
    goals = [f"{goal:g}" for goal in result["goals"]]
    for place, (name, row) in enumerate(result["rows"].items()):
        reached = [[steps for steps in row["steps to"][goal] if steps is not None] for goal in goals]
        x = np.arange(len(goals)) + offset(place, len(result["rows"]), 0.12)
        middle = [np.median(steps) if steps else np.nan for steps in reached]
        look = style(place, name)
        axes.plot(x, middle, label=name, **{**look, "linestyle": "none"})
        for at, steps in zip(x, reached, strict=True):
            axes.plot([at] * len(steps), steps, ".", color=look["color"], markersize=3)
    axes.set_xticks(range(len(goals)), goals)
    axes.set_xlabel("test accuracy")
    axes.set_ylabel("steps: the median, and each seed")
    legend_below(axes, 3)
    return axes


def wrong_labels(result: Json) -> Axes:
    """Average precision of what finds wrong labels, for each set of labels and length of training."""
    axes = new_axes(f"{result['size']:,} photographs with labels that people gave: finding the wrong ones")
    sets = list(result["sets"])
    for place, (key, name) in enumerate(METHODS.items()):
        values = [
            max(row["ap"] for found, row in of_set["rows"].items() if is_of_method(found, key))
            for of_set in result["sets"].values()
        ]
        x = np.arange(len(sets)) + offset(place, len(METHODS), 0.1)
        axes.plot(x, values, label=name, **{**style(place, key), "linestyle": "none"})
    axes.set_xticks(range(len(sets)), [each.replace(", ", "\n") for each in sets], fontsize=8)
    axes.set_ylabel("average precision")
    legend_below(axes, 3)
    return axes


def is_of_method(found: str, method: str) -> bool:
    """Whether it is that method, or any one of cleanlab's."""
    return found.startswith(method) if method.endswith("cleanlab") else found == method


def vog_claims(result: Json) -> Axes:
    """Test error by tenths of the scores of late checkpoints, by the class that is predicted."""
    axes = new_axes("Test error by tenths of VoG, late checkpoints, of the predicted class")
    rows = {name: result["test"][f"unlabelled test/{name}/late"] for name in ("vog", "vog_probability", "vog_loss")}
    rows["max-softmax of the end"] = result["test"]["unlabelled test/max_confidence/trained"]
    for place, (name, row) in enumerate(rows.items()):
        mean, half = np.array(row["error_by_tenth"]).T
        x = np.arange(1, len(mean) + 1) + offset(place, len(rows), 0.08)
        axes.errorbar(x, mean, half, label=name, capsize=2, **style(place, name))
    axes.set_xticks(range(1, 11))
    axes.set_xlabel("tenth of the test images, lowest score first")
    axes.set_ylabel(f"share that is wrong, 95 % over {len(result['seeds'])} seeds")
    legend_below(axes, 4)
    return axes


def cost(result: Json) -> Axes:
    """Time of a training with each way of scoring, as a multiple of one without."""
    axes = new_axes(f"Time of a training beside one that scores nothing, {result['rounds']} rounds")
    names = list(result["models"][0]["rows"])
    for place, model in enumerate(result["models"]):
        low, middle, high = np.array([model["rows"][name]["seconds ratio"] for name in names]).T
        y = np.arange(len(names)) + offset(place, len(result["models"]), 0.2)
        around = [middle - low, high - middle]
        look = {**style(place, ""), "linestyle": "none"}
        axes.errorbar(middle, y, xerr=around, label=model["job"]["model"], capsize=2, **look)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = (1, 1.1, 1.25, 1.5, 2, 3, 4)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("ratio: the median and the quartiles")
    legend_below(axes, 2)
    return axes


FIGURES: Final[dict[str, tuple[str, Callable[[Json], Axes]]]] = {
    "prune": ("prune.json", prune),
    "dynamic": ("dynamic.json", dynamic),
    "wrong-labels": ("detect-wrong.json", wrong_labels),
    "vog-claims": ("vog-claims.json", vog_claims),
    "cost": ("cost.json", cost),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    (results / "figures").mkdir(exist_ok=True)
    for name, (file, draw) in FIGURES.items():
        save_png(draw(json.loads((results / file).read_text())), results / "figures" / f"{name}.png")


if __name__ == "__main__":
    main()
