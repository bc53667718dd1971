"""Several architectures on real images: how far to trust a ranking, and which examples tell architectures apart.

    python benchmarks/studies/consistency.py DEST/train --work WORK --out benchmarks/results/consistency.json

DEST/train is CIFAR-10 as an image folder. Runs are kept in WORK, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from architectures import ARCHITECTURES, ScoringRun
from rich.console import Console

from difficulty_prune.study.executor import run_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=10, help="per architecture")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    tasks = [
        ScoringRun(options.images, options.size, options.epochs, architecture, seed, options.work)
        for seed in range(options.runs)
        for architecture in ARCHITECTURES
    ]
    run_tasks([task for task in tasks if not task.is_done()], options.workers, options.size, Console(stderr=True), "")


if __name__ == "__main__":
    main()
