"""300 runs of a million examples: time and memory for loading them, and for their mean, error and ranks.

    python benchmarks/studies/many_runs.py --work /tmp --out benchmarks/results/many-runs.json

What `consistency` and `fingerprint` ask besides takes minutes there. With a tenth of the examples, it is

    python benchmarks/studies/many_runs.py --work /tmp --examples 100000 --only reliability rank_error stable_subset \
        correlation pca variance_shares sensitive_examples fingerprint --out benchmarks/results/many-runs-questions.json

and, with many runs of few examples,

    python benchmarks/studies/many_runs.py --work /tmp --runs 2000 --examples 1000 --only load mean standard_error \
        median rank_mean RunningMean.update run_agreement reliability rank_error stable_subset correlation pca \
        variance_shares sensitive_examples fingerprint --out benchmarks/results/many-runs-2000.json

Each piece of work runs in a process of its own. The files were just written, so they are read from the system's cache.
Memory is the growth of that process's peak resident memory; mapped files count as long as they are mapped. CPU seconds
are those of all its threads: unlike the time by the clock they say the same on a machine that others use meanwhile.
`--only reliability` measures that alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

import difficulty_prune as dp
from difficulty_prune.support.files import write_atomically

SCORE = "aum"


def running_mean(runs: dp.RunSet) -> None:
    running = dp.RunningMean()
    for run in runs:
        running.update(run)


WORK: dict[str, Callable[[dp.RunSet], Any]] = {
    "load": lambda runs: None,
    "mean": lambda runs: runs.mean(SCORE),
    "standard_error": lambda runs: runs.standard_error(SCORE),
    "median": lambda runs: runs.median(SCORE),
    "rank_mean": lambda runs: runs.rank_mean(SCORE),
    "RunningMean.update": running_mean,
    "run_agreement": lambda runs: dp.consistency.run_agreement(runs, SCORE),
    "reliability": lambda runs: dp.consistency.reliability(runs, SCORE),
    "rank_error": lambda runs: dp.consistency.rank_error(runs, SCORE),
    "stable_subset": lambda runs: dp.consistency.stable_subset(runs, SCORE, dp.policies.Hardest(keep=0.5)),
    "correlation": lambda runs: dp.consistency.correlation(runs, SCORE, between="architectures"),
    "pca": lambda runs: dp.consistency.pca(runs),
    "variance_shares": lambda runs: dp.consistency.variance_shares(runs, SCORE),
    "sensitive_examples": lambda runs: dp.fingerprint.sensitive_examples(runs, SCORE),
    "fingerprint": lambda runs: dp.fingerprint.ArchitectureFingerprint.fit(runs, SCORE),
}

BY_DEFAULT = list(WORK)[: list(WORK).index("reliability") + 1]


def write(folder: Path, runs: int, examples: int) -> None:
    hardness = np.random.default_rng(0).standard_normal(examples, dtype=np.float32)
    for seed in range(runs):
        noise = np.random.default_rng((1, seed)).standard_normal(examples, dtype=np.float32)
        run = dp.Run({SCORE: hardness + noise}, architecture=f"cnn{seed % 3}", seed=seed, dataset_fingerprint="made up")
        run.save(folder / f"{seed:04}.safetensors")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fill_to_peak() -> list[Any]:
    """Fills memory up to the peak so far, so that whatever is allocated from now on raises the peak."""
    held, before = [], peak()
    while peak() == before:
        held.append(np.ones(2**17))
    return held


def measure(name: str, folder: Path) -> dict[str, Any]:
    runs = None if name == "load" else dp.RunSet.load(folder)
    held, before = fill_to_peak(), peak()
    start, cpu = time.perf_counter(), time.process_time()
    result = WORK[name](runs if runs is not None else dp.RunSet.load(folder))
    seconds, cpu, growth = time.perf_counter() - start, time.process_time() - cpu, peak() - before
    del held, result
    times = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    return {"work": name, **times, "peak_growth_mb": round(growth / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="(default %(default)s)")
    parser.add_argument("--examples", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=WORK, default=BY_DEFAULT, metavar="WORK", help=", ".join(WORK))
    parser.add_argument("--work", type=Path, help="a folder with room for the run files, which are removed at the end")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        write(Path(folder), options.runs, options.examples)
        rows = []
        for name in options.only:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (name, Path(folder))))
    size = {"runs": options.runs, "examples": options.examples, "files_mb": options.runs * options.examples * 4 / 1e6}
    table = Table(
        "work", "seconds", "CPU seconds", "memory grows by, MB", title=f"{size['files_mb']:,.0f} MB of scores"
    )
    for row in rows:
        table.add_row(row["work"], f"{row['seconds']}", f"{row['cpu_seconds']}", f"{row['peak_growth_mb']:,}")
    Console(width=120).print(table)
    if options.out:
        write_atomically(options.out, json.dumps({"machine": machine(), **size, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
