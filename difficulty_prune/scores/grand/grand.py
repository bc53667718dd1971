"""GraNd: the norm of each example's own loss gradient over all parameters."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from textwrap import shorten
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from .checks import (
    Loss,
    check_arguments,
    check_labels,
    check_loss_graph,
    check_losses,
    module_that_mixes,
    refuse_gradients_left,
    refuse_hidden,
    refuse_mixing,
    refuse_mixing_loss,
    refuse_reentrant,
    rounding,
    warn,
    warn_of_chance,
)
from .independence import Operation, Operations, first_that_may_mix
from .layer_rules import NotVectorizableError, Use, parts, uses_of, vectorized, wide
from .parameter_uses import BatchedCall, FunctionCall, Recorder, find_batch, graph, leaves, unexplained
from .targets import Targets, detached, rows_of, versions

_AT_ONCE: Final = 2**22
"""Temporary numbers, 16 MiB of float32, that bound how many examples go through a layer's rule at once. On a CPU a
ResNet-18, a small CNN and a transformer took the same time within 15 % with 2^20 to 2^26, and up to 60 % longer with
2^16; from 2^24 on memory grew by 80 MB."""


def grand(model: nn.Module, inputs: Tensor, labels: Targets, loss: Loss = "cross_entropy") -> Tensor:
    """GraNd: the L2 norm of each example's own loss gradient over all parameters.

    It costs about one forward and one backward pass of the batch, and one of a single example. For linear, convolution
    (2-d), embedding and normalisation layers the norms come from the inputs and the gradients of the outputs, without a
    gradient per example where that is cheaper. Any other function of a parameter is differentiated on its own, by
    `torch.func`. Some parameters fit neither way: weight normalisation, a table of positions that all examples share,
    batch and time merged into one dimension (except for linear layers), PyTorch code that hides its calls. They cost a
    vectorised backward pass of the whole model or, if `torch.func` cannot run the model, one pass per example, with a
    warning.

    The value of an example depends neither on its batch nor on the reduction of the loss. Two checks see to that. One
    goes through the operations of the forward pass. If it meets one that may mix examples (sorting them, a choice by
    numbers, anything unknown), each example goes through the model alone, and one with other logits than in the batch
    is refused. Kernels that PyTorch does not know of are not seen. The other compares the gradient of the example with
    the largest loss, by a backward pass of its own, with what the layers' rules say. Parameters for which they differ
    cost one pass per example.

    The model stays as it was: mode, parameters, their `.grad`, buffers; so does the random state. A compiled model runs
    uncompiled. Put the model into evaluation mode first.

    Args:
        model: maps inputs [B, ...] to logits [B, C]; with a loss of your own, to any tensor [B, ...], such as [B, T, V]
            of text. Parameters with `requires_grad=False` do not count.
        inputs: [B, ...] on the model's device.
        labels: [B] int64; with a loss of your own, a tensor of B rows, or a tuple, list or dict of such tensors:
            tokens, masks, probabilities, the two labels and the share of mixup.
        loss: "cross_entropy", or a function of (outputs, labels) that returns the loss of each example [B], or a single
            number of any reduction. Gradients come from calls for each example alone, [1, ...], so that no other can
            have a part in them. Parameters of the loss itself do not count.

    Returns:
        [B] float32, or float64 if a parameter is; on the inputs' device. Autocast is off, and half precision is
        summed in float32.

    Raises:
        TypeError: not a module, or not tensors; a loss that does not return one.
        ValueError: shapes that do not match; a label outside 0..C-1; no parameter requires gradients; a loss that
            returns other numbers for the batch than for its examples alone, numbers that are not finite or have no
            gradient, draws random numbers, changes its labels, or uses a parameter of the model itself; batch norm in
            training mode, random numbers in the forward pass (dropout), or anything else that makes an example's
            output or loss depend on the others or on chance, with the module where they meet; parameters out of sight,
            by name: sharded (FSDP, DTensor), or used inside a reentrant checkpoint, a reversible block or another
            `autograd.Function` that has not been given them; a gradient that is not finite.
        RuntimeError: in inference mode.

    Warns:
        UserWarning: on this batch the model is no better than chance, as at initialisation, where GraNd measures little
            but the norm of the input; or some parameters cost one backward pass per example, and why.

    From Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet" (NeurIPS 2021, arXiv 2107.07075).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(model.weight)
    >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> grand(model, x, torch.tensor([0, 1]))  # |p - onehot| * |x|
    tensor([0.2012, 0.3803])
    >>> grand(model, x, x + 1, lambda z, y: (z - y).square().mean(1))  # regression
    tensor([4.2426, 1.4142])
    """
    parameters = check_arguments(model, inputs, labels, loss)
    if len(inputs) == 0:
        return torch.zeros(0, dtype=_result_dtype(parameters), device=inputs.device)
    with _plain_execution(model, inputs.device):
        squared = _Batch(model, parameters, inputs, labels, loss).squared_norms()
    if not squared.isfinite().all():
        example = int(squared.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"grand: got {float(squared[example])} for example {example} of the batch, expected a finite gradient; "
            "check whether the model diverged or half precision overflowed"
        )
    return squared.sqrt()


@dataclass(frozen=True)
class _Pass:
    """A forward pass of some examples.

    Attributes:
        logits: [b, C] or [b, ...], part of the graph.
        losses: [b], part of the graph.
        calls: the calls that take a parameter.
        operations: all that PyTorch did.
    """

    logits: Tensor
    losses: Tensor
    calls: list[FunctionCall]
    operations: list[Operation]


class _Batch:
    """The examples whose gradients are wanted, and the model in its present state.

    Attributes:
        parameters: those that count, by name.
        dtype: of the result.
        example: the one whose gradient also comes from a backward pass of its own, to compare with.
        expected: the squared norms of that gradient, by parameter; those without a gradient are left out.
        logits: [B, ...], of the examples together; None for a batch of one.
        allowed: how much logits may change by rounding, as a part of the largest.
        doubt: the operation because of which all examples are computed alone; empty if there is none.
    """

    def __init__(
        self, model: nn.Module, parameters: dict[str, Tensor], inputs: Tensor, labels: Targets, loss: Loss
    ) -> None:
        self.model, self.parameters, self.loss = model, parameters, loss
        self.inputs, self.labels = inputs.detach().requires_grad_(inputs.requires_grad), detached(labels)
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.dtype = _result_dtype(parameters)
        self.names = {get_gradient_edge(p).node: name for name, p in parameters.items()}
        self.example, self.expected = 0, dict[str, Tensor]()
        self.logits: Tensor | None = None
        self.allowed, self.doubt = 0.0, ""

    def squared_norms(self) -> Tensor:
        """[B]"""
        total = torch.zeros(len(self.inputs), dtype=self.dtype, device=self.inputs.device)
        if len(self.inputs) == 1:
            return sum(self._one_by_one(list(self.parameters)).values(), total)
        groups, rest = self._uses_in_fast_layout()
        norms, failed = self._by_rules(groups)
        if rest or failed:
            norms |= self._by_model(rest + failed)
        if wrong := self._not_as_expected(norms):
            names = [name for group in wrong for name in group]
            reason = f"a backward pass of example {self.example} gives another norm"
            norms = {group: norm for group, norm in norms.items() if group not in wrong}
            norms |= self._one_by_one(names, reason)
        return sum(norms.values(), total)

    def _uses_in_fast_layout(self) -> tuple[dict[tuple[str, ...], list[Use]], list[str]]:
        """`uses`, with the channels of images last in memory, as a CPU then convolves a fifth faster."""
        given = self.inputs
        if (
            given.device.type == "cpu"
            and given.dim() == 4
            and any(isinstance(m, nn.Conv2d) for m in self.model.modules())
        ):
            self.inputs = given.contiguous(memory_format=torch.channels_last)
            try:
                return self.uses()
            except (RuntimeError, ValueError):  # a model that calls view() on its images needs them as they came
                self.inputs = given
        return self.uses()

    def uses(self) -> tuple[dict[tuple[str, ...], list[Use]], list[str]]:
        """The uses that the layers' rules explain, by names of parameters, and the names of all other parameters.

        On the way, it looks at the example with the largest loss alone: its outputs, operations and gradient.
        """
        batch = self._pass(self.inputs, self.labels)
        self.logits = batch.logits.detach()
        self.example = int(batch.losses.detach().nan_to_num(-1, -1, -1).argmax())
        alone = self._alone(self.example)
        self._refuse_mixing(self.example, alone.logits[0])
        self.expected = self._backward(alone.losses, list(self.parameters))
        self.doubt = self._operation_that_may_mix(batch.operations, alone.operations)
        if self.loss == "cross_entropy":
            warn_of_chance(batch.losses, batch.logits.shape[1])
        if batch.losses.grad_fn is None:
            return {}, []
        if self.doubt:
            return {}, list(self.parameters)
        return self._uses(batch.losses.sum(), find_batch(batch.calls, alone.calls, len(self.inputs)))

    def _uses(self, total: Tensor, found: Sequence[BatchedCall]) -> tuple[dict[tuple[str, ...], list[Use]], list[str]]:
        names = {id(p): name for name, p in self.parameters.items()}
        explained = names.keys() - unexplained(total, found, self.parameters.values())
        found = [c for c in found if not explained.isdisjoint(map(id, c.call.parameters))]
        edges = [edge for c in found for _, _, edge in c.call.outputs]
        gradients = iter(torch.autograd.grad(total, edges, allow_unused=True) if edges else ())

        count = Counter(id(p) for c in found for p in c.call.parameters)
        groups: dict[tuple[str, ...], list[Use]] = {}
        for c in found:
            own_gradients = [next(gradients) for _ in c.call.outputs]
            wanted = [p for p in c.call.parameters if id(p) in explained]
            for members, use in uses_of(c, own_gradients, wanted, [p for p in wanted if count[id(p)] > 1]):
                groups.setdefault(tuple(names[id(p)] for p in members), []).append(use)
        return groups, [name for i, name in names.items() if i not in explained]

    # Passes

    def _alone(self, example: int) -> _Pass:
        """A forward pass of one example; ValueError if the model only takes more of them."""
        rows = slice(example, example + 1)
        try:
            return self._pass(self.inputs[rows], rows_of(self.labels, rows))
        except (RuntimeError, ValueError, IndexError) as error:
            if self.logits is None:
                raise
            raise ValueError(
                f"model: takes a batch of {len(self.inputs)}, but not example {example} alone ({error}), so that no "
                "example has a gradient of its own; make each example's output its own"
            ) from error

    def _pass(self, inputs: Tensor, labels: Targets) -> _Pass:
        """A forward pass; ValueError if it draws random numbers or uses a parameter out of sight."""
        before = _random_state(self.inputs.device)
        operations = Operations([inputs, *self.model.parameters(), *self.buffers.values()])
        recorder = Recorder(self.parameters.values())
        with operations, recorder:
            logits = self._forward(inputs)
        if not _same_random_state(before, self.inputs.device):
            raise ValueError(
                "model: draws random numbers in its forward pass (dropout in training mode?), so that gradients "
                "differ from call to call; call model.eval()"
            )
        hidden = recorder.hidden
        refuse_hidden({name: hidden[id(p)] for name, p in self.parameters.items() if id(p) in hidden})
        self.allowed = rounding(operations.rounding, self.inputs.device)
        if callable(self.loss):
            losses = self._own_losses(logits, labels, before)
        else:
            assert isinstance(labels, Tensor)
            check_labels(labels, logits.shape[1])
            losses = self._losses(logits, labels)
        return _Pass(logits, losses, recorder.calls, [*operations.performed, *recorder.reads])

    def _forward(self, inputs: Tensor, parameters: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
        """Logits of the model with some parameters in place of its own; its buffers stay as they are."""
        # A clone, because the first layer may work in place.
        logits = torch.func.functional_call(self.model, {**self.buffers, **parameters}, (inputs.clone(),))
        expected = "[B, C]" if self.loss == "cross_entropy" else "[B, ...]"
        if not isinstance(logits, Tensor):
            raise ValueError(f"model: returned {type(logits).__name__}, expected a tensor {expected}; wrap the model")
        if logits.shape[:1] != inputs.shape[:1] or (self.loss == "cross_entropy" and logits.dim() != 2):
            raise ValueError(f"model: returned {tuple(logits.shape)} for {len(inputs)} examples, expected {expected}")
        return logits

    def _losses(self, logits: Tensor, labels: Targets) -> Tensor:
        """[B], or one number of whatever reduction."""
        if callable(self.loss):
            losses = self.loss(logits, labels)
            check_losses(losses, len(logits))
            return losses
        assert isinstance(labels, Tensor)
        return F.cross_entropy(wide(logits), labels.long(), reduction="none")

    def _own_losses(self, outputs: Tensor, labels: Targets, random_state: list[Tensor]) -> Tensor:
        """[B], by the user's function of each example alone; ValueError if the batch together has others."""
        first, given, source = self.logits is None, [outputs, labels], outputs.grad_fn
        changes = versions(given)
        with torch.no_grad():
            together = self._losses(outputs.detach(), labels) if first else outputs
        if versions(given) != changes:
            raise ValueError("loss: changes its outputs or labels in place; let it work on copies, as of .clone()")
        rows = [rows_of(labels, slice(i, i + 1)) for i in range(len(outputs))]
        losses = torch.cat([self._losses(*row).reshape(1) for row in zip(outputs.split(1), rows, strict=True)])
        if not _same_random_state(random_state, self.inputs.device):
            raise ValueError(
                "loss: draws random numbers, so that gradients differ from call to call; call eval() on it"
            )
        if first:
            check_loss_graph(losses, outputs, source, {name: node for node, name in self.names.items()})
            if together.dim() == 1:
                refuse_mixing_loss(together, losses.detach(), self.allowed)
        return losses

    def _backward(self, losses: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Squared norms of the gradients of one example's loss [1], by parameter; those without one are left out."""
        nodes = graph(losses)
        refuse_reentrant(nodes)
        ends = leaves(nodes)
        if len(names) < len(self.parameters):
            ends = [edge for edge in ends if self.names.get(edge.node) in names]
        with refuse_gradients_left(self.parameters):
            gradients = torch.autograd.grad(losses, ends, allow_unused=True) if ends else ()
        return {
            self.names[edge.node]: parts(g.to_dense()).square().sum().to(self.dtype)
            for edge, g in zip(ends, gradients, strict=True)
            if g is not None and edge.node in self.names
        }

    # Squared norms [B] by names of parameters

    def _by_rules(self, groups: dict[tuple[str, ...], list[Use]]) -> tuple[dict[tuple[str, ...], Tensor], list[str]]:
        """Of uses; and the names of the parameters for which `torch.func` cannot run the function."""
        norms, failed = dict[tuple[str, ...], Tensor](), list[str]()
        with torch.no_grad():
            while groups:
                names, uses = groups.popitem()  # and with them their activations
                parameters = [self.parameters[name] for name in names]
                try:
                    norms[names] = _squared_norms(uses, parameters, len(self.inputs)).to(self.dtype)
                except NotVectorizableError:
                    failed += names
        return norms, failed

    def _by_model(self, names: Sequence[str]) -> dict[tuple[str, ...], Tensor]:
        """By `torch.func` on the whole model, which gets each example alone."""
        chosen = {name: self.parameters[name].detach() for name in names}

        def of_one(x: Tensor, y: Targets) -> tuple[Tensor, Tensor]:
            def loss(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
                logits = self._forward(x[None], parameters)
                return self._losses(logits, rows_of(y, None)).sum(), logits[0]

            gradients, logits = torch.func.grad(loss, has_aux=True)(chosen)
            return torch.stack([parts(g).square().sum() for g in gradients.values()]), logits

        at_once = max(1, _AT_ONCE // sum(p.numel() for p in chosen.values()))
        reason = f"operation {self.doubt!r} may mix the examples of a batch, and " if self.doubt else ""
        try:
            with torch.no_grad():
                norms, logits = vectorized(of_one, 0, at_once)(self.inputs, self.labels)
        except NotVectorizableError as error:
            reason += f"torch.func.vmap cannot run the model: {shorten(str(error), 200)}"
        else:
            for example in range(len(self.inputs)) if self.doubt else ():
                self._refuse_mixing(example, logits[example])
            return {(name,): norms[:, i].to(self.dtype) for i, name in enumerate(chosen)}
        return self._one_by_one(names, reason)

    def _one_by_one(self, names: Sequence[str], reason: str = "") -> dict[tuple[str, ...], Tensor]:
        """By a backward pass for each example."""
        if reason:
            warn(f"grand: one backward pass per example for {shorten(', '.join(names), 200)}, because {reason}")
        norms: dict[tuple[str, ...], Tensor]
        norms = {(name,): torch.zeros(len(self.inputs), dtype=self.dtype, device=self.inputs.device) for name in names}
        for i in range(len(self.inputs)):
            alone = self._alone(i)
            self._refuse_mixing(i, alone.logits[0])
            for name, squared in self._backward(alone.losses, names).items():
                norms[name,][i] = squared
        return norms

    # Checks

    def _operation_that_may_mix(self, batch: Sequence[Operation], alone: Sequence[Operation]) -> str:
        """Empty if there is none."""
        size = len(self.inputs)
        if first_that_may_mix(batch, alone, (size, 1)) is None:
            return ""
        # With a single example PyTorch may take another way, as all of its layouts are contiguous.
        few = torch.tensor([0, 1] if size > 2 else [0, 1, 0], device=self.inputs.device)
        some = self._pass(self.inputs[few], rows_of(self.labels, few))
        return first_that_may_mix(batch, some.operations, (size, len(few))) or ""

    def _refuse_mixing(self, example: int, alone: Tensor) -> None:
        """ValueError if the logits [C] of an example that came alone are not those in the batch."""
        if self.logits is not None:
            refuse_mixing(example, self.logits[example], alone.detach(), self.allowed, self._mixing_module)

    def _mixing_module(self, example: int) -> str:
        with torch.no_grad():
            return module_that_mixes(self.model, self._forward, self.inputs, example, self.allowed)

    def _not_as_expected(self, norms: Mapping[tuple[str, ...], Tensor]) -> list[tuple[str, ...]]:
        """The parameters whose norm for `example` is not that of its own backward pass, in the groups of `norms`."""
        left = self.expected.keys() - {name for names in norms for name in names}
        groups = [*norms, *((name,) for name in sorted(left))]
        zero = torch.zeros((), dtype=self.dtype, device=self.inputs.device)
        got = torch.stack([norms[names][self.example] if names in norms else zero for names in groups] + [zero])
        own = torch.stack([sum((self.expected.get(n, zero) for n in names), zero) for names in groups] + [zero])
        allowed = min(10 * self.allowed, 0.1) * own + min(0.1 * self.allowed, 2e-3) * own.sum()
        wrong = ((got - own).abs() > allowed) & own.sum().isfinite()
        return [names for names, differs in zip(groups, wrong.tolist(), strict=False) if differs]


def _squared_norms(uses: Sequence[Use], parameters: Sequence[Tensor], size: int) -> Tensor:
    """[B]: squared norms of the sum of all uses of the same parameters."""
    numbers = sum(use.floats for use in uses)
    if len(uses) > 1:
        numbers += 2 * sum(p.numel() for p in parameters)
    step = max(1, _AT_ONCE // max(1, numbers))
    parts = []
    for start in range(0, size, step):
        examples = slice(start, start + step)
        if len(uses) == 1:
            parts.append(uses[0].squared_norm(examples))
        else:
            gradient = uses[0].gradient(examples)
            for use in uses[1:]:
                gradient += use.gradient(examples)
            parts.append(gradient.square_().sum(1))
    return torch.cat(parts)


def _result_dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    dtypes = {p.dtype for p in parameters.values()}
    return torch.float32 if dtypes.isdisjoint({torch.float64, torch.complex128}) else torch.float64


@contextmanager
def _plain_execution(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Gradients on; autocast and compiled code off; the random state is restored afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        devices = [] if device.type == "cpu" else [device]
        stack.enter_context(torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"))
        if device.type == "cuda" and any(isinstance(m, nn.RNNBase) for m in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # it has no gradients in evaluation mode
        if "torch._dynamo" in sys.modules:  # if not, nothing is compiled, and loading the compiler takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the generators that a model may draw from: PyTorch's, Python's and NumPy's."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (it is only looked at)
    of_numpy = np.append(numpy["key"].astype(np.int64), numpy["pos"])
    states = [torch.get_rng_state(), torch.tensor(random.getstate()[1], device="cpu"), torch.from_numpy(of_numpy)]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def _same_random_state(before: list[Tensor], device: torch.device) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, _random_state(device), strict=True))
