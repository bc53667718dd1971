"""Time the kernels and the sampler on this machine, side by side with eager PyTorch and a plain copy."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ..bench.bench import ROUNDS, SECONDS, bench
from ..bench.ratio import Ratio, duration
from ..bench.workloads import Sizes
from ..study.options import add_options, option, read_options
from ..study.progress import follow, in_words
from .doctor import collect, surroundings
from .output import make_console, print_whole
from .shown import shown
from .slow import Slow, what_is_slow

FACTS: Final = ("processor", "threads", "instructions", "cuda device", "operators", "torch", "difficulty_prune")
MEANING: Final = (
    "The ratio is their time / ours: above 1 ours is faster. It is the median over rounds in which both take turns, "
    "with its quartiles. record_stats_ computes all scores of the logits of a batch and adds them to its examples' "
    "records. A training step with scores does more than one without: there the ratio is the speed that is left."
)

EXAMPLES: Final = """\
examples:
  on the CPU, and on the GPU if there is one, in less than two minutes each:
    difficulty-prune bench
  the CPU alone, with what one thread does:
    OMP_NUM_THREADS=1 difficulty-prune bench --device cpu
  for a report of slowness:
    difficulty-prune bench --json
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked.

    Raises:
        ValueError: fewer than one round, or no time at all.
    """

    device: str | None = field(
        default=None,
        metadata=option("where; default: on the CPU, and on the GPU if there is one", choices=("cpu", "cuda")),
    )
    rounds: int = field(
        default=ROUNDS, metadata=option("at most, in each of which ours and theirs take turns", type=int, metavar="N")
    )
    seconds: float = field(
        default=SECONDS, metadata=option("about how long the rounds of each line take at most", type=float, metavar="S")
    )

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds: got {self.rounds}, expected at least 1")
        if not self.seconds > 0:
            raise ValueError(f"seconds: got {self.seconds}, expected more than 0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    add_options(parser, Options)


def run(parsed: argparse.Namespace) -> int:
    """Times everything, and prints the ratios, the machine, and what makes it slow, as a table or as JSON."""
    options = read_options(parsed, Options)
    return measure(options, Sizes(), parsed.json)


def measure(options: Options, sizes: Sizes, as_json: bool) -> int:
    """The same of work of any size."""
    here, start = surroundings(), time.monotonic()
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if "cuda" in devices and not torch.cuda.is_available():
        raise ValueError("device: got cuda, but PyTorch sees no GPU; `difficulty-prune doctor` may say why")
    console = make_console(stderr=True)
    found = bench(
        devices,
        sizes,
        rounds=options.rounds,
        seconds=options.seconds,
        follow=lambda jobs: follow(jobs, console, "timing"),
    )
    collected = collect(here)
    facts = {name: collected[name] for name in FACTS}
    slow, taken = what_is_slow(here), time.monotonic() - start
    if as_json:
        rows = [ratio.to_dict() for ratio in found]
        slow_facts = [asdict(each) for each in slow]
        print(json.dumps({"machine": facts, "seconds": round(taken, 1), "rows": rows, "slow": slow_facts}, indent=1))
    else:
        show(found, facts, slow, taken, make_console())
    return 0


def show(found: Sequence[Ratio], facts: dict[str, Any], slow: Sequence[Slow], taken: float, console: Console) -> None:
    """Prints a table for each device, the machine, and what the numbers mean."""
    for device in dict.fromkeys(ratio.device for ratio in found):
        grid = Table(device, "against", box=None, pad_edge=False, header_style="")
        for name in ("ours", "theirs", "ratio", "quartiles", "of copy"):
            grid.add_column(name, justify="right", no_wrap=True)
        for ratio in found:
            if ratio.device == device:
                grid.add_row(*_cells(ratio))
        print_whole(console, grid)
        console.print()
    for name, value in facts.items():
        console.print(f"{name}: {shown(value)}", soft_wrap=True)
    console.print(f"\n{MEANING} {_copies(found)}Took {in_words(taken)}.", soft_wrap=True)
    for each in slow:
        console.print(f"slow here: {shown(each)}", soft_wrap=True)


def _cells(ratio: Ratio) -> list[str]:
    low, middle, high = ratio.quartiles
    return [
        ratio.work,
        ratio.against,
        duration(float(np.median(ratio.ours))),
        duration(float(np.median(ratio.theirs))),
        f"{middle:.2f}x",
        f"{low:.2f}-{high:.2f}",
        "" if ratio.of_copy is None else f"{ratio.of_copy:.0%}",
    ]


def _copies(found: Sequence[Ratio]) -> str:
    rates = {ratio.device: float(np.median(ratio.copied)) for ratio in found if ratio.copied is not None}
    if not rates:
        return ""
    said = " and ".join(f"{rate / 1e9:.1f} GB/s on {device}" for device, rate in rates.items())
    return (
        "Where memory is the limit, the last column says how close ours comes to a plain copy, which reads and writes "
        f"{said}. "
    )
