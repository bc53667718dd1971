"""Random numbers without global state: a generator for each purpose, derived from the user's seed."""

from __future__ import annotations

import numpy as np
import torch

from .checks import whole_number


def generator_from(seed: int, *words: int) -> torch.Generator:
    """A CPU generator that depends on the seed and on whole numbers that name its purpose, such as an epoch.

    PyTorch's CPU generator looks at the low 32 bits of a seed only, so all of them are hashed into these.

    Raises:
        TypeError, ValueError: a seed that is no whole number, or negative.

    >>> a, b = generator_from(0, 1), generator_from(1, 0)
    >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
    False
    """
    state = np.random.SeedSequence([whole_number(seed, "seed"), *words]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
