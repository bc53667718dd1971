"""What stops people at the last line: labels of any dtype, arrays for tensors, positions in lists, set attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

import difficulty_prune as dp

N, C = 12, 3
X, Y, INDEX = torch.randn(N, 4, generator=torch.Generator().manual_seed(0)), torch.arange(N) % C, torch.arange(N)
DTYPES = ["i1", "u1", "<i2", ">i2", ">u2", "<u4", ">i4", ">i8", "<u8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_any_integer_dtype_and_byte_order(dtype: str) -> None:
    labels = Y.numpy().astype(dtype)
    score = np.linspace(0, 1, N)
    np.testing.assert_array_equal(dp.class_normalize(score, labels), dp.class_normalize(score, Y.numpy()))
    plan = dp.policies.PerClass(dp.policies.Hardest(0.5))(score, labels)
    assert torch.equal(plan.index, dp.policies.PerClass(dp.policies.Hardest(0.5))(score, Y).index)
    sampler = dp.PruneSampler(dp.policies.Hardest(0.5), score.astype(">f4"), labels=labels)
    assert len(sampler) == 6
    known = dp.dataset_fingerprint(TensorDataset(X, Y))
    assert dp.dataset_fingerprint(TensorDataset(X, Y), labels=labels) == known
    run = dp.Run({"el2n": score.astype(">f8")}, architecture="mlp", seed=0, labels=labels)
    assert run.labels.tolist() == Y.tolist()
    tracker = dp.DifficultyTracker(N, ("el2n",))
    tracker.update(INDEX, torch.zeros(N, C), Y)
    assert tracker.finish(architecture="mlp", seed=0, labels=labels).labels.tolist() == Y.tolist()


@pytest.mark.parametrize("make", [np.asarray, list, lambda s: torch.as_tensor(s), lambda s: np.float32(s)])
def test_class_normalize_takes_what_a_run_set_gives(make) -> None:
    score = np.array([1.0, 3.0, np.nan, 10.0, 10.0])
    z = dp.class_normalize(make(score), [0, 0, 0, 1, 1])
    assert isinstance(z, Tensor) == isinstance(make(score), Tensor)
    np.testing.assert_allclose(np.asarray(z), [-1, 1, np.nan, 0, 0])


@pytest.mark.parametrize(
    ("score", "labels", "match"),
    [
        (["a", "b"], [0, 1], "score: got list, expected numbers"),
        ([1.0, 2.0], [0.0, 1.0], "labels: got torch.float64, expected whole numbers"),
        ([1.0, 2.0], [0, -1], "labels: got -1"),
        ([1.0, 2.0], [0], r"got score \(2,\) and labels \(1,\)"),
        (1.0, 0, r"expected \[N\] for both"),
    ],
)
def test_class_normalize_says_what_it_wants(score, labels, match) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        dp.class_normalize(score, labels)


class WithTransform(TensorDataset):
    transform = None

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x if self.transform is None else self.transform(x)), y


def test_what_is_set_on_the_wrapper_is_set_on_the_dataset() -> None:
    """`train.transform = ...` on the wrapper would do nothing, and nobody would notice."""
    inner = WithTransform(X, Y)
    train = dp.IndexedDataset(inner)
    train.transform = lambda x: x * 0
    assert inner.transform is not None
    assert train[3][0].sum() == 0
    train.key = "position"
    assert train.key == "position"
    assert not hasattr(inner, "key")
    with pytest.raises(AttributeError, match="tranform: WithTransform has no such attribute"):
        train.tranform = None


def test_batches_of_positions_without_collation() -> None:
    """`batch_size=None` with a sampler of lists, for data that is indexed by many positions at once."""
    train = dp.IndexedDataset(TensorDataset(X, Y))
    batches = BatchSampler(SequentialSampler(train), batch_size=5, drop_last=False)
    seen = []
    for x, y, index in DataLoader(train, batch_size=None, sampler=batches):
        assert torch.equal(x, X[index])
        assert torch.equal(y, Y[index])
        seen += index.tolist()
    assert seen == list(range(N))
    assert train[np.array([1, -1])][2].tolist() == [1, N - 1]
    with pytest.raises(IndexError, match=f"got {N}, expected 0..{N - 1}"):
        train[[0, N]]


@pytest.mark.parametrize("transform", ["grad", "vmap", "vjp"])
def test_transforms_of_functions_are_refused_and_the_documented_way_works(transform: str) -> None:
    tracker = dp.DifficultyTracker(N, ("loss", "vog_loss"))
    w = torch.zeros(4, C)

    def recording(w: Tensor) -> Tensor:
        z = X @ w
        tracker.update(INDEX, z, Y)
        return F.cross_entropy(z, Y)

    calls = {
        "grad": lambda: torch.func.grad(recording)(w),
        "vmap": lambda: torch.func.vmap(recording)(w[None]),
        "vjp": lambda: torch.func.vjp(recording, w),
    }
    with pytest.raises(ValueError, match=r"update: called inside a transform of torch.func.*has_aux=True"):
        calls[transform]()

    def returning(w: Tensor) -> tuple[Tensor, Tensor]:
        z = X @ w
        return F.cross_entropy(z, Y), z

    _, logits = torch.func.grad(returning, has_aux=True)(w)
    tracker.update(INDEX, logits, Y)
    assert tracker.presentations == N


def test_an_example_whose_gradients_were_all_zero_was_not_presented() -> None:
    """As where the loss ignores its label: it would be the easiest of all."""
    labels = torch.where(Y == 2, -100, Y)
    torch.manual_seed(0)
    model = nn.Linear(4, C)
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    for _ in range(3):
        F.cross_entropy(model(tracker.watch(X, INDEX)), labels).backward()
        with torch.no_grad():
            model.weight -= model.weight.grad
    assert torch.equal(tracker.compute()["vog_loss"].isnan(), labels < 0)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("score", ["vog", "vog_probability", "vog_loss", "el2n"])
@pytest.mark.parametrize(
    ("model", "x", "y", "match"),
    [
        (nn.Linear(4, C), X, torch.where(Y == 0, -1, Y), "labels: got -1"),
        (nn.Linear(4, C), X, torch.where(Y == 0, -100, Y), "labels: got -100"),
        (nn.Linear(4, C), X, Y.byte(), "labels: got torch.uint8"),
        (nn.Linear(4, C), X, Y[:, None], "labels: got shape"),
        (nn.Linear(4, C), X.numpy(), Y, "inputs: got ndarray"),
        (Pair(4, C), X, Y, "logits: got tuple"),
        (nn.Linear(4, C), X, Y.tolist(), "labels"),
    ],
)
def test_score_checkpoint_checks_as_update_does_whatever_the_scores(score, model, x, y, match) -> None:
    tracker = dp.DifficultyTracker(N, (score,))
    with pytest.raises((TypeError, ValueError), match=match):
        dp.score_checkpoint(model, [(x, y, INDEX)], tracker)
    assert tracker.presentations == 0


def test_images_of_bytes_are_refused_where_a_gradient_is_wanted() -> None:
    with pytest.raises(TypeError, match=r"inputs: got torch.uint8, expected floating point"):
        dp.score_checkpoint(nn.Linear(4, C), [(X.byte(), Y, INDEX)], dp.DifficultyTracker(N, ("vog",)))


@pytest.mark.parametrize(
    ("logits", "labels", "hint"),
    [
        (torch.zeros(4, 3), torch.ones(4, 3).long(), 'target="binary"'),
        (torch.zeros(4, 1), torch.ones(4).long(), 'target="binary"'),
        (torch.zeros(4, 1), torch.zeros(4).long(), 'target="binary"'),
        (torch.zeros(4, 1), torch.ones(4, 1), 'target="binary"'),
        (torch.zeros(4, 6, 3), torch.ones(4, 6).long(), r"logits\.transpose\(1, 2\)"),
        (torch.zeros(4, 3, 2, 2), torch.full((4, 2, 2), 255), "ignore_index=255"),
    ],
    ids=["several labels", "yes or no", "always no", "yes or no as a column", "text", "segmentation"],
)
def test_a_task_that_is_passed_as_another_is_told_what_to_say(logits, labels, hint) -> None:
    tracker = dp.DifficultyTracker(4)
    with pytest.raises(ValueError, match=hint):
        tracker.update(torch.arange(4), logits, labels)
    assert tracker.presentations == 0
