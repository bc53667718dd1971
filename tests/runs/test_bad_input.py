"""Bad runs, names of scores and files are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import safetensors.numpy
from refusals import check_refused, refusals

import difficulty_prune as dp

CASES, case, expect = refusals()


def run(**more):
    return dp.Run({"el2n": [0.1, 0.2, 0.3]}, **{"architecture": "mlp", "seed": 0, **more})


def runs():
    return dp.RunSet([run(seed=0), run(seed=1)])


# Names of scores

expect(
    "run, unknown score",
    ValueError,
    "'vmax'",
    "choose from",
    of=lambda: dp.Run({"vmax": [1.0]}, architecture="mlp", seed=0),
)
expect("run, score as string", TypeError, "string 'el2n'", of=lambda: dp.Run("el2n", architecture="mlp", seed=0))
expect("run, no scores", ValueError, "got none", "choose from", of=lambda: dp.Run({}, architecture="mlp", seed=0))
for method in ("matrix", "mean", "standard_error", "difficulty"):
    expect(
        f"RunSet.{method}, unknown score",
        ValueError,
        "'vmax'",
        "choose from",
        of=lambda method=method: getattr(runs(), method)("vmax"),
    )
    expect(
        f"RunSet.{method}, score not recorded",
        ValueError,
        "'aum'",
        "el2n",
        of=lambda method=method: getattr(runs(), method)("aum"),
    )


# Runs and files

expect("run, wrong labels length", ValueError, "labels", r"\(2,\)", r"\[3\]", of=lambda: run(labels=[0, 1]))
expect("run, float labels", ValueError, "labels", "float64", "whole", of=lambda: run(labels=[0.0, 1.0, 2.0]))
expect(
    "run, lengths differ",
    ValueError,
    "'el2n': 2",
    "'aum': 1",
    "same length",
    of=lambda: dp.Run({"el2n": [1.0, 2.0], "aum": [1.0]}, architecture="mlp", seed=0),
)
expect("run, no examples", ValueError, "'el2n': 0", of=lambda: dp.Run({"el2n": []}, architecture="mlp", seed=0))
expect(
    "run, infinite score",
    ValueError,
    "'el2n'",
    "example 1",
    of=lambda: dp.Run({"el2n": [0.0, math.inf]}, architecture="mlp", seed=0),
)
expect("no runs", ValueError, "no runs", "at least one", of=lambda: dp.RunSet([]))
expect("paths given as runs", TypeError, r"a\.safetensors|str", of=lambda: dp.RunSet(["a.safetensors"]))
expect("no such runs", ValueError, "'architecture': 'vit'", "mlp", of=lambda: runs().where(architecture="vit"))


@case("run file cut short", ValueError, r"cut\.safetensors", "cut short")
def _(folder):
    run().save(folder / "cut.safetensors")
    content = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-4])
    dp.Run.load(folder / "cut.safetensors")


@case("run file of another dataset", ValueError, "aaaa and bbbb", "different")
def _(folder):
    run(dataset_fingerprint="aaaa").save(folder / "a.safetensors")
    run(dataset_fingerprint="bbbb", seed=1).save(folder / "b.safetensors")
    dp.RunSet.load(folder)


@case("run file not ours", ValueError, r"weights\.safetensors", "not one that difficulty_prune wrote")
def _(folder):
    (folder / "weights.safetensors").write_bytes(safetensors.numpy.save({"el2n": np.zeros(3)}))
    dp.Run.load(folder / "weights.safetensors")


@case("run file that is text", ValueError, r"notes\.txt", "not a safetensors file")
def _(folder):
    (folder / "notes.txt").write_text("el2n, aum\n" * 20)
    dp.Run.load(folder / "notes.txt")


@case("run file missing", FileNotFoundError, r"none\.safetensors", "no such file")
def _(folder):
    dp.Run.load(folder / "none.safetensors")


@case("run files missing", FileNotFoundError, r"none-\*\.safetensors", "no run files")
def _(folder):
    dp.RunSet.load(folder / "none-*.safetensors")


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)
