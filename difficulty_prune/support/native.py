"""The compiled module for NumPy arrays, or None where the package was built without a compiler.

Whoever uses `host` has a slower path in NumPy or SciPy as well.
"""

from __future__ import annotations

try:
    import difficulty_prune._host as host
except ImportError:
    host = None  # type: ignore[assignment]

__all__ = ["host"]
