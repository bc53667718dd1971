"""The catalogue of scores: what each number means, which end of it is hard, and where it comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

Needs = Literal["loss", "logits", "late logits", "input gradients", "parameter gradients", "features", "runs"]

TRACKED: Final[tuple[Needs, ...]] = ("loss", "logits", "input gradients", "parameter gradients")
"""What a tracker records during training."""

LATE: Final = MappingProxyType({"late_aum": "aum"})
"""Scores of the second half of a training, and what a tracker records for each."""


@dataclass(frozen=True)
class Score:
    """One number per example.

    Attributes:
        name: its name in the literature.
        higher_is_harder: whether a high score marks a hard example; if not, difficulty is the score with its sign
            flipped.
        needs: what the score is computed from. A tracker records "loss" (logits or a loss), "logits", "input
            gradients" and "parameter gradients", and knows "late logits", those of the second half of the training, if
            it is told when that began; "features" come from a trained model, "runs" are several trained models.
        unit: the unit of the number.
        source: the paper that defines it.
        summary: the definition in one line; T is how often the example was presented.
        trap: the mistake people make when they compute or read it.

    >>> SCORES["aum"].higher_is_harder
    False
    """

    name: str
    higher_is_harder: bool
    needs: Needs
    unit: str
    source: str
    summary: str
    trap: str = ""
    how: str = ""
    windowed: bool = False
    judges: bool = False


_AGARWAL = "Agarwal, D'souza, Hooker 2022, arXiv 2008.11600"
_PAUL = "Paul, Ganguli, Dziugaite 2021, arXiv 2107.07075"
_PLEISS = "Pleiss et al. 2020, arXiv 2001.10528"
_SWAYAMDIPTA = "Swayamdipta et al. 2020, arXiv 2009.10795"
_TONEVA = "Toneva et al. 2019, arXiv 1812.05159"
_BALDOCK = "Baldock, Maennel, Neyshabur 2021, arXiv 2106.09647"
_COLEMAN = "Coleman et al. 2020, arXiv 1906.11829"
_JIANG = "Jiang et al. 2021, arXiv 2002.03206"
_SORSCHER = "Sorscher et al. 2022, arXiv 2206.14486"
_ZHANG = "Zhang et al. 2024, arXiv 2311.13613"
_HE = "He et al. 2024, arXiv 2306.05175"
_CHO = "Cho et al. 2025, arXiv 2502.06905"
_MEDING = "Meding et al. 2022, arXiv 2110.05922"
_CARLINI = "Carlini, Erlingsson, Papernot 2019, arXiv 1910.13427"
_FELDMAN = "Feldman, Zhang 2020, arXiv 2008.03703"

_ALL = (
    Score(
        "loss",
        True,
        "loss",
        "nats",
        _JIANG,
        "mean over T of -log p_y",
        "Unbounded: one presentation on which the model was confidently wrong outweighs many others.",
        how="update",
    ),
    Score(
        "recent_loss",
        True,
        "loss",
        "nats",
        _JIANG,
        "mean of -log p_y in which a presentation weighs half as much as one that came a half-life (2) later",
        "Follows the model: of two examples it compares what was seen at different times, which tracker.age() tells.",
        how="update",
    ),
    Score(
        "el2n",
        True,
        "logits",
        "probability",
        _PAUL,
        "mean over T of the L2 norm of p - onehot(y); not squared",
        "Not squared, and at most sqrt(2). Early in training it ranks difficulty; late in training, label noise.",
        how="update",
    ),
    Score(
        "entropy",
        True,
        "logits",
        "nats",
        _COLEMAN,
        "mean over T of -sum p log p",
        "Ignores the label: a mislabelled example on which the model is confident counts as easy.",
        how="update",
    ),
    Score(
        "confidence",
        False,
        "logits",
        "probability",
        _SWAYAMDIPTA,
        "mean over T of p_y",
        "The probability of the label, not of the prediction; that is max_confidence.",
        how="update",
    ),
    Score(
        "max_confidence",
        False,
        "logits",
        "probability",
        _COLEMAN,
        "mean over T of the largest p",
        "Ignores the label.",
        how="update",
    ),
    Score(
        "variability",
        True,
        "logits",
        "probability",
        _SWAYAMDIPTA,
        "standard deviation over T of p_y, ddof 0",
        "Highest for ambiguous examples; examples that are never learned vary as little as easy ones.",
        how="update",
    ),
    Score(
        "accuracy",
        False,
        "logits",
        "fraction of T",
        _JIANG,
        "fraction of T in which the argmax is y",
        "A fraction, not a count, over the presentations of one run; the fraction over models is model_accuracy.",
        how="update",
        judges=True,
    ),
    Score(
        "aum",
        False,
        "logits",
        "logits",
        _PLEISS,
        "mean over T of z_y minus the largest other logit",
        "On logits; the same on probabilities is margin. Its scale is that of the logits, which grow during training.",
        how="update",
    ),
    Score(
        "late_aum",
        False,
        "late logits",
        "logits",
        f"{_PLEISS}; the half was measured here, docs/wrong_labels.md",
        "aum of the second half of the training: the mean over the presentations in it",
        "The half begins where tracker.snapshot() was called; runs in which that was after another number of "
        "presentations do not mix. Later is not better still: the last epoch alone finds fewer wrong labels than all, "
        "and so does the second half of a training so long that wrong labels are learned by heart, as of 40 epochs.",
        how="finish(late=)",
    ),
    Score(
        "margin",
        False,
        "logits",
        "probability",
        _PLEISS,
        "mean over T of p_y minus the largest other p",
        "On probabilities, where easy examples pile up at 1; some packages call this AUM.",
        how="update",
    ),
    Score(
        "forgetting",
        True,
        "logits",
        "events",
        _TONEVA,
        "number of times a correct prediction turned wrong; T if never correct",
        "An example that is never learned has nothing to forget; it counts as the hardest, not as 0.",
        how="update",
        judges=True,
    ),
    Score(
        "learning_time",
        True,
        "logits",
        "presentations",
        _BALDOCK,
        "presentations before the first correct prediction; T if there is none",
        "The first correct prediction may be luck; consistently_learned requires that it lasts.",
        how="update",
        judges=True,
    ),
    Score(
        "consistently_learned",
        True,
        "logits",
        "presentations",
        _BALDOCK,
        "presentations before the prediction stays correct to the end; T if it does not",
        "Depends on the last presentation: one slip at the end makes it T.",
        how="update",
        judges=True,
    ),
    Score(
        "tdds",
        True,
        "logits",
        "nats",
        _ZHANG,
        "moving average (decay 0.9) over windows of J = 10 presentations; per window, the norm of the deviations of "
        "sum p_t |log p_t - log p_(t-1)| from their mean",
        "Its authors keep the highest. Needs J presentations. The last window weighs most and ends at the last epoch: "
        "an off-by-one error drops it.",
        how="update",
        windowed=True,
    ),
    Score(
        "dyn_unc",
        True,
        "logits",
        "probability",
        _HE,
        "standard deviation of p_y (ddof 1) in a window of J = 10 presentations, mean over all windows",
        "Its authors keep the highest. There are T - J + 1 windows, not T - J: an off-by-one error drops the last "
        "epoch.",
        how="update",
        windowed=True,
    ),
    Score(
        "dual",
        True,
        "logits",
        "probability",
        _CHO,
        "(1 - mean) times standard deviation (ddof 1) of p_y in a window of J = 10 presentations, mean over all "
        "windows",
        "Its authors keep the highest, of the first 30 of 200 epochs: later, what has been learned for long pulls all "
        "means down. An example that is never learned does not move, and so scores low, as easy ones do.",
        how="update",
        windowed=True,
    ),
    Score(
        "vog",
        True,
        "input gradients",
        "logits per input unit",
        _AGARWAL,
        "standard deviation over time (ddof 0) of the input gradient of the true-class logit; the gradient is averaged "
        "over channels first, the result over pixels last",
        "Often correlates negatively with difficulty: easy examples have large logits, whose gradients keep moving. "
        "Some packages take ddof 1, omit the square root or the mean over channels, or mix up shuffled examples.",
        how="update(inputs=)",
    ),
    Score(
        "vog_probability",
        True,
        "input gradients",
        "probability per input unit",
        _AGARWAL,
        "as vog, for the gradient of p_y",
        "Vanishes where p_y is near 0 or 1: confidently wrong looks like confidently right.",
        how="update(inputs=)",
    ),
    Score(
        "vog_loss",
        True,
        "input gradients",
        "nats per input unit",
        _AGARWAL,
        "as vog, for the gradient of the loss",
        "In the training step it sees augmented inputs and train-mode batch norm; at checkpoints it sees neither.",
        how="watch",
    ),
    Score(
        "grand",
        True,
        "parameter gradients",
        "nats per parameter unit",
        _PAUL,
        "L2 norm of the example's own loss gradient over all parameters, mean over the checkpoints scored",
        "All parameters, not just the last layer; one example at a time, not its share of a batch gradient. At "
        "initialisation it measures little more than the norm of the input.",
        how="score_checkpoint",
    ),
    Score(
        "prototype_distance",
        True,
        "features",
        "feature units",
        _SORSCHER,
        "distance in feature space to the mean of its class",
        "The mean includes the example itself. Classes of different spread are not comparable; use class_normalize.",
    ),
    Score(
        "self_prototype_distance",
        True,
        "features",
        "feature units",
        _SORSCHER,
        "distance in feature space to the nearest k-means centre; labels are not used",
        "Ignores the label, and depends on the number of clusters and the seed of k-means.",
    ),
    Score(
        "prediction_depth",
        True,
        "features",
        "layers",
        _BALDOCK,
        "first layer from which all k-NN probes (k = 30) agree with the final prediction",
        "An example must not be its own neighbour, or every probe is right. The probes agree with the prediction, not "
        "with the label.",
    ),
    Score(
        "model_accuracy",
        False,
        "runs",
        "fraction of models",
        _MEDING,
        "fraction of the trained models that predict y",
        "Few models give few distinct values; models of one architecture show what is hard for that architecture.",
    ),
    Score(
        "ensemble_confidence",
        False,
        "runs",
        "probability",
        _CARLINI,
        "mean over the trained models of their largest p",
        "Ignores the label.",
    ),
    Score(
        "agreement",
        True,
        "runs",
        "nats",
        _CARLINI,
        "Jensen-Shannon divergence of the trained models' p",
        "A divergence: 0 is full agreement, even if all models agree on a wrong class.",
    ),
    Score(
        "memorization",
        True,
        "runs",
        "probability",
        _FELDMAN,
        "fraction of correct models among those that trained on the example, minus the fraction among the others",
        "Needs many runs that left examples out: with ten of each kind the standard error is up to 0.22.",
    ),
    Score(
        "c_score",
        False,
        "runs",
        "probability",
        _JIANG,
        "consistency: fraction of correct models among those that did not train on the example",
        "Computed from models that trained on the example, it would be training accuracy.",
    ),
)

SCORES: Final = MappingProxyType({score.name: score for score in _ALL})
"""Every score by name."""


def score_names(*needs: Needs) -> tuple[str, ...]:
    """Names of all scores, or of those with one of the given needs; ValueError for an unknown need.

    >>> score_names("input gradients")
    ('vog', 'vog_probability', 'vog_loss')
    """
    for need in needs:
        if need not in get_args(Needs):
            raise ValueError(f"needs: got {need!r}, expected one of {', '.join(get_args(Needs))}")
    return tuple(score.name for score in _ALL if not needs or score.needs in needs)


def check_scores(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple without repeats; ValueError for an unknown name or none, TypeError for a string."""
    if isinstance(names, str):
        raise TypeError(f"scores: got the string {names!r}, expected several names such as ({names!r},)")
    listed = tuple(dict.fromkeys(names))
    unknown = [name for name in listed if name not in SCORES]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]).lower(), SCORES, n=1)
        hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
        raise ValueError(f"scores: there is no score {unknown[0]!r}; {hint}choose from {', '.join(SCORES)}")
    if not listed:
        raise ValueError(f"scores: got none; choose from {', '.join(SCORES)}")
    return listed


def check_tracked(names: Iterable[str]) -> tuple[str, ...]:
    """As `check_scores`; a score that no tracker can compute is a ValueError, which says what computes it."""
    listed = check_scores(names)
    for name in listed:
        if SCORES[name].needs == "features":
            raise ValueError(f"scores: {name!r} is not tracked in training; see dp.score_features(model, loader)")
        if name in LATE:
            raise ValueError(
                f"scores: {name!r} is not recorded step by step; track {LATE[name]!r}, take early = tracker.snapshot() "
                "when the first half of the training is over, and call tracker.finish(..., late=early)"
            )
        if SCORES[name].needs == "runs":
            raise ValueError(f"scores: {name!r} is a score of several runs; see dp.RunSet(runs).mean({name!r})")
    return listed


def recorded(names: Iterable[str]) -> tuple[str, ...]:
    """What a tracker records so that a run has these scores in the end; errors as of `check_tracked`.

    >>> recorded(("late_aum", "el2n"))
    ('aum', 'el2n')
    """
    return check_tracked(LATE.get(name, name) for name in check_scores(names))
