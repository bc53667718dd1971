"""GraNd of whole models and of single layers against one backward pass per example."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from grand_models import (
    CLASSES,
    B,
    Of,
    agrees,
    classes,
    close,
    grand,
    images,
    kinds,
    made,
    one_by_one,
    parameter,
    routes,
    words,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.usefixtures("one_thread"),
]


# Whole models


def test_resnet18_takes_the_rules_for_every_parameter() -> None:
    from torchvision.models import resnet18

    model, x = made(lambda: resnet18(num_classes=CLASSES)), images(2, 3, 32, 32)
    agrees(model, x)
    found = routes(model, x, classes(2))
    assert len(found) == len(list(model.parameters()))
    assert found["layer1.0.conv1.weight"] == "Conv2d"
    assert set(found.values()) == {"Conv2d", "Linear", "Direct"}


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=CLASSES)


def test_a_vision_transformer() -> None:
    model, x = made(vision_transformer), images(B, 3, 16, 16)
    agrees(model, x)
    found = routes(model, x, classes())
    assert "model" not in found.values()
    assert found["class_token"] == found["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"] == "Function"
    assert found["conv_proj.weight"] == "Conv2d"


def test_float32_stays_within_1e_4_of_float64() -> None:
    # Without a ReLU: where one is about to switch, rounding decides, in a loop over examples too.
    model, x, y = made(vision_transformer), images(B, 3, 16, 16), classes()
    expected = one_by_one(model, x, y)
    got = grand(model.float(), x.float(), y)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=0)


def test_an_mlp_with_shared_weights_used_twice() -> None:
    model = made(
        lambda: Of(
            lambda m, x: m.out(m.hidden(m.hidden(m.hidden(x).tanh()).tanh())),
            hidden=nn.Linear(6, 6),
            out=nn.Linear(6, CLASSES),
        )
    )
    agrees(model, images(B, 6))
    assert kinds(model, images(B, 6)) == {"Linear", "Direct"}


# Layers


@st.composite
def convolutions(draw) -> tuple[nn.Conv2d, Tensor]:
    groups = draw(st.sampled_from((1, 1, 2, 4)))
    per_group = st.integers(1, 3) if groups < 4 else st.just(1)
    size = (draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding: Any = draw(st.one_of(st.sampled_from(("same", "valid")), st.tuples(st.integers(0, 2), st.integers(0, 2))))
    stride = (1, 1) if padding == "same" else draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    mode = draw(st.sampled_from(("zeros", "zeros", "reflect", "circular")))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = (0, 0) if padding == "valid" else span if padding == "same" else padding
    assume(padding == "same" or all(n + 2 * p >= s for n, p, s in zip(size, sides, span, strict=True)))
    assume(mode == "zeros" or all(side < n for side, n in zip(sides, size, strict=True)))
    channels, outputs = groups * draw(per_group), groups * draw(per_group)
    bias = draw(st.booleans())
    layer = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias, mode)
    return layer, images(draw(st.integers(2, 4)), channels, *size, seed=draw(st.integers(0, 99)))


@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@given(convolutions(), st.booleans())
def test_convolutions_of_every_setting_in_either_memory_layout(drawn: tuple[nn.Conv2d, Tensor], last: bool) -> None:
    layer, x = drawn
    memory_format = torch.channels_last if last else torch.contiguous_format
    arrange = Of(lambda m, x: x.contiguous(memory_format=memory_format))
    features = layer(x.float()).flatten(1).shape[1]
    model = made(lambda: nn.Sequential(arrange, layer, nn.Tanh(), nn.Flatten(), nn.Linear(features, CLASSES)))
    agrees(model, x)
    assert kinds(model, x) <= {"Conv2d", "Linear", "Direct"}


def merged(m: Any, x: Tensor) -> Tensor:
    """Time first, and time and batch in one dimension."""
    time_first = x.transpose(0, 1)
    return m.f(time_first.flatten(0, 1)).unflatten(0, time_first.shape[:2]).transpose(0, 1)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_kernel_used_twice_in_either_memory_layout(memory_format: torch.memory_format) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.conv(x.contiguous(memory_format=memory_format)).tanh()
        return m.out(m.conv(x).flatten(1))

    model = made(lambda: Of(forward, conv=nn.Conv2d(3, 3, (2, 3)), out=nn.Linear(3 * 6 * 4, CLASSES)))
    agrees(model, images(B, 3, 8, 8))


def test_a_model_that_views_its_images_gets_them_in_the_layout_that_they_came_in() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(m.conv(x).tanh().view(len(x), -1))

    agrees(made(lambda: Of(forward, conv=nn.Conv2d(3, 4, 3), out=nn.Linear(4 * 36, CLASSES))), images(B, 3, 8, 8))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    # name: the layer, the shape of an example, how the layer's parameters are found
    "batch norm": (lambda: nn.BatchNorm2d(4), (4, 3, 3), "Direct"),
    "batch norm of vectors": (lambda: nn.BatchNorm1d(4), (4,), "Direct"),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3), "Direct"),
    "layer norm": (lambda: nn.LayerNorm((3, 5)), (2, 3, 5), "Direct"),
    "rms norm": (lambda: nn.RMSNorm(5), (3, 5), "Direct"),
    "linear, 2 dimensions of positions": (lambda: nn.Linear(5, 9), (2, 3, 5), "Linear"),
    "wide linear, few positions": (lambda: nn.Linear(30, 40), (2, 30), "Linear"),
    # Its result is a view of another tensor, which the ReLU then changes in place: the graph forgets the call.
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 3, 3), "model"),
    "1-d convolution": (lambda: nn.Conv1d(3, 4, 3, groups=1), (3, 8), "Function"),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (3, 4, 4), "Function"),
    "prelu": (lambda: nn.PReLU(4), (4, 3, 3), "Function"),
    "scale by a parameter": (lambda: Of(lambda m, x: x * m.scale, scale=parameter(4, 1, 1)), (4, 3, 3), "Function"),
    "weight norm": (lambda: weight_norm(nn.Linear(5, 4)), (3, 5), "model"),
    "weight outside its layer": (lambda: Of(lambda m, x: F.linear(x, m.w.T), w=parameter(5, 4)), (3, 5), "model"),
    "in place": (lambda: Of(lambda m, x: (x * 1).mul_(m.scale), scale=parameter(5)), (3, 5), "model"),
    "merged positions": (lambda: Of(merged, f=nn.Linear(5, 4)), (3, 5), "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_between_two_others(name: str) -> None:
    make, shape, kind = LAYERS[name]
    if made(make)(images(2, *shape))._is_view():  # as of a linear layer before PyTorch 2.15: see "instance norm"
        kind = "model"

    def whole() -> nn.Module:
        layer = make()
        features = layer.eval()(torch.zeros(1, *shape)).numel()
        first = Of(lambda m, x: x * m.f(x.flatten(1)).tanh()[:, :1].reshape(-1, *[1] * len(shape)),
                   f=nn.Linear(math.prod(shape), 2))  # fmt: skip
        return nn.Sequential(first, layer, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(features, CLASSES))

    model, x = made(whole), images(B, *shape)
    agrees(model, x)
    found = routes(model, x, classes())
    assert {kind} <= {how for parameter_name, how in found.items() if parameter_name.startswith("1.")}
    assert found["0.f.weight"] == found["4.weight"] == "Linear"


def pooled(m: Any, x: Tensor) -> Tensor:
    return m.out(m.embed(x).mean(1))


@pytest.mark.parametrize(
    "embedding",
    [
        lambda: nn.Embedding(7, 4),
        lambda: nn.Embedding(7, 4, padding_idx=2),
        lambda: nn.Embedding(7, 4, padding_idx=-1),
        lambda: nn.Embedding(7, 4, sparse=True),
        lambda: nn.Embedding(7, 4, scale_grad_by_freq=True),
        lambda: nn.Embedding(7, 4, max_norm=1.0),
    ],
)
@pytest.mark.filterwarnings("ignore:grand. one backward pass")
def test_an_embedding_of_repeated_words(embedding: Callable[[], nn.Module]) -> None:
    agrees(made(lambda: Of(pooled, embed=embedding(), out=nn.Linear(4, CLASSES))), words())


def test_an_embedding_tied_to_the_layer_that_predicts_words() -> None:
    model = made(lambda: Of(lambda m, x: F.linear(m.embed(x).mean(1), m.embed.weight), embed=nn.Embedding(7, 4)))
    agrees(model, words())
    assert kinds(model, words()) == {"Embedding"}


@pytest.mark.parametrize("length", [6, B])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_in_either_layout_also_when_the_sequence_is_as_long_as_the_batch(
    batch_first: bool, length: int
) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.embed(x) if batch_first else m.embed(x).transpose(0, 1)
        return m.out(m.encoder(h).mean(1 if batch_first else 0))

    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=batch_first)
        return Of(forward, embed=nn.Embedding(7, 4), encoder=layer, out=nn.Linear(4, CLASSES))

    model = made(make)
    agrees(model, words(length=length))
    assert kinds(model, words(length=length)) == {"Embedding", "Function", "Linear", "Direct"}


def test_attention_with_weights_padding_and_queries_of_its_own() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.embed(x)
        queries = m.queries.expand(len(x), -1, -1)
        mixed, weights = m.attention(queries, h, h, key_padding_mask=x == 0, average_attn_weights=False)
        return m.out(mixed.flatten(1)) + weights.sum((1, 2, 3))[:, None]

    def make() -> nn.Module:
        attention = nn.MultiheadAttention(4, 2, kdim=4, vdim=4, batch_first=True, add_bias_kv=True)
        return Of(forward, embed=nn.Embedding(7, 4), queries=parameter(2, 4), attention=attention, out=nn.Linear(8, 3))

    agrees(made(make), words())


def test_a_recurrent_network() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(m.lstm(m.embed(x))[0][:, -1])

    agrees(
        made(lambda: Of(forward, embed=nn.Embedding(7, 4), lstm=nn.LSTM(4, 3, batch_first=True), out=nn.Linear(3, 3))),
        words(),
    )


def test_a_parameter_used_in_a_layer_and_outside_of_it() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(m.f(x).tanh()) + m.f.weight.square().sum() * x[:, :1]

    model = made(lambda: Of(forward, f=nn.Linear(4, 4), out=nn.Linear(4, 3)))
    agrees(model, images(B, 4))
    found = routes(model, images(B, 4), classes())
    assert found["f.weight"] == "model"
    assert found["f.bias"] == "Direct"


def test_activation_checkpointing() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(checkpoint(m.inner, m.first(x), use_reentrant=False))

    def make() -> nn.Module:
        inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        return Of(forward, first=nn.Linear(4, 4), inner=inner, out=nn.Linear(4, 3))

    model = made(make)
    agrees(model, images(B, 4))
    assert kinds(model, images(B, 4)) == {"Linear", "Direct"}


class Branching(nn.Module):
    """Computes differently for each example, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = weight_norm(nn.Linear(4, 3)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(row) + self.b(row) if row.sum() > 0 else self.b(row) for row in x.split(1)])


