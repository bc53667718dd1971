"""Per-example parameter gradients of single function calls, and their norms, without the gradients where cheaper.

Let a layer apply one matrix at T positions, with the input a_t and the gradient of the output g_t at position t. The
gradient of an example is then sum_t g_t a_t^T, and its squared norm is sum_ts (g_t . g_s) (a_t . a_s): the Gram
matrices of g and a suffice (ghost norm; Goodfellow 2015, arXiv 1510.01799; Li et al. 2022, arXiv 2110.05679).
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .independence import tensors_in, with_tensors
from .parameter_uses import BatchedCall


class Use(ABC):
    """What one call adds to the gradient of a parameter, for any of the examples of the batch.

    Attributes:
        floats: temporary numbers that the computation needs for an example.
    """

    floats: int

    @abstractmethod
    def gradient(self, examples: slice) -> Tensor:
        """[b, numel] float32 or float64."""

    def squared_norm(self, examples: slice) -> Tensor:
        """[b], the squared norm of the gradient."""
        return self.gradient(examples).square().sum(1)


class Direct(Use):
    """A function of the examples gives the gradient itself: for parameters as small as a bias."""

    def __init__(self, gradient: Callable[[slice], Tensor], floats: int) -> None:
        self._gradient = gradient
        self.floats = floats

    def gradient(self, examples: slice) -> Tensor:
        return self._gradient(examples)


class Linear(Use):
    """A matrix [O, I] applied at T positions.

    Args:
        a: [B, T, I], its inputs.
        g: [B, T, O], the gradients of its outputs.
    """

    groups = 1

    def __init__(self, a: Tensor, g: Tensor) -> None:
        self.a, self.g = a, g
        self.positions, self.inputs, self.outputs = a.shape[1], a.shape[2], g.shape[2]
        self._choose()

    def columns(self, examples: slice) -> Tensor:
        """[b, groups, I, T]: the inputs at each position."""
        return wide(self.a[examples]).mT[:, None]

    def gradients(self, examples: slice) -> Tensor:
        """[b, groups, O, T]: the gradients of the outputs at each position."""
        return wide(self.g[examples]).mT[:, None]

    def gram(self, examples: slice) -> Tensor:
        """[b, groups, T, T]: the inner products of the inputs at any two positions."""
        columns = self.columns(examples)
        return columns.mT @ columns

    def gram_cost(self) -> tuple[int, int]:
        """Multiplications for the Gram matrix of an example and a group, and the temporary numbers it needs."""
        return self.positions**2 * self.inputs, self.positions * self.inputs + self.positions**2

    def _choose(self) -> None:
        multiplications, floats = self.gram_cost()
        ghost = multiplications + self.positions**2 * self.outputs
        self.ghost = ghost < self.positions * self.inputs * self.outputs
        if self.ghost:
            self.floats = self.groups * (floats + self.positions**2)
        else:
            self.floats = self.groups * self.inputs * (self.positions + self.outputs)

    def gradient(self, examples: slice) -> Tensor:
        return (self.gradients(examples) @ self.columns(examples).mT).flatten(1)

    def squared_norm(self, examples: slice) -> Tensor:
        if not self.ghost:
            return super().squared_norm(examples)
        g = self.gradients(examples)
        # Rounding can leave a sum of squares below zero where the terms cancel.
        return (g.mT @ g).mul_(self.gram(examples)).sum((1, 2, 3)).clamp(min=0)


class Conv2d(Linear):
    """A kernel [O, I / groups, *kernel], a matrix applied to the patches of an image.

    Args:
        x: [B, I, H, W], the images.
        g: [B, O, H', W'], the gradients of the results.
        padding: pixels to add on the left, right, top and bottom.
    """

    def __init__(
        self,
        x: Tensor,
        g: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        self.a, self.g, self.groups = x, g, groups
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.size = x.shape[2:]
        self.channels = x.shape[1] // groups
        self.positions, self.outputs = math.prod(g.shape[2:]), g.shape[1] // groups
        self.inputs = self.channels * math.prod(kernel)
        self.channels_last = (
            groups == 1 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        )
        self._choose()

    def columns(self, examples: slice) -> Tensor:
        """The rows are in memory order: (*kernel, I) where the channels are last, else (I, *kernel)."""
        x = F.pad(wide(self.a[examples]), self.padding)
        for dim, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True), 2):
            x = x.unfold(dim, d * (k - 1) + 1, s)[..., ::d]
        if self.channels_last:
            return x.permute(0, 2, 3, 4, 5, 1).reshape(len(x), 1, self.positions, self.inputs).mT
        return x.permute(0, 1, 4, 5, 2, 3).reshape(len(x), self.groups, self.inputs, self.positions)

    def gradients(self, examples: slice) -> Tensor:
        g = wide(self.g[examples])
        return g.reshape(len(g), self.groups, self.outputs, self.positions)

    def gradient(self, examples: slice) -> Tensor:
        gradient = super().gradient(examples)
        if self.channels_last:
            by_kernel: Tensor = gradient.unflatten(1, (self.outputs, *self.kernel, self.channels))
            return by_kernel.movedim(4, 2).flatten(1)
        return gradient

    def gram(self, examples: slice) -> Tensor:
        """Of the patches; if cheaper, from the inner products of pixels, which overlapping patches share."""
        if not self._by_pixels():
            return super().gram(examples)
        x = wide(self.a[examples]).unflatten(1, (self.groups, self.channels)).flatten(3)
        gram: Tensor = (x.mT @ x).unflatten(3, self.size).unflatten(2, self.size)  # [b, groups, H, W, H, W]
        gram = F.pad(gram, [*self.padding, *self.padding])
        for dim in (0, 1):
            gram = self._sum_over_kernel(gram, dim)
        return gram.flatten(4, 5).flatten(2, 3)

    def _sum_over_kernel(self, gram: Tensor, dim: int) -> Tensor:
        """Sums over the kernel's rows (dim 0) or columns (dim 1), by which both pixels shift together."""
        k, s, d = self.kernel[dim], self.stride[dim], self.dilation[dim]
        span = s * (self.g.shape[2 + dim] - 1) + 1
        shifts = (slice(i, i + span, s) for i in range(0, k * d, d))
        before = (slice(None),) * (2 + dim)
        first, *others = (gram[(*before, shift, slice(None), shift)] for shift in shifts)
        return sum(others, start=first)

    def gram_cost(self) -> tuple[int, int]:
        return min(super().gram_cost(), self._pixel_cost())

    def _by_pixels(self) -> bool:
        return self._pixel_cost() < super().gram_cost()

    def _pixel_cost(self) -> tuple[int, int]:
        pixels, padded = (
            math.prod(self.size),
            (self.size[0] + sum(self.padding[2:])) * (self.size[1] + sum(self.padding[:2])),
        )
        # An addition in memory takes about as long as four multiplications in a matrix product.
        return pixels**2 * self.channels + 4 * padded**2 * sum(self.kernel), pixels**2 + 2 * padded**2


