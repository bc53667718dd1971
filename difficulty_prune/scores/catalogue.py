"""The catalogue of scores: what each number means, in which direction it is hard, and where it comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

Needs = Literal["loss", "logits", "input gradients", "parameter gradients", "features", "runs"]

TRACKED: Final[tuple[Needs, ...]] = ("loss", "logits", "input gradients", "parameter gradients")
"""What a tracker can be given."""


@dataclass(frozen=True)
class Score:
    """One number per example.

    Attributes:
        name: as in the literature.
        higher_is_harder: whether a high score marks a hard example; difficulty flips the sign where it does not.
        needs: what it is computed from: "loss" (logits or a loss), "logits", "input gradients", "parameter gradients"
            (these four by a tracker), "features" (of a trained model), or "runs" (several trained models).
        unit: of the number.
        source: the paper that defines it.
        summary: the definition in one line; T counts the presentations of the example.
        trap: what is easily got wrong in computing or reading it.

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
        "Unbounded: one presentation at which the model was surely wrong outweighs many others.",
    ),
    Score(
        "el2n",
        True,
        "logits",
        "probability",
        _PAUL,
        "mean over T of the L2 norm of p - onehot(y); not squared",
        "Not squared, and at most sqrt(2). Early in training it ranks difficulty, late in training label noise.",
    ),
    Score(
        "entropy",
        True,
        "logits",
        "nats",
        _COLEMAN,
        "mean over T of -sum p log p",
        "Does not look at the label: a mislabelled example on which the model is sure counts as easy.",
    ),
    Score(
        "confidence",
        False,
        "logits",
        "probability",
        _SWAYAMDIPTA,
        "mean over T of p_y",
        "Of the label, not of the prediction; that is max_confidence.",
    ),
    Score(
        "max_confidence",
        False,
        "logits",
        "probability",
        _COLEMAN,
        "mean over T of the largest p",
        "Does not look at the label.",
    ),
    Score(
        "variability",
        True,
        "logits",
        "probability",
        _SWAYAMDIPTA,
        "standard deviation over T of p_y, ddof 0",
        "Highest for ambiguous examples; those that are never learned vary as little as easy ones.",
    ),
    Score(
        "accuracy",
        False,
        "logits",
        "fraction of T",
        _JIANG,
        "fraction of T in which the argmax is y",
        "A fraction, not a count, and over the presentations of one run; over models it is model_accuracy.",
    ),
    Score(
        "aum",
        False,
        "logits",
        "logits",
        _PLEISS,
        "mean over T of z_y minus the largest other logit",
        "On logits; the same on probabilities is margin. The scale is that of the logits, which grow in training.",
    ),
    Score(
        "margin",
        False,
        "logits",
        "probability",
        _PLEISS,
        "mean over T of p_y minus the largest other p",
        "On probabilities, where easy examples pile up at 1; others call this AUM.",
    ),
    Score(
        "forgetting",
        True,
        "logits",
        "events",
        _TONEVA,
        "times that correct turned into wrong; T if never correct",
        "An example that is never learned has nothing to forget, and counts as the hardest, not as 0.",
    ),
    Score(
        "learning_time",
        True,
        "logits",
        "presentations",
        _BALDOCK,
        "presentations before the first correct one; T if never",
        "The first correct prediction may be luck; consistently_learned asks that it lasts.",
    ),
    Score(
        "consistently_learned",
        True,
        "logits",
        "presentations",
        _BALDOCK,
        "presentations before it stays correct to the end; T if it does not",
        "Depends on the last presentation: one slip at the end makes T of it.",
    ),
    Score(
        "tdds",
        True,
        "logits",
        "nats",
        _ZHANG,
        "moving average (decay 0.9) over windows of J = 10 presentations of the norm of the deviations of "
        "sum p_t |log p_t - log p_(t-1)| from their mean",
        "Its authors keep the highest. Needs J presentations; the last window, which weighs most, ends at the last "
        "epoch, and it is easily left out by an index.",
    ),
    Score(
        "dyn_unc",
        True,
        "logits",
        "probability",
        _HE,
        "mean over windows of J = 10 presentations of the standard deviation of p_y, ddof 1",
        "Its authors keep the highest. There are T - J + 1 windows, not T - J: the last epoch is easily left out.",
    ),
    Score(
        "vog",
        True,
        "input gradients",
        "logits per input unit",
        _AGARWAL,
        "standard deviation over time (ddof 0) of the input gradient of the true-class logit, averaged over channels "
        "first and over pixels last",
        "Often negative as a measure of difficulty: easy examples have large logits, whose gradients move. Others take "
        "ddof 1, leave out the square root or the mean over channels, or mix up examples by shuffling.",
    ),
    Score(
        "vog_probability",
        True,
        "input gradients",
        "probability per input unit",
        _AGARWAL,
        "the same for the gradient of p_y",
        "Vanishes where p_y is near 0 or 1: surely wrong looks like surely right.",
    ),
    Score(
        "vog_loss",
        True,
        "input gradients",
        "nats per input unit",
        _AGARWAL,
        "the same for the gradient of the loss",
        "From the training step it sees augmented inputs and train-mode batch norm; at checkpoints it sees neither.",
    ),
    Score(
        "grand",
        True,
        "parameter gradients",
        "nats per parameter unit",
        _PAUL,
        "L2 norm of the example's own loss gradient over all parameters; mean over the checkpoints shown",
        "All parameters, not the last layer, and one example at a time, not a share of a batch gradient. At "
        "initialisation it measures little but the norm of the input.",
    ),
    Score(
        "prototype_distance",
        True,
        "features",
        "feature units",
        _SORSCHER,
        "distance in feature space to the mean of its class",
        "The mean contains the example itself. Classes of different spread are not comparable: class_normalize.",
    ),
    Score(
        "self_prototype_distance",
        True,
        "features",
        "feature units",
        _SORSCHER,
        "distance in feature space to the nearest centre of k-means; labels are not used",
        "Does not look at the label, and depends on the number of clusters and the seed of k-means.",
    ),
    Score(
        "prediction_depth",
        True,
        "features",
        "layers",
        _BALDOCK,
        "first layer from which on k-NN probes (k = 30) agree with the final prediction",
        "An example must not be its own neighbour, or every probe is right. Agreement is with the prediction, not with "
        "the label.",
    ),
    Score(
        "model_accuracy",
        False,
        "runs",
        "fraction of models",
        _MEDING,
        "fraction of the trained models that predict y",
        "Few models give few different values; with one architecture it says what is hard for that architecture.",
    ),
    Score(
        "ensemble_confidence",
        False,
        "runs",
        "probability",
        _CARLINI,
        "mean over the trained models of their largest p",
        "Does not look at the label.",
    ),
    Score(
        "agreement",
        True,
        "runs",
        "nats",
        _CARLINI,
        "Jensen-Shannon divergence of the trained models' p",
        "A divergence: 0 is full agreement, also where all models agree on a wrong class.",
    ),
    Score(
        "memorization",
        True,
        "runs",
        "probability",
        _FELDMAN,
        "share of correct models among those that trained on the example, minus the share among those that did not",
        "Needs runs that left examples out, and many: with ten of each the standard error is up to 0.22.",
    ),
    Score(
        "c_score",
        False,
        "runs",
        "probability",
        _JIANG,
        "consistency: share of correct models among those that did not train on the example",
        "From models that trained on the example it would be training accuracy.",
    ),
)

