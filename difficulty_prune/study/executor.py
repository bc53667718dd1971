"""Runs tasks on the processes of this machine, and reports how far they are."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..support.cores import usable_cores
from .elsewhere import Elsewhere, run_elsewhere
from .progress import report_on
from .tasks import Task

_REFRESH = 0.25  # seconds between two looks at the steps done
_PATIENCE = 20.0  # seconds that an executor without workers may take to end
_steps_done: Any = None  # in a worker: the number that it and the other workers add to


def default_workers(reading: bool = False) -> int:
    """One training per usable CPU core, or per two if it also reads images from files; a GPU runs one at a time."""
    return 1 if torch.cuda.is_available() else max(1, usable_cores() // (2 if reading else 1))


def run_tasks(
    tasks: Sequence[Task],
    workers: int | Elsewhere,
    train_size: int,
    console: Console,
    title: str,
    log: Path | None = None,
) -> None:
    """Runs the tasks in so many processes, or elsewhere, and returns when all are done.

    On a terminal a bar shows which are trained, how far they are and the time left; elsewhere there is a line for each
    that is finished. `title` says what they do, "scoring" or "comparing". A `log` file gets such lines in any case, and
    one each minute.

    The first failure, and Ctrl-C, end these processes and no others; what finished before is on disk. If the calling
    process dies, they end by themselves. On Windows Ctrl-C also reaches workers that are still starting, and they may
    print a traceback.
    """
    if not tasks:
        return
    if isinstance(workers, Elsewhere):
        run_elsewhere(tasks, workers, train_size, console, title, log)
        return
    context = _WorkerContext()
    workers = min(workers, len(tasks))
    threads = max(1, usable_cores() // workers)
    steps_done = context.Value("q", 0)
    total = sum(task.steps(train_size) for task in tasks)
    with report_on(console, title, total, len(tasks), "run", log=log) as report:
        executor = ProcessPoolExecutor(workers, context, _start_worker, (threads, steps_done))
        try:
            with _interrupts_postponed():
                names = {executor.submit(_run, task): task.describe() for task in tasks}
            pending = set(names)
            while pending:
                with _interrupts_postponed():  # `wait` locks every future, and would not unlock them
                    done, pending = wait(pending, timeout=_REFRESH, return_when=FIRST_COMPLETED)
                finished = [(name, future.result()) for future, name in names.items() if future in done]
                in_work = [name for future, name in names.items() if future in pending][:workers]  # in this order
                # Not .value, which waits for a lock that a killed worker may hold.
                report.update(steps_done.get_obj().value, in_work)
                for name, seconds in finished:
                    report.finished(name, seconds)
        except BaseException:
            with _interrupts_postponed():
                context.kill_workers()
                _shut_down(executor)
            raise
        executor.shutdown()


def _shut_down(executor: ProcessPoolExecutor) -> None:
    """Waits until the executor's thread has ended, whose workers were killed.

    If Python itself ended just then, the two would close the same pipe, and it would print a traceback. The wait is
    bounded: before Python 3.11.5, sending a large task to killed workers never ends.
    """
    waiter = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    waiter.start()
    waiter.join(_PATIENCE)


class _WorkerContext(SpawnContext):
    """Starts processes afresh (spawn), and remembers those that it made."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        """What the executor calls for each worker."""
        process = SpawnProcess(*args, **kwargs)
        self._made.append(process)
        return process

    def kill_workers(self) -> None:
        """Ends the processes at once, and waits until they are gone.

        Not `terminate`: a worker writes its files whole or not at all, and has nothing else to tidy up.
        """
        started = [process for process in self._made if process.pid is not None]
        for process in started:
            process.kill()
        for process in started:
            process.join()
            while process.is_alive():  # the executor's thread learned of its end first, and is about to note it
                time.sleep(0.01)


@contextlib.contextmanager
def _interrupts_postponed() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect at the end of the block.

    In the middle, a process could start and be forgotten, or a lock be left behind that another thread waits for.

    Ctrl-C does not reach the processes that start in the block, even while they import: it is for the caller, which
    ends them.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread is interrupted
        yield
        return
    arrived: list[int] = []
    known = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, lambda arrival, frame: arrived.append(arrival)) for number in known}
    with _interrupts_hidden_from_children():
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for arrival in arrived:
                signal.raise_signal(arrival)


@contextlib.contextmanager
def _interrupts_hidden_from_children() -> Iterator[None]:
    """Blocks SIGINT, which children inherit; Windows cannot."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int, steps_done: Any) -> None:
    global _steps_done
    end_with_parent(seconds=0)  # which may have died while this process imported
    threading.Thread(target=end_with_parent, name="end with parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _steps_done = steps_done


def end_with_parent(seconds: float | None = None) -> None:
    """Waits for the parent to die, at most so long, and then ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None and multiprocessing.connection.wait([parent.sentinel], seconds):
        os._exit(1)  # from another thread nothing else ends a process in the middle of a training


def _run(task: Task) -> float:
    """The seconds that it took."""
    start = time.perf_counter()
    task.run(_count_steps)
    return time.perf_counter() - start


def _count_steps(steps: int) -> None:
    with _steps_done.get_lock():
        _steps_done.value += steps
