"""Trainings on an executor of the user's, or on a cluster of Dask, whose workers may be other machines."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from ..support.forked import one_thread_if_forked
from ..support.optional import optional_module
from ..support.pieces import check_executor, check_version
from ..version import __version__
from .cluster_address import cluster_address
from .progress import report_on
from .tasks import Task

_PATIENCE: Final = 10  # seconds that a scheduler has to answer
_REFRESH: Final = 0.25  # seconds between two looks at what is done

_one_training = threading.Lock()  # in a worker with several threads: the seed of a training is that of the process


@dataclass(frozen=True)
class Elsewhere:
    """Where trainings run that do not run in processes of this study.

    Attributes:
        executor: any of `concurrent.futures`.
        name: for people.
        ask: calls a function with arguments on each worker, as far as these are known, and returns the answers.
    """

    executor: Executor
    name: str
    ask: Callable[..., list[Any]]

    def check(self, folder: Path) -> None:
        """Checks that workers have this version of the library, and see the folder of results.

        Raises:
            FileNotFoundError, ImportError, ValueError: they do not.
        """
        token = secrets.token_hex(8)
        sign = folder.absolute() / f".seen-by-workers-{token}"
        sign.write_text(token)
        try:
            answers = self.ask(_facts_of_worker, str(sign))
        except ImportError as error:
            raise ImportError(
                f"executor: a worker of {self.name} lacks a module ({error}); install it there"
            ) from error
        finally:
            sign.unlink()
        for found, version in answers:
            if version != __version__:
                raise ValueError(
                    f"executor: a worker of {self.name} has difficulty_prune {version}, this process {__version__}; "
                    "install the same version"
                )
            if found != token:
                raise FileNotFoundError(
                    f"executor: a worker of {self.name} does not see the folder {folder.absolute()}; results are "
                    "files: choose an --out that all machines reach under the same path, such as on a network drive"
                )


def _facts_of_worker(path: str) -> tuple[str | None, str]:
    """What is in a file, if it is there, and the version of the library."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(), __version__
    return None, __version__


@contextlib.contextmanager
def open_executor(given: Executor | str | None) -> Iterator[Elsewhere | None]:
    """The executor that is meant: one of `concurrent.futures`, or a cluster of Dask by address. None for None.

    A connection to a cluster lasts as long as the block; an executor that was given is left open.

    Raises:
        TypeError, ValueError: neither; or a cluster without workers.
        ImportError: Dask is not installed.
        ConnectionError: no scheduler answers.
    """
    if given is None:
        yield None
    elif isinstance(given, str):
        address = cluster_address(given)
        with _connect(address) as client, client.get_executor(pure=False) as executor:
            yield Elsewhere(executor, address, lambda *call: ask_workers(client, *call))
    else:
        check_executor(given)
        yield Elsewhere(given, type(given).__name__, lambda *call: [given.submit(*call).result()])


@contextlib.contextmanager
def _connect(address: str) -> Iterator[Any]:
    distributed = optional_module("distributed", "pip install 'difficulty-prune[dask]'", "executor: Dask")
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConnectionError(
            f"executor: no scheduler of Dask answers at {address} within {_PATIENCE} s ({reason}); start one with "
            "`dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`, or correct the address"
        ) from error
    with client:
        if not client.nthreads():
            raise ValueError(
                f"executor: the scheduler at {address} has no workers; start some with "
                f"`dask worker {address} --nthreads 1`"
            )
        try:
            yield client
        except distributed.KilledWorker as error:
            raise ConnectionError(
                f"executor: one piece of work ended every worker of {address} that began it, perhaps because memory "
                f"ran out ({error}); the finished trainings of a study are on disk, from where the same command goes on"
            ) from error


def ask_workers(client: Any, *call: Any) -> list[Any]:
    """The answers of the workers that live.

    Raises:
        ConnectionError: none does.
        Exception: the first error of theirs.
    """
    answers = client.run(*call, on_error="return").values()
    living = [answer for answer in answers if not isinstance(answer, OSError)]  # of a connection that was lost
    for answer in living:
        if isinstance(answer, Exception):
            raise answer
    if not living:
        raise ConnectionError("executor: no worker of the cluster is left; start some, and run the same command again")
    return living


def run_elsewhere(
    tasks: Sequence[Task],
    elsewhere: Elsewhere,
    train_size: int,
    console: Console,
    title: str,
    log: Path | None = None,
) -> None:
    """Runs the tasks there and returns when all are done; reports as `run_tasks` does.

    What a worker began when it died is begun again by another, if the executor does so, as Dask does: a file is
    written whole or not at all, and a task whose file is there is not repeated. The first failure, and Ctrl-C, cancel
    what has not begun; what has begun ends on its worker.

    Raises:
        ConnectionError: the executor cancelled a task, as when its cluster is gone.
        FileNotFoundError: a task's file is not where it should be, since its worker has another disk.
    """
    folder, own = str(Path.cwd()), secrets.token_hex(8)
    steps = [task.steps(train_size) for task in tasks]  # still to do, before any of them begins
    total, done = sum(steps), 0
    with report_on(console, title, total, len(tasks), "run", log=log) as report:
        futures: dict[Future[float], tuple[Task, int]] = {}
        try:
            for task, number in zip(tasks, steps, strict=True):
                futures[elsewhere.executor.submit(run_once, task, folder, own, __version__)] = task, number
            while futures:
                time.sleep(_REFRESH)
                report.update(done, [])
                for future in [future for future in futures if future.done()]:
                    task, number = futures.pop(future)
                    seconds = _result(future, task, elsewhere.name)
                    done += number
                    report.update(done, [])
                    report.finished(task.describe(), seconds)
        finally:
            for future in futures:
                future.cancel()


def _result(future: Future[float], task: Task, name: str) -> float:
    try:
        seconds = future.result()
    except CancelledError as error:
        raise ConnectionError(
            f"executor: {name} gave up {task.describe()}; is its scheduler still there? Finished trainings are on "
            "disk, and the same command continues from there"
        ) from error
    if not os.path.exists(task.path):
        raise FileNotFoundError(
            f"{task.path}: a worker of {name} has written it, but it is not here; choose an --out that all machines "
            "reach under the same path"
        )
    return seconds


def run_once(task: Task, folder: str, study: str, version: str) -> float:
    """Runs a task in a worker, unless its result is there, and returns the seconds that it took.

    Args:
        folder: where the study was started, in which functions of the user may be.
        study: makes the call one of its own, so that no cluster answers with the result of an earlier one.
        version: of the library in the study. Its workers were asked, but not those that came later.

    Raises:
        ValueError: here it is another one.
    """
    check_version(version)
    if folder not in sys.path:
        sys.path.append(folder)
    with _one_training:
        one_thread_if_forked()
        start = time.perf_counter()
        if task.is_done():  # by a worker that died before it could say so
            task.checkpoint().remove()
        else:
            task.run(lambda steps: None)
        return time.perf_counter() - start
