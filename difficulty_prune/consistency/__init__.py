"""How far to trust a ranking: agreement, reliability, rank error, correlations, components, shares of variance."""

from .agreement import run_agreement, score_correlation

__all__ = ["run_agreement", "score_correlation"]
