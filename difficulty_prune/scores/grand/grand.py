"""GraNd: the norm of each example's own loss gradient over all parameters."""

from __future__ import annotations

import math
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layer_rules import NotVectorizableError, Use, uses_of, vectorized, wide
from .parameter_uses import FunctionCall, Recorder, find_batch, unexplained

Loss = Literal["cross_entropy"] | Callable[[Tensor, Tensor], Tensor]

_AT_ONCE: Final = 2**22
"""Temporary numbers, 16 MiB of float32, that bound how many examples go through a layer's rule at once. On a CPU a
ResNet-18, a small CNN and a transformer took the same time within 15 % with 2^20 to 2^26, and up to 60 % longer with
2^16; from 2^24 on memory grew by 80 MB."""

_CHANCE: Final = 0.95
"""A mean loss above this share of log C, the loss of chance, counts as no better than chance. On digits, batches of 32
were at 0.94 to 1.07 with untrained networks, and at most at 0.90 after one epoch."""

_MOST_ROUNDING: Final = 0.05
"""Of the largest logit: how much a batch may change an example by rounding. A ResNet-18 in float32 changes it by 1e-6;
half precision may by some percent; a layer that mixes examples changes it by far more."""


def grand(model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss = "cross_entropy") -> Tensor:
    """GraNd: the L2 norm of each example's own loss gradient over all parameters.

    It costs about one forward and one backward pass of the batch. For linear, convolution (2-d), embedding and
    normalisation layers the norms come from the inputs and the gradients of the outputs, without a gradient per example
    where that is cheaper. Any other function of a parameter is differentiated on its own, by `torch.func`. Some
    parameters fit neither way: weight normalisation, batch and time merged into one dimension, PyTorch code that hides
    its calls. They cost a vectorised backward pass of the whole model or, if `torch.func` cannot run the model, one
    pass per example, with a warning.

    The value of an example depends neither on its batch nor on the reduction of the loss. The model stays as it was:
    mode, parameters, their `.grad`, buffers; so does the random state. A compiled model runs uncompiled. Put the model
    into evaluation mode first.

    Args:
        model: maps inputs [B, ...] to logits [B, C]. Parameters with `requires_grad=False` do not count.
        inputs: [B, ...] on the model's device.
        labels: [B] int64; with a loss of your own, any tensor of B rows.
        loss: "cross_entropy", or a function of (logits, labels). It returns one loss per example [B], or a single
            number of any reduction; then it is called for each example alone.

    Returns:
        [B] float32, or float64 if a parameter is; on the inputs' device. Autocast is off, and half precision is
        summed in float32.

    Raises:
        TypeError: not a module, or not tensors; a loss that does not return one.
        ValueError: shapes that do not match; a label outside 0..C-1; no parameter requires gradients; batch norm in
            training mode, random numbers in the forward pass (dropout), or anything else that makes an example's
            output depend on the others or on chance; a gradient that is not finite.
        RuntimeError: in inference mode.

    Warns:
        UserWarning: on this batch the model is no better than chance, as at initialisation, where GraNd measures little
            but the norm of the input.

    From Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet" (NeurIPS 2021, arXiv 2107.07075).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(model.weight)
    >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> grand(model, x, torch.tensor([0, 1]))  # |p - onehot| * |x|
    tensor([0.2012, 0.3803])
    """
    parameters = _check(model, inputs, labels, loss)
    if len(inputs) == 0:
        return torch.zeros(0, dtype=_result_dtype(parameters), device=inputs.device)
    with _plain_execution(inputs.device):
        squared = _Batch(model, parameters, inputs, labels, loss).squared_norms()
    if not squared.isfinite().all():
        example = int(squared.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"grand: got {float(squared[example])} for example {example} of the batch, expected a finite gradient; "
            "check whether the model diverged or half precision overflowed"
        )
    return squared.sqrt()


