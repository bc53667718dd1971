"""Variance of Gradients: the number itself, and the three ways in which gradients reach it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.tracker.moments import GradientMoments

GRADIENT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# Models here compute in float64; what remains is the rounding of the recorded state, which is float32.
close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9, check_dtype=False, equal_nan=True)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, check_dtype=False, equal_nan=True)

N, CLASSES = 8, 4
INPUT = (3, 5, 6)
PIXELS = 5 * 6

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def new_model(seed: int = 0, norm: bool = False) -> nn.Sequential:
    """A small network [B, 3, 5, 6] -> [B, 4] in float64; smooth, and with large enough gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * PIXELS, CLASSES)]
        if norm:
            layers[1:1] = [nn.BatchNorm2d(4), nn.Dropout(0.5)]
        return nn.Sequential(*layers).double()


def new_data(seed: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.randn(N, *INPUT, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(CLASSES, (N,), generator=seeded(seed + 1))


def label_logit(z: Tensor, label: int) -> Tensor:
    return z[label]


def label_probability(z: Tensor, label: int) -> Tensor:
    return z.exp()[label] / z.exp().sum()


def own_loss(z: Tensor, label: int) -> Tensor:
    return z.exp().sum().log() - z[label]


TARGETS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "vog": label_logit,
    "vog_probability": label_probability,
    "vog_loss": own_loss,
}


def one_by_one(model: Callable[[Tensor], Tensor], score: str, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient [...] of each example's own target to its input, one example at a time."""
    gradients = []
    for example, label in zip(x.detach(), y.tolist(), strict=True):
        alone = example.clone()[None].requires_grad_()
        gradients += torch.autograd.grad(TARGETS[score](model(alone)[0], label), alone)[0]
    return gradients


def as_signal(gradients: list[Tensor]) -> Tensor:
    """What the tracker keeps of gradients [C, H, W]: the channel means, [B, H * W]."""
    return torch.stack(gradients).mean(1).flatten(1)


def recorded(tracker: dp.DifficultyTracker, score: str = "vog_loss") -> dict[str, Tensor]:
    return tracker.state_dict()["moments"][score]


def feed(tracker: dp.DifficultyTracker, index: Tensor, gradients: Tensor) -> None:
    """Makes exactly these gradients arrive at a watched input."""
    x = tracker.watch(torch.zeros_like(gradients), index, reduction="sum")
    if x.requires_grad:  # not in a step that is passed over
        (x * gradients).sum().backward()


# The number


@st.composite
def stacked_gradients(draw) -> Tensor:
    """[K, B, C, ...] of any dtype, order of magnitude, mean, and order in memory."""
    shape = draw(st.lists(st.integers(1, 5), min_size=3, max_size=6))
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from(GRADIENT_DTYPES))
    size, shift = draw(st.sampled_from((1e-3, 1.0, 30.0))), draw(st.sampled_from((0.0, 1.0, -50.0)))
    step = draw(st.sampled_from((1, 2)))
    wide = [size * step for size in shape]
    values = torch.randn([wide[d] for d in order], generator=seeded(draw(st.integers(0, 2**31))), dtype=torch.float64)
    values = (values * size + shift).to(dtype).permute([order.index(d) for d in range(len(shape))])
    return values[tuple(slice(None, None, step) for _ in shape)]


@settings(max_examples=200)
@given(stacked_gradients(), st.booleans())
def test_gradient_variance_equals_its_definition_in_float64(gradients: Tensor, contiguous: bool) -> None:
    g = gradients.double().numpy()
    expected = torch.tensor([oracle.vog(list(g[:, b])) for b in range(g.shape[1])], dtype=torch.float64)
    got = ops.gradient_variance(gradients.contiguous() if contiguous else gradients)
    # A deviation far below the values has no digits left in the float64 definition either.
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-13 * float(np.abs(g).max() + 1))


def test_the_variance_statistic_is_the_mean_of_the_squared_deviations() -> None:
    gradients = torch.randn(5, 3, 3, 4, 4, generator=seeded(0), dtype=torch.float64)
    variance = gradients.mean(2).var(0, correction=0).flatten(1).mean(1)
    close(ops.gradient_variance(gradients, "variance"), variance)


