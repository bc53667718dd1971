"""How far long work is, and how long it still takes: a bar on a terminal, elsewhere a line for each piece finished."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

LOG_EVERY: Final = 60.0  # seconds
Item = TypeVar("Item")

_NAMED = 2  # of the pieces in work, so that the bar stays on one line
_WHOLE = 30 * 86_400.0  # seconds: rich goes by the last 30, in which of long epochs none may end


def report_on(
    console: Console,
    title: str,
    steps: int,
    pieces: int,
    what: str = "",
    keep: bool = True,
    log: Path | None = None,
) -> Bar | Lines | Logged:
    """A bar if the console is a terminal; else a line for each finished piece, as a file or a cluster's log needs it.

    Args:
        title: what is done, such as "scoring".
        steps: of all pieces together.
        pieces: how many there are.
        what: a piece, such as "run".
        keep: whether the bar stays when all is done.
        log: a file at whose end lines are written as well, and one each minute that says how far the work is.

    >>> import sys
    >>> with report_on(Console(file=sys.stdout), "scoring", steps=20, pieces=2, what="run") as report:
    ...     report.finished("mlp, seed 0", seconds=12.3)
    scoring run 1 of 2 (mlp, seed 0) finished after 12 s
    """
    file = console.file
    animated = console.is_interactive and file.isatty()  # rich takes FORCE_COLOR for a terminal, even in a file
    report = Bar(console, title, steps, pieces, keep) if animated else Lines(console, title, steps, pieces, what)
    return report if log is None else Logged(report, log, title, steps, pieces, what)


class Bar:
    """What is in work, how far all of it is, how many pieces are finished, the time so far and the time left."""

    def __init__(self, console: Console, title: str, steps: int, pieces: int, keep: bool) -> None:
        self._title, self._finished = title, 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[finished]} of {task.fields[pieces]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
            transient=not keep,
            speed_estimate_period=_WHOLE,
        )
        self._task = self._progress.add_task(title, total=steps, finished=0, pieces=pieces)

    def __enter__(self) -> Bar:
        self._progress.start()
        self._progress.advance(self._task, 0)  # the beginning, without which the first pieces have no speed
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def update(self, done: int, running: Sequence[str]) -> None:
        """Tells how many steps are done, of all pieces together, and which pieces are in work."""
        more = f" and {len(running) - _NAMED} more" if len(running) > _NAMED else ""
        names = "; ".join(running[:_NAMED]) + more
        text = f"{self._title} {names}" if names else self._title
        self._progress.update(self._task, completed=done, description=text, finished=self._finished)

    def finished(self, name: str, seconds: float) -> None:
        """Tells that a piece is finished, and how long it took."""
        self._finished += 1
        self._progress.update(self._task, finished=self._finished)


class Lines:
    """A plain line for each piece as it finishes, which is written at once."""

    def __init__(
        self, console: Console, title: str, steps: int, pieces: int, what: str, every: float = math.inf
    ) -> None:
        self._console, self._steps, self._pieces = console, steps, pieces
        self._every, self._told = every, time.monotonic()
        self._title = f"{title} {what}".rstrip()
        self._finished = self._done = 0

    def __enter__(self) -> Lines:
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: Any) -> None: ...

    def update(self, done: int, running: Sequence[str]) -> None:
        """See `Bar.update`; `finished` tells of it, and a line as often as was asked for."""
        self._done = done
        if time.monotonic() - self._told >= self._every:
            self._told = time.monotonic()
            left = self._left() or "; time left not known yet"
            self._print(f"{self._title}: {done / max(1, self._steps):.0%} done ({'; '.join(running)}){left}")

    def finished(self, name: str, seconds: float) -> None:
        """See `Bar.finished`."""
        self._finished += 1
        left = self._left() if self._finished < self._pieces else ""
        self._print(
            f"{self._title} {self._finished} of {self._pieces} ({name}) finished after {in_words(seconds)}{left}"
        )

    def _left(self) -> str:
        if not self._done:
            return ""
        if self._done >= self._steps:  # trained, but not evaluated yet, which is no step
            return "; almost done"
        each = (time.monotonic() - self._start) / self._done
        return f"; about {in_words(each * (self._steps - self._done))} left"

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, emoji=False, highlight=False)


class Logged:
    """A report, and the same in lines with the time, at the end of a log file: when a piece is finished, and how far
    the work is, once a minute."""

    def __init__(self, report: Bar | Lines, log: Path, title: str, steps: int, pieces: int, what: str) -> None:
        self._report, self._log = report, log
        self._lines = partial(Lines, title=title, steps=steps, pieces=pieces, what=what, every=LOG_EVERY)

    def __enter__(self) -> Logged:
        self._report.__enter__()
        self._file = self._log.open("a", encoding="utf-8")
        self._told = self._lines(_TimedConsole(file=self._file, width=10_000))
        self._told.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._report.__exit__(*error)

    def update(self, done: int, running: Sequence[str]) -> None:
        """See `Bar.update`."""
        self._report.update(done, running)
        self._told.update(done, running)
        self._file.flush()

    def finished(self, name: str, seconds: float) -> None:
        """See `Bar.finished`."""
        self._report.finished(name, seconds)
        self._told.finished(name, seconds)
        self._file.flush()


class _TimedConsole(Console):
    """Begins each line with the time of day."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(map(str, objects))}", **how)


def follow(items: Sequence[Item], console: Console, title: str) -> Iterator[Item]:
    """The items, one after another, with a report of how far they are; each is finished when the next is asked for."""
    with report_on(console, title, len(items), len(items), keep=False) as report:
        for done, item in enumerate(items):
            report.update(done, [str(item)])
            start = time.monotonic()
            yield item
            report.update(done + 1, [])
            report.finished(str(item), time.monotonic() - start)


def in_words(seconds: float) -> str:
    """A time, rounded.

    >>> [in_words(seconds) for seconds in (0.4, 12.3, 89.6, 91, 3600, 5400, 7200)]
    ['0 s', '12 s', '90 s', '2 min', '60 min', '90 min', '2.0 h']
    """
    if seconds < 90.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5700 else f"{seconds / 3600:.1f} h"
