"""Peak memory and time of writing and reading a table of scores, each in a process of its own.

    python benchmarks/studies/convert_memory.py --examples 10000000

Prints one line per format and direction, and with --out writes them as JSON. The memory is the peak resident set of the
process, with Python, PyTorch and this library in it: "import" is what these take without any work.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMATS = ("csv", "parquet", "npz")


def make_runs(folder: Path, examples: int, runs: int) -> None:
    import numpy as np

    import difficulty_prune as dp

    for seed in range(runs):
        rng = np.random.default_rng(seed)
        labels = np.arange(examples) % 1000
        score = rng.random(examples, dtype=np.float32)
        suggested = {"suggested": labels, "suggested_probability": rng.random(examples, dtype=np.float32)}
        dp.Run({"el2n": score}, architecture="a", seed=seed, labels=labels, **suggested).save(
            folder / f"{seed}.safetensors"
        )


def work(step: str, folder: Path, examples: int, runs: int) -> None:
    """One step in this process; prints its peak memory and time."""
    import difficulty_prune as dp

    start = time.perf_counter()
    what, _, suffix = step.partition(" ")
    path = folder / f"scores.{suffix}"
    if what == "make":
        make_runs(folder, examples, runs)
    elif what == "write":
        dp.convert.write(dp.RunSet.load(str(folder / "*.safetensors")), path)
    elif what == "read":
        table = {"csv": dp.convert.from_csv, "parquet": dp.convert.from_parquet, "npz": dp.convert.from_npz}[suffix](
            path
        )
        assert len(table) == examples
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    megabytes = path.stat().st_size / 2**20 if what in ("write", "read") else None
    print(json.dumps({"step": step, "peak_mib": peak, "seconds": time.perf_counter() - start, "file_mib": megabytes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        work(options.step[0], Path(options.step[1]), options.examples, options.runs)
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        steps = ["import", "make", *(f"{what} {suffix}" for suffix in options.formats for what in ("write", "read"))]
        for step in steps:
            arguments = ["--examples", str(options.examples), "--runs", str(options.runs), "--step", step, folder]
            done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{step}: {done.stderr.strip().splitlines()[-1]}")
                continue
            found = json.loads(done.stdout)
            results.append(found)
            size = f", file {found['file_mib']:,.0f} MiB" if found["file_mib"] else ""
            print(f"{step:14} peak {found['peak_mib']:6,.0f} MiB, {found['seconds']:6.1f} s{size}", flush=True)
    if options.out:
        facts = {"examples": options.examples, "runs": options.runs, "steps": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
