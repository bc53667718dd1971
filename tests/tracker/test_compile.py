"""A training step with the tracker in it under `torch.compile`: one graph, the scores of eager, no copy of the state.

Where the scores alone matter, the backend is "aot_eager": traced, made functional and split into a forward and a
backward graph, but run by PyTorch's own kernels, so that the scores have to be those of eager to the last bit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
import torch.nn.functional as F
from fresh_python import run_python
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import difficulty_prune as dp
from difficulty_prune import ops

N, CLASSES = 1009, 5  # a number of examples that is easy to find in generated code
PIXELS = 4 * 6
SCORES = ("el2n", "aum", "vog_loss")
IN_WINDOWS = ("el2n", "tdds", "dyn_unc", "dual")
WINDOW = 3
pytestmark = [  # what the compiler says of its own doings
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:torch\..*"),
]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: no g++")

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    dynamo.reset()
    yield
    dynamo.reset()


def new_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def new_batch(seed: int, size: int = 8) -> Batch:
    """Inputs, index, labels and weights; the same examples come back in every third batch."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(N, generator=torch.Generator().manual_seed(seed % 3))[:size]
    weight = torch.rand(size, generator=generator) + 0.5
    weight[-1] = 0
    x = torch.randn(size, 3, 4, 6, generator=generator)
    return x, index, index % CLASSES, weight


class Training:
    """A model, its tracker, and one step of their training, as a user writes it."""

    def __init__(self, scores: Sequence[str] = SCORES, **gradient: Any) -> None:
        self.model = new_model()
        options = {"gradient": dp.GradientOptions(**gradient), "temporal": dp.TemporalOptions(WINDOW)}
        self.tracker = dp.DifficultyTracker(N, scores, **options)

    def loss(self, x: Tensor, index: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        if "vog_loss" in self.tracker.scores:
            x = self.tracker.watch(x, index, weight=weight)
        logits = self.model(x)
        self.tracker.update(index, logits, y)
        return (F.cross_entropy(logits, y, reduction="none") * weight).mean()

    def state(self) -> dict[str, Tensor]:
        state = self.tracker.state_dict()
        moments = {f"{name}.{key}": t for name, m in state["moments"].items() for key, t in m.items()}
        tables = {"table": state["table"], "temporal": (state["temporal_records"] or {}).get("table")}
        return {key: t for key, t in {**tables, **moments}.items() if isinstance(t, Tensor)}


def compiled(function: Callable[..., Any], backend: str = "aot_eager", **options: Any) -> tuple[Any, Any]:
    """The compiled function, and a counter of its graphs."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, fullgraph=True, backend=counter, **options), counter


def step_both(fast: Callable[..., Tensor], eager: Training, batch: Batch, **options: Any) -> None:
    fast(*batch).backward()
    eager.loss(*batch).backward()


def assert_same(got: Training, expected: Training, rtol: float = 0, atol: float = 0) -> None:
    compare = partial(torch.testing.assert_close, rtol=rtol, atol=atol, equal_nan=True)
    assert got.tracker.skipped == expected.tracker.skipped
    assert got.tracker.presentations == expected.tracker.presentations > 0
    compare(got.state(), expected.state())
    compare(got.tracker.compute(allow_skipped=True), expected.tracker.compute(allow_skipped=True))


# Through inductor, which rounds in its own way what it fuses of the model and of the loss

INDUCTOR = {"rtol": 1e-4, "atol": 1e-6}
SIZES_OF_STATE = "|".join(
    rf"\b{n}L?\b" for n in (N, N * PIXELS, N * ops.RECORD_WIDTH, N * ops.temporal_width(WINDOW, CLASSES))
)


@needs_compiler
@pytest.mark.parametrize("scores", [("el2n", "aum"), SCORES, IN_WINDOWS], ids=["update", "watch and update", "windows"])
def test_inductor_changes_the_state_where_it_is_and_compiles_once(scores: tuple[str, ...]) -> None:
    training, eager = Training(scores), Training(scores)
    fast, counter = compiled(training.loss, "inductor")

    def train(batches: range) -> None:
        for seed in batches:
            for loss, model in ((fast, training.model), (eager.loss, eager.model)):
                loss(*new_batch(seed)).backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad
                        parameter.grad = None

    _, codes = torch._inductor.utils.run_and_get_code(train, range(1))
    addresses = {name: t.data_ptr() for name, t in training.state().items()}
    with dynamo.config.patch(error_on_recompile=True):
        train(range(1, 7))

    assert counter.frame_count == 1
    assert {name: t.data_ptr() for name, t in training.state().items()} == addresses
    assert_same(training, eager, **INDUCTOR)

    code = "\n".join(codes)
    operators = ["record_stats_"] + ["record_gradients_"] * ("vog_loss" in scores)
    operators += ["record_temporal_"] * ("tdds" in scores)
    for name in operators:  # straight on what came in as arguments of the graph
        assert re.search(rf"torch\.ops\.difficulty_prune\.{name}\.default\((primals_\d+, )+", code), name
    # Nothing as large as a part of the state is made or gone through; `rand_strided` is for who tries the code out.
    lines = {line.strip() for line in code.splitlines() if re.search(SIZES_OF_STATE, line)}
    checks_of_arguments = {line for line in lines if line.startswith("assert_size_stride")}
    assert checks_of_arguments
    assert all("= rand_strided(" in line for line in lines - checks_of_arguments), lines

    # Two batches on their way at once, as where gradients of several micro-batches are added up; nothing to compile.
    with dynamo.config.patch(error_on_recompile=True):
        for loss in (fast, eager.loss):
            micro_batches = [loss(*new_batch(seed)) for seed in (3, 3, 7)]
            micro_batches[0].backward()
            (micro_batches[2] + micro_batches[1]).backward()
    assert_same(training, eager, **INDUCTOR)


# Graphs


def test_every_second_step_takes_two_graphs() -> None:
    training, eager = Training(every=2), Training(every=2)
    fast, counter = compiled(training.loss)
    for seed in range(2):
        step_both(fast, eager, new_batch(seed))
    with dynamo.config.patch(error_on_recompile=True):
        for seed in range(2, 7):
            step_both(fast, eager, new_batch(seed))
    assert counter.frame_count == 2
    assert_same(training, eager)


# With dynamic=True the tracer takes the floats of the options for symbols, finds that they are none, and starts again.
@pytest.mark.parametrize(("dynamic", "graphs"), [(None, 2), (True, 2)])
def test_batches_of_any_size_take_one_graph_more(dynamic: bool | None, graphs: int) -> None:
    training, eager = Training(), Training()
    fast, counter = compiled(training.loss, dynamic=dynamic)
    for seed, size in enumerate((8, 8, 5, 7, 3, 8)):
        step_both(fast, eager, new_batch(seed, size))
    assert counter.frame_count == graphs
    assert_same(training, eager)


def test_a_state_that_was_there_before_needs_no_second_graph() -> None:
    training, eager = Training(), Training()
    for each in (training, eager):
        each.loss(*new_batch(0)).backward()
    training.tracker.load_state_dict(training.tracker.state_dict())
    fast, counter = compiled(training.loss)
    for seed in range(1, 4):
        step_both(fast, eager, new_batch(seed))
    assert counter.frame_count == 1
    assert_same(training, eager)


def test_reset_load_and_merge_go_on_with_the_right_state() -> None:
    training, eager, other = Training(), Training(), Training()
    other.loss(*new_batch(9)).backward()
    fast, _ = compiled(training.loss)
    for change in (
        lambda tracker: tracker.reset(),
        lambda tracker: tracker.load_state_dict(other.tracker.state_dict()),
        lambda tracker: tracker.merge(other.tracker),
        lambda tracker: None,
    ):
        for seed in range(2):
            step_both(fast, eager, new_batch(seed))
        for each in (training, eager):
            change(each.tracker)
    assert_same(training, eager)


def test_nothing_loads_the_compiler_that_does_not_compile() -> None:
    code = """
        import sys, torch, difficulty_prune as dp
        tracker = dp.DifficultyTracker(4, ("el2n", "vog_loss"))
        index, x = torch.arange(2), torch.ones(2, 3)
        logits = tracker.watch(x, index) * 2
        tracker.update(index, logits, index)
        logits.sum().backward()
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", "if True:" + code], check=True)


# What a step may look like


def test_gradients_still_reach_inputs_that_require_them() -> None:
    training, eager = Training(), Training()
    fast, _ = compiled(training.loss)
    for seed in range(2):
        x, *rest = new_batch(seed)
        leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
        fast(leaves[0], *rest).backward()
        eager.loss(leaves[1], *rest).backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=0, atol=0)
    assert_same(training, eager)


