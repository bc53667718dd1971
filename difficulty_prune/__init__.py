"""Score how hard each training example is, inside the training step, and train on fewer of them."""

from . import consistency, fingerprint, ops, plots, policies, scores
from .checkpoint import score_checkpoint
from .data import IndexedDataset, dataset_fingerprint
from .features import Features, score_features
from .fingerprint import ArchitectureFingerprint
from .losses import reduce_loss
from .ops import reference
from .plan import Plan
from .running import RunningMean
from .runs import Run, RunSet
from .sampler import PruneSampler
from .scores import SCORES, GradientOptions, Score, TemporalOptions, class_normalize, score_names
from .tracker import DifficultyTracker
from .version import __version__

__all__ = [
    "SCORES",
    "ArchitectureFingerprint",
    "DifficultyTracker",
    "Features",
    "GradientOptions",
    "IndexedDataset",
    "Plan",
    "PruneSampler",
    "Run",
    "RunSet",
    "RunningMean",
    "Score",
    "TemporalOptions",
    "__version__",
    "class_normalize",
    "consistency",
    "dataset_fingerprint",
    "fingerprint",
    "ops",
    "plots",
    "policies",
    "reduce_loss",
    "reference",
    "score_checkpoint",
    "score_features",
    "score_names",
    "scores",
]
