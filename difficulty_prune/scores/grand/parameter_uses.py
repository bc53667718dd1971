"""Where a forward pass uses parameters: the function calls that take one, and whether they explain its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class FunctionCall:
    """One call of a PyTorch function that takes a parameter.

    Attributes:
        function: that was called.
        arguments: (args, kwargs) as they came.
        tensors: the tensors among the arguments, in order; parameters as they are, all others detached.
        versions: how often each tensor had been changed in place before the call.
        parameters: the parameters among the tensors, each once.
        sources: the graph nodes that computed the other tensors.
        outputs: the results that are part of the graph, as (position among the result's tensors, shape, edge).
    """

    function: Callable[..., Any]
    arguments: Any
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]
    parameters: tuple[Tensor, ...]
    sources: tuple[Node, ...]
    outputs: tuple[tuple[int, torch.Size, GradientEdge], ...]


@dataclass(frozen=True)
class BatchedCall:
    """A call, and which dimension of each tensor and output holds the examples; None for a tensor without.

    `arguments` are those of a batch of one, so that sizes among them are those of a single example.
    """

    call: FunctionCall
    arguments: Any
    dims: tuple[int | None, ...]
    output_dims: tuple[int, ...]


class Recorder(TorchFunctionMode):
    """Records the calls of a forward pass that take one of the parameters.

    A function counts as one call: what it calls inside is not recorded.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self._parameters = {id(p): p for p in parameters}
        self.calls: list[FunctionCall] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = (args, kwargs or {})
        found = list(tensors_in(arguments))
        parameters = {id(t): t for t in found if id(t) in self._parameters}
        if not parameters:
            return function(*args, **(kwargs or {}))
        tensors = tuple(t if id(t) in parameters else t.detach() for t in found)
        versions = tuple(t._version for t in tensors)
        sources = {get_gradient_edge(t).node for t in found if t.requires_grad}
        result = function(*args, **(kwargs or {}))
        outputs = tuple((i, t.shape, get_gradient_edge(t)) for i, t in enumerate(tensors_in(result)) if t.requires_grad)
        # A call that only hands back one of its arguments did not compute it.
        if outputs and sources.isdisjoint(edge.node for _, _, edge in outputs):
            own = {get_gradient_edge(p).node for p in parameters.values() if p.requires_grad}
            call = (tensors, versions, tuple(parameters.values()), tuple(sources - own), outputs)
            self.calls.append(FunctionCall(function, arguments, *call))
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value`, with each of its tensors replaced by the next of `tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        items = [with_tensors(item, tensors) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: with_tensors(item, tensors) for key, item in value.items()}
    return value


def find_batch(calls: Sequence[FunctionCall], single: Sequence[FunctionCall], size: int) -> list[BatchedCall]:
    """The calls whose examples can be told apart.

    Args:
        calls: of a forward pass of `size` examples, 2 or more.
        single: of a forward pass of one of them.
        size: number of examples.

    A tensor's batch dimension is the only one in which the two passes differ: `size` in the one, 1 in the other. Left
    out are calls with a tensor that differs without such a dimension (say, merged with time), with a result that all
    examples share, or with an argument that has been changed in place since.
    """
    if [c.function for c in calls] != [s.function for s in single]:
        return []
    pairs = ((c, _batched(c, s, size)) for c, s in zip(calls, single, strict=True))
    return [batched for call, batched in pairs if batched and _unchanged(call)]


def _unchanged(call: FunctionCall) -> bool:
    return all(t._version == version for t, version in zip(call.tensors, call.versions, strict=True))


def _batched(call: FunctionCall, single: FunctionCall, size: int) -> BatchedCall | None:
    shapes = [t.shape for t in call.tensors], [t.shape for t in single.tensors]
    results = [shape for _, shape, _ in call.outputs], [shape for _, shape, _ in single.outputs]
    if len(shapes[0]) != len(shapes[1]) or len(results[0]) != len(results[1]):
        return None
    try:
        dims = tuple(_batch_dim(a, b, size) for a, b in zip(*shapes, strict=True))
        output_dims = tuple(_batch_dim(a, b, size) for a, b in zip(*results, strict=True))
    except ValueError:
        return None
    known = tuple(dim for dim in output_dims if dim is not None)
    return BatchedCall(call, single.arguments, dims, known) if len(known) == len(output_dims) else None


def _batch_dim(shape: torch.Size, single: torch.Size, size: int) -> int | None:
    if len(shape) == len(single):
        differ = [d for d in range(len(shape)) if shape[d] != single[d]]
        if not differ:
            return None
        if len(differ) == 1 and (shape[differ[0]], single[differ[0]]) == (size, 1):
            return differ[0]
    raise ValueError(f"no batch dimension: {tuple(shape)} for {size} examples, {tuple(single)} for one")


def unexplained(total: Tensor, calls: Iterable[BatchedCall], parameters: Iterable[Tensor]) -> set[int]:
    """ids of the parameters whose gradient does not come from `calls` alone.

    Walks the graph from the loss, and jumps from the results of a call to what computed its arguments. A parameter met
    on the way has a use that no call explains.
    """
    sources = {edge.node: c.call.sources for c in calls for _, _, edge in c.call.outputs}
    owner = {get_gradient_edge(p).node: id(p) for p in parameters}
    todo = [total.grad_fn] if total.grad_fn is not None else []
    seen: set[Node] = set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        before = sources[node] if node in sources else [n for n, _ in node.next_functions if n is not None]
        todo.extend(before)
    return {owner[node] for node in seen if node in owner}
