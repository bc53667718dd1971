"""What the tracer of `torch.compile` does once, and does not put into the graph of the training step.

Imported only by code that is being traced, since this loads the compiler, which takes seconds.
"""

from __future__ import annotations

import torch
import torch._dynamo
from torch import Tensor

from .state import LIVE, TrackerState


def make_ready(state: TrackerState, batch: Tensor, score: str | None, columns: int | None) -> None:
    """`state.make_ready`, of which the graph will know nothing."""
    # Sizes are symbols under dynamic=True; the bounds of a slice are numbers, and so any other size is a graph of its
    # own. Any size of batch will do, and without a gradient any length of a text.
    sizes = () if score is None else tuple(slice(size) for size in batch.shape[1:])
    _run_by_the_tracer(state.name, batch.device, sizes, score, slice(columns))


def _make_ready(name: str, device: torch.device, sizes: tuple[slice, ...], score: str | None, columns: slice) -> None:
    state = LIVE[name]
    state.make_ready(device, (1, *(size.stop for size in sizes)), score, columns.stop)
    for tensor in state.tensors():
        # Else a CUDA graph that PyTorch makes of the step would change a copy, at an address of its own.
        torch._dynamo.mark_static_address(tensor)


_run_by_the_tracer = torch.compiler.assume_constant_result(_make_ready)
