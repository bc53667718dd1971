"""How far to trust a ranking: reliability, rank error, correlations, principal components, shares of variance.

Each function reads one run after the other and holds a few vectors of length N in memory, however many runs there are.
Its result prints as an answer in words and gives its numbers as `to_dict()`; `dp.plots` draws it.
"""

from .correlation import Correlation, correlation
from .pca import PCA, pca
from .rank_error import RankError, rank_error
from .reliability import Reliability, reliability
from .run_agreement import run_agreement
from .stable_subset import StableSubset, stable_subset
from .variance_shares import VarianceShares, variance_shares

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