def test_the_order_of_mean_and_deviation_is_the_papers() -> None:
    """Channels are averaged with their sign, deviations have ddof 0, and the mean over pixels comes last."""
    first, second = torch.tensor([[0.0, 0.0], [2.0, 8.0]]), torch.tensor([[4.0, 0.0], [2.0, -8.0]])  # [C, P]
    # channel means: (1, 4) and (3, -4); deviations: (1, 4); mean over pixels: 2.5
    assert ops.gradient_variance(torch.stack([first, second])[:, None]).tolist() == [2.5]
    moments = GradientMoments(1, 2, torch.device("cpu"))
    moments.record(torch.tensor([0, 0]), torch.stack([first, second]))
    assert moments.vog().tolist() == [2.5]


def observations(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Gradients [60, 3, 5, 6] of examples 0..6, an unequal number each; example 7 has none."""
    index = torch.randint(N - 1, (60,), generator=seeded(seed))
    return index, torch.randn(60, *INPUT, generator=seeded(seed + 1)).to(dtype)


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_recording_gradients_in_any_order_and_batches_equals_the_oracle(dtype, seed: int) -> None:
    index, gradients = observations(dtype, seed)
    expected = torch.from_numpy(oracle.vog_scores(N, zip(index.tolist(), gradients.double().numpy(), strict=True)))
    order = torch.randperm(60, generator=seeded(seed + 2))
    for batches in [order[None], order.split(1), order.split(7), torch.arange(60).split(16)]:
        moments = GradientMoments(N, PIXELS, torch.device("cpu"))
        tracker = dp.DifficultyTracker(N, ("vog_loss",))
        for batch in batches:
            moments.record(index[batch], gradients[batch])
            feed(tracker, index[batch], gradients[batch])
        close(moments.vog(), expected)
        close(tracker.compute()["vog_loss"], expected)
        assert tracker.presentations == 60


@pytest.mark.parametrize("seed", range(3))
def test_recording_equals_gradient_variance_of_the_same_gradients(seed: int) -> None:
    gradients = torch.randn(6, N, *INPUT, generator=seeded(seed))
    moments = GradientMoments(N, PIXELS, torch.device("cpu"))
    for checkpoint in gradients:
        order = torch.randperm(N, generator=seeded(seed))
        moments.record(order, checkpoint[order])
    close(moments.vog(), ops.gradient_variance(gradients))


def test_one_observation_has_no_variance_and_none_is_nan() -> None:
    moments = GradientMoments(3, 4, torch.device("cpu"))
    moments.record(torch.tensor([0]), 1e6 * torch.randn(1, 3, 4, generator=seeded(0)))
    identical(moments.vog(), torch.tensor([0.0, torch.nan, torch.nan]))


# From the training step's own backward pass

EXAMPLES = torch.tensor([6, 2, 5, 0, 7, 1])  # the batch's examples, which are not its positions
WEIGHTS = torch.tensor([0.5, 3.0, 1.0, 0.0, 0.1, 7.0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=1024)], ids=["", "scaled"])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_watch_records_the_gradient_of_each_examples_own_loss(reduction, weighted, scaler, batch: int) -> None:
    model, (x, y), index = new_model(), new_data(), EXAMPLES[:batch]
    weight = WEIGHTS[:batch] if weighted else None
    tracker = dp.DifficultyTracker(N, ("vog_loss",))

    watched = tracker.watch(x[index], index, weight=weight, reduction=reduction, scaler=scaler)
    loss = F.cross_entropy(model(watched), y[index], reduction="none")
    loss = loss if weight is None else loss * weight
    loss = loss.mean() if reduction == "mean" else loss.sum()
    (loss if scaler is None else scaler.scale(loss)).backward()

    shown = index if weight is None else index[weight != 0]
    count = torch.zeros(N, dtype=torch.int32)
    count[shown] = 1
    identical(recorded(tracker)["count"], count)
    expected = torch.zeros(N, PIXELS)
    expected[shown] = as_signal(one_by_one(model, "vog_loss", x[shown], y[shown])).float()
    close(recorded(tracker)["mean"], expected)
    score = tracker.compute()["vog_loss"]
    identical(score, torch.where(count == 1, 0.0, torch.nan))


def test_a_disabled_scaler_scales_nothing() -> None:
    tracker = dp.DifficultyTracker(1, ("vog_loss",))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    x = tracker.watch(torch.zeros(1, 1, 3), torch.tensor([0]), scaler=scaler)
    scaler.scale((2 * x).sum()).backward()
    identical(recorded(tracker)["mean"], torch.full((1, 3), 2.0))


def training(steps: int = 12) -> Iterator[tuple[nn.Module, Tensor, Tensor, torch.optim.Optimizer]]:
    """A model in training with the examples of each step: batch sizes change, examples repeat over steps."""
    model = new_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(steps):
        index = torch.randperm(N - 1, generator=seeded(step))[: 1 + step % 5]  # example 7 is never drawn
        optimizer.zero_grad()
        yield model, index, torch.rand(len(index), generator=seeded(100 + step)) + 0.2, optimizer


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_vog_loss_of_a_training_run_equals_the_oracle(reduction: str) -> None:
    """Neither batch size, nor weights, nor a loss scale that grows on the way may change the score."""
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=2)
    gradients: list[tuple[int, np.ndarray]] = []
    for model, index, weight, optimizer in training():
        gradients += zip(
            index.tolist(), [g.numpy() for g in one_by_one(model, "vog_loss", x[index], y[index])], strict=True
        )
        watched = tracker.watch(x[index], index, weight=weight, reduction=reduction, scaler=scaler)
        loss = F.cross_entropy(model(watched), y[index], reduction="none") * weight
        scaler.scale(loss.mean() if reduction == "mean" else loss.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() > 1024
    score = tracker.compute()["vog_loss"]
    torch.testing.assert_close(
        score.double(), torch.from_numpy(oracle.vog_scores(N, gradients)), rtol=3e-6, atol=1e-8, equal_nan=True
    )
    assert (score[:-1] > 0).all()


def test_watch_leaves_no_gradient_behind_and_training_alone() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    watched = tracker.watch(x, torch.arange(N))
    identical(watched, x)
    F.cross_entropy(model(watched), y).backward()
    assert x.grad is None
    assert not x.requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns whoever asks for .grad of a tensor that is not a leaf
        assert watched.grad is None
    for node, _ in watched.grad_fn.next_functions:  # nor does a hidden leaf hold memory of the size of the batch
        assert node is None or node.variable.grad is None

    plain = new_model()
    F.cross_entropy(plain(x), y).backward()
    for got, expected in zip(model.parameters(), plain.parameters(), strict=True):
        identical(got.grad, expected.grad)


def test_gradients_still_flow_to_inputs_that_require_them() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    leaf, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    F.cross_entropy(model(tracker.watch(leaf, torch.arange(N))), y).backward()
    F.cross_entropy(model(plain), y).backward()
    identical(leaf.grad, plain.grad)
    close(recorded(tracker)["mean"], as_signal(one_by_one(model, "vog_loss", x, y)))


def test_gradients_still_flow_to_what_the_inputs_were_computed_from() -> None:
    """Embeddings are watched where the inputs are integers; their table must go on learning."""
    tokens, table = torch.tensor([[1, 0, 2], [2, 2, 1]]), torch.randn(3, 4, generator=seeded(0)).requires_grad_()
    g = torch.randn(2, 3, 4, generator=seeded(1))
    tracker = dp.DifficultyTracker(2, ("vog_loss",))
    embedded = tracker.watch(F.embedding(tokens, table), torch.arange(2), reduction="sum")
    (embedded * g).sum().backward()
    close(table.grad, torch.zeros(3, 4).index_add_(0, tokens.flatten(), g.flatten(0, 1)))
    close(recorded(tracker)["mean"], g.mean(1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_watch_without_gradients_returns_the_inputs(mode) -> None:
    """An evaluation pass in between is no step, also where only every second step is recorded."""
    tracker = dp.DifficultyTracker(2, ("vog_loss",), gradient=dp.GradientOptions(every=2))
    x, index = torch.randn(2, 3, 4, generator=seeded(0)), torch.arange(2)
    with mode():
        assert tracker.watch(x, index) is x
    assert tracker.state_dict()["moments"] == {}
    feed(tracker, index, torch.ones(2, 3, 4))
    assert recorded(tracker)["count"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("requires_grad", "given_to_update"), [(False, "watched"), (True, "watched"), (True, "original")]
)
def test_watch_and_update_do_not_disturb_each_other(requires_grad: bool, given_to_update: str) -> None:
    """The extra backward passes of `update` must not be taken for the training step's own."""
    model, (x, y), index = new_model(), new_data(), torch.arange(N)
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss", "el2n"))
    inputs = x.clone().requires_grad_(requires_grad)
    watched = tracker.watch(inputs, index)
    logits = model(watched)
    # float64 is what the models of this file compute in, and more than logit scores take.
    tracker.update(index, logits.float(), y, inputs=watched if given_to_update == "watched" else inputs)
    F.cross_entropy(logits, y).backward()

    for score in TARGETS:
        assert recorded(tracker, score)["count"].tolist() == [1] * N, score
        expected = as_signal(one_by_one(model, score, x, y))
        torch.testing.assert_close(recorded(tracker, score)["mean"].double(), expected, rtol=1e-5, atol=1e-7)
    plain = new_model()
    F.cross_entropy(plain(x), y).backward()
    for got, wanted in zip(model.parameters(), plain.parameters(), strict=True):
        identical(got.grad, wanted.grad)


def test_watch_needs_the_score_that_it_serves() -> None:
    with pytest.raises(ValueError, match="vog_loss"):
        dp.DifficultyTracker(2, ("vog",)).watch(torch.zeros(2, 3), torch.arange(2))


def test_gradients_that_are_not_finite_are_left_out_counted_and_reported() -> None:
    tracker = dp.DifficultyTracker(3, ("vog_loss",))
    gradients = torch.randn(3, 2, 4, generator=seeded(0))
    feed(tracker, torch.arange(3), gradients)
    overflowed = gradients.clone()
    overflowed[1, 0, 2] = torch.inf
    feed(tracker, torch.arange(3), overflowed + 1)
    with pytest.raises(ValueError, match="1 x not finite"):
        tracker.compute()
    close(tracker.compute(allow_skipped=True)["vog_loss"], torch.tensor([0.5, 0.0, 0.5]), atol=1e-6)


# By one extra backward pass


@pytest.mark.parametrize("scores", [("vog",), ("vog_probability",), ("vog_probability", "vog", "el2n")])
def test_update_with_inputs_equals_the_loop_over_a_training_run(scores: tuple[str, ...]) -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores)
    gradients: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in scores if name.startswith("vog")}
    for model, index, _, optimizer in training():
        for score, seen in gradients.items():
            loop = one_by_one(model, score, x[index], y[index])
            seen += zip(index.tolist(), [g.numpy() for g in loop], strict=True)
        batch = x[index].requires_grad_()
        logits = model(batch)
        tracker.update(index, logits.float(), y[index], inputs=batch)
        assert batch.grad is None
        F.cross_entropy(logits, y[index]).backward()
        optimizer.step()
    for score, seen in gradients.items():
        expected = torch.from_numpy(oracle.vog_scores(N, seen))
        got = tracker.compute()[score]
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-8, equal_nan=True)
        assert (got[:-1] > 0).all()


