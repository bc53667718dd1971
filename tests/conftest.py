"""Lets tests import the helpers beside them, and sets what every property test shares."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# No deadline: the first example of a property test also pays for imports and for the operators' first call.
settings.register_profile("difficulty_prune", deadline=None)
settings.load_profile("difficulty_prune")
