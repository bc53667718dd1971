"""Score how hard each training example is, inside the training step, and train on fewer of them."""

from . import audit, consistency, convert, fingerprint, ops, plots, policies, scores
from .advise import Advice, advise
from .apply import apply
from .comparison.compare import compare
from .comparison.comparison import PolicyComparison
from .comparison.verdict import Verdict, verdict
from .data import IndexedDataset, dataset_fingerprint, reduce_loss
from .decisions.decisions import Decisions
from .fingerprint.architecture_fingerprint import ArchitectureFingerprint
from .frozen.checkpoint import score_checkpoint
from .frozen.features import Features, score_features
from .match_ids import IdReport, match_ids
from .mixing import dominant
from .ops import reference
from .policies.plan import Plan
from .runs.run_set import Run, RunSet
from .runs.running_mean import RunningMean
from .sampler import PruneSampler
from .scores.catalogue import SCORES, Score, score_names
from .scores.class_normalize import class_normalize
from .scores.temporal import TemporalOptions
from .select_rows import index_rows, select_rows
from .streams.inclusion_table import InclusionTable
from .streams.pruned_stream import PrunedStream
from .streams.stream_index import StreamIndex
from .streams.stream_pruner import StreamPruner
from .tracker.options import GradientOptions, ProbabilityOptions
from .tracker.partition import Partition
from .tracker.tracker import DifficultyTracker
from .version import __version__

__all__ = [
    "SCORES",
    "Advice",
    "ArchitectureFingerprint",
    "Decisions",
    "DifficultyTracker",
    "Features",
    "GradientOptions",
    "IdReport",
    "InclusionTable",
    "IndexedDataset",
    "Partition",
    "Plan",
    "PolicyComparison",
    "ProbabilityOptions",
    "PruneSampler",
    "PrunedStream",
    "Run",
    "RunSet",
    "RunningMean",
    "Score",
    "StreamIndex",
    "StreamPruner",
    "TemporalOptions",
    "Verdict",
    "__version__",
    "advise",
    "apply",
    "audit",
    "class_normalize",
    "compare",
    "consistency",
    "convert",
    "dataset_fingerprint",
    "dominant",
    "fingerprint",
    "index_rows",
    "match_ids",
    "ops",
    "plots",
    "policies",
    "reduce_loss",
    "reference",
    "score_checkpoint",
    "score_features",
    "score_names",
    "scores",
    "select_rows",
    "verdict",
]
