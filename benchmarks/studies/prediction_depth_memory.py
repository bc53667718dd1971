"""Peak memory and time of prediction depth at the size of CIFAR-10's training set.

    python benchmarks/studies/prediction_depth_memory.py --out benchmarks/results/prediction-depth-memory.json

Eight layers of 512 features for 50,000 examples are 819 MB of features. The peak is that of the whole process,
including Python, PyTorch and the features. Time and memory do not depend on the values of the features, so these are
random.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from machine import machine

from difficulty_prune.scores import prediction_depth
from difficulty_prune.support.files import write_atomically

CLASSES = 10


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50_000, help="(default %(default)s)")
    parser.add_argument("--layers", type=int, default=8, help="(default %(default)s)")
    parser.add_argument("--features", type=int, default=512, help="of each layer (default %(default)s)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (arguments.examples,), generator=generator)
    layers = [torch.randn(arguments.examples, arguments.features, generator=generator) for _ in range(arguments.layers)]
    before = peak_megabytes()
    start, start_cpu = time.perf_counter(), time.process_time()
    depth = prediction_depth(layers, labels, labels)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu

    result = {
        "machine": machine() | {"threads": torch.get_num_threads()},
        "examples": arguments.examples,
        "layers": arguments.layers,
        "features": arguments.features,
        "feature_megabytes": round(sum(x.nbytes for x in layers) / 1e6),
        "peak_megabytes_before": round(before),
        "peak_megabytes": round(peak_megabytes()),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "mean_depth": round(float(depth.mean()), 3),
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_atomically(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
