"""Many runs of many examples: what is one number per example takes memory for a few vectors, not for all runs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import difficulty_prune as dp

pytest.importorskip("resource", reason="peak memory is that of POSIX")

RUNS, EXAMPLES = 120, 100_000
MATRIX = RUNS * EXAMPLES * 4  # bytes of the files' float32: 48 MB
VECTOR = EXAMPLES * 8  # bytes of a result
CENTRE = np.linspace(-1, 1, EXAMPLES)

PROGRAM = """
import json, os, resource, sys
import numpy as np
import difficulty_prune as dp

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

paths = sorted(os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1]))
few = dp.RunSet.load(paths[:1])
for what in ("mean", "standard_error", "median", "rank_mean"):  # what is loaded and allocated with a single run
    getattr(few, what)("aum")
ballast, before = [], peak()
while peak() == before:  # memory that was freed since the peak would hide growth
    ballast.append(np.ones(2**17))
results, growth, before = {}, {}, peak()
runs = dp.RunSet.load(paths)
growth["load"] = peak() - before
for what in ("mean", "standard_error", "rank_mean", "median"):
    results[what] = getattr(runs, what)("aum")
    growth[what] = peak() - before
print(json.dumps(growth))
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Results by name, and by how much the peak of a fresh process had grown by then."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for seed in range(RUNS):
        scores = {"aum": rng.standard_normal(EXAMPLES, dtype=np.float32) + CENTRE.astype(np.float32)}
        scores["aum"][seed] = np.nan
        dp.Run(scores, architecture="mlp", seed=seed, labels=np.arange(EXAMPLES) % 10).save(
            folder / f"{seed}.safetensors"
        )
    out = tmp_path_factory.mktemp("results") / "results.npz"
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder, out], stdout=subprocess.PIPE, check=True)
    return folder, np.load(out), json.loads(done.stdout)


def test_the_numbers_are_those_of_the_files(measured):
    folder, results, _ = measured
    rows = np.stack([dp.Run.load(path).scores["aum"][:RUNS] for path in sorted(folder.iterdir())]).astype(np.float64)
    assert np.isnan(rows).sum() == RUNS
    np.testing.assert_allclose(results["mean"][:RUNS], np.nanmean(rows, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(results["median"][:RUNS], np.nanmedian(rows, axis=0))
    error = np.nanstd(rows, axis=0, ddof=1) / np.sqrt(RUNS - 1)
    np.testing.assert_allclose(results["standard_error"][:RUNS], error, rtol=1e-9)
    assert np.corrcoef(results["rank_mean"], CENTRE)[0, 1] > 0.97


@pytest.mark.parametrize("what", ["load", "mean", "standard_error", "rank_mean", "median"])
def test_the_peak_grows_by_a_few_vectors_and_less_than_half_of_the_files(measured, what):
    *_, growth = measured
    assert growth[what] < 24 * VECTOR < MATRIX / 2, growth
