"""GraNd of any loss against one backward pass per example: text, segmentation, soft labels, several labels, numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from grand_models import CLASSES, B, Of, classes, close, grand, images, made, parameter, routes, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import difficulty_prune as dp

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.usefixtures("one_thread"),
]
Loss = Callable[[Tensor, Any], Tensor]
WORDS = 11


def one_by_one(model: nn.Module, x: Tensor, y: Any, loss: Loss) -> Tensor:
    """The definition: a backward pass for each example alone, and the norm of everything it leaves in `.grad`."""
    norms = []
    for i in range(len(x)):
        model.zero_grad()
        loss(model(x[i : i + 1]), tree_map(lambda t, i=i: t[i : i + 1], y)).sum().backward()
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)))
    model.zero_grad()
    return torch.tensor(norms, dtype=torch.float64)


def exact(model: nn.Module, x: Tensor, y: Any, loss: Loss) -> None:
    """The same numbers, without a warning: not by one pass per example."""
    expected = one_by_one(model, x, y, loss)
    assert (expected > 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(grand(model, x, y, loss), expected)


# Losses


def token_mean(outputs: Tensor, y: Tensor) -> Tensor:
    """Of the tokens that count, as the loss of a language model is where each text comes alone."""
    losses = F.cross_entropy(outputs[:, :-1].transpose(1, 2), y[:, 1:], reduction="none")
    return losses.sum(1) / (y[:, 1:] != -100).sum(1).clamp(min=1)


def token_sum(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs[:, :-1].transpose(1, 2), y[:, 1:], reduction="none").sum(1)


def mixup(outputs: Tensor, y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    first, second, share = y
    losses = [F.cross_entropy(outputs, labels, reduction="none") for labels in (first, second)]
    return share * losses[0] + (1 - share) * losses[1]


def distillation(outputs: Tensor, y: dict[str, Any]) -> Tensor:
    teacher = F.kl_div(outputs.log_softmax(1), y["teacher"].softmax(1), reduction="none").sum(1)
    return 0.5 * teacher + 0.5 * F.cross_entropy(outputs, y["label"], reduction="none")


LOSSES: dict[str, tuple[Loss, Callable[[int, torch.Generator], Any]]] = {
    "regression": (
        lambda z, y: (z - y).square().mean(1),
        lambda n, g: torch.randn(n, CLASSES, generator=g, dtype=torch.float64),
    ),
    "huber": (
        lambda z, y: F.huber_loss(z, y, reduction="none").sum(1),
        lambda n, g: torch.randn(n, CLASSES, generator=g, dtype=torch.float64),
    ),
    "soft labels": (
        lambda z, y: F.cross_entropy(z, y, reduction="none"),
        lambda n, g: torch.randn(n, CLASSES, generator=g, dtype=torch.float64).softmax(1),
    ),
    "smoothed": (
        lambda z, y: F.cross_entropy(z, y, reduction="none", label_smoothing=0.1),
        lambda n, g: torch.randint(CLASSES, (n,), generator=g),
    ),
    "several labels": (
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none").mean(1),
        lambda n, g: torch.randint(2, (n, CLASSES), generator=g).double(),
    ),
    "mixup": (
        mixup,
        lambda n, g: (
            torch.randint(CLASSES, (n,), generator=g),
            torch.randint(CLASSES, (n,), generator=g),
            torch.rand(n, generator=g, dtype=torch.float64),
        ),
    ),
    "distillation": (
        distillation,
        lambda n, g: {
            "teacher": torch.randn(n, CLASSES, generator=g, dtype=torch.float64),
            "label": torch.randint(CLASSES, (n,), generator=g),
        },
    ),
    "reduced": (nn.MSELoss(), lambda n, g: torch.randn(n, CLASSES, generator=g, dtype=torch.float64)),
    "of a single number": (
        lambda z, y: F.softplus(-y * z[:, 0]),
        lambda n, g: 2.0 * torch.randint(2, (n,), generator=g) - 1,
    ),
}


@settings(max_examples=60)
@given(st.sampled_from(sorted(LOSSES)), st.integers(1, 6), st.integers(0, 99))
def test_any_loss_and_any_labels(kind: str, rows: int, seed: int) -> None:
    loss, labels = LOSSES[kind]
    model = made(lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, CLASSES)), seed)
    exact(model, images(rows, 4, seed=seed), labels(rows, seeded(seed)), loss)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 99))
def test_segmentation(rows: int, seed: int) -> None:
    def of_pixels(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none", ignore_index=255).sum((1, 2)) / (y != 255).sum((1, 2))

    model = made(lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, CLASSES, 1)), seed)
    y = torch.randint(CLASSES, (rows, 4, 5), generator=seeded(seed))
    y[torch.rand(y.shape, generator=seeded(seed)) < 0.2] = 255
    y[:, 0, 0] = 0
    exact(model, images(rows, 2, 4, 5, seed=seed), y, of_pixels)


def texts(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens, and the same as labels: of each text a few, and -100 for the rest."""
    tokens = torch.randint(WORDS, (rows, length), generator=seeded(seed))
    lengths = torch.randint(2, length + 1, (rows,), generator=seeded(seed + 1))
    return tokens, tokens.where(torch.arange(length) < lengths[:, None], -100)