@pytest.mark.parametrize("options", [{"pixels": 10}, {"m2_dtype": "bfloat16"}, {"channel_dim": 3}], ids=str)
def test_gradient_options(options: dict[str, Any]) -> None:
    training, eager = Training(**options), Training(**options)
    fast, _ = compiled(training.loss)
    for seed in (0, 3, 6):
        step_both(fast, eager, new_batch(seed))
    assert_same(training, eager)


def step_with_backward(training: Training, *batch: Tensor) -> None:
    training.loss(*batch).backward()


def step_with_inputs(training: Training, x: Tensor, index: Tensor, y: Tensor, weight: Tensor) -> None:
    """For the scores that take a backward pass of their own."""
    logits = training.model(x)
    training.tracker.update(index, logits, y, inputs=x)
    (F.cross_entropy(logits, y, reduction="none") * weight).mean().backward()


@pytest.mark.parametrize(("step", "scores"), [(step_with_backward, SCORES), (step_with_inputs, ("el2n", "vog"))])
def test_the_backward_pass_may_be_part_of_the_graph(step: Callable[..., None], scores: tuple[str, ...]) -> None:
    training, eager = Training(scores), Training(scores)
    fast, counter = compiled(step)
    if not hasattr(dynamo.config, "trace_autograd_ops"):
        pytest.skip("needs a PyTorch with torch._dynamo.config.trace_autograd_ops")
    with dynamo.config.patch(trace_autograd_ops=True):
        for seed in range(3):
            for run, each in ((fast, training), (step, eager)):
                x, *rest = new_batch(seed)
                run(each, x.requires_grad_(step is step_with_inputs), *rest)
                each.model.zero_grad()
    assert counter.frame_count == 1
    assert_same(training, eager)


