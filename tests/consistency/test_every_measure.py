"""What all measures of consistency share: refusals, and results that are plain data and one sentence."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from noisy_runs import RESULTS, noisy, run_set

import difficulty_prune as dp

MEASURES = {
    "reliability": lambda runs, score: dp.consistency.reliability(runs, score),
    "rank_error": lambda runs, score: dp.consistency.rank_error(runs, score),
    "variance_shares": lambda runs, score: dp.consistency.variance_shares(runs, score),
    "stable_subset": lambda runs, score: dp.consistency.stable_subset(runs, score, dp.policies.Hardest(0.5)),
    "correlation": lambda runs, score: dp.consistency.correlation(runs, score, between="architectures"),
    "run_agreement": lambda runs, score: dp.consistency.run_agreement(runs, score),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_score_that_the_runs_do_not_have_is_refused(name):
    with pytest.raises(ValueError, match="has no score 'aum'; all runs have el2n"):
        MEASURES[name](run_set(noisy(3)), "aum")
    with pytest.raises(ValueError, match="there is no score 'eln2'; did you mean 'el2n'"):
        MEASURES[name](run_set(noisy(3)), "eln2")
    with pytest.raises(TypeError, match="runs: got list, expected a RunSet"):
        MEASURES[name](list(run_set(noisy(3))), "el2n")


@pytest.mark.parametrize("name", ["reliability", "rank_error", "variance_shares", "stable_subset"])
def test_one_run_is_refused(name):
    with pytest.raises(ValueError, match="got 1 run, expected at least 2"):
        MEASURES[name](run_set(noisy(1)), "el2n")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reliability", {"splits": 0}, "splits: got 0, expected 1 or more"),
        ("reliability", {"level": 1}, "level: got 1, expected a number between 0 and 1"),
        ("reliability", {"level": math.nan}, "level: got nan"),
        ("reliability", {"seed": -1}, "seed: got -1"),
        ("rank_error", {"resamples": 0}, "resamples: got 0"),
        ("stable_subset", {"share": 0}, r"share: got 0, expected a number in \(0, 1\]"),
        ("stable_subset", {"share": 1.5}, r"share: got 1\.5"),
        ("stable_subset", {"resamples": -2}, "resamples: got -2"),
        ("stable_subset", {"policy": 0.5}, r"policy: got 0\.5, expected one of dp\.policies"),
        ("correlation", {"between": "runs"}, "between: got 'runs', expected 'scores' or 'architectures'"),
        ("correlation", {"between": "architectures"}, "scores: got None, expected one score"),
        ("correlation", {"scores": "el2n"}, "got the string 'el2n', expected several"),
        ("correlation", {"scores": []}, "scores: got none"),
        ("pca", {"scores": "el2n"}, "got the string 'el2n', expected several"),
        ("pca", {"scores": ["eln2"]}, "did you mean 'el2n'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    arguments = {"score": "el2n"} if name in ("reliability", "rank_error", "stable_subset") else {}
    if name == "stable_subset":
        arguments["policy"] = dp.policies.Hardest(0.5)
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(dp.consistency, name)(run_set(noisy(3)), **{**arguments, **options})


def test_runs_that_rank_nothing_are_refused():
    constant = run_set(np.stack([np.zeros(9), np.ones(9), np.ones(9) * 2]))
    apart = run_set([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 2.0]])
    for runs in (constant, apart):
        with pytest.raises(ValueError, match="the runs rank nothing"):
            dp.consistency.reliability(runs, "el2n")
    with pytest.raises(ValueError, match="0 of 4 examples were presented by each of the 2 runs, expected at least 2"):
        dp.consistency.variance_shares(apart, "el2n")
    with pytest.raises(ValueError, match="equal for all examples"):
        dp.consistency.pca(constant)
    with pytest.raises(ValueError, match="got one run of each of a, b, expected two of at least one"):
        dp.consistency.variance_shares(run_set(noisy(2), architectures=["a", "b"]), "el2n")
    with pytest.raises(ValueError, match="equal for all examples in all runs"):
        dp.consistency.variance_shares(run_set(np.full((3, 7), 0.1)), "el2n")


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_plain_data_and_one_sentence(name):
    result = RESULTS[name]()
    facts = result.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert re.fullmatch(r"[^\n]+\.", str(result))
    with pytest.raises(AttributeError):
        result.score = "aum"