class _Batch:
    """The examples whose gradients are wanted, and the model in its present state.

    Attributes:
        parameters: those that count, by name.
    """

    def __init__(
        self, model: nn.Module, parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, loss: Loss
    ) -> None:
        self.model, self.parameters, self.loss = model, parameters, loss
        self.inputs, self.labels = inputs.detach(), labels.detach()
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def squared_norms(self) -> Tensor:
        """[B]"""
        if len(self.inputs) == 1:
            self._probe()
            return self._one_by_one(list(self.parameters))
        groups, rest = self._uses_in_fast_layout()
        total = torch.zeros(len(self.inputs), dtype=_result_dtype(self.parameters), device=self.inputs.device)
        with torch.no_grad():
            while groups:
                names, uses = groups.popitem()  # and with them their activations
                try:
                    total += _squared_norms(uses, [self.parameters[name] for name in names], len(total)).to(total)
                except NotVectorizableError:
                    rest += names
        return total + self._by_model(rest).to(total) if rest else total

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
            except RuntimeError:  # a model that calls view() on its images needs them as they came
                self.inputs = given
        return self.uses()

    def uses(self) -> tuple[dict[tuple[str, ...], list[Use]], list[str]]:
        """The uses that the layers' rules explain, by names of parameters, and the names of all other parameters."""
        single, own = self._probe()
        calls, logits = self._record(self.inputs)
        _refuse_mixing(logits[:1].detach(), own)
        losses = self._losses(logits, self.labels)
        if self.loss == "cross_entropy":
            _warn_of_chance(losses, logits.shape[1])
        total = losses.sum()
        if total.grad_fn is None:
            return {}, []

        names = {id(p): name for name, p in self.parameters.items()}
        found = find_batch(calls, single, len(self.inputs))
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

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B], the loss of each example alone."""
        if not callable(self.loss):
            return F.cross_entropy(wide(logits), labels.long(), reduction="none")
        losses = self.loss(logits, labels)
        if not isinstance(losses, Tensor):
            raise TypeError(f"loss: returned {type(losses).__name__}, expected a tensor")
        if losses.dim() == 0:
            losses = torch.stack([self.loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
        if losses.shape != labels.shape[:1]:
            raise ValueError(
                f"loss: returned {tuple(losses.shape)}, expected one number or one per example [{len(labels)}]; "
                "sum or average over all other dimensions"
            )
        return losses

    def _record(self, inputs: Tensor) -> tuple[list[FunctionCall], Tensor]:
        with Recorder(self.parameters.values()) as recorder:
            logits = self._forward(inputs)
        return recorder.calls, logits

    def _probe(self) -> tuple[list[FunctionCall], Tensor]:
        """The calls and the logits [1, C] of the first example alone; ValueError if they draw random numbers."""
        before = _random_state(self.inputs.device)
        calls, logits = self._record(self.inputs[:1])
        if any(not torch.equal(a, b) for a, b in zip(before, _random_state(self.inputs.device), strict=True)):
            raise ValueError(
                "model: draws random numbers in its forward pass (dropout in training mode?), so that gradients "
                "differ from call to call; call model.eval()"
            )
        if self.loss == "cross_entropy":
            _check_range(self.labels, logits.shape[1])
        return calls, logits.detach()

    def _by_model(self, names: Sequence[str]) -> Tensor:
        """[B]: squared norms over some parameters, by `torch.func` on the whole model."""
        chosen = {name: self.parameters[name].detach() for name in names}

        def squared_norm(x: Tensor, y: Tensor) -> Tensor:
            def loss(parameters: dict[str, Tensor]) -> Tensor:
                return self._losses(self._forward(x[None], parameters), y[None]).sum()

            gradients = torch.func.grad(loss)(chosen).values()
            return torch.stack([wide(g).square().sum() for g in gradients]).sum()

        at_once = max(1, _AT_ONCE // sum(p.numel() for p in chosen.values()))
        try:
            with torch.no_grad():
                squared: Tensor = vectorized(squared_norm, 0, at_once)(self.inputs, self.labels)
                return squared
        except NotVectorizableError as error:
            warnings.warn(
                f"grand: one backward pass per example for {', '.join(names)}, because torch.func.vmap cannot run "
                f"the model: {textwrap.shorten(str(error), 200)}",
                stacklevel=4,
            )
            return self._one_by_one(names)

    def _one_by_one(self, names: Sequence[str]) -> Tensor:
        """[B]: squared norms over some parameters, by a backward pass for each example."""
        chosen = [self.parameters[name] for name in names]
        squared = torch.zeros(len(self.inputs), dtype=_result_dtype(self.parameters), device=self.inputs.device)
        for i in range(len(squared)):
            loss = self._losses(self._forward(self.inputs[i : i + 1]), self.labels[i : i + 1]).sum()
            if loss.requires_grad:
                for g in torch.autograd.grad(loss, chosen, allow_unused=True):
                    if g is not None:
                        squared[i] += wide(g.to_dense()).square().sum().to(squared)
        return squared


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
    return torch.float64 if any(p.dtype == torch.float64 for p in parameters.values()) else torch.float32


# Checks: whether each example has a gradient of its own


def _check(model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss) -> dict[str, Tensor]:
    """The parameters that count."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    for name, value in (("inputs", inputs), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")
    if inputs.dim() == 0 or labels.dim() == 0 or len(inputs) != len(labels):
        raise ValueError(
            f"got inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)}, expected B examples in both"
        )
    if loss == "cross_entropy":
        if labels.dim() != 1:
            raise ValueError(f"labels: got {tuple(labels.shape)}, expected [{len(inputs)}], one class per example")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(
                f"labels: got {labels.dtype}, expected int64 classes; pass a loss of your own for other labels"
            )
    elif not callable(loss):
        raise ValueError(f"loss: got {loss!r}, expected 'cross_entropy' or a function of (logits, labels)")
    if torch.is_inference_mode_enabled():
        raise RuntimeError("grand: needs gradients; leave torch.inference_mode()")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            state = "is in training mode" if module.training else "has no running statistics"
            raise ValueError(
                f"model: batch norm {name!r} {state}, so that the loss of an example depends on the others of its "
                "batch and no example has a gradient of its own; "
                + ("call model.eval()" if module.training else "track running statistics, or use another norm")
            )
    parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model: no parameter requires gradients; call requires_grad_() on those that count")
    return parameters


