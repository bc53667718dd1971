"""How many each of several groups gives, in whole numbers."""

from __future__ import annotations

import math


def equal_shares(groups: list[int], total: int) -> list[int]:
    """The same number from every group, adding up to `total`; what a small group cannot give, the others share.

    >>> equal_shares([10, 1, 10], 9)
    [4, 1, 4]
    """
    shares = [0] * len(groups)
    for turn, g in enumerate(sorted(range(len(groups)), key=groups.__getitem__)):  # smallest group first
        shares[g] = min(groups[g], total // (len(groups) - turn))
        total -= shares[g]
    return shares


def proportional_shares(groups: list[int], keep: float, total: int) -> list[int]:
    """`keep` of every group, adding up to `total` (the largest remainders are rounded up); at least 1 of each.

    >>> proportional_shares([900, 100], 0.5, 500)
    [450, 50]
    """
    exact = [round(keep * size, 9) for size in groups]
    shares = [max(1, math.floor(share)) for share in exact]
    by_remainder = sorted(range(len(groups)), key=lambda g: shares[g] - exact[g])
    for g in by_remainder[: max(0, total - sum(shares))]:
        shares[g] += 1
    return shares
