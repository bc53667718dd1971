"""Scores of many runs: against loops that a reader checks in a minute, and against a simulation with known truth."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import difficulty_prune as dp
from difficulty_prune.scores import ensembles

OF_MANY_RUNS = dp.score_names("runs")


# The slow, obvious ones


def entropy(p) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def divergence(ps) -> float:
    """Of the probabilities of several models for one example, as the mean Kullback-Leibler divergence to their mean."""
    mean = [sum(column) / len(ps) for column in zip(*ps, strict=True)]
    return sum(x * math.log(x / m) for p in ps for x, m in zip(p, mean, strict=True) if x > 0) / len(ps)


def share(outcomes: list[bool]) -> tuple[float, float]:
    """Mean, and variance of the mean, by the textbook: squared deviations over n - 1, over n."""
    n = len(outcomes)
    mean = sum(outcomes) / n if n else math.nan
    return mean, sum((x - mean) ** 2 for x in outcomes) / (n - 1) / n if n > 1 else math.nan


def estimates(correct, seen):
    """(memorization, its error, consistency, its error) of every example."""
    for right, trained in zip(np.transpose(correct), np.transpose(seen), strict=True):
        inside = share([bool(c) for c, s in zip(right, trained, strict=True) if s])
        outside = share([bool(c) for c, s in zip(right, trained, strict=True) if not s])
        yield inside[0] - outside[0], math.sqrt(inside[1] + outside[1]), outside[0], math.sqrt(outside[1])


@st.composite
def runs_and_examples(draw):
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 6)))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))


@st.composite
def ensembles_of_models(draw):
    """Probabilities [R, N, C] with zeros and certainties among them."""
    shape = (draw(st.integers(2, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 5)))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1e-6, 0.1, 0.5, 1.0])))
    raw[..., 0] += raw.sum(-1) == 0
    return raw / raw.sum(-1, keepdims=True)


# Against them


@settings(max_examples=150)
@given(runs_and_examples())
def test_memorization_and_consistency_are_differences_and_shares_of_correct_runs(drawn) -> None:
    correct, seen = drawn
    expected = np.array(list(estimates(correct, seen))).T
    memorization = dp.scores.memorization(correct, seen)
    consistency = dp.scores.held_out_consistency(correct, seen)
    got = memorization.value, memorization.standard_error, consistency.value, consistency.standard_error
    np.testing.assert_allclose(got, expected, atol=1e-12)
    for estimate in (memorization, consistency):
        assert estimate.seen.tolist() == [sum(column) for column in seen.T.tolist()]
        assert (estimate.seen + estimate.unseen == len(seen)).all()


@settings(max_examples=150)
@given(runs_and_examples())
def test_memorization_of_the_complement_is_its_negative(drawn) -> None:
    correct, seen = drawn
    np.testing.assert_allclose(
        dp.scores.memorization(correct, ~seen).value, -dp.scores.memorization(correct, seen).value
    )
    np.testing.assert_allclose(
        dp.scores.memorization(~correct, seen).value, -dp.scores.memorization(correct, seen).value, atol=1e-12
    )


@pytest.mark.parametrize(("p_seen", "p_unseen"), [(0.9, 0.3), (0.5, 0.5), (1.0, 0.8), (0.2, 0.6)])
def test_the_estimate_is_unbiased_and_its_error_is_that_of_many_repetitions(p_seen: float, p_unseen: float) -> None:
    """One column is one repetition of an experiment with 12 runs, of which 8 trained on the example."""
    repetitions, runs = 40_000, 12
    rng = np.random.default_rng(0)
    seen = rng.permuted(np.repeat(np.arange(runs) < 8, repetitions).reshape(runs, repetitions), axis=0)
    correct = rng.random(seen.shape) < np.where(seen, p_seen, p_unseen)
    for estimate, truth in (
        (dp.scores.memorization(correct, seen), p_seen - p_unseen),
        (dp.scores.held_out_consistency(correct, seen), p_unseen),
    ):
        spread = estimate.value.std(ddof=1)
        assert abs(estimate.value.mean() - truth) < 4 * spread / math.sqrt(repetitions)
        assert (estimate.standard_error**2).mean() == pytest.approx(spread**2, rel=0.05)
        assert estimate.to_dict()["rms_standard_error"] == pytest.approx(spread, rel=0.03)


@settings(max_examples=150)
@given(ensembles_of_models())
def test_agreement_is_the_divergence_from_the_mean(p) -> None:
    expected = [divergence([model[i].tolist() for model in p]) for i in range(p.shape[1])]
    got = dp.scores.agreement(p)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert (got >= 0).all()
    assert (got <= math.log(min(len(p), p.shape[2])) + 1e-12).all()
    by_entropy = [entropy(p[:, i].mean(0)) - np.mean([entropy(q) for q in p[:, i]]) for i in range(p.shape[1])]
    np.testing.assert_allclose(got, by_entropy, atol=1e-12)


@given(ensembles_of_models(), st.randoms())
def test_the_order_of_models_and_the_names_of_classes_do_not_matter(p, random) -> None:
    models, classes = list(range(len(p))), list(range(p.shape[2]))
    random.shuffle(models)
    random.shuffle(classes)
    other = p[models][..., classes]
    np.testing.assert_allclose(dp.scores.agreement(other), dp.scores.agreement(p), atol=1e-12)
    np.testing.assert_allclose(dp.scores.ensemble_confidence(other), dp.scores.ensemble_confidence(p), atol=1e-12)


def test_models_that_are_alike_agree_fully_and_models_that_exclude_each_other_not_at_all() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(7), size=50).astype(np.float32)
    np.testing.assert_allclose(dp.scores.agreement([p, p, p]), 0, atol=1e-12)
    np.testing.assert_allclose(dp.scores.agreement(np.eye(3)[:, None]), math.log(3))


@given(ensembles_of_models())
def test_ensemble_confidence_is_the_mean_of_the_largest(p) -> None:
    expected = [sum(max(q) for q in p[:, i].tolist()) / len(p) for i in range(p.shape[1])]
    np.testing.assert_allclose(dp.scores.ensemble_confidence(p), expected)


def test_only_one_model_is_held_at_a_time() -> None:
    alive, most = set(), 0

    class Model(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    def models():
        nonlocal most
        for _ in range(5):
            p = np.full((3, 2), 0.5).view(Model)
            alive.add(id(p))
            most = max(most, len(alive))
            yield p
            del p

    dp.scores.agreement(models())
    dp.scores.ensemble_confidence(models())
    assert most <= 2, "the one that is read, and the one before it"


@given(st.integers(1, 6).flatmap(lambda r: hnp.arrays(np.int64, (r, 5), elements=st.integers(0, 2))))
def test_the_dichotomy_parts_the_examples_by_how_many_models_are_right(predictions) -> None:
    labels = np.array([0, 1, 2, 0, 1])
    accuracy = dp.scores.model_accuracy(predictions, labels)
    right = [sum(int(row[i]) == label for row in predictions) for i, label in enumerate(labels.tolist())]
    assert accuracy.tolist() == [count / len(predictions) for count in right]
    parts = dp.scores.dichotomy(accuracy)
    assert parts.never.tolist() == [count == 0 for count in right]
    assert parts.always.tolist() == [count == len(predictions) for count in right]
    assert (parts.never.astype(int) + parts.always + parts.sometimes == 1).all()
    counts = parts.to_dict()
    assert counts["never"] + counts["always"] + counts["sometimes"] == counts["examples"] == 5
    assert f"{counts['never']} ({counts['never'] / 5:.1%}) never" in str(parts)


# Too few runs are said


def test_an_estimate_says_first_how_many_examples_have_too_few_runs() -> None:
    seen = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]], bool)
    correct = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1]], bool)
    estimate = dp.scores.memorization(correct, seen)
    np.testing.assert_array_equal(np.isnan(estimate.value), [False, True, False, False])
    np.testing.assert_array_equal(np.isnan(estimate.standard_error), [False, True, True, False])
    assert str(estimate).startswith("2 of 4 examples have too few runs (1 have no value at all)")
    assert "seen by 1 to 4 runs and left out by 0 to 3" in str(estimate)
    facts = estimate.to_dict()
    assert facts["too_few_runs"] == 2
    assert facts["without_value"] == 1
    assert facts["median_standard_error"] == pytest.approx(0.25)  # of 0.5 and 0
    assert facts["rms_standard_error"] == pytest.approx(math.sqrt(0.125))
    assert json.loads(json.dumps(facts)) == facts


def test_an_estimate_without_any_error_says_so() -> None:
    estimate = dp.scores.held_out_consistency(np.ones((2, 3), bool), np.array([[True] * 3, [False] * 3]))
    assert estimate.value.tolist() == [1, 1, 1]
    assert "3 of 3 examples have too few runs (0 have no value at all); no standard error is known" in str(estimate)
    assert estimate.to_dict()["median_standard_error"] is None
    nothing = dp.scores.memorization(np.ones((2, 3), bool), np.ones((2, 3), bool))
    assert np.isnan(nothing.value).all()
    assert json.loads(json.dumps(nothing.to_dict()))["mean"] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ensembles.model_accuracy([0, 1], [0, 1]), r"predictions: got int64 \(2,\)"),
        (lambda: ensembles.model_accuracy([[0.0, 1.0]], [0, 1]), "predictions: got float64"),
        (lambda: ensembles.model_accuracy(np.empty((0, 2), int), [0, 1]), r"\(0, 2\)"),
        (lambda: ensembles.model_accuracy([[0, 1]], [0]), r"labels: got int64 \(1,\), expected whole numbers \[2\]"),
        (lambda: ensembles.dichotomy([0.5, np.nan]), "got nan for example 1"),
        (lambda: ensembles.dichotomy([0.5, 70]), "got 70.0 for example 1"),
        (lambda: ensembles.dichotomy(0.5), r"shape \(\)"),
        (lambda: ensembles.agreement([np.full((2, 2), 0.5)]), "got 1 model, expected at least 2"),
        (lambda: ensembles.agreement([]), "got 0 model"),
        (lambda: ensembles.agreement([np.full((2, 2), 0.5), np.full((2, 3), 1 / 3)]), r"\(2, 3\)"),
        (lambda: ensembles.ensemble_confidence([]), "got no model"),
        (lambda: ensembles.ensemble_confidence([[0.5, 0.5]]), r"shape \(2,\)"),
        (lambda: ensembles.memorization([[1, 0]], [[True, True]]), "correct: got int64"),
        (lambda: ensembles.memorization([[True, False]], [[True]]), r"seen: got bool \(1, 1\)"),
        (lambda: ensembles.held_out_consistency([True], [True]), r"correct: got bool \(1,\)"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# On a set of runs

LABELS = np.array([0, 1, 2, 1, 0, 2])


def make_runs(count: int = 5, leave_out: bool = True, **changes) -> dp.RunSet:
    rng = np.random.default_rng(1)
    runs = []
    for seed in range(count):
        seen = np.arange(6) % count != seed if leave_out else None
        facts = {"probabilities": rng.dirichlet(np.ones(3), 6), "seen": seen, "labels": LABELS, **changes}
        el2n = rng.random(6) if seen is None else np.where(seen, rng.random(6), np.nan)
        runs.append(dp.Run({"el2n": el2n}, architecture="mlp", seed=seed, **facts))
    return dp.RunSet(runs)


def test_scores_of_a_set_of_runs_are_those_of_its_parts() -> None:
    runs = make_runs()
    p = np.stack([run.probabilities for run in runs]).astype(np.float64)
    correct = p.argmax(2) == LABELS
    assert runs.seen.tolist() == [run.seen.tolist() for run in runs]
    np.testing.assert_array_equal(runs.model_accuracy(), correct.mean(0))
    np.testing.assert_array_equal(runs.dichotomy().never, ~correct.any(0))
    np.testing.assert_allclose(runs.agreement(), dp.scores.agreement(p))
    np.testing.assert_allclose(runs.ensemble_confidence(), p.max(2).mean(0))
    expected = np.array(list(estimates(correct, runs.seen))).T
    np.testing.assert_allclose(runs.memorization().value, expected[0])
    np.testing.assert_allclose(runs.held_out_consistency().value, expected[2])


def test_every_score_of_many_runs_of_the_catalogue_has_mean_and_difficulty() -> None:
    runs = make_runs(10)
    for name in OF_MANY_RUNS:
        sign = 1 if dp.SCORES[name].higher_is_harder else -1
        np.testing.assert_array_equal(runs.difficulty(name), sign * runs.mean(name))
        assert runs.mean(name).shape == (6,)
    for name in set(OF_MANY_RUNS) - {"agreement"}:
        assert runs.standard_error(name).shape == (6,)
    for name in set(dp.score_names()) - {*OF_MANY_RUNS, "el2n"}:
        with pytest.raises(ValueError, match=f"no score '{name}'"):
            runs.mean(name)
    np.testing.assert_array_equal(runs.mean("memorization"), runs.memorization().value)
    np.testing.assert_array_equal(runs.mean("c_score"), runs.held_out_consistency().value)
    assert runs.scores == ("el2n",)


def test_standard_errors_of_scores_of_many_runs() -> None:
    runs = make_runs(10)
    np.testing.assert_array_equal(runs.standard_error("memorization"), runs.memorization().standard_error)
    np.testing.assert_array_equal(runs.standard_error("c_score"), runs.held_out_consistency().standard_error)
    p = np.stack([run.probabilities for run in runs]).astype(np.float64)
    for name, matrix in (("model_accuracy", p.argmax(2) == LABELS), ("ensemble_confidence", p.max(2))):
        np.testing.assert_allclose(runs.standard_error(name), matrix.std(0, ddof=1) / math.sqrt(10), rtol=1e-6)
    with pytest.raises(ValueError, match="standard_error: none is known for 'agreement'"):
        runs.standard_error("agreement")


@pytest.mark.parametrize("name", OF_MANY_RUNS)
def test_there_is_no_matrix_of_a_score_of_many_runs(name: str) -> None:
    with pytest.raises(ValueError, match=rf"all runs together, not one per run; see runs\.mean\('{name}'\)"):
        make_runs().matrix(name)


def test_a_run_that_saw_everything_counts_as_having_seen_each_example() -> None:
    mixed = dp.RunSet([*make_runs(3), *make_runs(2, leave_out=False)])
    assert mixed.seen[3:].all()
    assert mixed.memorization().seen.tolist() == [4] * 6


@pytest.mark.parametrize(
    ("runs", "call", "message"),
    [
        (make_runs(probabilities=None), "agreement", r"5 of 5 runs have no probabilities, the first is Run\('mlp', s"),
        (make_runs(probabilities=None, predictions=LABELS), "ensemble_confidence", "have no probabilities"),
        (make_runs(probabilities=None), "model_accuracy", r"no predictions.*tracker\.finish\(predictions=\.\.\.\)"),
        (make_runs(probabilities=None), "dichotomy", "have no predictions"),
        (make_runs(probabilities=None), "memorization", "have no predictions"),
        (make_runs(labels=None), "held_out_consistency", "no run knows the labels"),
        (make_runs(labels=None), "model_accuracy", "no run knows the labels"),
        (make_runs(leave_out=False), "memorization", r"memorization: each of the 5 runs trained on every.*--hold-out"),
        (make_runs(leave_out=False), "held_out_consistency", "trained on every example"),
        (make_runs(1, leave_out=False), "agreement", "got 1 model, expected at least 2"),
    ],
)
def test_runs_that_lack_something_say_which_and_how_to_get_it(runs: dp.RunSet, call: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(runs, call)()


def test_predictions_alone_are_enough_for_what_compares_them_with_labels() -> None:
    full = make_runs()
    alone = dp.RunSet(
        dp.Run(r.scores, architecture="mlp", seed=r.seed, labels=LABELS, seen=r.seen, predictions=r.predictions)
        for r in full
    )
    np.testing.assert_array_equal(alone.model_accuracy(), full.model_accuracy())
    np.testing.assert_array_equal(alone.memorization().value, full.memorization().value)


def test_scores_of_many_runs_come_back_from_files(tmp_path: Path) -> None:
    runs = make_runs(10)
    for run in runs:
        run.save(tmp_path / f"{run.seed}.safetensors")
    loaded = dp.RunSet.load(tmp_path)
    for name in OF_MANY_RUNS:
        np.testing.assert_array_equal(loaded.mean(name), runs.mean(name))


def test_a_tracker_hands_over_what_the_trained_model_says() -> None:
    tracker = dp.DifficultyTracker(3, scores=("el2n",))
    tracker.update(torch.tensor([0, 2]), torch.randn(2, 4), torch.tensor([1, 3]))
    p = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True).float().softmax(1)
    labels, seen = torch.tensor([1, 0, 3]), torch.tensor([True, False, True])
    run = tracker.finish(architecture="mlp", seed=0, labels=labels, seen=seen, probabilities=p)
    assert run.seen.tolist() == [True, False, True]
    assert np.isnan(run.scores["el2n"]).tolist() == [False, True, False]
    np.testing.assert_array_equal(run.probabilities, p.detach().numpy())
    assert run.predictions.tolist() == p.argmax(1).tolist()
    alone = tracker.finish(architecture="mlp", seed=0, predictions=torch.tensor([3, 2, 1]))
    assert alone.predictions.tolist() == [3, 2, 1]
    assert alone.probabilities is None
    assert alone.seen.tolist() == [True, False, True]  # what was presented


def test_seen_is_what_was_presented_and_none_if_all_was() -> None:
    tracker = dp.DifficultyTracker(3, scores=("el2n",))
    tracker.update(torch.arange(2), torch.randn(2, 4), torch.tensor([1, 3]))
    assert tracker.finish(architecture="mlp", seed=0).seen.tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"seen: 1 examples are said to be trained on, the first of them 2"):
        tracker.finish(architecture="mlp", seed=0, seen=[True, False, True])
    assert tracker.finish(architecture="mlp", seed=0, seen=[True, False, False]).seen.tolist() == [True, False, False]
    tracker.update(torch.tensor([2]), torch.randn(1, 4), torch.tensor([0]))
    assert tracker.finish(architecture="mlp", seed=0).seen is None


def test_labels_other_than_those_shown_are_refused() -> None:
    tracker = dp.DifficultyTracker(3, scores=("el2n",))
    tracker.update(torch.arange(2), torch.randn(2, 4), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="labels: 1 of 3 examples were shown with other labels"):
        tracker.finish(architecture="mlp", seed=0, labels=[1, 2, 0])
    assert tracker.finish(architecture="mlp", seed=0, labels=[1, 3, 0]).labels.tolist() == [1, 3, 0]
