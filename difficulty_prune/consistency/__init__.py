"""How far to trust a ranking: agreement, reliability, rank error, correlations, components, shares of variance.

Each function reads one run after the other and holds some vectors of length N in memory, however many runs there are.
What it returns prints as an answer in words, and gives its numbers as `to_dict()`; `dp.plots` draws it.
"""

from .agreement import run_agreement
from .anova import VarianceShares, variance_shares
from .components import PCA, pca
from .correlations import Correlation, correlation
from .misplacement import RankError, rank_error
from .resampled_plans import StableSubset, stable_subset
from .split_halves import Reliability, reliability

__all__ = [
    "PCA",
    "Correlation",
    "RankError",
    "Reliability",
    "StableSubset",
    "VarianceShares",
    "correlation",
    "pca",
    "rank_error",
    "reliability",
    "run_agreement",
    "stable_subset",
    "variance_shares",
]
