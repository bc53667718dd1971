"""Summarises a study on CIFAR-10 and compares its scores with published consistency scores (Jiang et al. 2021).

    difficulty-prune study --data imagefolder:DEST/train --test imagefolder:DEST/test --runs 2 --epochs 10 \
        --scores el2n aum forgetting vog_loss --keep 0.7 --out STUDY
    python benchmarks/studies/cifar10.py STUDY DEST/train TRUTH.npz --out benchmarks/results/cifar10-study.json

DEST/train is an image folder whose files are named by their position in the original training set. TRUTH.npz holds
`c_score` [50000] in the original order, high = easy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from images import original_positions
from machine import machine
from scipy.stats import spearmanr

import difficulty_prune as dp
from difficulty_prune.support.files import write_atomically


def agreement_with(hardness: np.ndarray[Any, Any], runs: dp.RunSet) -> dict[str, dict[str, Any]]:
    """Spearman of each score, turned so that high is hard, with a published hardness: of the mean, of each run."""
    result = {}
    for score in runs.scores:
        sign = 1 if dp.SCORES[score].higher_is_harder else -1
        singles = [round(float(spearmanr(sign * run.scores[score], hardness).statistic), 4) for run in runs]
        mean = round(float(spearmanr(runs.difficulty(score), hardness).statistic), 4)
        result[score] = {"mean of runs": mean, "single runs": singles}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    runs = dp.RunSet.load(options.study / "runs")
    with np.load(options.truth) as truth:
        hardness = 1 - truth["c_score"][original_positions(options.images)]
    summary = json.loads((options.study / "summary.json").read_text())
    settings = summary["settings"]
    for key in ("data", "test"):  # where the images lie is no result
        settings[key] = f"imagefolder:{Path(settings[key].partition(':')[2]).name}"
    del settings["out"]
    result = {"machine": machine(), "spearman with 1 - c_score": agreement_with(hardness, runs), **summary}

    for score, values in result["spearman with 1 - c_score"].items():
        print(f"{score:<12} Spearman with 1 - c_score: mean of {len(runs)} runs {values['mean of runs']:+.4f}", end="")
        print(", single runs " + " ".join(f"{value:+.4f}" for value in values["single runs"]))
    for row in summary["comparison"]:
        print(
            f"{row['policy']:<10} {row['examples']:>6} examples {row['steps']:>5} steps {row['seconds']:>7.1f} s "
            f"accuracy {row['test_accuracy']:.4f} +- {row['spread']:.4f}"
        )
    memory = summary["peak_memory_bytes"]
    total = memory["study"] + summary["workers"] * memory["largest_worker"]
    print(f"{summary['seconds'] / 60:.1f} minutes, at most {total / 1e9:.2f} GB in {summary['workers'] + 1} processes")
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
