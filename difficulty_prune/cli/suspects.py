"""What looks mislabelled to a plan: what it may leave out, or says that it keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from ..runs.run_set import RunSet
from ..study.compare_policies import likely_wrong
from ..study.settings import WITHOUT_WRONG, WRONG_LABEL_SCORES
from .load_runs import warn
from .todays_data import TodaysData

_BY_CHANCE = 0.05  # more suspects than this share of random plans would keep are worth a warning


def find_suspects(runs: RunSet, today: TodaysData, among: NDArray[np.int64], policy: str) -> NDArray[np.int64]:
    """Those of the positions `among` [n] that are likely mislabelled, most likely first.

    None where the runs say too little of it, which is an error or a warning if the policy leaves suspects out.

    Raises:
        ValueError: such a policy, and runs without the scores that tell, or without labels.
    """
    asked = policy == WITHOUT_WRONG
    if runs.labels is None or not set(WRONG_LABEL_SCORES) & set(runs.scores):
        if not asked:
            return among[:0]
        got = "no labels" if runs.labels is None else ", ".join(runs.scores)
        raise ValueError(
            f"policy: {WITHOUT_WRONG} needs runs with labels, and with margin or aum, which tell what is likely "
            f"mislabelled; these have {got}"
        )
    index, found = likely_wrong(runs, runs.labels)
    if asked and not found["left_out"]:
        warn("plan", f"{WITHOUT_WRONG}: {found['in_words']}")
    rank = np.full(runs.num_examples, np.nan)
    rank[index] = np.arange(len(index))
    of_today = today.align(rank)[among]
    order = np.argsort(of_today)  # NaN comes last
    return among[order[: int((~np.isnan(of_today)).sum())]]


def warn_of_suspects(policy: str, kept: int, suspects: int, chosen: int, examples: int) -> None:
    """Warns of a plan that keeps more of what looks mislabelled than a random one of its size would."""
    if policy == WITHOUT_WRONG or not suspects or hypergeom.sf(kept - 1, examples, suspects, chosen) >= _BY_CHANCE:
        return
    warn(
        "plan",
        f"{policy} keeps {kept:,} of {suspects:,} that are likely wrong ({kept / suspects:.0%}), but "
        f"{chosen / examples:.0%} of all; to leave those out first, give --policy {WITHOUT_WRONG}",
    )
