"""Out-of-distribution detection and selective accuracy, against counting pairs and prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)  # few values, so that there are ties


@given(scores, scores)
def test_auroc_is_the_share_of_pairs_in_the_right_order(own: list[float], foreign: list[float]) -> None:
    pairs = [(f > o) + 0.5 * (f == o) for f in foreign for o in own]
    assert dp.scores.ood(own, foreign).auroc == pytest.approx(sum(pairs) / len(pairs))


@given(scores, scores)
def test_aupr_is_precision_averaged_over_the_recall_gained(own: list[float], foreign: list[float]) -> None:
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*own, *foreign}, reverse=True):
        found, alarms = sum(f >= threshold for f in foreign), sum(o >= threshold for o in own)
        area += (found / len(foreign) - recall_before) * found / (found + alarms)
        recall_before = found / len(foreign)
    detection = dp.scores.ood(own, foreign)
    assert detection.aupr == pytest.approx(area)
    assert detection.foreign_share == len(foreign) / (len(own) + len(foreign))


def test_a_score_that_separates_is_perfect_and_a_constant_one_is_chance() -> None:
    assert dp.scores.ood([0, 1], [2, 3]).to_dict() == {"auroc": 1.0, "aupr": 1.0, "foreign_share": 0.5}
    assert dp.scores.ood([1, 1, 1], [1]).to_dict() == {"auroc": 0.5, "aupr": 0.25, "foreign_share": 0.25}


@given(st.lists(st.tuples(st.integers(0, 4).map(float), st.booleans()), min_size=1, max_size=12))
def test_selective_accuracy_is_the_accuracy_of_the_lowest(examples: list[tuple[float, bool]]) -> None:
    score, correct = zip(*examples, strict=True)
    in_order = [right for _, right in sorted(examples, key=lambda e: e[0])]  # stable: ties in the order of the data
    shares = (0.01, 0.3, 0.5, 1.0)
    expected = [np.mean(in_order[: max(1, round(share * len(score)))]) for share in shares]
    np.testing.assert_allclose(dp.scores.selective_accuracy(score, correct, shares), expected)


@pytest.mark.parametrize(
    ("own", "foreign", "message"),
    [([], [1.0], "own: got shape"), ([1.0], [[1.0]], "foreign: got shape"), ([np.nan, 1.0], [1.0], "own: got 1 NaN")],
)
def test_bad_scores_are_refused(own, foreign, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dp.scores.ood(own, foreign)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"fractions: got"):
        dp.scores.selective_accuracy([1.0, 2.0], [True, False], [share])


def test_one_share_is_as_good_as_a_list_and_outcomes_are_bool() -> None:
    assert dp.scores.selective_accuracy([1.0, 2.0], [True, False], 0.5).tolist() == [1.0]
    with pytest.raises(TypeError, match="correct: got int64, expected bool"):
        dp.scores.selective_accuracy([1.0, 2.0], [3, 0])


def test_scores_and_outcomes_have_one_length() -> None:
    with pytest.raises(ValueError, match="got 2 scores and correct"):
        dp.scores.selective_accuracy([1.0, 2.0], [True])
