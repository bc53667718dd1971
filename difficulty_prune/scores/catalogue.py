"""The catalogue of scores: what each number means, in which direction it is hard, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Needs = Literal["loss", "logits", "input gradients"]


@dataclass(frozen=True)
class Score:
    """One number per example.

    Attributes:
        name: as in the literature.
        higher_is_harder: whether a high score marks a hard example; difficulty flips the sign where it does not.
        needs: what the tracker must be given: "loss" (logits or a loss), "logits" or "input gradients".
        unit: of the number.
        source: the paper that defines it.
        summary: the definition in one line; T counts the presentations of the example.

    >>> SCORES["aum"].higher_is_harder
    False
    """

    name: str
    higher_is_harder: bool
    needs: Needs
    unit: str
    source: str
    summary: str


_AGARWAL = "Agarwal, D'souza, Hooker 2022, arXiv 2008.11600"
_PAUL = "Paul, Ganguli, Dziugaite 2021, arXiv 2107.07075"
_PLEISS = "Pleiss et al. 2020, arXiv 2001.10528"
_SWAYAMDIPTA = "Swayamdipta et al. 2020, arXiv 2009.10795"
_TONEVA = "Toneva et al. 2019, arXiv 1812.05159"
_BALDOCK = "Baldock, Maennel, Neyshabur 2021, arXiv 2106.09647"
_COLEMAN = "Coleman et al. 2020, arXiv 1906.11829"
_JIANG = "Jiang et al. 2021, arXiv 2002.03206"

_ALL = (
    Score("loss", True, "loss", "nats", _JIANG, "mean over T of -log p_y"),
    Score("el2n", True, "logits", "probability", _PAUL, "mean over T of the L2 norm of p - onehot(y); not squared"),
    Score("entropy", True, "logits", "nats", _COLEMAN, "mean over T of -sum p log p"),
    Score("confidence", False, "logits", "probability", _SWAYAMDIPTA, "mean over T of p_y"),
    Score("max_confidence", False, "logits", "probability", _COLEMAN, "mean over T of the largest p"),
    Score("variability", True, "logits", "probability", _SWAYAMDIPTA, "standard deviation over T of p_y, ddof 0"),
    Score("accuracy", False, "logits", "fraction of T", _JIANG, "fraction of T in which the argmax is y"),
    Score("aum", False, "logits", "logits", _PLEISS, "mean over T of z_y minus the largest other logit"),
    Score("margin", False, "logits", "probability", _PLEISS, "mean over T of p_y minus the largest other p"),
    Score("forgetting", True, "logits", "events", _TONEVA, "times that correct turned into wrong; T if never correct"),
    Score(
        "learning_time", True, "logits", "presentations", _BALDOCK, "presentations before the first correct; T if never"
    ),
    Score(
        "consistently_learned",
        True,
        "logits",
        "presentations",
        _BALDOCK,
        "presentations before it stays correct to the end; T if it does not",
    ),
    Score(
        "vog",
        True,
        "input gradients",
        "logits per input unit",
        _AGARWAL,
        "deviation over time of the input gradient of the true-class logit",
    ),
    Score(
        "vog_probability",
        True,
        "input gradients",
        "probability per input unit",
        _AGARWAL,
        "the same for the gradient of p_y",
    ),
    Score(
        "vog_loss", True, "input gradients", "nats per input unit", _AGARWAL, "the same for the gradient of the loss"
    ),
)

SCORES: Final = MappingProxyType({score.name: score for score in _ALL})
"""Every score by name."""


def score_names(needs: Needs | None = None) -> tuple[str, ...]:
    """Names of all scores, or of those with the given need.

    >>> score_names("input gradients")
    ('vog', 'vog_probability', 'vog_loss')
    """
    return tuple(score.name for score in _ALL if needs in (None, score.needs))


def check_scores(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple without repeats; ValueError for an unknown or an empty list, TypeError for a string."""
    if isinstance(names, str):
        raise TypeError(f"scores: got the string {names!r}, expected several names such as ({names!r},)")
    listed = tuple(dict.fromkeys(names))
    unknown = [name for name in listed if name not in SCORES]
    if unknown:
        raise ValueError(f"scores: there is no score {unknown[0]!r}; choose from {', '.join(SCORES)}")
    if not listed:
        raise ValueError(f"scores: got none; choose from {', '.join(SCORES)}")
    return listed
