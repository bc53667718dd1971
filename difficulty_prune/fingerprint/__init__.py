"""Which examples tell architectures apart, and which architecture made a run's scores (arXiv 2401.01867)."""

from .accuracy import Accuracy
from .architecture_fingerprint import ArchitectureFingerprint
from .compare_selectors import Comparison, Row, compare_selectors
from .sensitive_examples import SensitiveExamples, sensitive_examples

__all__ = [
    "Accuracy",
    "ArchitectureFingerprint",
    "Comparison",
    "Row",
    "SensitiveExamples",
    "compare_selectors",
    "sensitive_examples",
]
