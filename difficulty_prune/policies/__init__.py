"""Policies: rules that turn difficulty into a plan.

A policy is called as `policy(difficulty, labels=None, generator=None) -> Plan`, and any function with this signature is
a policy. `difficulty` is [N], high = hard. `labels` [N] are for the summary, and make a policy refuse a plan that drops
a whole class. `generator` breaks ties and makes draws; the default is seeded with 0. A policy keeps `keep * N`
examples, rounded half up, and at least 1.

Difficulty is NaN where an example was never scored. The option `unseen` of every policy says what happens to these
examples: "refuse" raises an error; "keep" keeps them all with weight 1 and applies the policy to the others.

>>> import torch
>>> plan = Hardest(keep=0.5)(torch.tensor([0.1, 0.9, 0.5, 0.2]))
>>> plan.index.tolist()
[1, 2]

Functions compose policies. This one drops the hardest quarter, then keeps the harder half of the rest:

>>> def half_of_the_clean(difficulty, labels=None, generator=None):
...     clean = Window(start=0.25, keep=0.75)(difficulty, labels, generator)
...     return within(clean, Hardest(keep=0.5), difficulty, labels, generator)
>>> len(half_of_the_clean(torch.arange(16.0)))
6
"""

from .base import Policy
from .beta_sampling import BetaSampling
from .budget import Budget
from .compose import PerClass, within
from .easy_to_hard import EasyToHard
from .review import Review
from .stratified import Stratified
from .uniform import Easiest, Hardest, Random, Window
from .weighted import Importance, SoftPrune
from .without_wrong import WithoutWrong

__all__ = [
    "BetaSampling",
    "Budget",
    "Easiest",
    "EasyToHard",
    "Hardest",
    "Importance",
    "PerClass",
    "Policy",
    "Random",
    "Review",
    "SoftPrune",
    "Stratified",
    "Window",
    "WithoutWrong",
    "within",
]
