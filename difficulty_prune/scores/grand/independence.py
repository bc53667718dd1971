"""Whether the operations of a forward pass keep the examples of a batch apart.

Comparing outputs cannot show that for all examples: an expert that is full turns away a single one. The operations can.
Two forward passes, of the batch and of one of its examples, perform the same operations on tensors that differ in one
dimension, the examples'. If no operation mixes along that dimension, and no number is read on the way, each example's
output is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """One operation of a forward pass.

    Attributes:
        name: such as "add", without namespace, overload and the underscore of an operation in place.
        pointwise: each number of the result comes from the numbers in the same place.
        inputs: shapes of the tensors that it took.
        outputs: shapes of the tensors that it returned.
        others: its arguments, with None for each tensor.
        dims: those along which it works, if it says so.
        foreign: inputs that come neither from an earlier operation nor from the model or its inputs, by position.
    """

    name: str
    pointwise: bool = False
    inputs: tuple[torch.Size, ...] = ()
    outputs: tuple[torch.Size, ...] = ()
    others: Any = None
    dims: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()


class Operations(TorchDispatchMode):
    """Records every operation that PyTorch performs.

    Args:
        given: the tensors of the model, and its inputs.

    Attributes:
        performed: the operations, in order.
        rounding: machine epsilon of the coarsest floating dtype among their results.
    """

    supports_higher_order_operators = True

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = set(map(_memory, given))
        self.performed: list[Operation] = []
        self.rounding = torch.finfo(torch.float64).eps

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (args, kwargs or {})
        taken = list(tensors_in(given))
        inputs = tuple(t.shape for t in taken)  # before it runs, because it may resize them
        foreign = tuple(i for i, t in enumerate(taken) if _memory(t) not in self._memory)
        result = function(*args, **given[1])
        outputs = list(tensors_in(result))
        self._memory.update(map(_memory, outputs))
        self.rounding = max([self.rounding, *(torch.finfo(t.dtype).eps for t in outputs if t.is_floating_point())])
        name, pointwise, place, default = _known(function)
        dims = default if place is None else args[place] if place < len(args) else given[1].get("dim", default)
        self.performed.append(
            Operation(
                name=name,
                pointwise=pointwise,
                inputs=inputs,
                outputs=tuple(t.shape for t in outputs),
                others=with_tensors(given, repeat(None)),
                dims=(dims,) if isinstance(dims, int) else tuple(dims or ()),
                foreign=foreign,
            )
        )
        return result


def _memory(t: Tensor) -> int | None:
    """Where the numbers of a tensor and of all its views lie; None if they lie in several places."""
    return t.untyped_storage().data_ptr() if t.layout is torch.strided else None


@cache
def _known(function: Any) -> tuple[str, bool, int | None, Any]:
    """An operation's name, whether it is pointwise, and the place and default of its argument `dim` or `dims`."""
    namespace, _, name = function.name().rpartition("::")
    name = name.partition(".")[0]
    schema = getattr(function, "_schema", None)
    places = [
        (i, argument.default_value)
        for i, argument in enumerate(schema.arguments if schema is not None else ())
        if argument.name in ("dim", "dims")
    ]
    return (
        name.removesuffix("_") if namespace == "aten" else f"{namespace}::{name}",
        torch.Tag.pointwise in getattr(function, "tags", ()),
        *(places[0] if places else (None, None)),
    )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))