def test_update_without_inputs_says_which_scores_need_them() -> None:
    tracker = dp.DifficultyTracker(2, ("vog", "el2n"))
    with pytest.raises(ValueError, match="vog"):
        tracker.update(torch.arange(2), torch.zeros(2, 3), torch.zeros(2).long())


def test_inputs_that_the_logits_do_not_depend_on_are_refused() -> None:
    tracker, index, y = dp.DifficultyTracker(2, ("vog",)), torch.arange(2), torch.zeros(2).long()
    x, weight = torch.zeros(2, 3), torch.zeros(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match="depend"):
        tracker.update(index, x @ weight, y, inputs=x)
    with pytest.raises(ValueError, match="depend"):
        tracker.update(index, x @ weight, y, inputs=torch.zeros(2, 3, requires_grad=True))


def test_a_gradient_score_that_never_got_a_gradient_says_so() -> None:
    tracker = dp.DifficultyTracker(2, ("el2n", "vog_loss"))
    tracker.update(torch.arange(2), torch.zeros(2, 3), torch.zeros(2).long())
    with pytest.raises(RuntimeError, match=r"vog_loss: no gradient arrived; call x = tracker\.watch"):
        tracker.compute()


# Options


def test_every_second_step_is_recorded_from_the_first_on() -> None:
    tracker = dp.DifficultyTracker(2, ("vog_loss", "vog"), gradient=dp.GradientOptions(every=2))
    index, y = torch.arange(2), torch.tensor([0, 1])
    gradients = torch.randn(5, 2, 3, 4, generator=seeded(0))
    for step in range(5):
        x = tracker.watch(torch.zeros(2, 3, 4).requires_grad_(), index, reduction="sum")
        logits = (x * gradients[step]).sum((1, 2))[:, None] * torch.tensor([1.0, -2.0])
        tracker.update(index, logits, y, inputs=x)
        (logits.sum(1) * -1).sum().backward()
    signal = gradients[::2].double().mean(2)
    for score, factor in (("vog_loss", torch.ones(2)), ("vog", torch.tensor([1.0, 2.0]))):
        assert recorded(tracker, score)["count"].tolist() == [3, 3]
        torch.testing.assert_close(
            tracker.compute()[score].double(), signal.std(0, correction=0).mean(1) * factor, rtol=1e-5, atol=0
        )


