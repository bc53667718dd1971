"""Tables of ids for streams: the time and memory to build one, its bytes, and how many ids a second it decides on.

    python benchmarks/studies/stream_table.py --out benchmarks/results/stream-table.json
    python benchmarks/studies/stream_table.py --examples 5000000 --out benchmarks/results/stream-rate.json

Each table is built in a process of its own, on one core, from blocks of ids as a reader of a manifest would give them;
the time that it takes to make the ids is not counted. Lookups are of random ids of the table, 1 in 11 unknown. The
memory is the peak of what belongs to the process alone (RssAnon): pages of files are the system's to drop.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

import difficulty_prune as dp
from difficulty_prune.support.files import write_atomically

BLOCK = 1 << 20
ASKED = 1_000_000
ONE_BY_ONE = 200_000


def names_of(kind: str, numbers: np.ndarray) -> Any:
    """Ids of examples: whole numbers that are no positions, or paths as long as those of ImageNet."""
    if kind == "number":
        return numbers * 3 + 7
    return [f"n{i % 1000 + 1_440_764:08d}/n{i % 1000 + 1_440_764:08d}_{i // 1000}.JPEG" for i in numbers.tolist()]


class Clock:
    """Seconds of the wall and of the processor in blocks of work."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.processor += time.process_time() - self._start[1]


class Peak:
    """The most memory that the process had to itself, looked at 20 times a second."""

    def __init__(self) -> None:
        self.bytes, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, own_memory())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def per_second(work: Callable[[], Any], count: int) -> float:
    """Of the processor's time, the best of three."""
    times = []
    for _ in range(3):
        clock = Clock()
        with clock:
            work()
        times.append(clock.processor)
    return count / min(times)


def measure(kind: str, size: int, folder: str) -> dict[str, Any]:
    path = Path(folder, f"{kind}-{size}.table")
    making, generator = Clock(), np.random.default_rng(0)

    def blocks() -> Iterator[tuple[Any, Any]]:
        for start in range(0, size, BLOCK):
            with making:
                count = min(BLOCK, size - start)
                block = names_of(kind, np.arange(start, start + count)), generator.random(count) * 0.9 + 0.1
            yield block

    before, building = own_memory(), Clock()
    with Peak() as peak, building:
        table = dp.InclusionTable.write(path, blocks(), weighted=True)
    opening = Clock()
    with opening:
        dp.InclusionTable(path)
    asked = names_of(kind, generator.integers(0, size + size // 10, ASKED))
    pruner = dp.StreamPruner(table, key=0)
    pruner.set_epoch(0)
    samples = [(name,) for name in (asked.tolist() if kind == "number" else asked)[:ONE_BY_ONE]]
    kept = [sample for sample, _ in pruner(samples)]
    if [sample[:1] for sample in pruner.prune(samples)] != kept:
        raise RuntimeError("one at a time and many at once keep different samples")
    ahead = dp.StreamPruner(table, key=0, ahead=256)
    ahead.set_epoch(0)
    listed = [samples[i : i + 1000] for i in range(0, len(samples), 1000)]
    return {
        "ids": kind,
        "examples": size,
        "build_s": building.wall - making.wall,
        "build_processor_s": building.processor - making.processor,
        "open_and_check_s": opening.wall,
        "bytes_per_example": path.stat().st_size / size,
        "build_peak_mb": (peak.bytes - before) / 1e6,
        "decide_per_s": per_second(lambda: pruner.decide(asked), ASKED),
        "decide_by_1000_per_s": per_second(
            lambda: [pruner.decide(asked[i : i + 1000]) for i in range(0, ONE_BY_ONE, 1000)], ONE_BY_ONE
        ),
        "prune_by_1000_per_s": per_second(lambda: [pruner.prune(part) for part in listed], len(samples)),
        "stream_ns_per_sample": 1e9 / per_second(lambda: sum(1 for _ in pruner(samples)), len(samples)),
        "stream_ahead_256_ns_per_sample": 1e9 / per_second(lambda: sum(1 for _ in ahead(samples)), len(samples)),
        "pipe_ns_per_sample": 1e9 / per_second(lambda: sum(1 for _ in pruner.pipe(samples)), len(samples)),
        "pipe_ahead_256_ns_per_sample": 1e9 / per_second(lambda: sum(1 for _ in ahead.pipe(samples)), len(samples)),
        "keeps_ns_per_sample": 1e9 / per_second(lambda: [pruner.keeps(sample) for sample in samples], len(samples)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[10_000_000, 100_000_000])
    parser.add_argument("--ids", nargs="+", default=["number", "text"], choices=["number", "text"])
    parser.add_argument("--folder", help="where the tables are made (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for size in options.examples:
        for kind in options.ids:
            folders, pools = tempfile.TemporaryDirectory(dir=options.folder), multiprocessing.get_context("spawn")
            with folders as folder, pools.Pool(1) as pool:
                rows.append(pool.apply(measure, (kind, size, folder)))
    table = Table("what", *(f"{row['examples'] / 1e6:g} M, {row['ids']}" for row in rows))
    for name in list(rows[0])[2:]:
        table.add_row(name, *(f"{row[name]:,.2f}" if row[name] < 100 else f"{row[name]:,.0f}" for row in rows))
    Console(width=120).print(table)
    if options.out:
        load = os.getloadavg()[0]
        write_atomically(options.out, json.dumps({"machine": machine(), "load": load, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
