"""GraNd of recurrent networks and cells, by the kernels of float32 (oneDNN on a CPU) and of other dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from grand_models import CLASSES, B, Of, agrees, classes, grand, images, kinds, made, one_by_one, parameter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]
INPUTS, HIDDEN = 4, 3


def agrees_in(dtype: torch.dtype, model: nn.Module, x: Tensor) -> None:
    """With a loop in float64, as closely as the dtype allows."""
    x, y = x.to(dtype), classes(len(x))
    got = grand(model.to(dtype), x, y)
    expected = one_by_one(model.double(), x.double(), y)
    rtol = {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 0.1)
    torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=0)


@st.composite
def networks(draw) -> nn.Module:
    kind = draw(st.sampled_from((nn.LSTM, nn.GRU, nn.RNN)))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    if kind is nn.LSTM and draw(st.booleans()):
        options["proj_size"] = 2
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(("tanh", "relu")))
    uses = draw(st.integers(1, 2))
    pick = draw(st.sampled_from(("last", "mean", "state", "both")))

    def make() -> nn.Module:
        net = kind(INPUTS, HIDDEN, **options)
        directions = 2 if options["bidirectional"] else 1
        width, layers = directions * options.get("proj_size", HIDDEN), directions * options["num_layers"]
        state = layers * options.get("proj_size", HIDDEN)

        def forward(m: Any, x: Tensor) -> Tensor:
            x = x if options["batch_first"] else x.transpose(0, 1)
            for _ in range(uses):
                output, last = m.net(x)
                x = x + m.back(output).tanh()
            output = output if options["batch_first"] else output.transpose(0, 1)
            last = (last[0] if kind is nn.LSTM else last).transpose(0, 1).flatten(1)
            picked = {"last": output[:, -1], "mean": output.mean(1), "state": last}
            return m.of_output(picked.get(pick, output.sum(1))) + (m.of_state(last) if pick in ("state", "both") else 0)

        return Of(
            forward,
            net=net,
            back=nn.Linear(width, INPUTS),
            of_output=nn.Linear(state if pick == "state" else width, CLASSES),
            of_state=nn.Linear(state, CLASSES),
        )

    model = made(make)
    for p in model.net.parameters():
        p.requires_grad_(draw(st.integers(0, 3)) > 0)
    return model


@settings(max_examples=40)
@given(networks(), st.sampled_from((torch.float32, torch.float64)), st.integers(1, 5), st.integers(1, 5))
def test_recurrent_networks(model: nn.Module, dtype: torch.dtype, length: int, rows: int) -> None:
    agrees_in(dtype, model, images(rows, length, INPUTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_network_is_differentiated_by_itself(kind: type[nn.RNNBase], dtype: torch.dtype) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(m.net(x, self_or_none(m, x))[0][:, -1])

    def self_or_none(m: Any, x: Tensor) -> Any:
        start = m.start.expand(1, len(x), HIDDEN)
        return (start, start * 0) if kind is nn.LSTM else start

    net = kind(INPUTS, HIDDEN, batch_first=True)
    model = made(lambda: Of(forward, start=parameter(1, 1, HIDDEN), net=net, out=nn.Linear(HIDDEN, CLASSES)))
    agrees_in(dtype, model, images(B, 6, INPUTS))
    assert kinds(model, images(B, 6, INPUTS)) == {"Function", "Linear", "Direct"}


@pytest.mark.filterwarnings("ignore:grand. one backward pass:UserWarning")
@settings(max_examples=20)
@given(
    st.sampled_from((nn.LSTMCell, nn.GRUCell, nn.RNNCell)),
    st.sampled_from((torch.float32, torch.float64)),
    st.integers(1, 5),
    st.booleans(),
)
def test_cells(kind: type[nn.RNNCellBase], dtype: torch.dtype, length: int, with_state: bool) -> None:
    """The output of an LSTM cell is computed from its state, so that their gradients overlap."""

    def forward(m: Any, x: Tensor) -> Tensor:
        state: Any = None
        for t in range(length):
            state = m.cell(x[:, t], state)
        return m.out(state if kind is not nn.LSTMCell else state[0] + state[1] if with_state else state[0])

    model = made(lambda: Of(forward, cell=kind(INPUTS, HIDDEN), out=nn.Linear(HIDDEN, CLASSES)))
    agrees_in(dtype, model, images(B, length, INPUTS))


def test_one_use_of_an_lstm_cell() -> None:
    model = made(lambda: Of(lambda m, x: m.out(sum(m.cell(x))), cell=nn.LSTMCell(4, 3), out=nn.Linear(3, CLASSES)))
    with pytest.warns(UserWarning, match="one backward pass per example for cell.weight_ih.*vmap cannot run"):
        agrees(model, images(B, 4))
