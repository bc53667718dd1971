"""GraNd of parameters that are hard to see: the right norm, or a refusal that names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grand_models import CLASSES, B, Of, agrees, classes, close, grand, images, made, one_by_one, parameter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.filterwarnings("ignore:grand. one backward pass:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def block(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


def refuses(model: nn.Module, x: Tensor, message: str) -> None:
    """It refuses batches of any size, and leaves every `.grad` as it was."""
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    for rows in (1, len(x)):
        with pytest.raises(ValueError, match=message):
            grand(model, x[:rows], classes(rows))
    assert all((p.grad == 1).all() for p in model.parameters() if p.requires_grad)


# Checkpointing


def checkpointed(blocks: int, which: set[int], reentrant: bool) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        for i, inner in enumerate(m.blocks):
            x = checkpoint(inner, x, use_reentrant=reentrant) if i in which else inner(x)
        return m.out(x)

    return made(lambda: Of(forward, blocks=nn.ModuleList([block() for _ in range(blocks)]), out=nn.Linear(4, CLASSES)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
@settings(max_examples=15)
@given(st.sets(st.integers(0, 3), min_size=1), st.booleans())
def test_checkpoints_anywhere(which: set[int], with_gradient: bool) -> None:
    x = images(B, 4).requires_grad_(with_gradient)
    agrees(checkpointed(4, which, reentrant=False), x)
    refuses(
        checkpointed(4, which, reentrant=True),
        x,
        rf"parameter 'blocks\.{min(which)}\.0\.weight' is used inside .* CheckpointFunction.* use_reentrant=False",
    )


def test_reentrant_checkpoints_without_parameters_or_with_frozen_ones() -> None:
    model = checkpointed(3, {1}, reentrant=True)
    model.blocks[1].requires_grad_(False)
    refuses(model, images(B, 4), r"reentrant checkpoints, .* use_reentrant=False")


def test_a_layer_in_sight_that_a_reentrant_checkpoint_also_uses() -> None:
    model = checkpointed(3, {1}, reentrant=True)
    model.blocks[2] = model.blocks[1]
    refuses(model, images(B, 4), r"parameter 'blocks\.1\.0\.weight'")


# Functions with a backward pass of their own


class Reversible(torch.autograd.Function):
    """Computes without a graph, and runs its block again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: nn.Module) -> Tensor:
        ctx.inner = inner
        with torch.no_grad():
            y = x + inner(x)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.backward(x + ctx.inner(x), g)
        return x.grad, None


class WithInnerGraph(torch.autograd.Function):
    """Builds a graph of its own in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: nn.Module) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = ctx.x + inner(ctx.x)
        return ctx.y.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        torch.autograd.backward(ctx.y, g)
        return ctx.x.grad, None


class WithSetup(torch.autograd.Function):
    """The same in the newer form of a function."""

    @staticmethod
    def forward(x: Tensor, inner: nn.Module) -> Tensor:
        return x + inner(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, nn.Module], output: Tensor) -> None:
        x, ctx.inner = inputs
        ctx.save_for_backward(x)

    backward = Reversible.backward


class GivenParameters(torch.autograd.Function):
    """Reversible, and its parameters are among its arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: nn.Module, *parameters: Tensor) -> Tensor:
        ctx.inner, ctx.parameters = inner, parameters
        ctx.save_for_backward(x)
        return x + inner(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            own, *others = torch.autograd.grad(x + ctx.inner(x), [x, *ctx.parameters], g)
        return own, None, *others


def by_hook(x: Tensor, inner: nn.Module) -> Tensor:
    """Cuts the graph, and goes on behind the cut in a hook."""
    before = x.detach().requires_grad_()
    y = before + inner(before)
    behind = y.detach().requires_grad_()

    def go_on(g: Tensor) -> None:
        torch.autograd.backward(y, g)
        x.backward(before.grad)

    behind.register_hook(go_on)
    return behind


WAYS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "reversible": (Reversible.apply, r"'inner\.0\.weight' is used inside the autograd function Reversible,.* apply"),
    "own graph": (WithInnerGraph.apply, r"'inner\.0\.weight' is used inside the autograd function WithInnerGraph"),
    "setup": (WithSetup.apply, r"gradient of parameter 'inner\.0\.weight' comes from a backward pass inside"),
    "hook": (by_hook, r"gradient of parameter '(first|inner\.0)\.weight' comes from a backward pass inside"),
}


