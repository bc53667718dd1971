"""What `score_checkpoint` records: chosen scores, GraNd, and data without labels."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

N, CLASSES = 7, 3

pytestmark = pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")


def new_model(seed: int) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, CLASSES))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    return model


def new_data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 4, generator=torch.Generator().manual_seed(9)), torch.arange(N) % CLASSES


def loader_of(*tensors: Tensor, batch_size: int = 3) -> DataLoader:
    return DataLoader(dp.IndexedDataset(TensorDataset(*tensors)), batch_size=batch_size)


def gradient_norms(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One example at a time."""
    model.eval()
    norms = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(sum(g.square().sum() for g in gradients).sqrt())
    return torch.stack(norms)


def test_grand_is_the_mean_over_the_checkpoints_shown() -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores=("grand",))
    expected = torch.zeros(N)
    for seed in range(3):
        model = new_model(seed).train()
        dp.score_checkpoint(model, loader_of(x, y), tracker)
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
        expected += gradient_norms(model, x, y) / 3
    torch.testing.assert_close(tracker.compute()["grand"], expected)
    assert tracker.presentations == 3 * N


def test_grand_at_chosen_epochs_leaves_the_scores_of_the_steps_alone() -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores=("el2n", "grand"))
    model = new_model(0)
    tracker.update(torch.arange(N), model(x).detach(), y)
    before = tracker.presentations
    dp.score_checkpoint(model, loader_of(x, y), tracker, scores=("grand",))
    assert tracker.presentations == before
    torch.testing.assert_close(tracker.compute()["grand"], gradient_norms(model, x, y))


def test_grand_goes_with_the_state_and_into_the_run() -> None:
    x, y = new_data()
    trackers = [dp.DifficultyTracker(N, scores=("grand",)) for _ in range(2)]
    for seed, tracker in enumerate(trackers):
        dp.score_checkpoint(new_model(seed), loader_of(x, y), tracker)
    file = io.BytesIO()
    torch.save(trackers[0].state_dict(), file)
    file.seek(0)
    resumed = dp.DifficultyTracker(N, scores=("grand",))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.merge(trackers[1])
    expected = sum(gradient_norms(new_model(seed), x, y) for seed in range(2)) / 2
    run = resumed.finish(architecture="mlp", seed=0)
    torch.testing.assert_close(torch.from_numpy(run.scores["grand"].copy()), expected)


def test_grand_that_never_came_says_how_to_get_it() -> None:
    tracker = dp.DifficultyTracker(N, scores=("el2n", "grand"))
    tracker.update(torch.tensor([0]), torch.randn(1, CLASSES), torch.tensor([0]))
    with pytest.raises(RuntimeError, match=r"grand: no gradient arrived; call dp\.score_checkpoint"):
        tracker.compute()


def test_only_the_chosen_scores_are_recorded() -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores=("el2n", "vog", "vog_loss"))
    dp.score_checkpoint(new_model(0), loader_of(x, y), tracker)
    dp.score_checkpoint(new_model(1), loader_of(x, y), tracker, scores=("vog",))
    one, two = tracker.compute(), dp.DifficultyTracker(N, scores=("el2n", "vog", "vog_loss"))
    for seed in range(2):
        dp.score_checkpoint(new_model(seed), loader_of(x, y), two)
    torch.testing.assert_close(one["vog"], two.compute()["vog"])
    torch.testing.assert_close(one["vog_loss"], torch.zeros(N))  # one gradient has no variance
    assert tracker.presentations == N


@pytest.mark.parametrize("scores", [("vog",), ("nothing",)])
def test_a_score_that_the_tracker_lacks_is_refused_before_any_work(scores: tuple[str, ...]) -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores=("el2n",))
    with pytest.raises(ValueError, match=scores[0]):
        dp.score_checkpoint(new_model(0), loader_of(x, y), tracker, scores=scores)
    assert tracker.presentations == 0


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("score", ["vog", "vog_loss", "vog_probability", "el2n", "grand"])
def test_the_predicted_label_stands_in_where_there_is_none(score: str, with_labels: bool) -> None:
    x, _ = new_data()
    with_predictions, without = (dp.DifficultyTracker(N, scores=(score,)) for _ in range(2))
    for seed in range(3):
        model = new_model(0)
        for parameter in model[-1].parameters():  # another model, with the same predictions
            parameter.data *= 1 + seed
        predicted = model.eval()(x).argmax(1)
        dp.score_checkpoint(model, loader_of(x, predicted), with_predictions)
        wrong = (predicted + 1) % CLASSES  # which must not be looked at
        loader = loader_of(x, wrong) if with_labels else [(x, torch.arange(N))]
        dp.score_checkpoint(model, loader, without, label="predicted")
    torch.testing.assert_close(without.compute()[score], with_predictions.compute()[score])


