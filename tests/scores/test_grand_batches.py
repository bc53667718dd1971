"""GraNd of models in which the examples of a batch meet: the norm that each has alone, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from grand_models import CLASSES, B, Of, agrees, classes, close, grand, images, kinds, made, one_by_one, parameter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.filterwarnings("ignore:grand. one backward pass:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]

MEETS = r"the logits of example \d+ change by .* when it comes alone; it meets .* depends on the others of its batch"


def alone_or_refused(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether it is refused; if not, every norm must be that of the example alone."""
    expected, refusal = one_by_one(model, x, y), ""
    try:
        close(grand(model, x, y), expected)
    except ValueError as error:
        refusal = str(error)
    assert not refusal or "depends on the others of its batch" in refusal
    return bool(refusal)


# Whatever an example meets, and wherever it stands


class Experts(nn.Module):
    """Each expert serves as many examples of a batch as it has room for, first come, first served."""

    def __init__(self, room: int, experts: int = 2) -> None:
        super().__init__()
        self.room, self.shared = room, nn.Linear(6, CLASSES)
        self.experts = nn.ModuleList(nn.Linear(6, CLASSES) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, : len(self.experts)].argmax(1)
        served = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0][: self.room]
            served = served.index_put((rows,), expert(x[rows]))
        return served + self.shared(x)


