"""A sampler of 100 million examples: the time and memory to plan an epoch and to iterate over it.

    python benchmarks/studies/hundred_million.py --out benchmarks/results/hundred-million.json

Each policy runs in a process of its own. The reported memory is the peak of that process, minus what it used before the
difficulty was made.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine
from rich.console import Console
from rich.table import Table

import difficulty_prune as dp
from difficulty_prune.policies.base import Policy
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.support.files import write_atomically

POLICIES: dict[str, Policy] = {
    "Random": Random(0.5),
    "Hardest": Hardest(0.5),
    "Stratified": Stratified(0.5, drop_hardest=0.1),
    "SoftPrune": SoftPrune(0.5),
    "Importance": Importance(keep=0.5),
}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, size: int) -> dict[str, Any]:
    before = peak()
    difficulty = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = time.perf_counter()
    sampler = dp.PruneSampler(POLICIES[name], difficulty)
    planned = time.perf_counter()
    positions = iter(sampler)
    next(positions)
    first = time.perf_counter()
    visited = 1 + sum(1 for _ in positions)
    done = time.perf_counter()
    if visited != len(sampler):
        raise RuntimeError(f"{name}: visited {visited}, expected {len(sampler)}")
    return {
        "policy": repr(sampler.policy),
        "examples": size,
        "visited": visited,
        "plan_s": round(planned - start, 2),
        "first_position_s": round(first - planned, 2),
        "nanoseconds_per_position": round((done - first) / visited * 1e9, 1),
        "peak_bytes_per_example": round((peak() - before) / size, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000_000, help="(default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    rows = []
    for name in POLICIES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (name, options.size)))
    table = Table("policy", "plan, s", "first position, s", "ns per position", "bytes per example at most")
    for row in rows:
        times = row["plan_s"], row["first_position_s"], row["nanoseconds_per_position"]
        table.add_row(row["policy"], *(f"{t}" for t in times), f"{row['peak_bytes_per_example']}")
    Console(width=120).print(table)
    if options.out:
        write_atomically(options.out, json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
