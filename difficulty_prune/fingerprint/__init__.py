"""Which examples tell architectures apart, and which architecture made a run's scores (arXiv 2401.01867)."""

from .accuracy import Accuracy
from .comparison import Comparison, Row, compare_selectors
from .recognition import ArchitectureFingerprint
from .sensitive import SensitiveExamples, sensitive_examples

__all__ = [
    "Accuracy",
    "ArchitectureFingerprint",
    "Comparison",
    "Row",
    "SensitiveExamples",
    "compare_selectors",
    "sensitive_examples",
]
