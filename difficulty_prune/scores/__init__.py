"""What the numbers mean: the catalogue, and the formulas that turn recorded state into scores."""

from .catalogue import SCORES, Score, score_names
from .class_normalize import class_normalize
from .detection import Detection, ood, selective_accuracy
from .ensembles import (
    Dichotomy,
    Estimate,
    agreement,
    dichotomy,
    ensemble_confidence,
    held_out_consistency,
    memorization,
    model_accuracy,
)
from .gradients import input_gradient
from .grand.grand import grand
from .logit_scores import logit_scores, trajectory_scores
from .prediction_depth import prediction_depth
from .prototype_distance import prototype_distance
from .temporal import TemporalOptions, dual, dyn_unc, tdds

__all__ = [
    "SCORES",
    "Detection",
    "Dichotomy",
    "Estimate",
    "Score",
    "TemporalOptions",
    "agreement",
    "class_normalize",
    "dichotomy",
    "dual",
    "dyn_unc",
    "ensemble_confidence",
    "grand",
    "held_out_consistency",
    "input_gradient",
    "logit_scores",
    "memorization",
    "model_accuracy",
    "ood",
    "prediction_depth",
    "prototype_distance",
    "score_names",
    "selective_accuracy",
    "tdds",
    "trajectory_scores",
]
