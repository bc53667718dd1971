"""The module of NumPy arrays, `_host`, built with sanitizers: right on awkward and random arrays, and no report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

pytestmark = [pytest.mark.stress, pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")]

SANITIZERS = {
    "address": (("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), "libasan.so"),
    # No versions by instruction set, as with the other: the loader chooses them before the sanitizer has begun.
    "thread": (("-fsanitize=thread", "-D__SANITIZE_ADDRESS__=1"), "libtsan.so"),
}

CALLS = """
import importlib.util, sys
import numpy as np
from scipy.stats import rankdata, spearmanr

spec = importlib.util.spec_from_file_location("_host", sys.argv[1])
host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(host)
chance, calls, refused = np.random.default_rng(0), 0, 0

def refuses(call, *arguments):
    global refused
    try:
        call(*arguments)
    except (ValueError, TypeError):
        refused += 1
    else:
        raise AssertionError(f"{call.__name__} took {arguments}")

shapes = [(0, 0), (0, 5), (3, 0), (1, 1), (2, 1), (1, 70_000), (40, 3000), (7, 4097)]
shapes += [tuple(chance.integers(0, 40, 2)) for _ in range(300)]
for rows, n in shapes:
    ties = chance.integers(0, 3, (rows, n)).astype(float)
    for x in (chance.normal(size=(rows, n)), ties, np.full((rows, n), np.inf)):
        got = host.rank_rows(x)
        expected = np.apply_along_axis(rankdata, 1, x) if x.size else x
        assert np.array_equal(got, expected), (rows, n)
        assert np.array_equal(host.rank_rows(np.asfortranarray(x)), got)
        matrix = host.spearman_matrix(x)
        assert matrix.shape == (rows, rows)
        assert np.array_equal(matrix, matrix.T, equal_nan=True)
        with np.errstate(all="ignore"):
            if n > 1 and rows > 1 and (got != got[:, :1]).any(1).all():
                assert np.allclose(matrix, np.corrcoef(got), atol=1e-9)
        calls += 3
    values = chance.integers(0, 50, n)
    assert host.first_outside(values, 50) == -1
    if n:
        values[chance.integers(n)] = chance.choice([-1, 50, 2**62, -(2**63)])
        wrong = (values < 0) | (values >= 50)
        assert host.first_outside(values, 50) == wrong.argmax()
    calls += 2
def standard(x):
    ranks = rankdata(x) - (len(x) + 1) / 2
    deviation = np.sqrt(np.mean(ranks**2)) if len(x) else 0
    return ranks / deviation if deviation else ranks

def spread(x):
    return np.mean(standard(x) * (x - x.mean()))

def compared(a, b):
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return [np.nan, np.nan]
    return [spearmanr(a, b).statistic, 2 * spread(a) * spread(b) / (spread(a) ** 2 + spread(b) ** 2)]

for n in [0, 1, 2, 70_000, *chance.integers(0, 300, 100)]:
    for x in (chance.normal(size=n), chance.integers(0, 3, n).astype(float), np.full(n, -1.5)):
        ranks, together = host.standard_ranks(x)
        assert np.allclose(ranks, standard(x), atol=1e-9), n
        assert n == 0 or np.isclose(together, spread(x), atol=1e-9), n
        calls += 1
# The first ones are worth several threads; of small ones, groups are often empty.
sizes = [(6, 3000, 2), (3, 70_000, 4), (40, 500, 3), (2, 700, 90), (0, 9, 2), (5, 0, 2), (5, 0, 0), (4, 1, 1)]
for splits, n, groups in sizes + [tuple(map(int, chance.integers(1, [9, 60, 6]))) for _ in range(100)]:
    group = chance.integers(0, groups, n, np.int32) if n else np.zeros(0, np.int32)
    ties = chance.integers(0, 4, (2 * splits, n)).astype(float)
    for means in (chance.normal(size=(2 * splits, n)), ties, np.full((2 * splits, n), np.nan)):
        means[chance.random(means.shape) < 0.1] = np.nan
        got = host.compare_halves(means, group, groups)
        assert got.shape == (splits, 1 + groups, 2)
        for a, b, found in zip(means[::2], means[1::2], got):
            sets = [slice(None), *(group == g for g in range(groups))]
            expected = [compared(a[rows], b[rows]) for rows in sets]
            assert np.allclose(found, expected, atol=1e-9, equal_nan=True), (splits, n, groups)
        calls += 1
