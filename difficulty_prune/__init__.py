"""Score how hard each training example is, inside the training step, and train on fewer of them."""

from . import consistency, ops, plots, policies
from .checkpoint import score_checkpoint
from .data import IndexedDataset, dataset_fingerprint
from .losses import reduce_loss
from .ops import reference
from .plan import Plan
from .runs import Run, RunSet
from .sampler import PruneSampler
from .scores import SCORES, GradientOptions, Score, class_normalize, score_names
from .tracker import DifficultyTracker
from .version import __version__

__all__ = [
    "SCORES",
    "DifficultyTracker",
    "GradientOptions",
    "IndexedDataset",
    "Plan",
    "PruneSampler",
    "Run",
    "RunSet",
    "Score",
    "__version__",
    "class_normalize",
    "consistency",
    "dataset_fingerprint",
    "ops",
    "plots",
    "policies",
    "reduce_loss",
    "reference",
    "score_checkpoint",
    "score_names",
]
