"""Scores of many runs: what several trained models together say about an example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.arrays import real_numbers


@dataclass(frozen=True, eq=False)
class Estimate:
    """A score estimated from runs that each trained on a part of the data, and how far to trust it.

    Attributes:
        value: [N] float64; NaN where a kind of run that the score needs is missing.
        standard_error: [N] float64, from run to run; NaN with fewer than two runs of a kind that the score needs. Its
            square is unbiased, yet it is 0 where all runs of a kind agree: they showed no difference, which does not
            mean that there is none.
        seen, unseen: [N] int64, how many runs trained on the example and how many did not.
    """

    value: NDArray[Any]
    standard_error: NDArray[Any]
    seen: NDArray[Any]
    unseen: NDArray[Any]

    def to_dict(self) -> dict[str, Any]:
        """The numbers that sum it up, as JSON can hold them; None where nothing is known.

        `too_few_runs` counts the examples without a standard error, `without_value` those without a value. Of the
        standard error there is the median and the root mean square; examples on which all runs agree have an error of
        0, which can pull the median down to 0, but not the root mean square.
        """
        known = self.standard_error[~np.isnan(self.standard_error)]
        valued = self.value[~np.isnan(self.value)]
        return {
            "examples": len(self.value),
            "too_few_runs": len(self.value) - len(known),
            "without_value": len(self.value) - len(valued),
            "mean": float(valued.mean()) if len(valued) else None,
            "median_standard_error": float(np.median(known)) if len(known) else None,
            "rms_standard_error": float(np.sqrt((known**2).mean())) if len(known) else None,
            "seen": [int(self.seen.min()), int(self.seen.max())],
            "unseen": [int(self.unseen.min()), int(self.unseen.max())],
        }

    def __str__(self) -> str:
        facts = self.to_dict()
        error = "no standard error is known"
        if facts["median_standard_error"] is not None:
            error = f"standard error {facts['rms_standard_error']:.3f} (root mean square)"
            error += f", {facts['median_standard_error']:.3f} (median)"
        return (
            f"{facts['too_few_runs']:,} of {facts['examples']:,} examples have too few runs "
            f"({facts['without_value']:,} have no value at all); {error}; each was seen by {_range(facts['seen'])} "
            f"runs and left out by {_range(facts['unseen'])}"
        )


@dataclass(frozen=True, eq=False)
class Dichotomy:
    """Which examples no model, every model, or only some models predict correctly (Meding et al. 2022).

    Attributes:
        never, always, sometimes: [N] bool; each example is in exactly one.
    """

    never: NDArray[Any]
    always: NDArray[Any]
    sometimes: NDArray[Any]

    def to_dict(self) -> dict[str, int]:
        """The numbers of examples."""
        return {"examples": len(self.never)} | {name: int(mask.sum()) for name, mask in vars(self).items()}

    def __str__(self) -> str:
        counts = self.to_dict()
        size = counts.pop("examples")
        shares = ", ".join(f"{count:,} ({count / size:.1%}) {name}" for name, count in counts.items())
        return f"of {size:,} examples, predicted correctly: {shares}"


def model_accuracy(predictions: Any, labels: Any) -> NDArray[Any]:
    """Fraction of the models that predict the label, [N] float64 (Meding et al. 2022, arXiv 2110.05922).

    Args:
        predictions: [R, N] whole numbers, the class that each of R models predicts.
        labels: [N] whole numbers.

    Raises:
        ValueError: shapes that do not fit, no model, or numbers that are not whole.

    >>> model_accuracy([[0, 1], [0, 0]], labels=[0, 1])
    array([1. , 0.5])
    """
    classes, truth = np.asarray(predictions), np.asarray(labels)
    if classes.ndim != 2 or 0 in classes.shape or classes.dtype.kind not in "iu":
        raise ValueError(f"predictions: got {classes.dtype} {classes.shape}, expected whole numbers [models, N]")
    if truth.shape != classes.shape[1:] or truth.dtype.kind not in "iu":
        raise ValueError(f"labels: got {truth.dtype} {truth.shape}, expected whole numbers [{classes.shape[1]}]")
    accuracy: NDArray[Any] = (classes == truth).mean(axis=0, dtype=np.float64)
    return accuracy


def dichotomy(accuracy: Any) -> Dichotomy:
    """Splits the examples into those that no model, every model, or only some models predict correctly.

    With few models "never" and "always" are large; both shrink as models are added (Meding et al. 2022,
    arXiv 2110.05922).

    Args:
        accuracy: [N], from `model_accuracy`.

    Raises:
        TypeError, ValueError: anything but one number from 0 to 1 per example.

    >>> print(dichotomy([0.0, 1.0, 1.0, 0.5]))
    of 4 examples, predicted correctly: 1 (25.0%) never, 2 (50.0%) always, 1 (25.0%) sometimes
    """
    values = real_numbers(accuracy, "dichotomy")
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"dichotomy: got shape {values.shape}, expected one number per example, [N]")
    wrong = ~((values >= 0) & (values <= 1))  # NaN too
    if wrong.any():
        raise ValueError(f"dichotomy: got {values[wrong][0]} for example {int(wrong.argmax())}, expected 0 to 1")
    never, always = values == 0, values == 1
    return Dichotomy(never, always, ~(never | always))


def agreement(probabilities: Iterable[Any]) -> NDArray[Any]:
    """Jensen-Shannon divergence of the models' probabilities, [N] float64 in nats: 0 where all agree.

    The entropy of the mean of p minus the mean of the entropies of p; at most the logarithm of the number of models
    (Carlini, Erlingsson, Papernot 2019, arXiv 1910.13427).

    Args:
        probabilities: [N, C] of each model, one after the other; no more than one is held at a time.

    Raises:
        TypeError: values that are not numbers.
        ValueError: fewer than two models, or shapes that differ.

    >>> agreement([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).round(3)
    array([0.693, 0.   ])
    """
    from scipy.special import entr

    total, entropies, models = np.zeros(()), np.zeros(()), 0
    for p in _each(probabilities, "agreement"):
        total = total + p
        entropies = entropies + entr(p).sum(1)
        models += 1
    if models < 2:
        raise ValueError(f"agreement: got {models} model, expected at least 2: a single one has nothing to agree with")
    divergence: NDArray[Any] = entr(total / models).sum(1) - entropies / models
    known: NDArray[Any] = np.maximum(divergence, 0)  # only rounding makes it negative
    return known


def ensemble_confidence(probabilities: Iterable[Any]) -> NDArray[Any]:
    """Mean over the models of their largest probability, [N] float64 (Carlini et al. 2019, arXiv 1910.13427).

    Args:
        probabilities: [N, C] of each model, one after the other; no more than one is held at a time.

    Raises:
        TypeError: values that are not numbers.
        ValueError: no model, or shapes that differ.

    >>> ensemble_confidence([[[0.75, 0.25]], [[0.5, 0.5]]])
    array([0.625])
    """
    total, models = np.zeros(()), 0
    for p in _each(probabilities, "ensemble_confidence"):
        total = total + p.max(1)
        models += 1
    if models == 0:
        raise ValueError("ensemble_confidence: got no model, expected at least one")
    return total / models


def memorization(correct: Any, seen: Any) -> Estimate:
    """Share of correct runs among those that trained on the example, minus the share among those that did not.

    Feldman and Zhang 2020, arXiv 2008.03703. It needs runs of both kinds. For a share p of n runs, p (1 - p) / (n - 1)
    is an unbiased estimate of its variance.

    Args:
        correct: [R, N] bool, whether the run predicts the label.
        seen: [R, N] bool, whether the run trained on the example.

    Raises:
        ValueError: shapes that differ, no run, or values that are not bool.

    >>> estimate = memorization([[True], [True], [False], [False]], seen=[[True], [True], [False], [False]])
    >>> estimate.value, estimate.seen, estimate.unseen
    (array([1.]), array([2]), array([2]))
    """
    right, trained = _check(correct, seen)
    share, variance = _share(right, trained)
    other_share, other_variance = _share(right, ~trained)
    return Estimate(share - other_share, np.sqrt(variance + other_variance), trained.sum(0), (~trained).sum(0))


def held_out_consistency(correct: Any, seen: Any) -> Estimate:
    """Share of correct runs among those that did not train on the example: the C-score for one size of training set.

    Jiang et al. 2021, arXiv 2002.03206, who average it over several sizes. It needs runs that did not train on the
    example. The variance is estimated as in `memorization`.

    Args, Raises: as in `memorization`.

    >>> held_out_consistency([[True], [True], [False]], seen=[[True], [False], [False]]).value
    array([0.5])
    """
    right, trained = _check(correct, seen)
    share, variance = _share(right, ~trained)
    return Estimate(share, np.sqrt(variance), trained.sum(0), (~trained).sum(0))


def _share(correct: NDArray[Any], runs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Share of the given runs [R, N] that are correct, and an unbiased variance of that share; NaN if not known."""
    number = runs.sum(0)
    share = np.where(number > 0, (correct & runs).sum(0) / np.maximum(number, 1), np.nan)
    variance = np.where(number > 1, share * (1 - share) / np.maximum(number - 1, 1), np.nan)
    return share, variance


def _check(correct: Any, seen: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    right, trained = np.asarray(correct), np.asarray(seen)
    for name, array in (("correct", right), ("seen", trained)):
        if array.dtype != np.bool_ or array.ndim != 2 or 0 in array.shape or array.shape != right.shape:
            raise ValueError(f"{name}: got {array.dtype} {array.shape}, expected bool [runs, N] as for the other")
    return right, trained


def _each(probabilities: Iterable[Any], name: str) -> Iterable[NDArray[Any]]:
    if not isinstance(probabilities, Iterable):
        raise TypeError(f"{name}: got {probabilities!r}, expected the probabilities [N, C] of each model")
    shape = None
    for p in probabilities:
        array = real_numbers(p, name)
        shape = array.shape if shape is None else shape
        if array.ndim != 2 or 0 in array.shape or array.shape != shape:
            raise ValueError(
                f"{name}: got probabilities of shape {array.shape}, expected [N, C] of each model, the same for all"
            )
        yield array


def _range(ends: list[int]) -> str:
    low, high = ends
    return f"{low}" if low == high else f"{low} to {high}"