def test_compiled_autograd() -> None:
    training, eager = Training(), Training()
    fast, _ = compiled(training.loss)
    for seed in range(3):
        with dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
            fast(*new_batch(seed)).backward()
        eager.loss(*new_batch(seed)).backward()
    assert_same(training, eager)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_between_training_steps(mode: Callable[[], Any]) -> None:
    """Even as the first of all steps, which makes the state."""
    training, eager = Training(), Training()
    fast, counter = compiled(training.loss)
    for seed in range(4):
        if seed % 2 == 0:
            with mode():
                for loss in (fast, eager.loss):
                    assert not loss(*new_batch(seed)).requires_grad
        else:
            step_both(fast, eager, new_batch(seed))
    assert counter.frame_count == 2
    assert_same(training, eager)


@pytest.mark.parametrize("within", [True, False], ids=["within the step", "around the step"])
def test_autocast(within: bool) -> None:
    training, eager = Training(), Training()
    autocast = torch.autocast("cpu", torch.bfloat16)
    inner = autocast(training.loss) if within else training.loss
    fast, _ = compiled(inner)
    fast = fast if within else autocast(fast)
    for seed in range(3):
        fast(*new_batch(seed)).backward()
        autocast(eager.loss)(*new_batch(seed)).backward()
    assert_same(training, eager)


def test_autocast_changes_scores_by_no_more_than_its_rounding() -> None:
    """Logits come in bfloat16 and with a graph behind them; the tracker computes in float32 all the same."""
    training, exact = Training(), Training()
    autocast = torch.autocast("cpu", torch.bfloat16)
    for seed in (0, 3, 6):
        autocast(training.loss)(*new_batch(seed)).backward()
        exact.loss(*new_batch(seed)).backward()
    assert_same(training, exact, rtol=0.05, atol=0.02)


def test_a_scaler_is_watched_before_the_compiled_part() -> None:
    training, eager = Training(("vog_loss",)), Training(("vog_loss",))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024)

    def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    fast, _ = compiled(loss_of)
    for seed in range(3):
        x, index, y, _ = new_batch(seed)
        for loss, each in ((fast, training), (loss_of, eager)):
            scaler.scale(loss(each.model, each.tracker.watch(x, index, scaler=scaler), y)).backward()
    assert_same(training, eager)


def test_one_loss_per_example() -> None:
    training, eager = Training(("loss",)), Training(("loss",))

    def step(each: Training, x: Tensor, index: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(each.model(x), y, reduction="none")
        each.tracker.update(index, loss=loss)
        return loss.mean()

    fast, counter = compiled(step)
    for seed in range(3):
        for run, each in ((fast, training), (step, eager)):
            run(each, *new_batch(seed)[:3]).backward()
    assert counter.frame_count == 1
    assert_same(training, eager)


# What is wrong


def test_bad_values_are_counted_where_a_graph_cannot_look_at_them() -> None:
    training = Training()
    fast, _ = compiled(training.loss)
    for seed in range(3):
        x, index, y, weight = new_batch(seed)
        index[2], x[4] = N, torch.nan
        fast(x, index, y, weight).backward()
    # Each is seen by `update` and by the backward pass.
    assert training.tracker.skipped == {"bad index": 6, "bad label": 0, "not finite": 6, "changed label": 0}
    with pytest.raises(ValueError, match="6 x bad index"):
        training.tracker.compute()


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (lambda: dp.DifficultyTracker(N, SCORES, num_classes=7), "got 5 classes, expected 7"),
        (lambda: dp.DifficultyTracker(N, SCORES, device="meta"), "batch on cpu, but the state of this tracker is on"),
    ],
)
def test_a_batch_that_does_not_suit_the_tracker_is_refused_while_it_is_traced(tracker, message: str) -> None:
    training = Training()
    training.tracker = tracker()
    fast, _ = compiled(training.loss)
    with pytest.raises(Exception, match=message):
        fast(*new_batch(0))


def test_plain_operators_change_the_state_as_quietly_as_the_compiled_ones() -> None:
    """Else autograd would refuse the backward passes of two watched batches: the state changes in between."""
    result = run_python("""
import sys, warnings
sys.modules["difficulty_prune._C"] = None
import torch
from difficulty_prune import ops
assert ops.missing_kernels() is not None
warnings.simplefilter("ignore", RuntimeWarning)
count, mean, _ = state = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 3), torch.zeros(2, 3)
gradients = torch.arange(6.0).view(2, 1, 3)
ops.record_gradients_(*state, torch.zeros(2).long(), gradients, skipped=ops.new_skipped())
assert count.tolist() == [2, 0], count
assert mean[0].tolist() == [1.5, 2.5, 3.5], mean
assert [t._version for t in state] == [0, 0, 0]
""")
    assert result.returncode == 0, result.stderr
