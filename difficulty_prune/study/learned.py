"""Whether a training on all data taught its model anything, without which a comparison says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .study_data import StudyData

_ERRORS = 2.0  # standard errors of an accuracy on so many test examples


def nothing_learned(reached: float, data: StudyData, class_names: Sequence[str]) -> str:
    """Says so where all data are not seen to teach more than one answer for everything would reach; else "".

    Args:
        reached: the test accuracy of a training on all data, the mean over seeds; of numbers to predict the test loss.
        class_names: the name of each class.
    """
    labels = data.test.labels
    if data.regression:
        guess = float(labels.double().square().mean())  # in training their mean is 0
        learned, answer = reached < guess, "the mean of the training data"
    else:
        counts = labels.bincount()
        guess = float(counts.max()) / len(labels)
        learned = reached > guess + _ERRORS * math.sqrt(guess * (1 - guess) / len(labels))
        answer = repr(class_names[int(counts.argmax())])
    if learned:
        return ""
    return (
        f"This says nothing of pruning: trained on all data the model reaches {reached:.4f}, which is not seen to be "
        f"better than always answering {answer} ({guess:.4f}); raise --epochs, or choose another --lr or --model"
    )
