"""Ids in run files: the size of a file with 1.28 million paths, and the time to save, load, decode and match them.

    python benchmarks/studies/ids.py --out benchmarks/results/ids.json

Times are of the processor, the least of several repetitions. The paths are as long as those of ImageNet.
"""

from __future__ import annotations

import argparse
import json
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


def seconds(work: Callable[[], Any], repetitions: int) -> float:
    """The least processor time of several repetitions."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def paths(size: int) -> list[str]:
    return [f"n{i % 1000 + 1_440_764:08d}/n{i % 1000 + 1_440_764:08d}_{i // 1000}.JPEG" for i in range(size)]


def measure(size: int, repetitions: int) -> dict[str, Any]:
    ids, scores = paths(size), {"el2n": np.random.default_rng(0).random(size, np.float32)}
    text = sum(len(name.encode()) for name in ids)
    with tempfile.TemporaryDirectory() as folder:
        plain, named = Path(folder, "plain.safetensors"), Path(folder, "named.safetensors")
        dp.Run(scores, architecture="resnet50", seed=0).save(plain)
        run = dp.Run(scores, architecture="resnet50", seed=0, ids=ids)
        save = seconds(lambda: run.save(named), repetitions)
        loaded = dp.Run.load(named)
        if loaded.ids is None or loaded.ids.tolist() != ids:
            raise RuntimeError("the ids came back as others")
        today = np.array(ids[::-1], object)
        added = named.stat().st_size - plain.stat().st_size
        return {
            "examples": size,
            "text_bytes_each": text / size,
            "bytes_each_beside_the_text": (added - text) / size,
            "save": save,
            "load": seconds(lambda: dp.Run.load(named), repetitions),
            "load_without_ids": seconds(lambda: dp.Run.load(plain), repetitions),
            "decode": seconds(lambda: loaded.ids, repetitions),
            "match": seconds(lambda: dp.match_ids(loaded.ids, today), repetitions),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_281_167)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.examples, options.repetitions)
    table = Table("what", "value", title=f"{found['examples']:,} paths as ids")
    for name, value in list(found.items())[1:]:
        table.add_row(name.replace("_", " "), f"{value:.2f} {'bytes' if 'bytes' in name else 's'}")
    Console().print(table)
    if options.out is not None:
        write_atomically(options.out, json.dumps({**found, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
