"""BetaSampling: its chances against SciPy's density and exact fractions, what it refuses, and what it moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from drawn import NAN, check_counts, float64, fractions, number_kept, oracle_proportional, seeded, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.beta_sampling import BetaSampling

pytestmark = pytest.mark.usefixtures("one_thread")

rows = st.lists(
    st.tuples(st.floats(1e-3, 1), st.floats(0.01, 0.99)), min_size=2, max_size=30, unique_by=lambda row: row[0]
)


def expected(difficulty, confidence, kept, c):
    """The definition: Beta(16 - b, b) at the confidence, times the difficulty, in proportion and at most 1."""
    pruned = 1 - kept / len(difficulty)
    hardest = np.argsort(difficulty)[-10:]
    b = 15 * (1 - np.mean(np.asarray(confidence)[hardest])) * (1 - pruned**c)
    size = scipy.stats.beta.pdf(confidence, 16 - b, b) * difficulty
    return oracle_proportional((size / size.max()).tolist(), kept)


@settings(max_examples=60)
@given(rows=rows, keep=fractions, c=st.sampled_from((1.0, 4.0, 11.0)))
def test_chances_are_difficulty_times_the_density(rows, keep, c):
    difficulty, confidence = (list(column) for column in zip(*rows, strict=True))
    found = BetaSampling(keep, confidence, c).inclusion(difficulty)
    kept = number_kept(keep, len(rows))
    if kept < len(rows):
        np.testing.assert_allclose(found, expected(difficulty, confidence, kept, c), rtol=1e-6, atol=1e-9)
    assert float(found.sum()) == pytest.approx(kept)


@settings(max_examples=40)
@given(rows=rows, keep=fractions, seed=seeds, data=st.data())
def test_plans_have_the_number_are_repeatable_and_chances_follow_the_order_of_the_data(rows, keep, seed, data):
    difficulty, confidence = (list(column) for column in zip(*rows, strict=True))
    policy = BetaSampling(keep, confidence)
    plan, again = (policy(difficulty, generator=seeded(seed)) for _ in range(2))
    assert len(plan) == number_kept(keep, len(rows))
    assert plan.index.tolist() == again.index.tolist()
    assert plan.weight.tolist() == [1] * len(plan)
    order = data.draw(st.permutations(range(len(rows))))
    moved = BetaSampling(keep, [confidence[i] for i in order]).inclusion([difficulty[i] for i in order])
    torch.testing.assert_close(moved, policy.inclusion(difficulty)[list(order)], rtol=1e-9, atol=1e-12)


def test_plans_have_an_example_as_often_as_they_say():
    confidence = torch.linspace(0.02, 0.98, 12)
    difficulty = confidence * (1 - confidence)
    policy, generator, counts = BetaSampling(0.4, confidence), seeded(0), torch.zeros(12, dtype=torch.int64)
    for _ in range(400):
        counts[policy(difficulty, generator=generator).index] += 1
    check_counts(counts, 400, policy.inclusion(difficulty))


def test_the_more_is_pruned_the_easier_is_what_is_kept():
    confidence = torch.rand(2_000, generator=seeded(0))
    difficulty = (1 - confidence) * torch.rand(2_000, generator=seeded(1))
    means = []
    for keep in (0.3, 0.2, 0.1, 0.05):
        plan = BetaSampling(keep, confidence)(difficulty)
        means.append(float(confidence[plan.index].mean()))
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.1


def test_difficulty_and_confidence_at_their_ends():
    found = BetaSampling(0.5, [0.0, 1.0, 1.0, 0.5]).inclusion([0.0, 0.0, 0.3, 0.3])
    assert found.isfinite().all()
    assert float(found[:2].sum()) < 1e-3  # of difficulty 0: only where the others do not suffice
    assert float(BetaSampling(0.75, [0.0, 1.0, 1.0, 0.5]).inclusion([0.0, 0.0, 0.3, 0.3]).sum()) == pytest.approx(3)
    with pytest.warns(UserWarning, match="ranks nothing"):
        assert float(BetaSampling(0.5, [0.5] * 4).inclusion([0.0] * 4).sum()) == pytest.approx(2)
    assert BetaSampling(1.0, [0.5, 0.6]).inclusion([0.1, 0.2]).tolist() == [1, 1]


def test_examples_that_were_never_scored_are_kept_and_the_others_have_their_own_confidence():
    policy = BetaSampling(0.5, [NAN, 0.9, 0.1, 0.6, 0.5], unseen="keep")
    found = policy.inclusion([NAN, 0.1, 0.2, 0.3, 0.4])
    without = BetaSampling(0.5, [0.9, 0.1, 0.6, 0.5]).inclusion([0.1, 0.2, 0.3, 0.4])
    assert found.tolist() == [1, *without.tolist()]
    assert len(policy([NAN, 0.1, 0.2, 0.3, 0.4])) == 3


def test_within_classes_and_within_what_is_not_wrong_an_example_keeps_its_confidence():
    confidence = torch.rand(40, generator=seeded(3)).double()
    difficulty, labels = torch.rand(40, generator=seeded(4)).double(), torch.arange(40) % 2
    of_class = dp.policies.PerClass(BetaSampling(0.5, confidence)).inclusion(difficulty, labels)
    alone = BetaSampling(0.5, confidence[labels == 1]).inclusion(difficulty[labels == 1])
    torch.testing.assert_close(of_class[labels == 1], alone)
    wrong = [3, 17, 20]
    rest = [i for i in range(40) if i not in wrong]
    found = dp.policies.WithoutWrong(BetaSampling(0.5, confidence), wrong).inclusion(difficulty)
    torch.testing.assert_close(found[rest], BetaSampling(20 / 37, confidence[rest]).inclusion(difficulty[rest]))
    assert not found[wrong].any()
    plan = dp.policies.within(dp.policies.Easiest(0.5)(difficulty), BetaSampling(0.5, confidence), difficulty)
    assert len(plan) == 10


def test_a_policy_is_what_it_was_made_of():
    confidence = torch.tensor([0.1, 0.2])
    policy = BetaSampling(0.5, confidence)
    assert policy == BetaSampling(0.5, [0.1, 0.2]) or policy == BetaSampling(0.5, confidence.clone())
    assert policy != BetaSampling(0.5, [0.1, 0.3])
    assert hash(policy) == hash(BetaSampling(0.5, confidence))
    assert repr(policy) == "BetaSampling(keep=0.5, confidence=<2 numbers>, c=4.0)"
    confidence[0] = 0.9  # of a copy
    assert policy == BetaSampling(0.5, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: BetaSampling(0.5, [0.5, 1.5]),
            ValueError,
            r"confidence: got 1\.5 at 1, expected the mean probability",
        ),
        (lambda: BetaSampling(0.5, "high"), TypeError, "confidence: got str"),
        (lambda: BetaSampling(0.5, [[0.5]]), ValueError, r"confidence: got shape \(1, 1\)"),
        (lambda: BetaSampling(0.5, [0.5], c=0), ValueError, "c: got 0, expected a number above 0"),
        (lambda: BetaSampling(0.5, [0.5], c=math.nan), ValueError, "c: got nan"),
        (lambda: BetaSampling(0.5, [0.5], c="4"), TypeError, "c: got '4'"),
        (lambda: BetaSampling(0.5, [0.5])([0.1, 0.2]), ValueError, "confidence: got 1 numbers for 2 examples"),
        (lambda: BetaSampling(0.5, [0.5] * 2)([0.1, -0.2]), ValueError, "difficulty: got -0.2 at 1, expected finite"),
        (lambda: BetaSampling(0.5, [0.5] * 2)([0.1, math.inf]), ValueError, "difficulty: got inf at 1"),
        (lambda: BetaSampling(0.5, [0.5, NAN])([0.1, 0.2]), ValueError, "confidence: got NaN for 1 examples"),
        (
            lambda: BetaSampling(0.5, [0.5] * 3, unseen="keep")([0.1, NAN, 0.2, 0.3]),
            ValueError,
            "confidence: got 3 numbers for 4 examples",
        ),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_it_samples_by_the_scores_of_a_run():
    """As the docs say: `dual` of the first epochs, and the confidence of the same."""
    tracker = dp.DifficultyTracker(30, ("dual", "confidence"), temporal=dp.TemporalOptions(window=3))
    for epoch in range(5):
        logits = torch.randn(30, 3, generator=seeded(epoch))
        tracker.update(torch.arange(30), logits, torch.arange(30) % 3)
    run = tracker.finish(architecture="mlp", seed=0)
    runs = dp.RunSet([run])
    plan = BetaSampling(0.5, runs.mean("confidence"))(runs.difficulty("dual"), labels=run.labels)
    assert len(plan) == 15
    assert float64(runs.mean("confidence")).mean() > 0