class Embedding(Use):
    """Rows of a table [V, D] that were looked up.

    Args:
        index: [B, T] int64.
        g: [B, T, D].
        rows: V.
        skip: the row that gets no gradient, if any.
    """

    def __init__(self, index: Tensor, g: Tensor, rows: int, skip: int | None) -> None:
        self.index, self.g, self.rows, self.skip = index, g, rows, skip
        self.floats = 3 * g[0].numel()

    def _looked_up(self, examples: slice) -> tuple[Tensor, Tensor, int]:
        """Which row of which example [n] (example * V + row), its gradient [n, D], and the number of examples."""
        index, g = self.index[examples], wide(self.g[examples])
        kept = torch.ones_like(index, dtype=torch.bool) if self.skip is None else index != self.skip
        row = torch.arange(len(index), device=index.device)[:, None] * self.rows + index
        return row[kept], g[kept], len(index)

    def gradient(self, examples: slice) -> Tensor:
        row, g, size = self._looked_up(examples)
        table = g.new_zeros(size * self.rows, g.shape[1]).index_add_(0, row, g)
        return table.view(size, -1)

    def squared_norm(self, examples: slice) -> Tensor:
        row, g, size = self._looked_up(examples)
        row, position = row.unique(return_inverse=True)
        sums = g.new_zeros(len(row), g.shape[1]).index_add_(0, position, g)
        return g.new_zeros(size).index_add_(0, row // self.rows, sums.square().sum(1))


class Function(Use):
    """Any function, by `torch.func` on one example at a time; the gradients of several parameters come side by side."""

    def __init__(self, batched: BatchedCall, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> None:
        self.batched, self.parameters = batched, parameters
        self.outputs = [
            (position, dim, gradient)
            for (position, _, _), dim, gradient in zip(
                batched.call.outputs, batched.output_dims, gradients, strict=True
            )
            if gradient is not None
        ]
        size = self.outputs[0][2].shape[self.outputs[0][1]]
        of_example = sum(t.numel() for t, d in zip(batched.call.tensors, batched.dims, strict=True) if d is not None)
        of_example += sum(gradient.numel() for _, _, gradient in self.outputs)
        self.floats = sum(p.numel() for p in parameters) + 4 * (of_example // size)

    def gradient(self, examples: slice) -> Tensor:
        dims = self.batched.dims
        tensors = [_narrow(t.detach(), d, examples) for t, d in zip(self.batched.call.tensors, dims, strict=True)]
        gradients = [_narrow(g, d, examples) for _, d, g in self.outputs]
        of_one = vectorized(self._of_one, (list(dims), [d for _, d, _ in self.outputs]))
        return torch.cat([parts(g).flatten(1) for g in of_one(tensors, gradients)], 1)

    def _of_one(self, tensors: list[Tensor], gradients: list[Tensor]) -> tuple[Tensor, ...]:
        """The parameters' gradients of one example, whose tensors come without their batch dimension."""
        alone = [t if d is None else t.unsqueeze(d) for t, d in zip(tensors, self.batched.dims, strict=True)]
        place = {id(p): i for i, p in enumerate(self.parameters)}

        def outputs(*values: Tensor) -> tuple[Tensor, ...]:
            given = [
                values[place[id(t)]] if id(t) in place else other
                for t, other in zip(self.batched.call.tensors, alone, strict=True)
            ]
            args, kwargs = with_tensors(self.batched.arguments, iter(given))
            results = list(tensors_in(self.batched.call.function(*args, **kwargs)))
            return tuple(results[position] for position, _, _ in self.outputs)

        pull = torch.func.vjp(outputs, *(p.detach() for p in self.parameters))[1]
        pulled: tuple[Tensor, ...] = pull(
            tuple(g.unsqueeze(d) for g, (_, d, _) in zip(gradients, self.outputs, strict=True))
        )
        return pulled


class NotVectorizableError(Exception):
    """`torch.func.vmap` cannot run a function."""


def vectorized(function: Callable[..., Any], in_dims: Any, chunk_size: int | None = None) -> Callable[..., Any]:
    """`torch.func.vmap` without its warnings about slow operators; NotVectorizableError where it fails."""

    def run(*args: Any) -> Any:
        try:
            # The fused kernels of attention have no rule for vmap.
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")
                return torch.func.vmap(function, in_dims, chunk_size=chunk_size)(*args)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            raise NotVectorizableError(str(error)) from error

    return run


def wide(x: Tensor) -> Tensor:
    """float32, or float64 where x is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def parts(g: Tensor) -> Tensor:
    """The numbers of a gradient, of which a complex one has two."""
    return wide(torch.view_as_real(g.resolve_conj()) if g.is_complex() else g)


def _narrow(x: Tensor, dim: int | None, examples: slice) -> Tensor:
    return x if dim is None else x.movedim(dim, 0)[examples].movedim(0, dim)


# Rules. Each takes the gradient of a function's result, then the function's arguments, tensors with the batch first.

Pairs = Iterator[tuple[Tensor, Use]]


def _linear(g: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Pairs:
    g = _positions(g, 1)
    yield weight, Linear(_positions(input, 1), g)
    if bias is not None:
        yield bias, Direct(lambda examples: wide(g[examples]).sum(1), g[0].numel())


def _addmm(g: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Pairs:
    """The bias first, and the matrix [I, O]: its gradient is that of a layer [O, I], turned."""
    if (beta, alpha) == (1, 1) and input.shape == g.shape[-1:]:
        g = _positions(g, 1)
        yield mat2, Linear(g, _positions(mat1, 1))
        yield input, Direct(lambda examples: wide(g[examples]).sum(1), g[0].numel())


def _conv2d(
    g: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Pairs:
    kernel, dilation = weight.shape[2:], _pair(dilation)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
    else:
        sides = [p for p in reversed(_pair(0 if isinstance(padding, str) else padding)) for _ in range(2)]
    yield weight, Conv2d(input, g, kernel, _pair(stride), sides, dilation, groups)
    if bias is not None:
        yield bias, Direct(lambda examples: wide(g[examples]).sum((2, 3)), g[0].numel())


def _embedding(
    g: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Pairs:
    if max_norm is None and not scale_grad_by_freq:
        skip = None if padding_idx is None else padding_idx % len(weight)
        yield weight, Embedding(input.flatten(1), _positions(g, 1), len(weight), skip)


def _layer_norm(
    g: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Pairs:
    def sum_positions(x: Tensor) -> Tensor:
        return _positions(x, len(normalized_shape)).sum(1)

    return _affine(g, input, lambda x: F.layer_norm(x, normalized_shape, eps=eps), weight, bias, sum_positions)


def _rms_norm(
    g: Tensor, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Pairs:
    def sum_positions(x: Tensor) -> Tensor:
        return _positions(x, len(normalized_shape)).sum(1)

    return _affine(g, input, lambda x: F.rms_norm(x, normalized_shape, eps=eps), weight, None, sum_positions)


def _group_norm(
    g: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Pairs:
    return _affine(g, input, lambda x: F.group_norm(x, num_groups, eps=eps), weight, bias, _sum_pixels)


def _batch_norm(
    g: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Pairs:
    if training or running_mean is None or running_var is None:
        return iter(())
    mean, variance = running_mean, running_var

    def normalize(x: Tensor) -> Tensor:
        return F.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), eps=eps)

    return _affine(g, input, normalize, weight, bias, _sum_pixels)


def _affine(
    g: Tensor,
    x: Tensor,
    normalize: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    add_up: Callable[[Tensor], Tensor],
) -> Pairs:
    """A normalisation's scale and shift; `add_up` sums over the positions that share an entry of these."""
    if weight is not None:
        yield weight, Direct(lambda e: add_up(normalize(wide(x[e])) * wide(g[e])), 3 * g[0].numel())
    if bias is not None:
        yield bias, Direct(lambda e: add_up(wide(g[e])), g[0].numel())


def _positions(x: Tensor, features: int) -> Tensor:
    """[B, ..., features] to [B, T, F]."""
    split = x.dim() - features
    return x.reshape(len(x), math.prod(x.shape[1:split]), math.prod(x.shape[split:]))


def _sum_pixels(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:])).sum(2)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


_RULES: Final[dict[Callable[..., Any], Callable[..., Pairs]]] = {
    F.linear: _linear,
    torch.addmm: _addmm,
    F.conv2d: _conv2d,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
}
_BATCH_FIRST: Final = (torch.addmm, F.conv2d, F.group_norm, F.batch_norm)


def uses_of(
    batched: BatchedCall, gradients: Sequence[Tensor | None], wanted: Sequence[Tensor], shared: Sequence[Tensor]
) -> Iterator[tuple[tuple[Tensor, ...], Use]]:
    """What a call adds to the gradients of the wanted parameters.

    Args:
        gradients: of the call's outputs; None for one that the loss does not depend on.
        wanted: parameters of the call.
        shared: those of them that get a use of their own, because other calls add to them too.
    """
    if all(g is None for g in gradients):
        return
    ids, apart = {id(p) for p in wanted}, {id(p) for p in shared}
    by_rule = list(_by_rule(batched, gradients))
    if sorted(id(p) for p, _ in by_rule) == sorted(map(id, batched.call.parameters)):
        yield from (((p,), use) for p, use in by_rule if id(p) in ids)
    else:
        assert not batched.merged  # of which the rules know all
        together = tuple(p for p in wanted if id(p) not in apart)
        for group in ([together] if together else []) + [(p,) for p in shared]:
            yield group, Function(batched, gradients, group)


def _by_rule(batched: BatchedCall, gradients: Sequence[Tensor | None]) -> Iterator[tuple[Tensor, Use]]:
    call = batched.call
    rule = _RULES.get(call.function)
    dims = [d for d in batched.dims if d is not None]
    if rule is None or dims != list(batched.output_dims) or (call.function in _BATCH_FIRST and dims != [0]):
        return
    if any(t.is_complex() for t in call.tensors):
        return

    def by_example(t: Tensor, dim: int) -> Tensor:
        return (
            t.movedim(dim, 0) if not batched.merged or call.rows_of is None else t.unflatten(0, (call.rows_of[0], -1))
        )

    tensors = (t if d is None else by_example(t, d) for t, d in zip(call.tensors, batched.dims, strict=True))
    args, kwargs = with_tensors(call.arguments, tensors)
    known = {id(p) for p in call.parameters}
    g = gradients[0]
    assert g is not None
    yield from ((p, use) for p, use in rule(by_example(g, dims[0]), *args, **kwargs) if id(p) in known)
