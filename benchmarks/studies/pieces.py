"""Long studies in pieces: trainings are files, and a study stops at the end of one and goes on at the next."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from difficulty_prune.study.executor import end_with_parent


class Piece(Protocol):
    """What is done as a whole or not at all, such as a training, which leaves a file. It can be sent to a process."""

    @property
    def name(self) -> str: ...

    def is_done(self) -> bool:
        """Whether its file is there."""
        ...

    @property
    def run(self) -> Callable[[], str]:
        """Does it, and returns what to print."""
        ...


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Processes of one thread each, which end with this one; on a GPU there should be one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker) as pool:
        yield pool


def _start_worker() -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def finish(pool: Executor, pieces: Sequence[Piece], workers: int, until: float) -> bool:
    """Does what is not done yet; False if it was `until`, in seconds as of `time.time`, before the last one began."""
    waiting = deque(piece for piece in pieces if not piece.is_done())
    running: dict[Future[Any], Piece] = {}
    while waiting or running:
        while waiting and len(running) < workers and time.time() < until:
            piece = waiting.popleft()
            running[pool.submit(piece.run)] = piece
        if not running:
            return False
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            print(f"{time.strftime('%H:%M:%S')} {running.pop(future).name}: {future.result()}", flush=True)
    return True


def in_words(found: dict[str, Any] | None) -> str:
    """A verdict as plain data, in a cell of a table: "better +4.7 (+3.2 to +6.1)"."""
    if found is None:
        return ""
    if found["low"] is None:
        return str(found["word"])
    word = {"no difference seen": "none seen"}.get(found["word"], found["word"])
    return f"{word} {found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