for runs, n, assignments, classes in [(6, 1, 1, 2), (9, 500, 300, 3), (40, 3000, 64, 4), (3, 0, 5, 2)] + [
    (int(a), int(b), int(c), 2) for a, b, c in chance.integers(2, 30, (60, 3))
]:
    scores = chance.normal(size=(runs, n))
    scores -= scores.mean(0)
    groups = np.stack([chance.permutation(np.arange(runs) % classes) for _ in range(assignments)]).astype(np.int16)
    def between(labels):
        sums = np.stack([scores[labels == g].sum(0) for g in range(classes) if (labels == g).any()])
        sizes = np.array([(labels == g).sum() for g in range(classes) if (labels == g).any()])
        return (sums**2 / sizes[:, None]).sum(0)
    squares = np.stack([between(labels) for labels in groups])
    threshold = np.median(squares, 0) + 1e-9
    assert np.array_equal(host.count_as_large(scores, threshold, groups), (squares >= threshold).sum(0))
    calls += 1
refuses(host.rank_rows, np.array([[np.nan, 1.0]]))
refuses(host.rank_rows, np.zeros(3))
refuses(host.spearman_matrix, np.zeros((2, 2, 2)))
refuses(host.first_outside, np.zeros((2, 2), np.int64), 5)
refuses(host.first_outside, np.zeros(3), 5)
refuses(host.standard_ranks, np.array([1.0, np.nan]))
refuses(host.standard_ranks, np.zeros((2, 2)))
halves, of_group = np.zeros((4, 3)), np.zeros(3, np.int32)
refuses(host.compare_halves, np.zeros((3, 3)), of_group, 1)
refuses(host.compare_halves, np.zeros(4), of_group, 1)
refuses(host.compare_halves, halves, np.zeros(2, np.int32), 1)
refuses(host.compare_halves, halves, np.zeros((1, 3), np.int32), 1)
refuses(host.compare_halves, halves, of_group.astype(np.int64), 1)
for groups, number in ((1, 1), (1, -1), (1, 2**31 - 1), (0, 0), (-1, 0)):
    refuses(host.compare_halves, halves, np.array([0, number, 0], np.int32), groups)
refuses(host.compare_halves, np.zeros((4, 0)), np.zeros(0, np.int32), -1)
for shape, group in (((2, 5), 0), ((0, 4), 0), ((2, 4), -1), ((4,), 0)):
    bad = np.full(shape, group, np.int16)
    refuses(host.count_as_large, np.zeros((4, 3)), np.zeros(3), bad)
refuses(host.count_as_large, np.zeros((4, 3)), np.zeros(2), np.zeros((2, 4), np.int16))
print(calls, refused)
"""


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_no_report_and_right_results(sanitizer: str, tmp_path: Path, tell) -> None:
    import pybind11

    flags, library = SANITIZERS[sanitizer]
    module = tmp_path / f"_host{sysconfig.get_config_var('EXT_SUFFIX')}"
    folders = (pybind11.get_include(), sysconfig.get_paths()["include"])
    macros = [
        f'-D{name}="x"' for name in ("DP_BUILD_TORCH", "DP_TORCH_TARGET", "DP_BUILD_CUDA", "DP_BUILD_ARCHITECTURES")
    ]
    options = ("-std=c++17", "-O1", "-g1", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi")
    includes = [f"-I{folder}" for folder in folders]
    source = ROOT / "csrc" / "host" / "module.cpp"
    built = run("g++", *options, *flags, *macros, *includes, source, "-o", module)
    if built.returncode != 0 and "cannot find" in built.stderr:
        pytest.skip(f"no -fsanitize={sanitizer}: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    # The C++ library too, since a sanitizer looks for what throws when the process begins.
    preloaded = [run("g++", f"-print-file-name={name}").stdout.strip() for name in (library, "libstdc++.so")]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(preloaded),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps much to its end
        "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
    }
    done = run(sys.executable, "-c", CALLS, module, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr
    calls, refused = done.stdout.split()
    tell(f"_host under the {sanitizer} sanitizer", f"{calls} calls, {refused} bad ones", "right, refused, no report")
