"""Simulated runs of several architectures that differ in planted examples."""

from __future__ import annotations

import numpy as np

import difficulty_prune as dp

NAMES = ("cnn", "mlp", "vit", "resnet", "lstm")


class World:
    """Examples of which the first `sensitive` differ between architectures; runs add noise of their own.

    Of five architectures each has its own mean at a sensitive example; at the others all have the same.
    """

    def __init__(self, seed: int, examples: int, sensitive: int, effect: float = 1.5) -> None:
        self.generator = np.random.default_rng(seed)
        self.base = self.generator.normal(2.0, 1.0, examples)
        moved = np.arange(examples) < sensitive
        self.moves = [effect * moved * self.generator.normal(size=examples) for _ in NAMES]

    def run(self, name: str, seed: int = 0, **metadata) -> dp.Run:
        noise = self.generator.normal(size=len(self.base))
        scores = self.base + self.moves[NAMES.index(name)] + 0.5 * noise
        return dp.Run({"el2n": scores}, architecture=name, seed=seed, **metadata)

    def runs(self, each: int, architectures: int = 3, **metadata) -> dp.RunSet:
        return dp.RunSet(self.run(n, s, **metadata) for n in NAMES[:architectures] for s in range(each))
