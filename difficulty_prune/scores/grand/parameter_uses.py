"""Where a forward pass uses parameters: the function calls that take one, and whether they explain its gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from .independence import Operation, tensors_in

_READS: Final = {
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.data_ptr,
    Tensor.storage,
    Tensor.untyped_storage,
}
"""Functions that hand the numbers of a tensor to code outside PyTorch, which no operation shows."""

_MERGED: Final[Mapping[Callable[..., Any], int]] = {F.linear: 0, torch.addmm: 1}
"""Functions that apply a matrix to each row of a tensor, and the place of that tensor."""

CHECKPOINT: Final = "CheckpointFunction"
"""The `autograd.Function` of reentrant checkpointing."""


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
        rows_of: of the first that is no parameter, and a matrix whose rows are positions, the shape [B, T, ..., D] of
            which it is a view; None for any other.
        outputs: the results that are part of the graph, as (position among the result's tensors, shape, edge).
    """

    function: Callable[..., Any]
    arguments: Any
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]
    parameters: tuple[Tensor, ...]
    sources: tuple[Node, ...]
    rows_of: torch.Size | None
    outputs: tuple[tuple[int, torch.Size, GradientEdge], ...]


@dataclass(frozen=True)
class BatchedCall:
    """A call, and which dimension of each tensor and output holds the examples; None for a tensor without.

    `arguments` are those of a batch of one, so that sizes among them are those of a single example. If `merged`, a
    matrix is applied to the positions of all examples, those of the first coming first.
    """

    call: FunctionCall
    arguments: Any
    dims: tuple[int | None, ...]
    output_dims: tuple[int, ...]
    merged: bool = False


class Recorder(TorchFunctionMode):
    """Records the calls of a forward pass that take one of the parameters.

    A function counts as one call: what it calls inside is not recorded.

    Attributes:
        calls: those whose results are part of the graph.
        hidden: parameters that an `autograd.Function` uses without having been given them, by id, with its name. Their
            gradient, if any, is computed inside that function's backward pass.
        reads: the calls that hand the numbers of a tensor to code outside PyTorch.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self._nodes = {id(p): get_gradient_edge(p).node for p in parameters}
        here = inspect.currentframe()
        self._outside = here.f_back.f_code if here is not None and here.f_back is not None else None
        self.calls: list[FunctionCall] = []
        self.hidden: dict[int, str] = {}
        self.reads: list[Operation] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = (args, kwargs or {})
        found = list(tensors_in(arguments))
        if function in _READS:
            self.reads.append(Operation(function.__name__, inputs=tuple(t.shape for t in found)))
        parameters = {id(t): t for t in found if id(t) in self._nodes}
        if not parameters or torch.is_inference_mode_enabled():
            return function(*args, **(kwargs or {}))
        tensors = tuple(t if id(t) in parameters else t.detach() for t in found)
        versions = tuple(version(t) for t in tensors)
        sources = {t.grad_fn or get_gradient_edge(t).node for t in found if id(t) not in parameters and _in_graph(t)}
        result = function(*args, **(kwargs or {}))
        results = list(tensors_in(result))
        if results:
            self._look_for_hidden(parameters)
        outputs = tuple((i, t.shape, get_gradient_edge(t)) for i, t in enumerate(results) if _in_graph(t))
        # A call that only hands back one of its arguments did not compute it.
        own = {self._nodes[i] for i in parameters}
        if outputs and (sources | own).isdisjoint(edge.node for _, _, edge in outputs):
            rows_of = next((_rows_of(t) for t in found if id(t) not in parameters), None)
            call = (tensors, versions, tuple(parameters.values()), tuple(sources), rows_of, outputs)
            self.calls.append(FunctionCall(function, arguments, *call))
        return result

    def _look_for_hidden(self, parameters: Iterable[int]) -> None:
        function = self._outermost_function()
        if function is None:
            return
        given = {node for node, _ in function.next_functions}
        self.hidden |= {i: _name(function) for i in parameters if self._nodes[i] not in given}

    def _outermost_function(self) -> BackwardCFunction | None:
        """The context of the `autograd.Function` whose forward is running as part of the graph; None outside of any."""
        frame, found = inspect.currentframe(), None
        while frame is not None and frame.f_code is not self._outside:
            # The first argument, if it can be a context; collecting the local variables of a module takes its time.
            name = frame.f_code.co_varnames[0] if frame.f_code.co_argcount else "self"
            first = frame.f_locals.get(name) if name != "self" else None
            if isinstance(first, BackwardCFunction) and (first.next_functions or _name(first) == CHECKPOINT):
                found = first
            frame = frame.f_back
        return found


def _name(function: BackwardCFunction) -> str:
    return type(function).__name__.removesuffix("Backward")


def _in_graph(t: Tensor) -> bool:
    """False also for a view of a parameter made without gradients: it says `requires_grad`, but nothing computed it."""
    return t.requires_grad and not (t.grad_fn is None and t._is_view())


def _rows_of(t: Tensor) -> torch.Size | None:
    """The shape [B, T, ..., D] of what was viewed as a matrix [B * T * ..., D]."""
    shape = torch.Size(getattr(t.grad_fn, "_saved_self_sym_sizes", ()))
    views = type(t.grad_fn).__name__ in ("ViewBackward0", "UnsafeViewBackward0")
    return shape if views and t.dim() == 2 and len(shape) > 2 and shape[-1] == t.shape[1] else None


def version(t: Tensor) -> int:
    """How often a tensor has been changed in place; one of inference mode does not know."""
    return 0 if t.is_inference() else t._version


def find_batch(calls: Sequence[FunctionCall], single: Sequence[FunctionCall], size: int) -> list[BatchedCall]:
    """The calls whose examples can be told apart.

    Args:
        calls: of a forward pass of `size` examples, 2 or more.
        single: of a forward pass of one of them.
        size: number of examples.

    A tensor's batch dimension is the only one in which the two passes differ: `size` in the one, 1 in the other. Left
    out are calls with a tensor that differs without such a dimension (say, merged with time, unless a matrix is applied
    to a plain view), with a result that all examples share, with a result computed from another of its results, or with
    an argument that has been changed in place since.
    """
    if [c.function for c in calls] != [s.function for s in single]:
        return []
    pairs = ((c, _batched(c, s, size)) for c, s in zip(calls, single, strict=True))
    return [batched for call, batched in pairs if batched and _unchanged(call) and not _entangled(call)]


def _unchanged(call: FunctionCall) -> bool:
    return all(version(t) == before for t, before in zip(call.tensors, call.versions, strict=True))


def _entangled(call: FunctionCall) -> bool:
    """Whether a result was computed from another, as an LSTM cell's output from its state: their gradients overlap."""
    if len(call.outputs) == 1:
        return False
    results = {edge.node for _, _, edge in call.outputs}
    inner = _walk([n for node in results for n in _next(node)], dict.fromkeys(call.sources, ()))
    return not results.isdisjoint(inner)


