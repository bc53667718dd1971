"""What the numbers mean: the catalogue, and the formulas that turn recorded state into scores."""

from .catalogue import SCORES, TRACKED, Score, check_scores, check_tracked, score_names
from .gradient_options import GradientOptions
from .gradients import check_depends, input_gradient
from .logits import logit_scores, merge_records_
from .moments import GradientMoments
from .normalize import class_normalize

__all__ = [
    "SCORES",
    "TRACKED",
    "GradientMoments",
    "GradientOptions",
    "Score",
    "check_depends",
    "check_scores",
    "check_tracked",
    "class_normalize",
    "input_gradient",
    "logit_scores",
    "merge_records_",
    "score_names",
]