@pytest.mark.parametrize(
    ("channel_dim", "shape", "channels_at", "pixels"),
    [(1, (3, 4, 5), 0, 20), (None, (3, 4, 5), None, 60), (3, (4, 5, 3), 2, 20), (2, (7, 3), 1, 7), (1, (6,), None, 6)],
)
def test_where_channels_are(channel_dim, shape: tuple[int, ...], channels_at: int | None, pixels: int) -> None:
    """[B, C, ...], no channels, channels last, tokens x features, and plain vectors, which have no channels."""
    gradients = torch.randn(4, 5, *shape, generator=seeded(0))
    tracker = dp.DifficultyTracker(5, ("vog_loss",), gradient=dp.GradientOptions(channel_dim=channel_dim))
    for step in gradients:
        feed(tracker, torch.arange(5), step)
    assert recorded(tracker)["mean"].shape == (5, pixels)
    signal = gradients.double() if channels_at is None else gradients.double().mean(channels_at + 2)
    close(tracker.compute()["vog_loss"], signal.std(0, correction=0).flatten(1).mean(1))


def test_a_channel_dimension_that_the_input_lacks_is_refused() -> None:
    tracker = dp.DifficultyTracker(2, ("vog_loss",), gradient=dp.GradientOptions(channel_dim=3))
    with pytest.raises(ValueError, match=r"channel_dim: got 3.*\(2, 3, 4\)"):
        tracker.watch(torch.zeros(2, 3, 4), torch.arange(2))