SCORES: Final = MappingProxyType({score.name: score for score in _ALL})
"""Every score by name."""


def score_names(*needs: Needs) -> tuple[str, ...]:
    """Names of all scores, or of those with one of the given needs; ValueError for a need that there is not.

    >>> score_names("input gradients")
    ('vog', 'vog_probability', 'vog_loss')
    """
    for need in needs:
        if need not in get_args(Needs):
            raise ValueError(f"needs: got {need!r}, expected of {', '.join(get_args(Needs))}")
    return tuple(score.name for score in _ALL if not needs or score.needs in needs)


def check_scores(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple without repeats; ValueError for an unknown or an empty list, TypeError for a string."""
    if isinstance(names, str):
        raise TypeError(f"scores: got the string {names!r}, expected several names such as ({names!r},)")
    listed = tuple(dict.fromkeys(names))
    unknown = [name for name in listed if name not in SCORES]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]).lower(), SCORES, n=1)
        hint = f"did you mean {near[0]!r}? Else " if near else ""
        raise ValueError(f"scores: there is no score {unknown[0]!r}; {hint}choose from {', '.join(SCORES)}")
    if not listed:
        raise ValueError(f"scores: got none; choose from {', '.join(SCORES)}")
    return listed


def check_tracked(names: Iterable[str]) -> tuple[str, ...]:
    """As `check_scores`, and ValueError for a score that no tracker can compute, saying what does."""
    listed = check_scores(names)
    for name in listed:
        if SCORES[name].needs == "features":
            raise ValueError(f"scores: {name!r} is not tracked in training; see dp.score_features(model, loader)")
        if SCORES[name].needs == "runs":
            raise ValueError(f"scores: {name!r} is a score of several runs; see dp.RunSet(runs).mean({name!r})")
    return listed