def _check_range(labels: Tensor, classes: int) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"labels: got {int(labels[wrong][0])}, expected 0..{classes - 1} for a model of {classes} classes"
        )


def _refuse_mixing(in_batch: Tensor, alone: Tensor) -> None:
    """ValueError if the logits [1, C] of an example change by far more than rounding when it comes alone."""
    if in_batch.shape != alone.shape:
        raise ValueError(f"model: returned {tuple(alone.shape)} for one example and {tuple(in_batch.shape)} in a batch")
    difference, size = float((in_batch - alone).abs().max()), float(alone.abs().max())
    if difference > _MOST_ROUNDING * size:
        raise ValueError(
            f"model: the logits of the first example change by {difference:.3g} (of {size:.3g}) when it comes alone, "
            "so that its loss depends on the others of its batch and it has no gradient of its own"
        )


def _warn_of_chance(losses: Tensor, classes: int) -> None:
    if classes > 1 and float(losses.detach().mean()) >= _CHANCE * math.log(classes):
        warnings.warn(  # the same words each time, so that a loop over batches warns once
            "grand: on this batch the model is no better than chance. At initialisation GraNd measures little but the "
            "norm of the input: train for some epochs first, unless the labels of the batch are known to be wrong",
            stacklevel=6,
        )


@contextmanager
def _plain_execution(device: torch.device) -> Iterator[None]:
    """Gradients on; autocast and compiled code off; the random state is restored afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        devices = [] if device.type == "cpu" else [device]
        stack.enter_context(torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"))
        if "torch._dynamo" in sys.modules:  # if not, nothing is compiled, and loading the compiler takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states
