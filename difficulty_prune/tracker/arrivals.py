"""Tensors on their way from an accelerator to the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from ..ops.operators import new_skipped


class Arrivals:
    """Work for the CPU that waits until its tensors have come from an accelerator; done in the order it was sent.

    Sending waits for nothing: the copies are queued behind what the accelerator is doing, and only work whose
    tensors are there already is done. So a training step is never held up, and at most as many batches are on
    their way as the accelerator lags behind.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[torch.Event, Callable[[], None]]] = deque()
        self._skipped = new_skipped("cpu")
        self._counters: Tensor | None = None

    def send(self, work: Callable[..., None], skipped: Tensor | None, *tensors: Tensor | None) -> None:
        """Calls work(counters, *tensors), with the tensors on the CPU, once they have arrived.

        `skipped` are the accelerator's counters to which `settle` adds what the work counted; None to count nothing.
        """
        copies = [None if t is None else t.to("cpu", non_blocking=True) for t in tensors]
        device = next(t.device for t in tensors if t is not None and t.device.type != "cpu")
        arrived = torch.Event(device.type)
        arrived.record(torch.accelerator.current_stream(device))
        if skipped is not None:
            self._counters = skipped
        counters = self._skipped if skipped is not None else new_skipped("cpu")
        self._waiting.append((arrived, lambda: work(counters, *copies)))
        while self._waiting and self._waiting[0][0].query():
            self._waiting.popleft()[1]()

    def settle(self) -> None:
        """Waits for all tensors and does all work."""
        while self._waiting:
            arrived, work = self._waiting.popleft()
            arrived.synchronize()
            work()
        if self._counters is not None:
            self._counters.add_(self._skipped.to(self._counters.device))
            self._skipped.zero_()
