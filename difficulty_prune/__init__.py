"""Score how hard each training example is, inside the training step, and train on fewer of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .version import __version__

if TYPE_CHECKING:  # what type checkers and editors read; `_HOMES` says the same to Python
    from . import audit, consistency, convert, fingerprint, ops, plots, policies, scores
    from .advice import Advice, advise
    from .apply_decisions import apply
    from .comparison.compare import compare
    from .comparison.comparison import PolicyComparison
    from .comparison.verdict import Verdict, verdict
    from .data import IndexedDataset, dataset_fingerprint, reduce_loss
    from .decisions.decisions import Decisions
    from .fingerprint.architecture_fingerprint import ArchitectureFingerprint
    from .frozen.checkpoint import score_checkpoint
    from .frozen.features import Features, score_features
    from .matched_ids import IdReport, match_ids
    from .mixing import dominant
    from .ops import reference
    from .policies.plan import Plan
    from .runs.run_set import Run, RunSet
    from .runs.running_mean import RunningMean
    from .sampler import PruneSampler
    from .scores.catalogue import SCORES, Score, score_names
    from .scores.class_normalize import class_normalize
    from .scores.temporal import TemporalOptions
    from .selected_rows import index_rows, select_rows
    from .streams.inclusion_table import InclusionTable
    from .streams.pruned_stream import PrunedStream
    from .streams.stream_index import StreamIndex
    from .streams.stream_pruner import StreamPruner
    from .tracker.options import GradientOptions, ProbabilityOptions
    from .tracker.partition import Partition
    from .tracker.tracker import DifficultyTracker

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

_HOMES: Final = {
    "audit": "audit",
    "consistency": "consistency",
    "convert": "convert",
    "fingerprint": "fingerprint",
    "ops": "ops",
    "plots": "plots",
    "policies": "policies",
    "scores": "scores",
    "reference": "ops.reference",
    "Advice": "advice:Advice",
    "advise": "advice:advise",
    "apply": "apply_decisions:apply",
    "compare": "comparison.compare:compare",
    "PolicyComparison": "comparison.comparison:PolicyComparison",
    "Verdict": "comparison.verdict:Verdict",
    "verdict": "comparison.verdict:verdict",
    "IndexedDataset": "data:IndexedDataset",
    "dataset_fingerprint": "data:dataset_fingerprint",
    "reduce_loss": "data:reduce_loss",
    "Decisions": "decisions.decisions:Decisions",
    "ArchitectureFingerprint": "fingerprint.architecture_fingerprint:ArchitectureFingerprint",
    "score_checkpoint": "frozen.checkpoint:score_checkpoint",
    "Features": "frozen.features:Features",
    "score_features": "frozen.features:score_features",
    "IdReport": "matched_ids:IdReport",
    "match_ids": "matched_ids:match_ids",
    "dominant": "mixing:dominant",
    "Plan": "policies.plan:Plan",
    "Run": "runs.run_set:Run",
    "RunSet": "runs.run_set:RunSet",
    "RunningMean": "runs.running_mean:RunningMean",
    "PruneSampler": "sampler:PruneSampler",
    "SCORES": "scores.catalogue:SCORES",
    "Score": "scores.catalogue:Score",
    "score_names": "scores.catalogue:score_names",
    "class_normalize": "scores.class_normalize:class_normalize",
    "TemporalOptions": "scores.temporal:TemporalOptions",
    "index_rows": "selected_rows:index_rows",
    "select_rows": "selected_rows:select_rows",
    "InclusionTable": "streams.inclusion_table:InclusionTable",
    "PrunedStream": "streams.pruned_stream:PrunedStream",
    "StreamIndex": "streams.stream_index:StreamIndex",
    "StreamPruner": "streams.stream_pruner:StreamPruner",
    "GradientOptions": "tracker.options:GradientOptions",
    "ProbabilityOptions": "tracker.options:ProbabilityOptions",
    "Partition": "tracker.partition:Partition",
    "DifficultyTracker": "tracker.tracker:DifficultyTracker",
}
"""Where each public name stands: in a module, or it is one. Imported when it is first asked for, so that the command
line answers `--help` without waiting for PyTorch."""


if not TYPE_CHECKING:  # which would take any name for a public one

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = home.partition(":")
        found = importlib.import_module(f"{__name__}.{module}")
        globals()[name] = getattr(found, attribute) if attribute else found
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
