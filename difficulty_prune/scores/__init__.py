"""What the numbers mean: the catalogue, and the formulas that turn recorded state into scores."""

from .catalogue import SCORES, TRACKED, Score, check_scores, check_tracked, score_names
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
from .gradient_options import GradientOptions
from .gradients import check_depends, input_gradient
from .logits import logit_scores, merge_records_, trajectory_scores
from .moments import GradientMoments
from .normalize import class_normalize
from .parameter_gradients import grand
from .prediction_depth import prediction_depth
from .prototypes import prototype_distance
from .temporal import TEMPORAL, TemporalOptions, TemporalRecords, dyn_unc, tdds

__all__ = [
    "SCORES",
    "TEMPORAL",
    "TRACKED",
    "Detection",
    "Dichotomy",
    "Estimate",
    "GradientMoments",
    "GradientOptions",
    "Score",
    "TemporalOptions",
    "TemporalRecords",
    "agreement",
    "check_depends",
    "check_scores",
    "check_tracked",
    "class_normalize",
    "dichotomy",
    "dyn_unc",
    "ensemble_confidence",
    "grand",
    "held_out_consistency",
    "input_gradient",
    "logit_scores",
    "memorization",
    "merge_records_",
    "model_accuracy",
    "ood",
    "prediction_depth",
    "prototype_distance",
    "score_names",
    "selective_accuracy",
    "tdds",
    "trajectory_scores",
]
