"""One comparison: what was timed, and how many times faster it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .turns import Seconds


@dataclass(frozen=True)
class Ratio:
    """Seconds per call in each round, ours and theirs, and the memory traffic.

    Attributes:
        work: what is done.
        against: what does the same, or what it is compared with.
        device: "cpu" or "cuda".
        ours, theirs: [rounds].
        moved: bytes that one call of ours must move; None if memory is not the limit.
        copied: bytes per second of a plain copy in the same rounds, [rounds].
    """

    work: str
    against: str
    device: str
    ours: Seconds
    theirs: Seconds
    moved: int | None = None
    copied: Seconds | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of their time / ours over the rounds; the second is the ratio."""
        low, middle, high = np.quantile(self.theirs / self.ours, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    @property
    def of_copy(self) -> float | None:
        """Our rate as a fraction of the copy's, median over the rounds."""
        if self.moved is None or self.copied is None:
            return None
        return float(np.median(self.moved / self.ours / self.copied))

    def to_dict(self) -> dict[str, Any]:
        """In seconds and bytes, as JSON can hold it."""
        low, ratio, high = self.quartiles
        return {
            "work": self.work,
            "against": self.against,
            "device": self.device,
            "our_median_seconds": float(np.median(self.ours)),
            "their_median_seconds": float(np.median(self.theirs)),
            "ratio": ratio,
            "ratio_quartiles": [low, high],
            "rounds": len(self.ours),
            "bytes_that_must_move": self.moved,
            "copy_bytes_per_second": None if self.copied is None else float(np.median(self.copied)),
            "fraction_of_copy": self.of_copy,
        }


def duration(seconds: float) -> str:
    """Seconds as text.

    >>> duration(0.00123), duration(2e-10)
    ('1.23 ms', '0.2 ns')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