# A frozen model


def test_a_frozen_model_has_no_variance() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss"))
    for _ in range(5):
        watched = tracker.watch(x, torch.arange(N))
        logits = model(watched)
        tracker.update(torch.arange(N), logits.float(), y, inputs=watched)
        F.cross_entropy(logits, y).backward()
    for name, score in tracker.compute().items():
        identical(score, torch.zeros(N), msg=name)


def test_a_frozen_model_has_no_variance_at_checkpoints_or_in_other_batches() -> None:
    """Other batches round differently; what is left must be nothing beside the gradient itself."""
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss"))
    for seed in range(4):
        batches = torch.randperm(N, generator=seeded(seed)).split(seed + 1)
        loader = [(x[batch], y[batch], batch) for batch in batches]
        dp.score_checkpoint(nn.Sequential(model, ToFloat()), loader, tracker)
    for name, score in tracker.compute().items():
        size = recorded(tracker, name)["mean"].abs().mean()
        assert float(score.max()) < 1e-6 * float(size), name


class ToFloat(nn.Module):
    """The last layer of a float64 model that gives float32 logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


# At checkpoints


class Indexed(nn.Module):
    """A model with every mode-dependent layer, whose modes are mixed as fine-tuning leaves them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body = new_model(seed, norm=True)
        self.head = ToFloat()
        self.train()
        self.body[1].eval()  # batch norm kept frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def checkpoints(count: int = 3) -> list[Indexed]:
    models = [Indexed(seed) for seed in range(count)]
    for seed, model in enumerate(models):
        model.body[1].running_mean.copy_(torch.randn(4, generator=seeded(seed)))
        model.body[1].running_var.copy_(torch.rand(4, generator=seeded(seed)) + 0.5)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float(number)) if number % 2 else None
    return models


