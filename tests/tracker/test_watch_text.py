"""VoG of embedded text: what `watch` records against a loop over the texts, whatever their lengths and the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import difficulty_prune as dp

N, WORDS, LONGEST, WIDTH = 9, 7, 6, 4
OPTIONS = dp.GradientOptions(channel_dim=2)
pytestmark = pytest.mark.usefixtures("one_thread")


class LanguageModel(nn.Module):
    """Each position knows those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.memory = nn.GRU(WIDTH, 5, batch_first=True)
        self.out = nn.Linear(5, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, WIDTH] -> [B, T, WORDS]"""
        return self.out(self.memory(x)[0])


def texts(seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LONGEST + 1, (N,), generator=g).tolist()
    return [torch.randint(WORDS, (length,), generator=g) for length in lengths]


def padded(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Tokens and labels, as long as the longest of the batch."""
    labels = nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
    return labels.clamp(min=0), labels


def checkpoints(seed: int, number: int = 3) -> list[LanguageModel]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [LanguageModel() for _ in range(number)]


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, T - 1], of the next token; 0 where there is none."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")


def by_loop(models: list[LanguageModel], data: list[Tensor], sums: bool = False) -> Tensor:
    """The definition, in float64: of each text alone, the mean over the channels, the deviation, the mean over all."""
    vog = []
    for tokens in data:
        gradients = []
        for model in models:
            alone = LanguageModel().double()
            alone.load_state_dict(model.state_dict())
            x = alone.words(tokens[None]).detach().requires_grad_()
            losses = token_losses(alone(x), tokens[None])
            (gradient,) = torch.autograd.grad(losses.sum() if sums else losses.mean(), x)
            gradients.append(F.pad(gradient[0].mean(1), (0, LONGEST - len(tokens))))
        vog.append(torch.stack(gradients).std(0, correction=0).mean())
    return torch.stack(vog)


def watched(tracker: dp.DifficultyTracker, model: LanguageModel, tokens: Tensor, index: Tensor, **said) -> Tensor:
    """Logits of a batch, whose embeddings are watched at the length of the longest text of all."""
    x = model.words(tokens)
    x = tracker.watch(F.pad(x, (0, 0, 0, LONGEST - x.shape[1])), index, **said)[:, : x.shape[1]]
    return model(x)


Loss = Callable[[Tensor, Tensor], Tensor]


def own_mean(losses: Tensor, n: Tensor) -> Tensor:
    return (losses.sum(1) / n).mean()


def mean_of_all_tokens(losses: Tensor, n: Tensor) -> Tensor:
    return losses.sum() / n.sum()


def accumulated(losses: Tensor, n: Tensor) -> Tensor:
    """The share of a part of a batch of 50 tokens, as the Trainer of transformers adds them up."""
    return losses.sum() / 50


def weighted(losses: Tensor, n: Tensor) -> Tensor:
    """A sampler's weight, say 2 or 3, of each text, in the mean of all tokens."""
    return (losses.sum(1) * (2 + n % 2)).sum() / n.sum()


WAYS = {
    "own mean": (own_mean, lambda n: {}),
    "mean of all tokens": (mean_of_all_tokens, lambda n: {"weight": n, "reduction": "weighted_mean"}),
    "accumulated": (accumulated, lambda n: {"weight": n / 50, "reduction": "sum"}),
    "weighted": (weighted, lambda n: {"weight": (2 + n % 2) * n / n.sum(), "reduction": "sum"}),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=6)
@given(seed=st.integers(0, 99), size=st.integers(1, N))
def test_the_score_is_that_of_each_texts_own_mean_loss(way: str, seed: int, size: int) -> None:
    loss, said = WAYS[way]
    data, models = texts(seed), checkpoints(seed)
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    for model in models:
        for index in torch.randperm(N, generator=torch.Generator().manual_seed(seed)).split(size):
            tokens, labels = padded([data[i] for i in index])
            n = (labels[:, 1:] != -100).sum(1)
            logits = watched(tracker, model, tokens, index, **said(n))
            loss(token_losses(logits, labels), n).backward()
    torch.testing.assert_close(tracker.compute()["vog_loss"].double(), by_loop(models, data), rtol=1e-4, atol=1e-7)