def test_batches_without_labels_are_refused_where_labels_are_needed() -> None:
    tracker = dp.DifficultyTracker(N, scores=("el2n",))
    with pytest.raises(ValueError, match="got a batch of list of 2, expected"):
        dp.score_checkpoint(new_model(0), DataLoader(dp.IndexedDataset(TensorDataset(new_data()[0]))), tracker)


def test_another_kind_of_label_is_refused() -> None:
    with pytest.raises(ValueError, match="label: got 'best', expected 'true' or 'predicted'"):
        dp.score_checkpoint(new_model(0), [], dp.DifficultyTracker(N), label="best")


def test_predictions_do_not_become_the_labels_of_the_run() -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores=("el2n",))
    dp.score_checkpoint(new_model(0), loader_of(x, y), tracker, label="predicted")
    resumed = dp.DifficultyTracker(N, scores=("el2n",))
    resumed.load_state_dict(tracker.state_dict())
    merged = dp.DifficultyTracker(N, scores=("el2n",))
    merged.merge(tracker)
    for each in (tracker, resumed, merged):
        run = each.finish(architecture="mlp", seed=0)
        assert run.labels is None
        assert run.metadata["options"] == {"label": "predicted"}
        assert each.finish(architecture="mlp", seed=0, labels=y).labels.tolist() == y.tolist()


@pytest.mark.parametrize("score", ["accuracy", "forgetting", "learning_time", "consistently_learned"])
def test_the_prediction_is_not_compared_with_itself(score: str) -> None:
    tracker = dp.DifficultyTracker(N, scores=("el2n", score))
    with pytest.raises(ValueError, match=f"label: {score!r} compares the prediction"):
        dp.score_checkpoint(new_model(0), loader_of(*new_data()), tracker, label="predicted")
    assert tracker.presentations == 0


@pytest.mark.parametrize("score", ["vog", "vog_loss"])
def test_a_run_in_which_every_gradient_was_seen_once_says_so(score: str) -> None:
    tracker = dp.DifficultyTracker(N, scores=(score,))
    dp.score_checkpoint(new_model(0), loader_of(*new_data()), tracker)
    with pytest.warns(UserWarning, match=f"{score}: no example's gradient was seen more than once"):
        tracker.finish(architecture="mlp", seed=0)
    dp.score_checkpoint(new_model(1), loader_of(*new_data()), tracker)
    tracker.finish(architecture="mlp", seed=0)


def test_a_tracker_is_not_merged_with_itself() -> None:
    tracker = dp.DifficultyTracker(N)
    with pytest.raises(ValueError, match="merge: got the tracker itself"):
        tracker.merge(tracker)


class Normalising(nn.Module):
    """A model that normalises its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.model = new_model(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.sub_(0.5).div_(2.0))


@pytest.mark.parametrize("score", ["el2n", "vog", "vog_loss", "grand"])
def test_a_model_may_work_on_its_input_in_place(score: str) -> None:
    x, y = new_data()
    found = []
    for model, inputs in ((Normalising(), x.clone()), (new_model(0), (x - 0.5) / 2)):
        tracker = dp.DifficultyTracker(N, scores=(score,))
        dp.score_checkpoint(model, loader_of(inputs, y), tracker)
        found.append(tracker.compute()[score])
        assert inputs.equal(x if isinstance(model, Normalising) else (x - 0.5) / 2)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("batch", ["tuple", "mapping"])
@pytest.mark.parametrize("score", ["el2n", "vog", "grand"])
def test_labels_that_are_none_are_not_replaced_by_predictions(batch: str, score: str) -> None:
    x, _ = new_data()
    index = torch.arange(N)
    one = (x, None, index) if batch == "tuple" else {"input": x, "label": None, "index": index}
    tracker = dp.DifficultyTracker(N, scores=(score,))
    with pytest.raises(ValueError, match=r"got None for the labels, .* label=.predicted."):
        dp.score_checkpoint(new_model(0), [one], tracker)
    for seed in range(2):
        dp.score_checkpoint(new_model(seed), [one], tracker, label="predicted")
    assert tracker.finish(architecture="a", seed=0).labels is None
