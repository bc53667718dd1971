"""The laws that every score obeys, for every score to which they apply.

A problem is a small dataset and a few fixed models, which stand for the checkpoints of a run and for the models of an
ensemble. `score_everything` computes every score of the catalogue from it, the way a user would.
"""

from __future__ import annotations

import io
import multiprocessing
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.scores import catalogue

# The fixed models know nothing of the labels.
pytestmark = pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")

TRACKED = dp.score_names(*catalogue.TRACKED)
OF_LOGITS = dp.score_names("loss", "logits")
OF_FEATURES = dp.score_names("features")
OF_RUNS = dp.score_names("runs")
FEATURES, CLASSES, MODELS = 6, 3, 4
TEMPORAL = dp.TemporalOptions(window=3)

# Batches of another size may be summed in another order by the matrix products of the model itself.
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5, equal_nan=True, check_dtype=False)


@dataclass
class Problem:
    """Inputs [N, F], labels [N], and which of the ensemble's models trained on which example, [R, N]."""

    inputs: Tensor
    labels: Tensor
    seen: Tensor

    def permuted(self, order: Tensor) -> Problem:
        return Problem(self.inputs[order], self.labels[order], self.seen[:, order])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.inputs[index], self.labels[index], index


def make_problem(seed: int, examples: int) -> Problem:
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, FEATURES, generator=g)
    half = torch.rand(examples, generator=g) < 0.5
    half[0], half[1] = True, False
    seen = torch.stack([half, half, ~half, ~half])  # two of a kind for each example, so that nothing is NaN
    return Problem(inputs, torch.arange(examples) % CLASSES, seen)


def make_models() -> list[nn.Module]:
    models = []
    for seed in range(MODELS):
        g = torch.Generator().manual_seed(1000 + seed)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=g)
        models.append(model.eval())
    return models


MODELS_OF_RUN = make_models()


def new_tracker(examples: int) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(examples, TRACKED, temporal=TEMPORAL)


def track(problem: Problem, batches: list[Tensor]) -> dp.DifficultyTracker:
    tracker = new_tracker(len(problem.labels))
    show(tracker, problem, batches)
    return tracker


def show(tracker: dp.DifficultyTracker, problem: Problem, batches: list[Tensor]) -> None:
    for model in MODELS_OF_RUN:
        dp.score_checkpoint(model, [problem.batch(index) for index in batches], tracker)


def feature_scores(problem: Problem, batches: list[Tensor]) -> dict[str, Tensor]:
    loader = [problem.batch(index) for index in batches]
    features = dp.score_features(MODELS_OF_RUN[-1], loader, num_examples=len(problem.labels))
    # k-means draws its first centres by position, so that it has no law under permutation.
    names = [name for name in OF_FEATURES if name != "self_prototype_distance"]
    return features.scores(names, k=3)


def run_set(problem: Problem) -> dp.RunSet:
    return dp.RunSet(
        dp.Run(
            {"el2n": np.zeros(len(problem.labels))},
            architecture="mlp",
            seed=seed,
            labels=problem.labels.numpy(),
            seen=problem.seen[seed].numpy(),
            probabilities=model(problem.inputs).softmax(1).detach().numpy(),
        )
        for seed, model in enumerate(MODELS_OF_RUN)
    )


def run_scores(problem: Problem) -> dict[str, Tensor]:
    runs = run_set(problem)
    return {name: torch.from_numpy(runs.mean(name)) for name in OF_RUNS}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], compare=close) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        compare(got[name], expected[name], msg=lambda text, name=name: f"{name}: {text}")


@st.composite
def problems(draw) -> tuple[Problem, list[Tensor]]:
    """A problem and a partition of its examples into batches, in any order."""
    examples = draw(st.integers(5, 12))
    problem = make_problem(draw(st.integers(0, 1000)), examples)
    order = torch.tensor(draw(st.permutations(range(examples))))
    cuts = sorted(draw(st.sets(st.integers(1, examples - 1), max_size=4)))
    return problem, list(order.tensor_split(cuts))


def in_one_batch(problem: Problem) -> list[Tensor]:
    return [torch.arange(len(problem.labels))]


def test_every_score_of_the_catalogue_is_put_to_the_laws() -> None:
    problem = make_problem(0, 9)
    computed = {*track(problem, in_one_batch(problem)).compute(), *feature_scores(problem, in_one_batch(problem))}
    elsewhere = {"self_prototype_distance", "late_aum"}  # the latter in tests/tracker/test_late.py
    assert computed | set(run_scores(problem)) | elsewhere == set(dp.SCORES)


@settings(max_examples=25)
@given(problems())
def test_splitting_and_reordering_batches_changes_nothing(case: tuple[Problem, list[Tensor]]) -> None:
    problem, batches = case
    whole = in_one_batch(problem)
    assert_equal(track(problem, batches).compute(), track(problem, whole).compute())
    assert_equal(feature_scores(problem, batches), feature_scores(problem, whole))