def with_tensors(value: Any, tensors: Iterator[Any]) -> Any:
    """`value`, with each of its tensors replaced by the next of `tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        items = [with_tensors(item, tensors) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: with_tensors(item, tensors) for key, item in value.items()}
    return value


def first_that_may_mix(batch: Sequence[Operation], other: Sequence[Operation], sizes: tuple[int, int]) -> str | None:
    """The first operation that is not known to keep the examples apart; None if all do.

    Args:
        batch: the operations of a forward pass.
        other: those of a forward pass of another number of its examples.
        sizes: the two numbers of examples.

    Unknown operations count as mixing, and so does everything by which the two passes differ, apart from shapes.
    """
    for one, two in zip(batch, other, strict=False):
        if one.name != two.name or not _keeps_apart(one, two, sizes):
            return one.name
    return None if len(batch) == len(other) else max(batch, other, key=len)[min(len(batch), len(other))].name


@dataclass(frozen=True)
class _Axes:
    """Where an operation has the examples: dimensions, counted from the first; None for a tensor that has none.

    An axis may hold other things beside the examples, such as their positions.
    """

    operation: Operation
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]

    def all(self) -> Iterator[tuple[torch.Size, int]]:
        """Shapes and axes of the tensors with examples, results last."""
        shapes = (*self.operation.inputs, *self.operation.outputs)
        return ((s, axis) for s, axis in zip(shapes, (*self.inputs, *self.outputs), strict=False) if axis is not None)

    def argument(self, place: int) -> Any:
        given = self.operation.others[0]
        return given[place] if place < len(given) else None


def _keeps_apart(one: Operation, two: Operation, sizes: tuple[int, int]) -> bool:
    if not _same(one.others, two.others, sizes if one.name in _COUNTED else (1, 1), one.name in _SIZED):
        return False
    if (len(one.inputs), len(one.outputs)) != (len(two.inputs), len(two.outputs)):
        return False
    if one.inputs == two.inputs and one.outputs == two.outputs:
        return True  # what has no examples in it knows nothing of them
    main = slice(1) if one.name in _WITH_EXTRAS else slice(None)
    try:
        inputs = tuple(_axis(a, b, sizes) for a, b in zip(one.inputs, two.inputs, strict=True))
        outputs = tuple(_axis(a, b, sizes) for a, b in zip(one.outputs[main], two.outputs[main], strict=True))
    except ValueError:
        return False
    if one.name not in _CONSTANT and None in outputs:
        return False  # a result that all examples share
    if any(inputs[i] is not None for i in (*one.foreign, *two.foreign)):
        return False  # numbers of each example that no operation computed
    axes = _Axes(one, inputs, outputs)
    if one.name not in _RESIZING and len({shape[axis] for shape, axis in axes.all()}) > 1:
        return False  # a part of the examples
    rule = _aligned if one.pointwise else _RULES.get(one.name)
    return rule is not None and rule(axes)


def _same(a: Any, b: Any, sizes: tuple[int, int], sized: bool) -> bool:
    """Whether two passes give the same arguments; if `sized`, up to lists of integers, which the shapes then show."""
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        shapes = sized and all(type(x) is int for x in (*a, *b))
        return len(a) == len(b) and (shapes or all(_same(x, y, sizes, sized) for x, y in zip(a, b, strict=True)))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key], sizes, sized) for key in a)
    if type(a) is int and type(b) is int:
        return a * sizes[1] == b * sizes[0] or a == b
    return type(a) is type(b) and (not isinstance(a, (int, float, complex, str)) or a == b)


def _axis(one: torch.Size, two: torch.Size, sizes: tuple[int, int]) -> int | None:
    differ = [d for d, (a, b) in enumerate(zip(one, two, strict=False)) if a != b]
    if len(one) == len(two) and not differ:
        return None
    if len(one) == len(two) and len(differ) == 1 and one[differ[0]] * sizes[1] == two[differ[0]] * sizes[0]:
        return differ[0]
    raise ValueError(f"no axis of examples: {tuple(one)} for {sizes[0]} of them, {tuple(two)} for {sizes[1]}")


# Rules: whether an operation keeps the examples apart, given that each result has them on one axis


def _always(axes: _Axes) -> bool:
    """What mixes along one axis and keeps its size is in another rule; all else would have lost the examples' axis."""
    return True


def _aligned(axes: _Axes) -> bool:
    """Counted from the last dimension, as in broadcasting, all have the examples on the same axis."""
    return len({axis - len(shape) for shape, axis in axes.all()}) == 1


def _same_order(axes: _Axes) -> bool:
    """Reshaping keeps the order in memory, so an example must span as many numbers as before."""
    (shape, axis), (new_shape, new_axis) = axes.all()
    whole = shape[axis] == new_shape[new_axis]
    return not whole or math.prod(shape[axis + 1 :]) == math.prod(new_shape[new_axis + 1 :])


def _relaid(axes: _Axes) -> bool:
    """Other strides for the same shape."""
    return axes.operation.inputs[0] == axes.operation.outputs[0]


