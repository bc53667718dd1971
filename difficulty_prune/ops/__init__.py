"""The operators, typed and checked; `reference` holds the same in plain PyTorch."""

from . import reference
from .checks import check_index, check_labels, check_logits, check_same_device, check_temporal
from .layout import FIELD, PADDING, RECORD, RECORD_WIDTH, SKIPPED, STAT, STATS, temporal_parts, temporal_width
from .operators import (
    gradient_variance,
    merge_moments_,
    missing_kernels,
    new_skipped,
    new_state,
    new_table,
    new_temporal_table,
    record_given_stats_,
    record_gradients_,
    record_losses_,
    record_stats_,
    record_temporal_,
    softmax_stats,
)

__all__ = [
    "FIELD",
    "PADDING",
    "RECORD",
    "RECORD_WIDTH",
    "SKIPPED",
    "STAT",
    "STATS",
    "check_index",
    "check_labels",
    "check_logits",
    "check_same_device",
    "check_temporal",
    "gradient_variance",
    "merge_moments_",
    "missing_kernels",
    "new_skipped",
    "new_state",
    "new_table",
    "new_temporal_table",
    "record_given_stats_",
    "record_gradients_",
    "record_losses_",
    "record_stats_",
    "record_temporal_",
    "reference",
    "softmax_stats",
    "temporal_parts",
    "temporal_width",
]
