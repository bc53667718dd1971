"""Presentations that do not count, as seen by gradient scores: another label than before, and a label of no chance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import difficulty_prune as dp

N, C = 8, 3
X = torch.randn(N, 1, 3, 3, generator=torch.Generator().manual_seed(0))
Y, INDEX = torch.arange(N) % C, torch.arange(N)
TRACKERS = [("vog",), ("vog_probability",), ("vog_loss",), ("grand",), ("el2n", "vog"), ("loss", "grand")]

pytestmark = pytest.mark.filterwarnings("ignore:grand. on this batch the model is no better than chance")


def new_model(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(9, C))


def shown(scores: tuple[str, ...], presentations: list[tuple[Tensor, Tensor]]) -> dp.DifficultyTracker:
    """A tracker that was shown one checkpoint after another, each with some examples and the labels given."""
    tracker = dp.DifficultyTracker(N, scores)
    for seed, (index, labels) in enumerate(presentations):
        dp.score_checkpoint(new_model(seed), [(X[index], labels, index)], tracker)
    return tracker


@pytest.mark.parametrize("scores", TRACKERS, ids="+".join)
@given(changed=st.sets(st.integers(0, N - 1), min_size=1, max_size=N - 1), by=st.integers(1, C - 1))
def test_another_label_than_before_is_counted_and_left_out(scores, changed, by):
    other, same = Y.clone(), torch.tensor(sorted(set(range(N)) - changed))
    other[list(changed)] = (other[list(changed)] + by) % C
    tracker = shown(scores, [(INDEX, Y), (INDEX, other), (INDEX, Y)])
    assert tracker.skipped["changed label"] == len(changed)
    with pytest.raises(ValueError, match=f"{len(changed)} x changed label"):
        tracker.compute()
    # The second checkpoint shows the others alone.
    expected = shown(scores, [(INDEX, Y), (same, Y[same]), (INDEX, Y)]).compute()
    for name, score in tracker.compute(allow_skipped=True).items():
        torch.testing.assert_close(score, expected[name], msg=name)


@pytest.mark.parametrize("score", ["vog", "vog_probability"])
def test_update_compares_labels_where_no_logit_score_is_recorded(score):
    tracker = dp.DifficultyTracker(N, (score,))
    model = new_model(0)
    for step in range(3):
        x = X.clone().requires_grad_()
        tracker.update(INDEX, model(x), (Y + step % 2) % C, inputs=x)
    assert tracker.skipped["changed label"] == N
    assert tracker.presentations == 2 * N
    assert tracker.compute(allow_skipped=True)[score].max() < 1e-7  # the model never changed


def test_a_score_that_is_scored_alone_counts_other_labels_too():
    tracker = dp.DifficultyTracker(N, ("el2n", "grand"))
    tracker.update(INDEX, new_model(0)(X), Y)
    dp.score_checkpoint(new_model(0), [(X, (Y + 1) % C, INDEX)], tracker, scores=("grand",))
    assert tracker.skipped["changed label"] == N
    assert tracker.presentations == N
    assert tracker.compute(allow_skipped=True)["grand"].isnan().all()


@pytest.mark.parametrize("scores", TRACKERS, ids="+".join)
def test_predicted_labels_may_change(scores):
    chosen = tuple(name for name in scores if name != "accuracy")
    tracker = dp.DifficultyTracker(N, chosen)
    for seed in range(3):
        dp.score_checkpoint(new_model(seed), [(X, Y, INDEX)], tracker, label="predicted")
    assert not any(tracker.skipped.values())
    assert tracker.finish(architecture="a", seed=0).labels is None


class Masked(nn.Module):
    """A model in which the first example cannot have its own class."""

    def __init__(self) -> None:
        super().__init__()
        self.model = new_model(0)

    def forward(self, x: Tensor) -> Tensor:
        impossible = (x[:, 0, :1, 0] == X[0, 0, 0, 0]) & (torch.arange(C) == Y[0])
        return self.model(x).masked_fill(impossible, -torch.inf)


@pytest.mark.parametrize("scores", TRACKERS[:3], ids="+".join)
def test_a_label_that_is_masked_has_an_infinite_loss_and_no_gradient_to_record(scores):
    tracker = dp.DifficultyTracker(N, scores)
    for _ in range(2):
        dp.score_checkpoint(Masked(), [(X, Y, INDEX)], tracker)
    assert tracker.skipped["not finite"] == 2
    found = tracker.compute(allow_skipped=True)[scores[0]]
    assert found.isnan().tolist() == [True] + [False] * (N - 1)


def test_labels_of_a_run_of_gradient_scores_are_known():
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    model = new_model(0)
    for _ in range(2):
        logits = model(tracker.watch(X, INDEX))
        tracker.update(INDEX, logits, Y)
        F.cross_entropy(logits, Y).backward()
    assert tracker.presentations == 2 * N
    assert tracker.finish(architecture="a", seed=0).labels.tolist() == Y.tolist()
