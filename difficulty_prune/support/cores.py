"""How many CPU cores there are to use."""

from __future__ import annotations


def usable_cores() -> int:
    """CPU cores that this process may use: affinity and the quota of a container (cgroup) count, at least 1."""
    from joblib import cpu_count

    return int(cpu_count())