class DenseExperts(Experts):
    """The same by multiplication with masks, in the way of Switch Transformers: no shape depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, : len(self.experts)].argmax(1)[:, None] == torch.arange(len(self.experts))
        place = chosen.cumsum(0)
        weight = (chosen & (place <= self.room)).to(x.dtype)
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return (outputs * weight[..., None]).sum(1) + self.shared(x)


@settings(max_examples=30)
@given(st.sampled_from((Experts, DenseExperts)), st.integers(1, 9), st.integers(2, 9), st.integers(0, 99))
def test_experts_with_a_capacity(kind: type[Experts], room: int, rows: int, seed: int) -> None:
    model, x = made(lambda: kind(room), seed), images(rows, 6, seed=seed)
    turned_away = (torch.bincount(x[:, :2].argmax(1)) > room).any()
    assert alone_or_refused(model, x, classes(rows)) == turned_away


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(0, 8), st.integers(0, 8), st.integers(0, 99))
def test_a_single_example_that_meets_another(rows: int, victim: int, cause: int, seed: int) -> None:
    victim, cause = victim % rows, cause % rows

    def forward(m: Any, x: Tensor) -> Tensor:
        first = m.first(x)
        if len(x) > max(victim, cause) and first[cause, 0] > 0:
            first = torch.cat([first[:victim], first[victim : victim + 1] * 2, first[victim + 1 :]])
        return m.out(first.tanh())

    model = made(lambda: Of(forward, first=nn.Linear(6, 4), out=nn.Linear(4, CLASSES)), seed)
    alone_or_refused(model, images(rows, 6, seed=seed), classes(rows))


EXITS: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda p: p[-1].max() > 0.5,
    "first": lambda p: p[0].max() > 0.5,
    "middle": lambda p: p[len(p) // 2].max() > 0.5,
    "mean": lambda p: p.max(1).values.mean() > 0.5,
    "all": lambda p: (p.max(1).values > 0.4).all(),
    "read": lambda p: max(p.max(1).values.tolist()) > 0.5,
    "counted": lambda p: len(p) > 3,
}


@settings(max_examples=30)
@given(st.sampled_from(sorted(EXITS)), st.integers(2, 7), st.integers(0, 99))
def test_an_early_exit(kind: str, rows: int, seed: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        first = m.cheap(x)
        return first if EXITS[kind](first.softmax(1)) else first + m.dear(x)

    model = made(lambda: Of(forward, cheap=nn.Linear(6, CLASSES), dear=nn.Linear(6, CLASSES)), seed)
    alone_or_refused(model, images(rows, 6, seed=seed), classes(rows))


MIXING: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "mean": lambda m, x: x - x.mean(0),
    "batch norm": lambda m, x: F.batch_norm(x[:, :, None].expand(-1, -1, 2), None, None, m.scale, training=True)[
        ..., 0
    ],
    "softmax over the batch": lambda m, x: x * x.softmax(0),
    "matrix of similarities": lambda m, x: (x @ x.T).softmax(1) @ x,
    "sum, then divided": lambda m, x: x / x.norm(),
    "maximum": lambda m, x: x * (x >= x.amax(0)),
    "cumulative": lambda m, x: x.cumsum(0),
    "neighbour": lambda m, x: x + x.roll(1, 0),
    "reversed": lambda m, x: x + x.flip(0),
    "attention over the batch": lambda m, x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0],
    "number of examples": lambda m, x: x / len(x),
    "place": lambda m, x: x + torch.arange(len(x))[:, None],
    "place from a list": lambda m, x: x + torch.tensor([[float(i)] for i in range(len(x))]),
    "place from NumPy": lambda m, x: x + torch.from_numpy(np.arange(len(x))[:, None]),
    "shift": lambda m, x: F.pad(x, (0, 0, 1, -1)),
    "sorted": lambda m, x: x.sort(0).values,
    "wrong reshape": lambda m, x: x.reshape(-1, len(x)).T,
    "broadcast": lambda m, x: x * x[:, 0] if x.shape[0] == x.shape[1] else x * x[0, 0],
    "largest wins": lambda m, x: x * F.one_hot(x[:, 0].argmax(), len(x))[:, None],
    "convolution over the batch": lambda m, x: F.conv1d(x.T[:, None], m.kernel, padding=1)[:, 0].T,
    "in NumPy": lambda m, x: x * float(x.detach().numpy().sum()),
}


@pytest.mark.parametrize("kind", MIXING)
@pytest.mark.parametrize("rows", [3, 4, 6])
def test_what_mixes_is_refused_with_the_module(kind: str, rows: int) -> None:
    def whole() -> nn.Module:
        inner = Of(MIXING[kind], scale=parameter(4), kernel=parameter(1, 1, 3))
        return nn.Sequential(nn.Linear(6, 4), inner, nn.Linear(4, CLASSES))

    with pytest.raises(ValueError, match=MEETS) as caught:
        grand(made(whole), images(rows, 6), classes(rows))
    assert "in module '1'" in str(caught.value)


def test_what_mixes_in_the_models_own_forward_is_said() -> None:
    model = made(lambda: Of(lambda m, x: m.f(x - x.mean(0)), f=nn.Linear(4, CLASSES)))
    with pytest.raises(ValueError, match="it meets them in the model's forward"):
        grand(model, images(B, 4), classes())


def test_a_model_that_takes_no_single_example_is_refused() -> None:
    model = made(lambda: Of(lambda m, x: m.f(F.batch_norm(x, None, None, training=True)), f=nn.Linear(4, CLASSES)))
    with pytest.raises(ValueError, match=r"takes a batch of 5, but not example \d alone \(Expected more than 1 value"):
        grand(model, images(B, 4), classes())


def test_a_loss_that_compares_examples_is_refused() -> None:
    def ranked(logits: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, y, reduction="none")
        return losses * (losses >= losses.detach().median())

    model = made(lambda: nn.Linear(4, CLASSES))
    with pytest.raises(ValueError, match=r"loss: got 0 for example \d in the batch and .* for it alone"):
        grand(model, images(B, 4), classes(), ranked)


# Examples that pass each other without meeting


def by_length(m: Any, x: Tensor) -> Tensor:
    """Sorts the examples, and back."""
    order = x[:, 0].argsort()
    return m.out(m.first(x[order]).tanh()[order.argsort()])


def swapped(m: Any, x: Tensor) -> Tensor:
    """Only the last two change places, and back."""
    order = torch.arange(len(x))
    order[-2:] = order[-2:].flip(0)
    return m.out(m.first(x[order]).tanh()[order])


def reshaped(m: Any, x: Tensor) -> Tensor:
    """Rows of other examples for a while, by a reshape in place of a transposition."""
    x = x.unflatten(1, (2, 3)).repeat(1, 1, 2)
    return m.out(m.first(x.reshape(2, len(x), 6)).tanh().reshape(len(x), 2, 4).mean(1))


def packed(m: Any, x: Tensor) -> Tensor:
    lengths = 1 + (x[:, 0] > 0).long() + (x[:, 1] > 0)
    sequence = pack_padded_sequence(x.unflatten(1, (3, 2)), lengths, batch_first=True, enforce_sorted=False)
    return m.out(m.lstm(sequence)[1][0][0])


def routed(m: Any, x: Tensor) -> Tensor:
    """Experts without a limit."""
    result = torch.zeros(len(x), 4, dtype=x.dtype)
    for name, rows in (("first", x[:, 0] > 0), ("second", x[:, 0] <= 0)):
        result[rows] = getattr(m, name)(x[rows])
    return m.out(result.tanh())


def looped(m: Any, x: Tensor) -> Tensor:
    return torch.cat([m.out(m.first(row).tanh()) for row in x.split(1)])


@pytest.mark.parametrize("forward", [by_length, swapped, reshaped, packed, routed, looped])
@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("frozen", [False, True])
def test_examples_that_change_places(forward: Callable[[Any, Tensor], Tensor], rows: int, frozen: bool) -> None:
    layers = {"first": nn.Linear(6, 4), "second": nn.Linear(6, 4), "lstm": nn.LSTM(2, 4, batch_first=True)}
    model = made(lambda: Of(forward, out=nn.Linear(4, CLASSES), **layers))
    model.first.bias.requires_grad_(not frozen)
    agrees(model, images(rows, 6))


# Known operations stay fast

FAST: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "instance norm": lambda m, x: F.instance_norm(x),
    "time first": lambda m, x: m.same(x.transpose(0, 1)).transpose(0, 1),
    "patches": lambda m, x: F.unfold(x[:, None], 2).mean(2)[:, :, None].expand(-1, -1, 4),
    "attention": lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0],
    "token": lambda m, x: torch.cat([m.token.expand(len(x), 1, 4), x], 1)[:, 1:],
    "positions": lambda m, x: x + m.positions[torch.arange(4)],
    "window": lambda m, x: x.roll(1, 1).reshape(-1, 2, 4).softmax(1).reshape(-1, 4, 4),
    "masked": lambda m, x: x.masked_fill(torch.ones(4, 4).tril() == 0, 0.0),
    "top two": lambda m, x: x.topk(2, 1).values.repeat(1, 2, 1),
    "gathered": lambda m, x: x.gather(1, x.argsort(1)),
    "pooled": lambda m, x: F.interpolate(F.adaptive_avg_pool2d(x[:, None], 2), scale_factor=2)[:, 0],
    "frequencies": lambda m, x: torch.fft.fft(x, dim=2).real,
    "a number of the parameters": lambda m, x: x * float(m.token.detach().sum()),
    "einsum": lambda m, x: torch.einsum("bij,bjk->bik", x, x),
    "circular": lambda m, x: F.pad(x, (1, 1), mode="circular")[..., 1:-1],
}


@pytest.mark.parametrize("kind", FAST)
@pytest.mark.parametrize("rows", [2, 4, 5])
def test_operations_that_keep_examples_apart(kind: str, rows: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(FAST[kind](m, m.first(x).unflatten(1, (4, 4))).flatten(1))

    model = made(
        lambda: Of(
            forward,
            first=nn.Linear(6, 16),
            same=nn.Linear(4, 4),
            token=parameter(1, 1, 4),
            positions=parameter(4, 4),
            out=nn.Linear(16, CLASSES),
        )
    )
    x = images(rows, 6)
    agrees(model, x)
    assert "model" not in kinds(model, x) or kind == "positions"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_not_taken_for_a_meeting(dtype: torch.dtype) -> None:
    model = made(
        lambda: nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU())])
    )
    model.append(nn.Linear(32, CLASSES, dtype=torch.float64))
    x = images(16, 32).to(dtype)
    got = grand(model.to(dtype), x, classes(16))
    torch.testing.assert_close(got.double(), one_by_one(model.double(), x.double(), classes(16)), rtol=0.1, atol=0)


def test_logits_of_minus_infinity() -> None:
    model = made(
        lambda: Of(lambda m, x: m.f(x).masked_fill(torch.tensor([0, 0, 1]) == 1, -torch.inf), f=nn.Linear(4, 3))
    )
    x, y = images(B, 4), torch.arange(B) % 2
    close(grand(model, x, y), one_by_one(model, x, y))


STEPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    **FAST,
    "layer": lambda m, x: m.same(x).tanh(),
    "turned": lambda m, x: x.mT,
    "batch and time": lambda m, x: x.transpose(0, 1).reshape(x.shape),
    "as if square": lambda m, x: x.transpose(0, 1) if len(x) == 4 else x,
    "merged": lambda m, x: m.same(x.reshape(-1, 4)).reshape(-1, len(x), 4).reshape(x.shape),
    "rolled": lambda m, x: x.roll(1, 0),
    "sorted": lambda m, x: x.sort(0).values,
    "swapped": lambda m, x: torch.cat([x[:-2], x[-2:].flip(0)]) if len(x) > 1 else x,
    "every second": lambda m, x: torch.stack([x[::2], x[::2]], 1).flatten(0, 1)[: len(x)],
    "larger than before": lambda m, x: torch.where(x > x.cummax(0).values - 1e-9, x, 0.5 * x),
    "if any": lambda m, x: x * (2 if (x > 1.5).any() else 1),
    "rounds": lambda m, x: x.round(decimals=1) + x - x.detach(),
}


@settings(max_examples=60)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), st.integers(2, 6), st.integers(0, 99))
def test_random_programs(steps: list[str], rows: int, seed: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.first(x).unflatten(1, (4, 4))
        for step in steps:
            x = STEPS[step](m, x)
        return m.out(x.flatten(1))

    members = {"token": parameter(1, 1, 4), "positions": parameter(4, 4), "same": nn.Linear(4, 4)}
    model = made(lambda: Of(forward, first=nn.Linear(6, 16), out=nn.Linear(16, CLASSES), **members), seed)
    alone_or_refused(model, images(rows, 6, seed=seed), classes(rows))
