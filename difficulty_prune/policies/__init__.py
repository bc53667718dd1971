"""Policies: rules that turn difficulty into a plan.

A policy is called as `policy(difficulty, labels=None, generator=None) -> Plan`; any function of that form is one.
`difficulty` is [N], high = hard; `labels` [N] are used for the summary and to refuse a plan that drops a whole class;
`generator` breaks ties and draws, by default one seeded with 0. The number kept is `keep * N` rounded half up, at
least 1.

Difficulty is NaN where an example was never scored. The option `unseen` of every policy says what to do about these
examples: "refuse" raises, "keep" keeps them all with weight 1 and applies the policy to the others.

>>> import torch
>>> plan = Hardest(keep=0.5)(torch.tensor([0.1, 0.9, 0.5, 0.2]))
>>> plan.index.tolist()
[1, 2]

Policies are composed by functions. Half of what is left without the hardest quarter:

>>> def half_of_the_clean(difficulty, labels=None, generator=None):
...     clean = Window(start=0.25, keep=0.75)(difficulty, labels, generator)
...     return within(clean, Hardest(keep=0.5), difficulty, labels, generator)
>>> len(half_of_the_clean(torch.arange(16.0)))
6
"""

from .base import Policy
from .compose import PerClass, within
from .uniform import Easiest, Hardest, Random, Stratified, Window
from .weighted import Importance, SoftPrune

__all__ = [
    "Easiest",
    "Hardest",
    "Importance",
    "PerClass",
    "Policy",
    "Random",
    "SoftPrune",
    "Stratified",
    "Window",
    "within",
]
