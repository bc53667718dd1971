"""What a study set aside for testing, of the data that its runs are of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .run import Run

SET_ASIDE: Final = "set_aside"
"""Name in the metadata of a run: the ids of the examples that were set aside, or their number where they have none."""


def set_aside(runs: Iterable[Run]) -> frozenset[str | int] | int | None:
    """The ids of the examples that a study of these runs set aside, or their number; None where no run says.

    >>> facts = {"architecture": "mlp", "seed": 0}
    >>> set_aside([Run({"aum": [1.0]}, set_aside=["c", "d"], **facts)]) == {"c", "d"}
    True
    >>> set_aside([Run({"aum": [1.0]}, set_aside=2, **facts)]), set_aside([Run({"aum": [1.0]}, **facts)])
    (2, None)
    """
    said = [run.metadata[SET_ASIDE] for run in runs if SET_ASIDE in run.metadata]
    names = frozenset(name for each in said if isinstance(each, list) for name in each if _is_id(name))
    if names:
        return names
    return max((each for each in said if isinstance(each, int) and not isinstance(each, bool)), default=None)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