@settings(max_examples=25)
@given(problems(), st.data())
def test_permuting_the_dataset_permutes_the_scores(case: tuple[Problem, list[Tensor]], data: st.DataObject) -> None:
    problem, _ = case
    order = torch.tensor(data.draw(st.permutations(range(len(problem.labels)))))
    moved = problem.permuted(order)
    for scores in (
        lambda p: track(p, in_one_batch(p)).compute(),
        lambda p: feature_scores(p, in_one_batch(p)),
        run_scores,
    ):
        expected = {name: score[order] for name, score in scores(problem).items()}
        assert_equal(scores(moved), expected)


@settings(max_examples=25)
@given(problems(), st.data())
def test_an_index_twice_in_a_batch_counts_twice_in_batch_order(
    case: tuple[Problem, list[Tensor]], data: st.DataObject
) -> None:
    """As the same presentations one by one. (Features are of examples, not of steps.)"""
    problem, _ = case
    examples = len(problem.labels)
    index = torch.tensor(data.draw(st.lists(st.integers(0, examples - 1), min_size=2, max_size=2 * examples)))
    assert_equal(track(problem, [index]).compute(), track(problem, list(index.split(1))).compute())


@settings(max_examples=25)
@given(problems(), st.data())
def test_an_example_never_presented_is_nan_and_no_plan_accepts_it_silently(
    case: tuple[Problem, list[Tensor]], data: st.DataObject
) -> None:
    problem, _ = case
    examples = len(problem.labels)
    shown = torch.tensor(sorted(data.draw(st.sets(st.integers(0, examples - 1), min_size=4, max_size=examples - 1))))
    missing = torch.ones(examples, dtype=torch.bool)
    missing[shown] = False
    scores = track(problem, [shown]).compute() | feature_scores(problem, [shown])
    for name, score in scores.items():
        assert torch.equal(score.isnan(), missing), name
        with pytest.raises(ValueError, match=r"NaN|never"):
            dp.policies.Hardest(keep=0.5)(score, generator=torch.Generator())
    of_run = dp.Run(track(problem, [shown]).compute(), architecture="mlp", seed=0)
    assert all(np.array_equal(np.isnan(values), missing.numpy()) for values in of_run.scores.values())


@settings(max_examples=10)
@given(problems())
def test_a_frozen_model_has_no_variance(case: tuple[Problem, list[Tensor]]) -> None:
    """Over time nothing changes, however the batches fall: VoG, variability, dyn_unc, tdds and dual are 0."""
    problem, batches = case
    tracker = new_tracker(len(problem.labels))
    for part in (batches, in_one_batch(problem), batches):
        dp.score_checkpoint(MODELS_OF_RUN[0], [problem.batch(index) for index in part], tracker)
    scores = tracker.compute()
    for name in ("vog", "vog_probability", "vog_loss", "variability", "dyn_unc", "tdds", "dual"):
        close(scores[name], torch.zeros(len(problem.labels)), atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


@settings(max_examples=25)
@given(problems())
def test_bfloat16_logits_give_the_float32_scores_within_tolerance(case: tuple[Problem, list[Tensor]]) -> None:
    problem, _ = case
    exact, rounded = (dp.DifficultyTracker(len(problem.labels), OF_LOGITS, temporal=TEMPORAL) for _ in range(2))
    for model in MODELS_OF_RUN:
        logits = model(problem.inputs).detach().bfloat16()
        index = torch.arange(len(problem.labels))
        exact.update(index, logits.float(), problem.labels)
        rounded.update(index, logits, problem.labels)
    identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)
    assert_equal(rounded.compute(), exact.compute(), identical)


def _score_a_part(problem: Problem, index: Tensor) -> bytes:
    torch.set_num_threads(1)
    file = io.BytesIO()
    torch.save(track(problem, [index]).state_dict(), file)
    return file.getvalue()


def test_two_processes_give_what_one_gives() -> None:
    problem = make_problem(3, 10)
    parts = [torch.arange(0, 10, 2), torch.arange(1, 10, 2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        states = pool.starmap(_score_a_part, [(problem, part) for part in parts])
    trackers = [new_tracker(10) for _ in states]
    for tracker, state in zip(trackers, states, strict=True):
        tracker.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    trackers[0].merge(trackers[1])
    assert_equal(trackers[0].compute(), track(problem, in_one_batch(problem)).compute())


@pytest.mark.parametrize("name", dp.SCORES)
def test_difficulty_is_the_score_turned_so_that_high_is_hard(name: str) -> None:
    if name in OF_RUNS:
        runs = run_set(make_problem(5, 9))
    else:
        runs = dp.RunSet([dp.Run({name: [1.0, 3.0, 2.0]}, architecture="mlp", seed=0)])
    low_is_hard = {"confidence", "max_confidence", "accuracy", "aum", "margin", "model_accuracy", "c_score"}
    sign = -1 if name in low_is_hard | {"ensemble_confidence", "late_aum"} else 1
    assert runs.mean(name).std() > 0
    np.testing.assert_array_equal(runs.difficulty(name), sign * runs.mean(name))