# Language models


class Logits(nn.Module):
    """What comes of a model that returns several things."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).logits


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    return Logits(transformers.GPT2LMHeadModel(config))


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
        tie_word_embeddings=True,
    )
    return Logits(transformers.LlamaForCausalLM(config))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(m: Any, tokens: Tensor) -> Tensor:
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        return m.out(m.inner(m.words(tokens) + m.places[: tokens.shape[1]], mask=mask))

    return Of(forward, words=nn.Embedding(WORDS, 8), places=parameter(8, 8), inner=inner, out=nn.Linear(8, WORDS))


def recurrent() -> nn.Module:
    def forward(m: Any, tokens: Tensor) -> Tensor:
        return m.out(m.memory(m.words(tokens))[0])

    return Of(forward, words=nn.Embedding(WORDS, 6), memory=nn.GRU(6, 8, batch_first=True), out=nn.Linear(8, WORDS))


# Tokens of all examples in one matrix


def matrix(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


MERGED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "linear": (lambda m, x: m.out(matrix(x)).view(*x.shape[:2], -1), "Linear"),
    "without a bias": (lambda m, x: F.linear(matrix(x), m.out.weight).view(*x.shape[:2], -1), "Linear"),
    "addmm": (lambda m, x: torch.addmm(m.out.bias, matrix(x), m.turned).view(*x.shape[:2], -1), "Linear"),
    "flattened": (lambda m, x: m.out(x.flatten(0, 1)).unflatten(0, x.shape[:2]), "Linear"),
    "used twice": (lambda m, x: m.out(matrix(x.tanh())).view(*x.shape[:2], -1) + m.out(x), "Linear"),
    "and turned": (lambda m, x: torch.addmm(m.bias, matrix(x), m.out.weight.T).view(*x.shape[:2], -1), "model"),
    "a bias of two dimensions": (
        lambda m, x: torch.addmm(m.bias, matrix(x), m.turned).view(*x.shape[:2], -1),
        "model",
    ),
    "scaled": (
        lambda m, x: torch.addmm(m.out.bias, matrix(x), m.turned, alpha=2).view(*x.shape[:2], -1),
        "model",
    ),
    "time first": (
        lambda m, x: m.out(matrix(x.transpose(0, 1))).view(x.shape[1], len(x), -1).transpose(0, 1),
        "model",
    ),
    "every second": (
        lambda m, x: m.out(matrix(torch.stack([x, x.tanh()], 1))).view(len(x), 2, x.shape[1], -1).sum(1),
        "Linear",
    ),
}


@pytest.mark.parametrize("kind", MERGED)
@pytest.mark.parametrize("rows", [2, 4, 6])  # 4 is also the number of positions
def test_positions_and_examples_in_one_matrix(kind: str, rows: int) -> None:
    function, route = MERGED[kind]

    def forward(m: Any, x: Tensor) -> Tensor:
        return function(m, m.first(x).unflatten(1, (4, 4))).mean(1)

    members = {"turned": parameter(4, CLASSES), "bias": parameter(1, CLASSES)}
    model = made(lambda: Of(forward, first=nn.Linear(6, 16), out=nn.Linear(4, CLASSES), **members))
    x, y = images(rows, 6), classes(rows)
    close(grand(model, x, y), one_by_one(model, x, y, F.cross_entropy))
    used = "turned" if kind in ("addmm", "a bias of two dimensions", "scaled") else "out.weight"
    assert routes(model, x, y)[used] == route


def test_gpt2_with_positions_of_each_text_takes_the_rules_for_every_parameter() -> None:
    class Placed(Logits):
        def forward(self, tokens: Tensor) -> Tensor:
            places = torch.arange(tokens.shape[1]).expand(tokens.shape)
            return self.model(input_ids=tokens, position_ids=places).logits

    model, (x, y) = made(lambda: Placed(gpt2().model)), texts(3, 7, seed=0)
    exact(model, x, y, token_mean)
    assert "model" not in routes(model, x, y, token_mean).values()


MODELS = {model.__name__: model for model in (gpt2, llama, encoder, recurrent)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", [token_mean, token_sum])
@pytest.mark.parametrize("rows", [1, 3, 7])  # 7 is also the length of the texts
def test_language_models(name: str, loss: Loss, rows: int) -> None:
    exact(made(MODELS[name]), *texts(rows, 7, seed=rows), loss)


@settings(max_examples=20)
@given(st.sampled_from((encoder, recurrent)), st.integers(1, 5), st.integers(3, 8), st.integers(0, 99))
def test_texts_of_any_length(kind: Callable[[], nn.Module], rows: int, length: int, seed: int) -> None:
    exact(made(kind, seed), *texts(rows, length, seed), token_mean)


def test_batches_order_and_padding_change_nothing_for_text() -> None:
    model, (x, y) = made(llama), texts(6, 6, seed=0)
    whole = grand(model, x, y, token_mean)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    close(torch.cat([grand(model, x[part], y[part], token_mean) for part in order.split(4)]), whole[order])
    close(grand(model, F.pad(x, (0, 2)), F.pad(y, (0, 2), value=-100), token_mean), whole)


def test_a_mask_comes_with_the_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )

    class Masked(Logits):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.model(input_ids=tokens, attention_mask=(tokens != 0).long()).logits

    model = made(lambda: Masked(transformers.BertForSequenceClassification(config)))
    x = torch.randint(1, WORDS, (B, 6), generator=seeded(0))
    x[1, 4:] = 0
    expected = one_by_one(model, x, classes(2 * B)[:B] % 2, F.cross_entropy)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "grand: one backward pass")
        close(grand(model, x, classes(2 * B)[:B] % 2, F.cross_entropy), expected)
    close(grand(model, x[1:2, :4], classes(2 * B)[1:2] % 2, F.cross_entropy), expected[1:2])


def test_text_without_a_token_that_counts_has_no_gradient() -> None:
    model, (x, y) = made(encoder), texts(3, 6, seed=0)
    y[1] = -100
    got = grand(model, x, y, token_mean)
    assert got[1] == 0
    assert (got[[0, 2]] > 0).all()


# Losses in which examples meet


def by_tokens_of_the_batch(outputs: Tensor, y: Tensor) -> Tensor:
    return token_sum(outputs, y) / (y[:, 1:] != -100).sum()


def centred(outputs: Tensor, y: Tensor) -> Tensor:
    losses = token_mean(outputs, y)
    return losses - losses.mean()


def hardest_only(outputs: Tensor, y: Tensor) -> Tensor:
    losses = token_mean(outputs, y)
    return losses * (losses >= losses.detach().max())


@pytest.mark.parametrize("loss", [by_tokens_of_the_batch, centred, hardest_only])
def test_a_loss_that_mixes_examples_is_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"loss: got .* for example \d in the batch and .* for it alone, so that it"):
        grand(made(encoder), *texts(4, 6, seed=0), loss)


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(0, 99))
def test_a_loss_that_mixes_gradients_alone_gives_those_of_each_example(rows: int, seed: int) -> None:
    """Its numbers are those of the examples, and only a backward pass would tell."""

    def sly(outputs: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs, y, reduction="none")
        return losses + (losses.mean() - losses.mean().detach())

    model, x, y = made(lambda: nn.Linear(4, CLASSES), seed), images(rows, 4, seed=seed), classes(rows, seed)
    close(grand(model, x, y, sly), one_by_one(model, x, y, sly))


def test_a_reduction_over_the_batch_is_that_of_each_example_alone() -> None:
    model, (x, y) = made(encoder), texts(4, 6, seed=0)

    def reduced(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs[:, :-1].flatten(0, 1), y[:, 1:].flatten())

    close(grand(model, x, y, reduced), grand(model, x, y, token_mean))


# Other losses that are refused

X4, Y = images(B, 4), classes()


def small() -> nn.Module:
    return made(lambda: nn.Sequential(nn.Linear(4, CLASSES)))


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, reduction="none")


REFUSED: dict[str, tuple[Loss, Any, type[Exception], str]] = {
    "a list": (lambda z, y: [1.0], Y, TypeError, "loss: returned list"),
    "whole numbers": (lambda z, y: (z.argmax(1) != y).long(), Y, TypeError, "loss: returned torch.int64"),
    "not reduced": (lambda z, y: z.square(), Y, ValueError, r"loss: returned \(5, 3\), expected one number or one per"),
    "of another size": (lambda z, y: z.sum(0), Y, ValueError, r"loss: returned \(3,\)"),
    "detached": (lambda z, y: cross_entropy(z.detach(), y), Y, ValueError, "loss: returned numbers without a gradient"),
    "not finite": (
        lambda z, y: cross_entropy(z, y) / (y != 0),
        torch.tensor([1, 1, 0, 1, 1]),
        ValueError,
        "loss: got inf for example 2 of the batch",
    ),
    "by chance": (lambda z, y: cross_entropy(F.dropout(z), y), Y, ValueError, "loss: draws random numbers"),
    "no tensor": (cross_entropy, "abcde", TypeError, "labels: got str, expected a tensor, or a tuple"),
    "numbers": (cross_entropy, [0, 1, 2, 0, 1], TypeError, "labels: got int"),
    "nothing": (cross_entropy, {}, ValueError, "labels: got {}"),
    "too few": (mixup, (Y, Y, torch.rand(4)), ValueError, r"got 5 inputs and labels \(4,\)"),
    "one for all": (mixup, (Y, Y, torch.tensor(0.5)), ValueError, r"got 5 inputs and labels \(\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str) -> None:
    loss, labels, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        grand(small(), X4, labels, loss)


@pytest.mark.parametrize("rows", [1, B])
def test_a_detached_loss_is_refused_for_one_example_too(rows: int) -> None:
    with pytest.raises(ValueError, match="without a gradient"):
        grand(small(), X4[:rows], Y[:rows], lambda z, y: cross_entropy(z, y).detach())


def test_a_loss_that_changes_what_it_gets_is_refused() -> None:
    def masks(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y.masked_fill_(y < 0, 0))

    for loss in (masks, lambda z, y: cross_entropy(z.mul_(2), y)):
        with pytest.raises(ValueError, match="loss: changes its outputs or labels in place"):
            grand(small(), X4, Y.clone(), loss)


@pytest.mark.parametrize("rows", [1, B])
def test_a_loss_that_uses_a_parameter_itself_is_refused(rows: int) -> None:
    """No pass of the model with other parameters would reach it."""
    model = small()
    with pytest.raises(ValueError, match=r"loss: uses parameter '0\.weight' of the model itself, as weight decay does"):
        grand(model, X4[:rows], Y[:rows], lambda z, y: cross_entropy(z, y) + 1e-4 * model[0].weight.square().sum())


def test_parameters_of_the_loss_do_not_count() -> None:
    scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    model = small()
    close(
        grand(model, X4, Y, lambda z, y: cross_entropy(scale * z, y)),
        grand(model, X4, Y, lambda z, y: cross_entropy(2.0 * z, y)),
    )
    assert scale.grad is None


@pytest.mark.filterwarnings("error")
def test_only_the_cross_entropy_knows_chance() -> None:
    model = nn.Linear(4, CLASSES, bias=False).double()
    nn.init.zeros_(model.weight)
    with pytest.warns(UserWarning, match="no better than chance"):
        grand(model, X4, Y)
    grand(model, X4, Y, cross_entropy)
    grand(model, X4, images(B, CLASSES), lambda z, y: (z - y).square().mean(1))


# Checkpoints


def test_checkpoints_are_scored_by_any_loss() -> None:
    model, (x, y) = made(encoder), texts(5, 6, seed=0)
    data = dp.IndexedDataset(list(zip(x, y, strict=True)))
    tracker = dp.DifficultyTracker(5, scores=("grand",))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    for _ in range(2):
        dp.score_checkpoint(model, loader, tracker, loss=token_mean)
    expected = one_by_one(model, x, y, token_mean)
    torch.testing.assert_close(tracker.compute()["grand"].double(), expected, rtol=1e-5, atol=0)


def test_checkpoints_with_labels_of_several_parts() -> None:
    model, labels = small(), LOSSES["distillation"][1](B, seeded(0))
    tracker = dp.DifficultyTracker(B, scores=("grand",))
    dp.score_checkpoint(model, [(X4, labels, torch.arange(B))], tracker, loss=distillation)
    expected = one_by_one(model, X4, labels, distillation)
    torch.testing.assert_close(tracker.compute()["grand"].double(), expected, rtol=1e-5, atol=0)


def test_checkpoints_record_the_scores_of_logits_beside_it() -> None:
    model = small().float()
    batch = (X4.float(), Y, torch.arange(B))
    tracker = dp.DifficultyTracker(B, scores=("el2n", "grand"))
    dp.score_checkpoint(model, [batch], tracker, loss=lambda z, y: 2 * cross_entropy(z, y))
    torch.testing.assert_close(
        tracker.compute()["grand"], grand(model, *batch[:2], lambda z, y: 2 * cross_entropy(z, y))
    )
    assert tracker.compute()["el2n"].isfinite().all()


def test_checkpoints_refuse_a_loss_that_nothing_needs() -> None:
    batch = (X4, Y, torch.arange(B))
    with pytest.raises(
        ValueError, match=r"loss: got <function .* for el2n of the true label; it is the loss of 'grand'"
    ):
        dp.score_checkpoint(small(), [batch], dp.DifficultyTracker(B, scores=("el2n",)), loss=cross_entropy)
    tracker = dp.DifficultyTracker(B, scores=("grand",))
    with pytest.raises(ValueError, match="of the predicted label"):
        dp.score_checkpoint(small(), [batch], tracker, loss=cross_entropy, label="predicted")
    with pytest.raises(ValueError, match="loss: got 'mse', expected 'cross_entropy' or a function"):
        dp.score_checkpoint(small(), [batch], tracker, loss="mse")
    assert tracker.presentations == 0