def hiding(way: Callable[..., Tensor]) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(way(m.first(x), m.inner))

    return made(lambda: Of(forward, first=nn.Linear(4, 4), inner=block(), out=nn.Linear(4, CLASSES)))


@pytest.mark.parametrize("way", WAYS)
def test_a_backward_pass_inside_the_backward_pass_is_refused(way: str) -> None:
    function, message = WAYS[way]
    refuses(hiding(function), images(B, 4), message)


def test_what_a_function_hides_may_be_frozen() -> None:
    model = hiding(Reversible.apply)
    model.inner.requires_grad_(False)
    agrees(model, images(B, 4))


def test_a_function_that_gets_its_parameters() -> None:
    agrees(hiding(lambda x, inner: GivenParameters.apply(x, inner, *inner.parameters())), images(B, 4))


class LooksAtShapes(torch.autograd.Function):
    """Knows the parameters of a layer, but does not compute with them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: nn.Module) -> Tensor:
        return x * inner[0].weight.shape[0] * inner[0].weight.dtype.itemsize

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g * 32, None


def test_a_function_that_only_looks_at_the_shape_of_a_parameter() -> None:
    agrees(hiding(lambda x, inner: LooksAtShapes.apply(inner(x), inner)), images(B, 4))


def test_a_function_that_gets_only_some_of_its_parameters() -> None:
    model = hiding(lambda x, inner: GivenParameters.apply(x, inner, inner[0].weight))
    refuses(model, images(B, 4), r"parameter 'inner\.0\.bias' is used inside the autograd function GivenParameters")


class GradientOverBatch(torch.autograd.Function):
    """Its backward pass depends on the batch, though its result does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g / g.norm()


def hooked(x: Tensor) -> Tensor:
    x.register_hook(lambda g: g * len(g))
    return x


@pytest.mark.parametrize("change", [GradientOverBatch.apply, hooked])
def test_a_gradient_that_is_changed_on_the_way_is_that_of_the_example_alone(change: Callable[[Tensor], Tensor]) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(change(m.first(x)).tanh())

    model = made(lambda: Of(forward, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES)))
    with pytest.warns(UserWarning, match=r"pass per example for first.bias, first.weight, because a backward pass of"):
        agrees(model, images(B, 4))


def test_hooks_of_parameters_count() -> None:
    model = network()
    model[0][0].weight.register_hook(lambda g: g * (g > 0))
    agrees(model, images(B, 4))


# Parameters that other processes hold a part of


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network() -> nn.Module:
    return made(lambda: nn.Sequential(block(), nn.Linear(4, CLASSES)))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("part", "where"), [("", "the whole"), ("0", "module '0'"), ("0.0", r"module '0\.0'")])
def test_fully_sharded_modules_are_refused(part: str, where: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model.get_submodule(part), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=rf"{where} is sharded by fully_shard.*get_model_state_dict"):
        grand(model, images(B, 4), classes())


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")  # a group of one process
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_flat_parameters_are_refused(original: bool) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=original)
    with pytest.raises(ValueError, match="the whole is sharded by FullyShardedDataParallel"):
        grand(model, images(B, 4), classes())


@pytest.mark.usefixtures("group")
def test_parameters_spread_over_processes_are_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    model = parallelize_module(network(), init_device_mesh("cpu", (1,)), {"1": ColwiseParallel()})
    with pytest.raises(ValueError, match=r"parameter '1\.weight' is a DTensor"):
        grand(model, images(B, 4), classes())