def _batched(call: FunctionCall, single: FunctionCall, size: int) -> BatchedCall | None:
    shapes = [t.shape for t in call.tensors], [t.shape for t in single.tensors]
    results = [shape for _, shape, _ in call.outputs], [shape for _, shape, _ in single.outputs]
    if len(shapes[0]) != len(shapes[1]) or len(results[0]) != len(results[1]):
        return None
    if _is_merged(call, single, size):
        own = {id(p) for p in call.parameters}
        dims = tuple(None if id(t) in own else 0 for t in call.tensors)
        return BatchedCall(call, single.arguments, dims, (0,), merged=True)
    try:
        dims = tuple(_batch_dim(a, b, size) for a, b in zip(*shapes, strict=True))
        output_dims = tuple(_batch_dim(a, b, size) for a, b in zip(*results, strict=True))
    except ValueError:
        return None
    known = tuple(dim for dim in output_dims if dim is not None)
    return BatchedCall(call, single.arguments, dims, known) if len(known) == len(output_dims) else None


def _is_merged(call: FunctionCall, single: FunctionCall, size: int) -> bool:
    """Whether a matrix, perhaps with a bias, is applied to a view [B * T, D] of [B, T, D], as GPT-2 does."""
    place = _MERGED.get(call.function)
    if place is None or call.arguments[1] or len(call.outputs) != 1 or call.rows_of is None or single.rows_of is None:
        return False
    rows, *others = (call.tensors[place], *call.tensors[:place], *call.tensors[place + 1 :])
    own, bias = {id(p) for p in call.parameters}, call.outputs[0][1][1:]
    known = id(rows) not in own and all(id(t) in own and not t.is_complex() for t in others)
    fits = sorted(t.dim() for t in others) in ([2], [1, 2]) and all(t.shape == bias for t in others if t.dim() == 1)
    batch_first = (*call.rows_of[:1], *single.rows_of) == (size, 1, *call.rows_of[1:])
    return known and fits and batch_first


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
    jumps = {edge.node: c.call.sources for c in calls for _, _, edge in c.call.outputs}
    seen = graph(total, jumps)
    return {id(p) for p in parameters if get_gradient_edge(p).node in seen}


def graph(total: Tensor, jumps: Mapping[Node, Iterable[Node]] = MappingProxyType({})) -> set[Node]:
    """All nodes of the graph that computed a loss; from those in `jumps`, the walk goes on where that says."""
    return _walk([total.grad_fn] if total.grad_fn is not None else [], jumps)


def leaves(nodes: Iterable[Node]) -> list[GradientEdge]:
    """Where a graph ends: at the parameters, and at any other tensor that requires gradients."""
    return [GradientEdge(node, 0) for node in nodes if hasattr(node, "variable")]


def _walk(start: Iterable[Node], jumps: Mapping[Node, Iterable[Node]]) -> set[Node]:
    todo, seen = list(start), set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(jumps[node] if node in jumps else _next(node))
    return seen


def _next(node: Node) -> Iterator[Node]:
    return (n for n, _ in node.next_functions if n is not None)
