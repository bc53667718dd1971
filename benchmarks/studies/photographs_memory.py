"""Memory and time of `difficulty-prune study` on many photographs, which no process ever holds.

    python benchmarks/studies/photographs_memory.py --files 1000 100000 --work /tmp \\
        --out benchmarks/results/photographs-memory.json
    python benchmarks/studies/photographs_memory.py --files 1000 --model resnet18 --batch-size 32 --work /tmp

Writes JPEG files of 500 x 375 pixels, of which so many are different and the others are links to them (each is opened
and decoded all the same), and runs one scoring run of one epoch on them with --size 224 and the default scores, as a
user does. Memory is the sum over the study's process and all its children, pages that several share counted once (PSS),
looked at five times a second. With several numbers of files it says how much each file adds, and what 100,000 would
take; where that number was not run, this is an extrapolation and is called so.

The network is `light`, which costs little, so that reading is what is measured: activations of another one, which
`--model` names, come on top, whatever the number of files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image
from torch import nn

from difficulty_prune.support.files import write_atomically

GOAL = 100_000
CLASSES = 10


def light(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A convolution that looks at each pixel once, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 32, 16, stride=16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, num_classes),
    )  # fmt: skip


def write_photographs(folder: Path, files: int, distinct: int) -> None:
    generator = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir()
    for i in range(distinct):
        rough = Image.fromarray(generator.integers(0, 256, (47, 63, 3), dtype=np.uint8)).resize(
            (500, 375), Image.BICUBIC
        )
        grain = generator.integers(-12, 13, (375, 500, 1))
        pixels = np.clip(np.asarray(rough).astype(np.int64) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(originals / f"{i}.jpg", quality=90)
    for i in range(files):
        place = folder / "data" / f"class{i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals / f"{i % distinct}.jpg", place / f"{i:07}.jpg")


def family(root: int) -> list[int]:
    """A process and all that come from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it has ended
                continue
    found = [root]
    for member in found:
        found += [pid for pid, parent in parents.items() if parent == member]
    return found


def proportional_bytes(root: int) -> int:
    total = 0
    for pid in family(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure(files: int, options: argparse.Namespace) -> dict[str, Any]:
    distinct, size = min(options.distinct, files), options.size
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        write_photographs(folder, files, distinct)
        command = [sys.executable, "-m", "difficulty_prune.cli", "study", "--data", f"imagefolder:{folder / 'data'}"]
        command += ["--size", str(size), "--model", options.model, "--batch-size", str(options.batch_size)]
        command += ["--runs", "1", "--epochs", "1", "--keep", "--out", str(folder / "out"), "--json"]
        here = Path(__file__).parent
        start, peak, processes = time.perf_counter(), 0, 0
        with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
            while study.poll() is None:
                peak, processes = max(peak, proportional_bytes(study.pid)), max(processes, len(family(study.pid)))
                time.sleep(0.2)
            out, err = study.communicate()
        if study.returncode:
            raise RuntimeError(err)
        summary = json.loads(out)
        assert summary["data"]["shape"] == [3, size, size]
    return {
        "model": options.model,
        "batch_size": options.batch_size,
        "files": files,
        "distinct_files": distinct,
        "peak_megabytes": round(peak / 1e6),
        "processes": processes,
        "seconds": round(time.perf_counter() - start, 1),
        "said": err.splitlines(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000, GOAL], help="(default %(default)s)")
    parser.add_argument("--distinct", type=int, default=500, help="files that are different (default %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="(default %(default)s)")
    parser.add_argument("--model", default="photographs_memory:light", help="as of the study (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default %(default)s)")
    parser.add_argument("--work", type=Path, help="a folder with room for the files, which are removed at the end")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [measure(files, options) for files in options.files]
    result: dict[str, Any] = {"machine": machine(), "size": options.size, "rows": rows}
    if len(rows) > 1:
        slope, base = np.polyfit([row["files"] for row in rows], [row["peak_megabytes"] for row in rows], 1)
        result["kilobytes_per_file"] = round(1000 * float(slope), 2)
        if GOAL not in options.files:
            result["extrapolated_megabytes_of_100000_files"] = round(float(base + GOAL * slope))
    print(json.dumps(result, indent=1))
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