def loader_of(x: Tensor, y: Tensor, seed: int, batch_size: int = 3) -> DataLoader:
    data = dp.IndexedDataset(TensorDataset(x, y))
    return DataLoader(data, batch_size=batch_size, shuffle=True, generator=seeded(seed))


def test_score_checkpoint_equals_the_oracle_over_three_checkpoints() -> None:
    x, y = new_data()
    scores = ("vog", "el2n", "vog_probability", "vog_loss", "aum")
    tracker = dp.DifficultyTracker(N, scores)
    gradients: dict[str, list[tuple[int, np.ndarray]]] = {score: [] for score in TARGETS}
    logits: list[tuple[int, np.ndarray, int]] = []
    for seed, model in enumerate(checkpoints()):
        before = [(m, m.training) for m in model.modules()]
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        dp.score_checkpoint(model, loader_of(x, y, seed), tracker)

        assert [(m, m.training) for m in model.modules()] == before
        for name, value in model.state_dict().items():
            identical(value, kept[name])
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            assert parameter.requires_grad
            assert (parameter.grad is None) == (grad is None)
            if grad is not None:
                identical(parameter.grad, grad)

        model.eval()
        for score, seen in gradients.items():
            seen += enumerate(g.numpy() for g in one_by_one(model.body, score, x, y))
        logits += zip(range(N), model(x).detach().double().numpy(), y.tolist(), strict=True)

    got = tracker.compute()
    assert tuple(got) == scores
    for score, seen in gradients.items():
        expected = torch.from_numpy(oracle.vog_scores(N, seen))
        torch.testing.assert_close(got[score].double(), expected, rtol=1e-5, atol=1e-8)
    of_logits = oracle.logit_scores(N, logits)
    for score in ("el2n", "aum"):
        torch.testing.assert_close(got[score].double(), torch.from_numpy(of_logits[score]), rtol=1e-5, atol=1e-6)


def test_score_checkpoint_works_without_gradients_around_it_and_with_frozen_parameters() -> None:
    x, y = new_data()
    plain, unusual = dp.DifficultyTracker(N, ("vog",)), dp.DifficultyTracker(N, ("vog",))
    for model in checkpoints():
        dp.score_checkpoint(model, loader_of(x, y, 0), plain)
        model.requires_grad_(False)
        with torch.no_grad():
            dp.score_checkpoint(model, loader_of(x, y, 0), unusual)
            assert not torch.is_grad_enabled()
    identical(unusual.compute()["vog"], plain.compute()["vog"])
    assert (plain.compute()["vog"] > 0).all()


def test_score_checkpoint_takes_mappings_and_leaves_the_batch_alone() -> None:
    x, y = new_data()
    (model,) = checkpoints(1)
    batch = {"input": x, "label": y, "index": torch.arange(N)}
    of_mappings, of_tuples = dp.DifficultyTracker(N, ("el2n", "vog")), dp.DifficultyTracker(N, ("el2n", "vog"))
    dp.score_checkpoint(model, [batch], of_mappings)
    dp.score_checkpoint(model, [(x, y, torch.arange(N))], of_tuples)
    assert not x.requires_grad
    assert x.grad is None
    identical(of_mappings.compute()["el2n"], of_tuples.compute()["el2n"])
    identical(recorded(of_mappings, "vog")["mean"], recorded(of_tuples, "vog")["mean"])


def test_score_checkpoint_restores_the_modes_after_a_failure() -> None:
    x, y = new_data()
    (model,) = checkpoints(1)
    before = [m.training for m in model.modules()]
    with pytest.raises(ValueError, match="IndexedDataset"):
        dp.score_checkpoint(model, [(x, y, torch.arange(N)), (x, y)], dp.DifficultyTracker(N, ("vog",)))
    assert [m.training for m in model.modules()] == before


# Merging and saving


