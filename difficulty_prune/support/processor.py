"""What the operating system grants of the processor: cores, time, and instructions."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEVELS: Final = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"),
}
"""What `/proc/cpuinfo` lists of a processor of each level, the best first, beside what the lower ones have."""


@dataclass(frozen=True)
class Processor:
    """What there is to compute with.

    Attributes:
        name: of the processor.
        cores: those of the machine, hyperthreads counted.
        allowed: those that this process may run on.
        quota: how many cores' worth of time a container's limit grants; None for no limit.
        load: how many processes ran or waited for a core, on average over a minute; None where that is not known.
        level: of its instructions: "x86-64-v4" has vectors of 512 bits, "x86-64-v3" of 256; else the architecture.
    """

    name: str
    cores: int
    allowed: int
    quota: float | None
    load: float | None
    level: str

    @property
    def usable(self) -> int:
        """How many threads can run at a time: the quota rounded up, at most the allowed cores."""
        return self.allowed if self.quota is None else max(1, min(self.allowed, math.ceil(self.quota)))


def read_processor(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Processor:
    """Reads it from the files of Linux; elsewhere what Python knows.

    Args:
        proc, cgroup: where these file systems are.

    >>> read_processor().usable >= 1
    True
    """
    listed = _fields(proc / "cpuinfo")
    cores = _read(proc / "cpuinfo").count("processor\t") or os.cpu_count() or 1
    allowed = _count(_fields(proc / "self" / "status").get("Cpus_allowed_list", ""))
    quotas = [quota for quota in (*_quotas_v2(proc, cgroup), *_quotas_v1(proc, cgroup)) if quota is not None]
    load = _read(proc / "loadavg").split()
    return Processor(
        name=listed.get("model name", platform.processor() or platform.machine()),
        cores=cores,
        allowed=allowed or cores,
        quota=min(quotas, default=None),
        load=float(load[0]) if load else None,
        level=_level(listed["flags"].split()) if "flags" in listed else platform.machine(),
    )


def _read(path: Path) -> str:
    """The text of a file; none where it is missing or may not be read, as on other systems."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, str]:
    """The lines "name: value", the first of each name."""
    found: dict[str, str] = {}
    for line in _read(path).splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _count(ranges: str) -> int:
    """How many numbers a list such as "0-3,8" names.

    >>> _count("0-3,8"), _count("")
    (5, 0)
    """
    ends = [part.partition("-") for part in ranges.split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def _level(flags: list[str]) -> str:
    lacking = [level for level, needed in LEVELS.items() if not set(needed) <= set(flags)]
    if "x86-64-v3" in lacking:
        return "x86-64"
    return "x86-64-v3" if lacking else "x86-64-v4"


def _groups(proc: Path, controller: str) -> Iterator[Path]:
    """This process's group of a controller ("" for version 2), and those around it, relative to the file system."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            inner = Path(path.lstrip("/"))
            yield from (inner, *inner.parents)


def _quotas_v2(proc: Path, cgroup: Path) -> Iterator[float | None]:
    for group in _groups(proc, ""):
        granted, _, period = _read(cgroup / group / "cpu.max").strip().partition(" ")
        yield int(granted) / int(period) if granted.isdecimal() and period.isdecimal() else None


def _quotas_v1(proc: Path, cgroup: Path) -> Iterator[float | None]:
    for group in _groups(proc, "cpu"):
        for folder in (cgroup / "cpu" / group, cgroup / "cpu,cpuacct" / group):
            granted, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
            yield int(granted) / int(period) if granted.isdecimal() and period.isdecimal() else None
