"""What a change cost: our time in each row of `make bench`, before and after, over several runs on one machine.

    python benchmarks/before_after.py FOLDER    reads before-*.json and after-*.json there, each written by pytest's
                                                --benchmark-json as `make bench` does, of all benchmarks or of some

One run's quartiles say little: memory lies elsewhere in the next run, and its times differ by up to a half. So a row
counts as slower only if its fastest run after is slower than the slowest before by more than 3 %.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

TOLERANCE = 0.03


def times(folder: Path, side: str) -> dict[str, list[float]]:
    """Our median seconds in each run, by row."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob(f"{side}-*.json")):
        for row in json.loads(path.read_text())["rows"]:
            against = row["against"].partition(" (")[0]  # without the memory, which changes
            found.setdefault(f"{row['work']}, against {against}", []).append(row["our_median_seconds"])
    if not found:
        raise SystemExit(f"before_after.py: {folder} has no {side}-*.json")
    return found


def milliseconds(seconds: list[float]) -> str:
    return f"{min(seconds) * 1e3:.4g} to {max(seconds) * 1e3:.4g} ms ({len(seconds)} runs)"


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    before, after = (times(Path(sys.argv[1]), side) for side in ("before", "after"))
    table = Table("work", "before", "after", "", box=None)
    for row, new in after.items():
        old = before.get(row)
        slower = old is not None and min(new) > max(old) * (1 + TOLERANCE)
        told = f"slower by {min(new) / max(old) - 1:.0%} or more" if old and slower else ""
        table.add_row(row, "" if old is None else milliseconds(old), milliseconds(new), told)
    Console(width=190).print(table)


if __name__ == "__main__":
    main()
