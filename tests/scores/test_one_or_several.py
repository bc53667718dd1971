"""A number where several are expected, several where one is, and text for numbers: understood, or refused in words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import difficulty_prune as dp

SCORE, CORRECT = [0.1, 0.9, 0.2, 0.8], [True, False, True, True]
RUNS = dp.RunSet(
    dp.Run({"el2n": np.arange(9.0) + seed}, architecture=name, seed=seed)
    for name in ("cnn", "mlp")
    for seed in range(4)
)


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        (1, [0.75]),
        (1.0, [0.75]),
        (0.5, [1.0]),
        (np.float32(0.5), [1.0]),
        (np.array(0.5), [1.0]),
        (torch.tensor(0.5), [1.0]),
        ([0.5, 1], [1.0, 0.75]),
        (np.array([1.0, 0.5]), [0.75, 1.0]),
        (torch.tensor([1.0]), [0.75]),
        ((share for share in (0.5, 1)), [1.0, 0.75]),
        ([], []),
    ],
)
def test_one_fraction_or_several(fractions: Any, expected: list[float]) -> None:
    assert dp.scores.selective_accuracy(SCORE, CORRECT, fractions).tolist() == expected


def test_arrays_lists_and_tensors_are_alike() -> None:
    expected = dp.scores.selective_accuracy(SCORE, CORRECT)
    for kind in (np.array, torch.tensor, tuple):
        np.testing.assert_array_equal(dp.scores.selective_accuracy(kind(SCORE), kind(CORRECT)), expected)


refused = pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, 2), ValueError, "fractions: got [2.0]"),
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, 0), ValueError, "fractions: got [0.0]"),
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, "0.5"), TypeError, "fractions: got '0.5'"),
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, ["0.5"]), TypeError, "fractions: got <U3 (1,)"),
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, None), TypeError, "fractions: got None"),
        (lambda: dp.scores.selective_accuracy(SCORE, CORRECT, [[0.5]]), ValueError, "fractions: got [[0.5]]"),
        (lambda: dp.scores.selective_accuracy(["1"], [True]), TypeError, "score: got <U1 (1,)"),
        (lambda: dp.scores.selective_accuracy(1.0, True), ValueError, "score: got shape ()"),
        (lambda: dp.scores.ood(1.0, [2.0]), ValueError, "own: got shape ()"),
        (lambda: dp.scores.ood([1.0], "2"), TypeError, "foreign: got '2'"),
        (lambda: dp.scores.ood([1.0], [np.inf]), ValueError, "foreign: got inf"),
        (lambda: dp.scores.dichotomy(0.5), ValueError, "dichotomy: got shape ()"),
        (lambda: dp.scores.dichotomy(["0.5"]), TypeError, "dichotomy: got <U3 (1,)"),
        (lambda: dp.scores.agreement(3), TypeError, "agreement: got 3"),
        (lambda: dp.scores.agreement(np.full((2, 2), 0.5)), ValueError, "expected [N, C] of each model"),
        (lambda: dp.scores.ensemble_confidence("ab"), TypeError, "ensemble_confidence: got 'a'"),
        (lambda: dp.RunSet(RUNS[0]), TypeError, "expected several runs, as in RunSet([run])"),
        (lambda: RUNS.matrix("el2n", 3), TypeError, "examples: got 3"),
        (lambda: RUNS.matrix("el2n", [9]), IndexError, "examples: got position 9"),
        (lambda: RUNS.mean(["el2n"]), TypeError, "score: got ['el2n'], expected one name"),
        (lambda: RUNS.standard_error(["el2n"]), TypeError, "score: got ['el2n']"),
        (lambda: RUNS[0].with_scores(["el2n"]), TypeError, "scores: got list, expected name ->"),
        (lambda: dp.Run(["el2n"], architecture="mlp", seed=0), TypeError, "scores: got list, expected name ->"),
        (lambda: dp.Run({"el2n": [[1], [1, 2]]}, architecture="mlp", seed=0), ValueError, "el2n: not an array"),
        (lambda: dp.Run({"el2n": [1.0]}, architecture="mlp", seed="0"), TypeError, "seed: got '0'"),
        (lambda: dp.consistency.pca(RUNS, 3), TypeError, "scores: got 3, expected several names"),
        (lambda: dp.consistency.stable_subset(RUNS, "el2n", dp.policies.Hardest(0.5), share="1"), TypeError, "share"),
        (
            lambda: dp.consistency.stable_subset(RUNS, "el2n", lambda *_, **__: 3),
            TypeError,
            "returned 3, expected a dp",
        ),
        (lambda: dp.fingerprint.sensitive_examples(RUNS, "el2n").significant("1"), TypeError, "rate: got '1'"),
        (lambda: dp.fingerprint.compare_selectors(RUNS, "el2n", examples="1"), TypeError, "examples: got '1'"),
        (lambda: dp.fingerprint.compare_selectors(RUNS, "el2n", examples=[1.0]), TypeError, "examples: got 1.0"),
        (lambda: dp.fingerprint.compare_selectors(RUNS, "el2n", select=3), TypeError, "select: got 3"),
        (lambda: dp.fingerprint.compare_selectors(RUNS, "el2n", select=[["pca"]]), ValueError, "select: got ['pca']"),
        (lambda: dp.fingerprint.Accuracy.of(3, 2), ValueError, "got 3 right of 2 answers"),
        (lambda: dp.fingerprint.Accuracy.of(0, 0), ValueError, "got 0 right of 0 answers"),
        (
            lambda: dp.scores.grand(torch.nn.Linear(2, 2), torch.ones(2, 2), torch.tensor([0, 1]), lambda *_: 3.0),
            TypeError,
            "loss: returned float, expected a tensor",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)


@refused
def test_what_cannot_be_understood_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as refusal:
        call()
    assert type(refusal.value) is error


def test_one_number_of_examples_to_compare() -> None:
    one, several = (
        dp.fingerprint.compare_selectors(RUNS, "el2n", examples=examples, select=["random"]) for examples in (2, [2])
    )
    assert one == several
