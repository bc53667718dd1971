"""Runs tasks on the processes of this machine, with a progress bar over all of them."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .tasks import Task


def default_workers() -> int:
    """One training per CPU core; a GPU runs one at a time."""
    return 1 if torch.cuda.is_available() else (os.cpu_count() or 1)


def run_tasks(tasks: Sequence[Task], workers: int, train_size: int, console: Console, title: str) -> None:
    """Runs the tasks in `workers` processes and returns when all are done.

    The first failure, and Ctrl-C, stop the rest; what finished before is on disk.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // workers)
    with context.Manager() as manager, _progress(console) as progress:
        steps_done = manager.Queue()
        total = sum(task.steps(train_size) for task in tasks)
        bar = progress.add_task(title, total=total, finished=0, tasks=len(tasks))
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(threads,))
        try:
            pending = {executor.submit(_run, task, steps_done) for task in tasks}
            while pending:
                done, pending = wait(pending, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress.update(bar, advance=_drain(steps_done), finished=len(tasks) - len(pending))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        executor.shutdown()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, {task.fields[finished]} of {task.fields[tasks]} trainings"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(threads)


def _run(task: Task, steps_done: Any) -> None:
    task.run(steps_done.put)


def _drain(steps_done: Any) -> int:
    total = 0
    while True:
        try:
            total += steps_done.get_nowait()
        except queue.Empty:
            return total