def test_a_sum_over_tokens_gives_the_score_of_the_sum() -> None:
    data, models = texts(0), checkpoints(0)
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    tokens, labels = padded(data)
    for model in models:
        logits = watched(tracker, model, tokens, torch.arange(N), reduction="sum")
        token_losses(logits, labels).sum().backward()
    expected = by_loop(models, data, sums=True)
    torch.testing.assert_close(tracker.compute()["vog_loss"].double(), expected, rtol=1e-4, atol=1e-7)


def test_the_mean_of_all_tokens_needs_to_be_told() -> None:
    """Without weights it would follow the length of the text, and of those beside it."""
    data, models = texts(0), checkpoints(0)
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    tokens, labels = padded(data)
    for model in models:
        logits = watched(tracker, model, tokens, torch.arange(N))
        F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:]).backward()
    assert not torch.allclose(tracker.compute()["vog_loss"].double(), by_loop(models, data), rtol=0.1)


def test_update_beside_it_records_the_tokens() -> None:
    data, (model, *_) = texts(0), checkpoints(0)
    tracker = dp.DifficultyTracker(N, ("vog_loss", "loss"), gradient=OPTIONS)
    tokens, labels = padded(data)
    n = (labels[:, 1:] != -100).sum(1)
    logits = watched(tracker, model, tokens, torch.arange(N), weight=n, reduction="weighted_mean")
    tracker.update(torch.arange(N), logits[:, :-1].transpose(1, 2), labels[:, 1:])
    losses = token_losses(logits, labels)
    mean_of_all_tokens(losses, n).backward()
    torch.testing.assert_close(tracker.compute()["loss"], (losses.sum(1) / n).detach())
    assert (tracker.compute()["vog_loss"] == 0).all()  # one presentation


def test_a_text_without_a_token_that_counts_is_passed_over() -> None:
    data, models = texts(0), checkpoints(0)
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    tokens, labels = padded(data)
    labels[3] = -100
    for model in models:
        n = (labels[:, 1:] != -100).sum(1)
        logits = watched(tracker, model, tokens, torch.arange(N), weight=n, reduction="weighted_mean")
        mean_of_all_tokens(token_losses(logits, labels), n).backward()
    assert tracker.compute()["vog_loss"].isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("channel_dim", [1, 2])
def test_texts_of_several_lengths_are_refused_unless_padded_to_one(channel_dim: int) -> None:
    """Where positions are the channels, their number would divide the gradient, and change from batch to batch."""
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=dp.GradientOptions(channel_dim=channel_dim))
    tracker.watch(torch.zeros(2, 5, WIDTH), torch.tensor([0, 1])).sum().backward()
    what = {1: "3 channels in dimension 1, expected 5 as in the first batch", 2: "3 pixels, expected 5"}[channel_dim]
    with pytest.raises(ValueError, match=rf"vog_loss: got inputs of shape \(2, 3, 4\), {what}"):
        tracker.watch(torch.zeros(2, 3, WIDTH), torch.tensor([0, 1]))


def test_packed_texts_are_refused() -> None:
    """Several in one row: their gradients do not come one for each index."""
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    with pytest.raises(ValueError, match="index"):
        tracker.watch(torch.zeros(1, 12, WIDTH), torch.tensor([0, 1, 2]))


def test_token_ids_are_refused() -> None:
    tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
    with pytest.raises(TypeError, match=r"got torch\.int64, .* watch embeddings where inputs are integers"):
        tracker.watch(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([0, 1]))


def test_embeddings_of_transformers() -> None:
    """Its own loss, the mean over all tokens of the batch, is undone to that of each text."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=LONGEST, n_embd=8, n_layer=1, n_head=2)
    data = texts(1)
    scores = []
    for size in (1, N):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            models = [transformers.GPT2LMHeadModel(config).eval() for _ in range(3)]
        tracker = dp.DifficultyTracker(N, ("vog_loss",), gradient=OPTIONS)
        for model in models:
            for index in torch.arange(N).split(size):
                tokens, labels = padded([data[i] for i in index])
                n = (labels[:, 1:] != -100).sum(1)
                x = model.get_input_embeddings()(tokens)
                full = F.pad(x, (0, 0, 0, LONGEST - x.shape[1]))
                x = tracker.watch(full, index, weight=n, reduction="weighted_mean")[:, : x.shape[1]]
                model(inputs_embeds=x, labels=labels).loss.backward()
        scores.append(tracker.compute()["vog_loss"])
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-8)
    assert (scores[0] > 0).all()
