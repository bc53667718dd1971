"""What the tracer of `torch.compile` does once, and does not put into the graph of the training step.

Imported only by code that is being traced, since this loads the compiler, which takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch._dynamo
from torch import Tensor

if TYPE_CHECKING:
    from .tracker import DifficultyTracker


def make_ready(tracker: DifficultyTracker, batch: Tensor, score: str | None) -> None:
    """`tracker._make_ready`, of which the graph will know nothing."""
    # Sizes are symbols under dynamic=True; the bounds of a slice are numbers. Any size of batch will do.
    sizes = tuple(slice(size) for size in batch.shape[1:])
    _run_by_the_tracer(tracker, batch.device, sizes, score)


def _make_ready(tracker: DifficultyTracker, device: torch.device, sizes: tuple[slice, ...], score: str | None) -> None:
    tracker._make_ready(device, (1, *(size.stop for size in sizes)), score)
    for state in tracker._state_tensors():
        # Else a CUDA graph that PyTorch makes of the step would change a copy, at an address of its own.
        torch._dynamo.mark_static_address(state)


_run_by_the_tracer = torch.compiler.assume_constant_result(_make_ready)
