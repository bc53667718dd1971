"""Work in pieces, on an executor or in threads, with the results in the order of the pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from ..version import __version__
from .cores import usable_cores
from .forked import in_worker

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD: Final = 32
"""Pieces that an executor has at once: enough for as many workers, and few enough that their results fit in memory."""

_THREADS: Final = 4
"""At most: each has vectors of its own in memory, and more would wait for memory anyway."""


def check_executor(executor: Any) -> None:
    """TypeError unless it is None or a `concurrent.futures.Executor`."""
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"executor: got {executor!r}, expected a concurrent.futures.Executor, such as "
            "ProcessPoolExecutor(4), or Client(address).get_executor() of Dask"
        )


def run_pieces(
    executor: Executor | None, work: Callable[..., Result], pieces: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """The results of `work(*piece)` in the order of the pieces, on the executor or else here, one after another.

    The first failure is raised, and pieces that have not begun are cancelled.

    Raises:
        ConnectionError: a worker ended before its piece was done, or the executor gave the piece up.
        ValueError: a worker has another version of the library, which may give other results.

    >>> list(run_pieces(None, pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    if executor is None:
        yield from (work(*piece) for piece in pieces)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(executor.submit(in_worker, _here_as_there, __version__, work, *piece))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        raise ConnectionError(
            f"executor: a worker of {type(executor).__name__} ended before its work was done ({error}); perhaps memory "
            "ran out: take fewer workers. A script whose workers are processes needs if __name__ == '__main__':"
        ) from error
    except CancelledError as error:
        raise ConnectionError(
            f"executor: {type(executor).__name__} gave up a piece of the work; are its workers still there?"
        ) from error
    finally:
        for future in waiting:
            future.cancel()


def check_version(asking: str) -> None:
    """ValueError in a worker unless the library has the version of the process that asks."""
    if asking != __version__:
        raise ValueError(
            f"executor: a worker has difficulty_prune {__version__}, the process that asks {asking}; install the same "
            "version"
        )


def _here_as_there(version: str, work: Callable[..., Result], *piece: Any) -> Result:
    check_version(version)
    return work(*piece)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work(item)` in the order of the items, a few of which are in work at a time.

    For work that NumPy or compiled code does without the interpreter's lock.

    >>> list(in_threads(abs, [-2, 1]))
    [2, 1]
    """
    threads = min(_THREADS, usable_cores())
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