def test_a_model_that_vmap_cannot_run_takes_one_pass_per_example_and_says_so() -> None:
    model, x, y = made(Branching), images(B, 4), classes()
    expected = one_by_one(model, x, y)
    with pytest.warns(UserWarning, match=r"one backward pass per example for .*original0.*vmap cannot run"):
        close(grand(model, x, y), expected)


def test_parameters_without_influence_and_frozen_ones_do_not_count() -> None:
    def make() -> nn.Module:
        return Of(lambda m, x: m.out(m.f(x).tanh()), f=nn.Linear(4, 4), out=nn.Linear(4, 3), dead=nn.Linear(4, 4))

    model, x, y = made(make), images(B, 4), classes()
    whole = grand(model, x, y)
    model.f.weight.requires_grad_(False)
    agrees(model, x)
    assert (grand(model, x, y) < whole).all()
    for p in (*model.f.parameters(), *model.out.parameters()):
        p.requires_grad_(False)
    assert grand(model, x, y).tolist() == [0.0] * B


def test_a_result_that_the_loss_does_not_need() -> None:
    agrees(made(lambda: Of(lambda m, x: (m.a(x), m.b(x))[1], a=nn.Linear(4, 3), b=nn.Linear(4, 3))), images(B, 4))


def test_half_precision_is_summed_in_float32() -> None:
    model, x, y = made(lambda: nn.Linear(40, CLASSES)), images(B, 40), classes()
    got = grand(model.bfloat16(), x.bfloat16(), y)
    assert got.dtype == torch.float32
    expected = one_by_one(model.double(), x.bfloat16().double(), y)
    torch.testing.assert_close(got.double(), expected, rtol=2e-2, atol=0)


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:torch\..*")
def test_a_compiled_model_runs_uncompiled() -> None:
    model, x, y = (
        made(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES))),
        images(B, 4),
        classes(),
    )
    expected = grand(model, x, y)
    close(grand(torch.compile(model), x, y), expected)
