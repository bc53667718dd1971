"""Work in processes that were forked, in which PyTorch must compute with one thread."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def one_thread_if_forked() -> None:
    """Lets PyTorch compute with one thread in a worker that is a fork; elsewhere it changes nothing.

    A fork has the memory of its parent but not its threads. If PyTorch had computed with several, the fork would wait
    for them for ever at its first large operation. So work that is sent to an executor begins with this, as PyTorch's
    own loaders begin. It holds for forks of the fork server too, which may have imported a script that computes.
    """
    torch = sys.modules.get("torch")  # what is not imported has no threads
    if torch is not None and _is_forked():
        torch.set_num_threads(1)


def in_worker(work: Callable[..., Result], *piece: Any) -> Result:
    """`work(*piece)`, for a worker of any kind.

    >>> in_worker(pow, 2, 3)
    8
    """
    one_thread_if_forked()
    return work(*piece)


def _is_forked() -> bool:
    forking = {"fork", "forkserver"}.intersection(multiprocessing.get_all_start_methods())
    kinds = [multiprocessing.get_context(method).Process for method in forking]  # type: ignore[attr-defined]
    return isinstance(multiprocessing.current_process(), (multiprocessing.Process, *kinds))
