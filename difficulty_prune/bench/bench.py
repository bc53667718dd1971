"""Times every workload, and says what the ratios mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import torch

from .copy_bandwidth import Copy
from .ratio import Ratio
from .turns import Function, in_turns, no_wait
from .workloads import Job, Sizes, Workload, jobs

ROUNDS: Final = 60
SECONDS: Final = 4.0  # for each workload: there are 12 on a CPU, and 10 on a GPU


def bench(
    devices: Iterable[str],
    sizes: Sizes,
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    follow: Callable[[Sequence[Job]], Iterable[Job]] = iter,
) -> list[Ratio]:
    """A ratio for each workload of each device.

    Args:
        devices: "cpu" and "cuda".
        sizes: of the work.
        rounds: at most, in each of which ours and theirs take turns.
        seconds: about how long the rounds of a workload take at most.
        follow: shows how far it is.
    """
    copies: dict[str, Copy] = {}
    found = []
    for job in follow([job for device in devices for job in jobs(sizes, device)]):
        if job.device not in copies:
            copies = {job.device: Copy(sizes.copy, job.device)}
        found.append(_compare(job.make(), job.device, copies[job.device], rounds, seconds))
    return found


def _compare(load: Workload, device: str, copy: Copy, rounds: int, seconds: float) -> Ratio:
    functions: list[Function] = [load.ours, load.theirs, *([] if load.moved is None else [copy])]
    taken = in_turns(functions, rounds, seconds, no_wait if device == "cpu" else torch.cuda.synchronize)
    copied = None if load.moved is None else copy.moved / taken[2]
    return Ratio(load.work, load.against, device, taken[0], taken[1], load.moved, copied)