def test_the_trackers_of_two_processes_merge_to_that_of_one() -> None:
    """Each process sees its half of every batch, as under distributed data parallel training."""
    x, y = new_data()
    scores = ("vog_loss", "vog", "el2n")
    one, *both = (dp.DifficultyTracker(N, scores) for _ in range(3))

    def step(tracker: dp.DifficultyTracker, model: nn.Module, index: Tensor) -> None:
        watched = tracker.watch(x[index], index)
        logits = model(watched)
        tracker.update(index, logits.float(), y[index], inputs=watched)
        F.cross_entropy(logits, y[index]).backward()

    for number in range(6):
        model = new_model(number)
        index = torch.randperm(N - 1, generator=seeded(number))[:6]
        step(one, model, index)
        for rank, tracker in enumerate(both):
            step(tracker, model, index[rank::2])
    first, second = both
    first.merge(second)
    assert first.presentations == one.presentations == 36
    expected = one.compute()
    for name, score in first.compute().items():
        torch.testing.assert_close(score, expected[name], rtol=3e-6, atol=1e-8, equal_nan=True, msg=name)
        assert score[-1].isnan()


@pytest.mark.parametrize("empty", ["first", "second"])
def test_merging_with_a_tracker_that_saw_no_gradient(empty: str) -> None:
    index, gradients = observations(torch.float32, 0)
    trackers = {name: dp.DifficultyTracker(N, ("vog_loss",)) for name in ("first", "second")}
    full = trackers["second" if empty == "first" else "first"]
    feed(full, index, gradients)
    before = full.compute()["vog_loss"]
    trackers["first"].merge(trackers["second"])
    merged = trackers["first"].compute()["vog_loss"]
    identical(merged, before)
    feed(trackers["first"], index, gradients + 1)  # its own state, not the other tracker's
    if empty == "first":
        identical(full.compute()["vog_loss"], before)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_tracker_of_gradients_goes_on_from_a_saved_state(stop_after: int) -> None:
    """Also the position within `every` is part of the state."""
    options = dp.GradientOptions(every=2)
    gradients = torch.randn(6, N, *INPUT, generator=seeded(0))

    def new() -> dp.DifficultyTracker:
        return dp.DifficultyTracker(N, ("vog_loss",), gradient=options)

    never_stopped, stopped, resumed = new(), new(), new()
    for step in range(6):
        feed(never_stopped, torch.arange(N), gradients[step])
        feed(stopped if step < stop_after else resumed, torch.arange(N), gradients[step])
        if step + 1 == stop_after:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            file.seek(0)
            resumed.load_state_dict(torch.load(file, weights_only=True))
    identical(resumed.compute()["vog_loss"], never_stopped.compute()["vog_loss"])
    close(resumed.compute()["vog_loss"], ops.gradient_variance(gradients[::2]))


def test_a_step_that_overflows_under_a_scaler_is_left_out_and_no_fault():
    """The scaler provokes such steps and leaves them out of the training; without a scaler they are reported."""
    for scaler in (torch.amp.GradScaler("cpu", init_scale=3e38), None):
        tracker = dp.DifficultyTracker(1, scores=("vog_loss",))
        for factor in (1.0, 100.0):
            x = tracker.watch(torch.ones(1, 1, 2, 2), torch.tensor([0]), scaler=scaler, reduction="sum")
            loss = x.sum() * factor
            (scaler.scale(loss) if scaler else loss * torch.inf).backward()
        if scaler:
            assert tracker.compute()["vog_loss"].tolist() == [0.0]
        else:
            with pytest.raises(ValueError, match="2 x not finite"):
                tracker.compute()


def test_watched_inputs_that_the_model_never_got_are_reported():
    tracker = dp.DifficultyTracker(2, scores=("el2n", "vog_loss"))
    x = torch.randn(2, 1, 2, 2)
    tracker.watch(x, torch.arange(2))
    tracker.update(torch.arange(2), x.flatten(1), torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match=r"no gradient arrived.*give that x to the model"):
        tracker.compute()


def test_update_with_inputs_after_the_backward_pass_says_when_to_call_it():
    tracker = dp.DifficultyTracker(2, scores=("vog",))
    x = torch.randn(2, 1, 2, 2, requires_grad=True)
    logits = (x * x).flatten(1)
    logits.sum().backward()
    with pytest.raises(RuntimeError, match=r"before loss\.backward"):
        tracker.update(torch.arange(2), logits, torch.tensor([0, 1]), inputs=x)
