"""How long a user waits before anything happens: the import, and what the command line answers without PyTorch.

    python benchmarks/startup.py --out benchmarks/results/startup.json

Each line is a process of its own; they take turns, round after round. What comes beyond `import torch` is timed in the
process that imported it just before. Seconds by the clock, and of the processor, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.append(str(Path(__file__).parent / "studies"))

from machine import machine

from difficulty_prune.support.files import write_atomically

IMPORTED: Final = (
    "import difficulty_prune",
    "import difficulty_prune as dp; dp.DifficultyTracker",
    "from difficulty_prune import *",
)
CLOCK: Final = """
import time, torch
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
COMMAND: Final = [sys.executable, "-m", "difficulty_prune.cli"]
ANSWERED: Final = {
    "difficulty-prune --help": [*COMMAND, "--help"],
    "difficulty-prune study --help": [*COMMAND, "study", "--help"],
    "difficulty-prune prune, a slip": [*COMMAND, "prune"],
}


def seconds(command: list[str]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_beyond_torch(code: str) -> tuple[float, float]:
    """The same, of a line of Python in a process that has imported PyTorch."""
    command = [sys.executable, "-c", CLOCK.format(code)]
    wall, processor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(wall), float(processor)


def measure(rounds: int) -> list[dict[str, Any]]:
    """A row for each line: the median over the rounds."""
    limits = {"import difficulty_prune": 0.3, **dict.fromkeys(ANSWERED, 0.5)}
    work = {"import torch": lambda: seconds([sys.executable, "-c", "import torch"])}
    work |= {f"{code}, beyond torch": lambda code=code: seconds_beyond_torch(code) for code in IMPORTED}
    work |= {name: lambda command=command: seconds(command) for name, command in ANSWERED.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds + 1):  # the first round only fills the caches
        for name, run in work.items():
            taken[name].append(run())
    rows = []
    for name, found in taken.items():
        wall, processor = np.median(found[1:], 0)
        limit = limits.get(name.removesuffix(", beyond torch"))
        rows.append({"what": name, "wall": round(wall, 3), "cpu": round(processor, 3), "limit": limit})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    rows = measure(options.rounds)
    for row in rows:
        limit = "" if row["limit"] is None else f"   limit {row['limit']} s"
        print(f"{row['what']:<66} {row['wall']:6.3f} s   {row['cpu']:6.3f} s of CPU{limit}")
    print(f"Medians of {options.rounds} rounds. Load before the run: {load}, on {os.cpu_count()} cores.")
    if options.out:
        facts = {"machine": machine() | {"load_before": load}, "rounds": options.rounds, "rows": rows}
        write_atomically(options.out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
