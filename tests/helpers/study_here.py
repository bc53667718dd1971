"""A study in this process: no worker has to import PyTorch, which takes longer than a small training."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from difficulty_prune.cli.parser import make_parser
from difficulty_prune.cli.study import show
from difficulty_prune.study.options import read_options
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study import run_study


def study_here(*arguments: str) -> str:
    """Runs `difficulty-prune study` with these arguments, and returns what it prints on a wide screen."""
    settings = read_options(make_parser().parse_args(["study", *arguments]), Settings)
    with ThreadPoolExecutor(1) as thread:
        summary = run_study(settings, Console(file=io.StringIO()), executor=thread)
    printed = io.StringIO()
    show(summary, Console(file=printed, width=200))
    return printed.getvalue()