def _along_others(axes: _Axes) -> bool:
    """Works along dimensions that do not hold the examples."""
    dims = axes.operation.dims
    return bool(dims) and all(axis not in [d % len(shape) for d in dims] for shape, axis in axes.all())


def _not_last_two(axes: _Axes) -> bool:
    return all(axis < len(shape) - 2 for shape, axis in axes.all())


def _rows(axes: _Axes) -> bool:
    return all(axis == 0 for _, axis in axes.all())


def _last_but_one(axes: _Axes) -> bool:
    return all(axis == len(shape) - 2 for shape, axis in axes.all())


def _batch_norm(axes: _Axes) -> bool:
    """Examples among the channels are normalised each on its own, as by an instance norm."""
    training = axes.argument(5) is True
    return axes.inputs[0] == axes.outputs[0] and axes.inputs[0] in ((1,) if training else (0, 1))


def _lookup(axes: _Axes) -> bool:
    """Examples look up rows of a table that all share, or all examples' rows are looked up alike."""
    return axes.inputs[0] is None or all(axis is None for axis in axes.inputs[1:])


def _pad(axes: _Axes) -> bool:
    shape, axis = next(axes.all())
    return axis < len(shape) - len(axes.argument(1) or shape * 2) // 2


_RULES: Final[dict[str, Callable[[_Axes], bool]]] = {
    name: rule
    for rule, names in {
        _aligned: """
            alias copy detach empty_like expand fill full_like hardswish log_sigmoid_forward ones_like _prelu_kernel
            repeat _to_copy zero zeros_like""",
        _relaid: "as_strided",
        _same_order: "_reshape_alias squeeze _unsafe_view unsqueeze view",
        _always: """
            addmm all amax amin any argmax argmin baddbmm bmm _cdist_forward empty full _fused_rms_norm glu imag
            linalg_vector_norm logsumexp max mean median min mm mv native_layer_norm new_empty new_full new_ones
            new_zeros ones permute prod real select slice split split_with_sizes stack std std_mean sum t topk transpose
            _trilinear unbind unfold unsafe_split unsafe_split_with_sizes var var_mean view_as_complex view_as_real
            zeros""",
        _along_others: """
            cat cummax cummin cumprod cumsum _fft_c2c _fft_c2r _fft_r2c flip gather logcumsumexp _log_softmax roll rot90
            _safe_softmax scatter scatter_add scatter_reduce _softmax sort""",
        _not_last_two: "tril triu",
        _rows: """
            _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator
            avg_pool2d avg_pool3d channel_shuffle col2im convolution grid_sampler_2d grid_sampler_3d im2col
            max_pool2d_with_indices max_pool3d_with_indices max_unpool2d native_group_norm pixel_shuffle pixel_unshuffle
            reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
            _scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention
            _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu _thnn_fused_gru_cell
            _thnn_fused_lstm_cell upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa
            upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
            _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_trilinear3d""",
        _last_but_one: "mkldnn_rnn_layer",
        _batch_norm: """
            _batch_norm_no_update cudnn_batch_norm miopen_batch_norm native_batch_norm
            _native_batch_norm_legit_no_training""",
        _lookup: "embedding index index_select",
        _pad: "constant_pad_nd",
    }.items()
    for name in names.split()
}
_WITH_EXTRAS: Final = {name for name, rule in _RULES.items() if rule in (_rows, _last_but_one, _batch_norm)} | {
    "_fused_rms_norm",
    "log_sigmoid_forward",
    "native_layer_norm",
}
"""Operations whose results, but for the first, are workspaces and statistics for the backward pass."""
_CONSTANT: Final = {"empty", "full", "new_empty", "new_full", "new_ones", "new_zeros", "ones", "zeros"}
"""Operations whose result holds the same number, or none, everywhere."""
_SIZED: Final = _CONSTANT | {
    "affine_grid_generator",
    "as_strided",
    "expand",
    "repeat",
    "_reshape_alias",
    "_unsafe_view",
    "view",
}
"""Operations with a list of sizes, which may contain the number of examples."""
_RESIZING: Final = _CONSTANT | {"repeat", *(name for name, rule in _RULES.items() if rule is _same_order)}
"""Operations after which the examples' axis may hold more or less beside the examples."""
_COUNTED: Final = {"native_group_norm"}
"""Operations that take the number of examples by itself."""