# Views of parameters that were made without gradients


class MyLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g @ w, g.t() @ x


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "t": lambda w: w.t(),
    "T": lambda w: w.mT,
    "view": lambda w: w.view(-1),
    "index": lambda w: w[1],
    "slice": lambda w: w[1:, ::2],
    "chunk": lambda w: w.chunk(2)[1],
    "split": lambda w: w.split(1)[0],
    "unbind": lambda w: w.unbind()[0],
    "diagonal": lambda w: w.diagonal(),
    "expand": lambda w: w.expand(2, *w.shape),
    "squeeze": lambda w: w[None].squeeze(0),
    "itself": lambda w: w,
    "detached": lambda w: w.detach(),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_view_of_a_parameter_made_without_gradients(view: str, shared: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            part = VIEWS[view](m.first.weight)
            scale = 1 + part.abs().max() + F.linear(m.first.weight, part.flatten()[:4][None]).mean()
        x = (m.first(x) / scale).tanh()
        return m.out((m.first(x) if shared else x) + part.flatten()[:4])

    agrees(made(lambda: Of(forward, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES))), images(B, 4))


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_function_that_transposes_its_weight(with_gradients: bool, frozen: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(with_gradients):
            side = MyLinear.apply(x, m.first.weight)
        return m.out(m.first(x).tanh() + side)

    model = made(lambda: Of(forward, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES)))
    model.first.weight.requires_grad_(not frozen)
    agrees(model, images(B, 4))


# Parameters that reach the model by other ways than its attributes


def test_a_parameter_that_the_model_takes_from_a_closure() -> None:
    w = nn.Parameter(images(4, 4, seed=5))
    model = made(lambda: Of(lambda m, x: m.out(x @ w.T.tanh()), w=w, out=nn.Linear(4, CLASSES)))
    w.data = w.data.double()
    agrees(model, images(B, 4))


def test_a_weight_that_is_a_part_of_a_longer_parameter() -> None:
    model = made(lambda: Of(lambda m, x: m.out(F.linear(x, m.w).tanh()), flat=parameter(16), out=nn.Linear(4, 3)))
    model.w = model.flat[:16].view(4, 4)
    agrees(model, images(B, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.out(MyLinear.apply(m.first(x).tanh(), m.first.weight))

    model, x = made(lambda: Of(forward, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES))), images(B, 4)
    got = grand(model.to(dtype), x.to(dtype), classes())
    torch.testing.assert_close(
        got.double(), one_by_one(model.double(), x.to(dtype).double(), classes()), rtol=5e-2, atol=0
    )


def test_complex_parameters() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        z = F.linear(torch.fft.fft(x.tanh() @ m.first.weight), m.mixer, m.shift) * m.scale
        return m.out(torch.fft.ifft(z).real) + (x[:, :1] * m.scale.abs().sum())

    def make() -> nn.Module:
        mixer, shift, scale = (nn.Parameter(torch.randn(n, dtype=torch.complex128)) for n in ((4, 4), (4,), (4,)))
        return Of(forward, mixer=mixer, shift=shift, scale=scale, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES))

    model, x, y = made(make), images(B, 4), classes()
    norms = []
    for i in range(B):
        gradients = torch.autograd.grad(
            F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()), allow_unused=True
        )
        norms.append(torch.stack([g.abs().square().sum() for g in gradients if g is not None]).sum().sqrt())
    close(grand(model, x, y), torch.stack(norms).double())


def test_inference_mode_inside_the_model() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.inference_mode():
            scale = float(m.first(m.first(x.clone()))[:, 0].shape[0] > 0) + float(m.first.weight.t().abs().max())
        return m.out((m.first(x) / scale).tanh())

    agrees(made(lambda: Of(forward, first=nn.Linear(4, 4), out=nn.Linear(4, CLASSES))), images(B, 4))
